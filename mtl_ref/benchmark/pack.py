"""Many result files to one: a line a run, sorted by name."""

from pathlib import Path

from mtl_ref import results
from mtl_ref.files import written_whole
from mtl_ref.results import Result


def pack(folder: str | Path, file: str | Path, allow_dirty: bool = False) -> int:
    """Add a folder's results to a packed file; a run that the file holds already is replaced.

    Args:
        folder: of result files.
        file: such as `book/results/celeba.jsonl`; made if it is not there.
        allow_dirty: whether to take results of code that no commit holds. Their lines say so.

    Returns:
        How many runs the file holds.

    Raises:
        ValueError: a result comes from uncommitted or unknown code, so that nobody can run it again.
        FileNotFoundError: there is no result in the folder.
    """
    new = results.load(folder)
    doubtful = [name_of_file(r) for r in new if r["commit"] is None or r["commit"].endswith("-dirty")]
    if doubtful and not allow_dirty:
        raise ValueError(
            f"{len(doubtful)} of {len(new)} results come from code that no commit holds, such as {doubtful[0]}: "
            "commit and run them again, or take them as they are, marked, with --allow-dirty."
        )
    old = results.load(file) if Path(file).exists() else []
    by_name = {name_of_file(result): result for result in [*old, *new]}
    with written_whole(file) as packed:
        packed.writelines(results.as_line(by_name[name]) for name in sorted(by_name))
    return len(by_name)


def name_of_file(result: Result) -> str:
    """The file that a result was in."""
    return results.run_name(*(result[name] for name in results.IDENTITY)) + ".json"
