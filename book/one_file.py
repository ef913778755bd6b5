"""Write each method as one file that needs PyTorch and NumPy alone: the package's source, and a small engine.

    python book/one_file.py FOLDER

The book offers the files for download; `publish.py` has them written when it is built.
"""

import ast
import inspect
import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import engine

import mtl_ref as mtl
from mtl_ref import methods, page
from mtl_ref.catalogue import PAPERS, ROWS, Method

IMPORTS = {  # what a name needs
    "math": "import math",
    "warnings": "import warnings",
    "Callable": "from collections.abc import Callable",
    "Iterable": "from collections.abc import Iterable",
    "Sequence": "from collections.abc import Sequence",
    "np": "import numpy as np",
    "torch": "import torch",
    "Tensor": "from torch import Tensor",
    "nn": "from torch import nn",
}


def names(code: str) -> set[str]:
    """The names that a piece of code reads."""
    return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}


def constant(module: ModuleType, name: str) -> str | None:
    """The line that gives a constant its value, in a module or in the one that it is imported from."""
    code = inspect.getsource(module)
    for statement in ast.parse(code).body:
        if isinstance(statement, ast.ImportFrom) and name in [alias.name for alias in statement.names]:
            return constant(sys.modules[statement.module or ""], name)
        if isinstance(statement, ast.Assign) and [getattr(t, "id", "") for t in statement.targets] == [name]:
            return ast.get_source_segment(code, statement)
    return None


def pieces(name: str, module: ModuleType, found: dict[str, str]) -> None:
    """Collect the source of a name, after that of all that it needs; of a base class, the small engine's."""
    if name in found or name in IMPORTS:
        return
    home = engine if hasattr(engine, name) else module
    thing = getattr(home, name, None)
    defined = getattr(thing, "__module__", "")
    if isinstance(thing, type) or inspect.isfunction(thing):
        if not (defined.startswith("mtl_ref") or home is engine):
            return
        home = sys.modules[defined]
        code = inspect.getsource(thing) if home is engine else page.source(thing)
    else:
        code = constant(home, name) or ""
    if not code:
        return  # a builtin
    found[name] = ""  # being collected, should it need itself
    for needed in sorted(names(textwrap.dedent(code)) - {name}):
        pieces(needed, home, found)
    found[name] = found.pop(name) or code.rstrip()  # after what it needs


def text(row: Method) -> str:
    """A method as one file."""
    found: dict[str, str] = {}
    for made in reversed(re.findall(r"mtl\.(\w+)", row.call)):  # what it is given comes first
        pieces(made, sys.modules[getattr(methods, made).__module__], found)
    used = set().union(*map(names, found.values()))
    imports = sorted(line for key, line in IMPORTS.items() if key in used)
    others = [line for line in imports if line.endswith(("torch", "np", "Tensor", "nn"))]
    standard = [line for line in imports if line not in others]
    paper = f"{PAPERS[row.paper][0]}, {PAPERS[row.paper][1]}.\n" if row.paper else ""
    title = row.title[0].upper() + row.title[1:]
    head = (
        f'"""{title}, from the book Balancing Many Losses, version {mtl.__version__}.\n\n'
        f"{paper}Line for line from its formulas; a tag such as ({row.tag}) names the equation in\n"
        f"{page.REPOSITORY}/blob/main/notebooks/{row.chapter}.ipynb\n\n"
        f"    balancer = {row.call.replace('mtl.', '')}\n"
        "    optimizer.zero_grad()\n"
        "    weights = balancer.backward(losses, shared=encoder.parameters())  # losses: shape (T,)\n"
        "    optimizer.step()\n\n"
        "Input is not checked here. MIT licence.\n"
        '"""\n'
    )
    blocks = "\n\n\n".join(found.values())
    return "\n".join([head, *standard, "", *others]) + f"\n\n\n{blocks}\n"


def rows() -> dict[str, Method]:
    """The methods: a row for each title, in its first form."""
    first: dict[str, Method] = {}
    for row in ROWS:
        if not row.in_one_file:
            continue
        first.setdefault(row.title, row)
    return {row.key: row for row in first.values()}


def write(folder: Path) -> None:
    """Write all files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, row in rows().items():
        (folder / f"{key}.py").write_text(text(row))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
