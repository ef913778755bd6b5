"""Break each line of tagged classes and functions, one way at a time: tests and chapter must both notice.

    python tests/mutants.py [FILE ...] [--tests-only]      (files of mtl_ref; all with tags if none is named)

Prints each mutant that survives, and exits with 1 if there is one. It works on a copy of the repository.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TAG = re.compile(r"# .*?\(([A-Z]{2}\.\d+)\)")
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.MatMult: None}
SIMPLE = (ast.Assign, ast.AugAssign, ast.Return, ast.If)
COMPARISONS = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE}
ALSO = {"min_norm": ["frank_wolfe", "mgda"]}  # where a file's tests stand in two files
NAMES = {"argmin": "argmax", "argmax": "argmin", "min": "max", "max": "min", "sum": "mean", "mean": "sum"}


def mutants(source: str) -> Iterator[tuple[str, str, str]]:
    """For each way to break a line of a tagged class or function: a tag of it, the line, the broken source."""
    lines = source.splitlines()
    for definition in ast.parse(source).body:
        span = range(definition.lineno, (definition.end_lineno or definition.lineno) + 1)
        tags = {n: match[1] for n in span if (match := TAG.search(lines[n - 1]))}
        for statement in ast.walk(definition):
            part = statement.test if isinstance(statement, ast.If) else statement
            if not tags or not isinstance(statement, SIMPLE) or is_input_check(statement):
                continue
            first, last = part.lineno, part.end_lineno or part.lineno
            before, after = lines[first - 1][: part.col_offset], lines[last - 1].encode()[part.end_col_offset :]
            tag = min(tags.items(), key=lambda item: abs(item[0] - last))[1]
            for broken in broken_forms(ast.unparse(part)):
                new = before + broken + after.decode()
                yield tag, new.strip(), "\n".join([*lines[: first - 1], new, *lines[last:]]) + "\n"


def is_input_check(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and isinstance(statement.body[0], ast.Raise)


def broken_forms(statement: str) -> Iterator[str]:
    """The statement with one operator, sign, comparison or reduction exchanged, or one term dropped."""
    for index, node in enumerate(ast.walk(ast.parse(statement))):
        if isinstance(node, ast.BinOp) and OPERATORS.get(type(node.op)):
            yield with_node(statement, index, lambda n: setattr(n, "op", OPERATORS[type(n.op)]()))
        if isinstance(node, ast.AugAssign) and OPERATORS.get(type(node.op)):
            yield with_node(statement, index, lambda n: setattr(n, "op", OPERATORS[type(n.op)]()))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            yield with_node(statement, index, lambda n: become(n, n.left))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            yield with_node(statement, index, lambda n: become(n, n.operand))
        if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
            yield with_node(statement, index, lambda n: n.ops.__setitem__(0, COMPARISONS[type(n.ops[0])]()))
        if isinstance(node, ast.Attribute) and node.attr in NAMES:
            yield with_node(statement, index, lambda n: setattr(n, "attr", NAMES[n.attr]))
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("detach", "clamp")
        ):
            yield with_node(statement, index, lambda n: become(n, n.func.value))


def with_node(statement: str, index: int, change: object) -> str:
    tree = ast.parse(statement)
    change(list(ast.walk(tree))[index])  # type: ignore[operator]
    return ast.unparse(tree)


def become(node: ast.AST, other: ast.AST) -> None:
    """Turn a node into another, in place."""
    node.__class__ = other.__class__
    node.__dict__ = other.__dict__


def notices(folder: Path, command: list[str]) -> bool:
    """Whether a command fails in the copy."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "TQDM_DISABLE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, check=False
    )
    return done.returncode != 0


def tests_of(file: Path) -> list[str]:
    """The tests of a file's name, wherever they stand, and those of the contract for a method."""
    names = (file.stem, *ALSO.get(file.stem, ()))
    found = [path for name in names for path in (ROOT / "tests").rglob(f"test_{name}.py")]
    contract = [ROOT / "tests" / "contract"] if file.parent.name == "methods" else []
    return [str(path.relative_to(ROOT)) for path in found + contract]


def main(arguments: list[str]) -> int:
    tests_only = "--tests-only" in arguments
    names = [a for a in arguments if not a.startswith("--")]
    files = [Path(name).resolve() for name in names] or sorted((ROOT / "mtl_ref").glob("*.py"))
    chapters = {p: p.read_text() for p in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    survivors = tried = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "copy"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".venv", ".git", "_build", ".*_cache"))
        for file in files:
            target = folder / file.relative_to(ROOT)
            tests = tests_of(file)
            for tag, broken, source in mutants(file.read_text()):
                chapter = next(p for p, text in chapters.items() if f"tag{{{tag}}}" in text)
                target.write_text(source)
                commands = {" and ".join(tests): ["-m", "pytest", "-xq", "-p", "no:cacheprovider", *tests]}
                if not tests_only:
                    commands[chapter.name] = ["book/run.py", f"notebooks/{chapter.name}"]
                tried += 1
                for name, command in commands.items():
                    if not notices(folder, command):
                        survivors += 1
                        print(f"({tag}) {broken}\n    survives {name}", flush=True)
            target.write_text(file.read_text())
    print(f"{tried} mutants, {survivors} survivals")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
