"""Break each line of tagged classes and functions, one way at a time: tests and chapter must both notice.

    python tests/mutants.py [FILE ...] [--tests-only]

The files are of mtl_ref; of none, all with tags and the engine's, whose lines carry no tag: there the tests must
notice. Prints each mutant that survives, and exits with 1 if there is one. It works on a copy of the repository.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
TAG = re.compile(r"# .*?\(([A-Z]{2}\.\d+)\)")
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.MatMult: None}
SIMPLE = (ast.Assign, ast.AugAssign, ast.Return, ast.Expr)
COMPARISONS = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE, ast.Eq: ast.NotEq}
COMPARISONS |= {ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}
CONSTANTS = {0: 1, 1: 0, "validation": "test", "test": "validation"}  # and of truth: True is 1
ENGINE: dict[str, tuple[str, ...]] = {  # what is broken although it has no tag; () is the whole file
    "gradients.py": (),
    "balancer.py": (),
    "distributed.py": (),
    "accumulation.py": (),
    "metrics.py": ("first_best",),
    "training.py": ("History", "train", "train_epoch", "train_epoch_in_halves"),
    "results.py": ("best_epoch", "at_best", "select", "choose"),
}
ALSO = {  # where a file's tests stand in others
    "min_norm": ["frank_wolfe", "mgda"],
    "gradients": ["balancer"],
    "training": ["training_loops"],
    "results": ["benchmark"],
    "unit": ["conflict_free"],
    "dual_cone": ["primary"],
    "modo": ["two_samples"],
    "sdmgrad": ["two_samples"],
}
SECONDS = 600  # after which a command has noticed: a loop that does not end
NAMES = {"argmin": "argmax", "argmax": "argmin", "min": "max", "max": "min", "sum": "mean", "mean": "sum"}


def mutants(source: str, untagged: Sequence[str] | None = None) -> Iterator[tuple[str, str, str]]:
    """For each way to break a line of a tagged class or function: a tag of it, the line, the broken source.

    `untagged` are names of others to break too, whose tag is ""; an empty sequence means all of them.
    """
    lines = source.splitlines()
    for definition in ast.parse(source).body:
        span = range(definition.lineno, (definition.end_lineno or definition.lineno) + 1)
        tags = {n: match[1] for n in span if (match := TAG.search(lines[n - 1]))}
        chosen = untagged is not None and (not untagged or getattr(definition, "name", "") in untagged)
        if not isinstance(definition, ast.FunctionDef | ast.ClassDef) or not (tags or chosen):
            continue
        for statement in ast.walk(definition):
            part = next((getattr(statement, f) for f in ("test", "iter") if hasattr(statement, f)), statement)
            if not isinstance(statement, (*SIMPLE, ast.If, ast.While, ast.For)) or is_input_check(statement):
                continue
            first, last = part.lineno, part.end_lineno or part.lineno
            before, after = lines[first - 1][: part.col_offset], lines[last - 1].encode()[part.end_col_offset :]
            tag = min(tags.items(), key=lambda item: abs(item[0] - last))[1] if tags else ""
            for broken in broken_forms(ast.unparse(part)):
                new = before + broken + after.decode()
                yield tag, new.strip(), "\n".join([*lines[: first - 1], new, *lines[last:]]) + "\n"


def is_input_check(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and isinstance(statement.body[0], ast.Raise)


def broken_forms(statement: str) -> Iterator[str]:
    """The statement with one operator, sign, comparison, constant or argument exchanged, or a term dropped."""
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
        if isinstance(node, ast.BoolOp):
            other = ast.Or if isinstance(node.op, ast.And) else ast.And
            yield with_node(statement, index, lambda n, other=other: setattr(n, "op", other()))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield with_node(statement, index, lambda n: become(n, n.operand))
        if isinstance(node, ast.Constant) and node.value in CONSTANTS:
            yield with_node(statement, index, lambda n: setattr(n, "value", CONSTANTS[n.value]))
        if isinstance(node, ast.Call) and len(node.args) > 1:
            yield with_node(statement, index, lambda n: n.args.insert(0, n.args.pop(1)))
            if isinstance(node.args[-1], ast.Name):
                yield with_node(statement, index, lambda n: n.args.__setitem__(-1, ast.Constant(0)))
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
    try:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            capture_output=True,
            check=False,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def tests_of(file: Path) -> list[str]:
    """The tests of a file's name, wherever they stand, and those of the contract for a method."""
    stem = file.parent.name if file.stem == "__init__" else file.stem
    names = (stem, *ALSO.get(stem, ()))
    found = [path for name in names for path in (ROOT / "tests").rglob(f"test_{name}.py")]
    contract = ROOT / "tests" / "contract"
    if file.parent.name == "methods" or ENGINE.get(file.name) == ():
        found = [path for path in found if path.parent != contract] + [contract]
    return [str(path.relative_to(ROOT)) for path in found]


def main(arguments: list[str]) -> int:
    tests_only = "--tests-only" in arguments
    names = [a for a in arguments if not a.startswith("--")]
    files = [Path(name).resolve() for name in names] or sorted((ROOT / "mtl_ref").rglob("*.py"))
    chapters = {p: p.read_text() for p in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    survivors = tried = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "copy"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".venv", ".git", "_build", ".*_cache"))
        for file in files:
            target = folder / file.relative_to(ROOT)
            tests = tests_of(file)
            for tag, broken, source in mutants(file.read_text(), ENGINE.get(file.name)):
                chapter = next((p for p, text in chapters.items() if f"tag{{{tag}}}" in text), None)
                target.write_text(source)
                commands = {" and ".join(tests): ["-m", "pytest", "-xq", "-p", "no:cacheprovider", *tests]}
                if chapter and not tests_only:
                    commands[chapter.name] = ["book/run.py", f"notebooks/{chapter.name}"]
                tried += 1
                for name, command in commands.items():
                    if not notices(folder, command):
                        survivors += 1
                        print(f"{file.name} ({tag}) {broken}\n    survives {name}", flush=True)
            target.write_text(file.read_text())
    print(f"{tried} mutants, {survivors} survivals")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
