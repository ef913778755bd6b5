"""Execute chapters from the top and store them with their outputs.

    python book/run.py notebooks/01_many_losses.ipynb ...

A chapter is stored whole or not at all: when a cell fails, its file stays as it was. The
rules in `lint.py` that the stored chapter breaks are printed.
"""

import hashlib
import os
import sys
from pathlib import Path

import lint
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from mtl_ref.files import written_whole

os.environ["TQDM_DISABLE"] = "1"  # a progress bar leaves nothing in a stored output


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run all cells from the top, in `folder`, and keep their outputs in the notebook."""
    client = NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
    )
    client.execute()


def clean(notebook: NotebookNode) -> None:
    """Leave nothing in the file that depends on who ran it, or when. A cell's id is its hash."""
    notebook.metadata = nbformat.from_dict(lint.METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen: set[str] = set()
    for cell in notebook.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k in lint.CELL_METADATA}
        content = cell.cell_type + cell.source
        cell.id = hashlib.sha256(content.encode()).hexdigest()[:8]
        while cell.id in seen:
            content += "+"
            cell.id = hashlib.sha256(content.encode()).hexdigest()[:8]
        seen.add(cell.id)
        for output in cell.get("outputs", []):
            output.pop("transient", None)
            if "metadata" in output:
                output["metadata"] = nbformat.from_dict({})


def store(notebook: NotebookNode, path: Path) -> None:
    """Replace the file in one step, so that it is never seen half written."""
    nbformat.validate(notebook)
    with written_whole(path) as file:
        file.write(nbformat.writes(notebook, indent=1).rstrip("\n") + "\n")


def run(path: Path) -> str | None:
    """Execute one chapter and store it; returns what went wrong, if anything did."""
    notebook = nbformat.read(path, as_version=4)
    try:
        execute(notebook, path.parent)
    except CellExecutionError as error:
        return str(error)
    clean(notebook)
    store(notebook, path)
    return None


def main(paths: list[str]) -> int:
    """Run each chapter; 1 if one failed or none was given."""
    failed = [] if paths else ["no chapter to run"]
    for name in paths:
        print(f"{name} ...", flush=True)
        if error := run(Path(name)):
            failed.append(f"{name} failed and stays as it was:\n{error}")
        else:
            print("\n".join(lint.faults(Path(name))) or "keeps every rule")
    print("\n".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
