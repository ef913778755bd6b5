"""What a chapter needs to show the package's own source and to check its own numbers."""

import ast
import inspect
import math
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import torch
from IPython import get_ipython
from IPython.display import HTML, Markdown, display
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from mtl_ref.catalogue import CONTESTANTS, PAPERS, ROWS

T = TypeVar("T")

REPOSITORY = "https://github.com/mtl-ref/mtl-ref"
TAG = re.compile(r"\(([A-Z]{2}\.\d+)\)")
FALLBACK = {".c1": "#6a737d", ".k": "#cf222e", ".s2": "#0a7d55", ".mf": "#8250df", ".mi": "#8250df"}
NOT_SHOWN = {"check", "check_primary", "extra_repr"}  # what says what is wrong, or prints
FOR_THE_ENGINE = {"by_parameter", "exact", "factors_by_losses", "memory", "per_task", "per_pair", "random"} | {
    "sees_losses"
}

checked: list[tuple[str, str, str]] = []  # of this cell: what was checked, as measured and as recorded


def draw_for_a_page() -> None:
    """Draw as vectors, in letters that can be read in a column of 7 inches, and the same bytes in every run."""
    from matplotlib import rcParams
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("svg", metadata={"Date": None})  # type: ignore[no-untyped-call]
    rcParams.update({"svg.hashsalt": "mtl_ref", "font.size": 9, "legend.fontsize": 8.5, "axes.titlesize": 9.5})


if get_ipython() is not None:  # in a notebook
    draw_for_a_page()


def profile() -> str:
    """How much a page runs: "quick" (default), or "full" if the environment variable MTL_REF_PROFILE says so."""
    name = os.environ.get("MTL_REF_PROFILE", "quick")
    if name not in ("quick", "full"):
        raise ValueError(f"MTL_REF_PROFILE is {name!r}, but must be 'quick' or 'full'.")
    return name


def choose(quick: T, full: T) -> T:
    """Whichever of the two values belongs to the current profile."""
    return quick if profile() == "quick" else full


def show(*objects: type | Callable[..., Any]) -> None:
    """Show the source of classes or functions as it runs, less docstrings and input checks.

    A tag links to its equation, and a line above the code leads to the file.
    """
    blocks: list[str] = []
    seen: set[str] = set()

    def link(tag: re.Match[str]) -> str:
        anchor = "" if tag[1] in seen else f'id="code:{tag[1]}" '  # a page has one place of a name
        seen.add(tag[1])
        return f'<a {anchor}href="#mjx-eqn:{tag[1]}">({tag[1]})</a>'

    for thing in objects:
        page = TAG.sub(link, highlight(source(thing), PythonLexer(), HtmlFormatter()))
        blocks.append(f'<p class="source-file">{link_to_file(thing)}</p>{page}')
    # :where() has no weight, so these colours hold only where a page (Colab) has none of its own.
    style = "".join(f":where(.highlight {token}){{color:{colour}}}" for token, colour in FALLBACK.items())
    display(HTML(f"<style>{style}</style>{''.join(blocks)}"))


def link_to_file(thing: type | Callable[..., Any]) -> str:
    """A link to the file of a class or function in the repository."""
    path = "/".join(thing.__module__.split("."))
    path += "/__init__.py" if Path(inspect.getfile(thing)).name == "__init__.py" else ".py"
    return f'<a href="{REPOSITORY}/blob/main/{path}">{path}</a>'


def source(thing: type | Callable[..., Any]) -> str:
    """The source of a class or function, less its own docstring and all that only looks at its input."""
    code = textwrap.dedent(inspect.getsource(thing))
    lines = code.splitlines()
    definition = ast.parse(code).body[0]
    assert isinstance(definition, ast.ClassDef | ast.FunctionDef)
    left_out = definition.body[: ast.get_docstring(definition) is not None]
    for node in ast.walk(definition):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.If | ast.For):
            left_out += [s for s in node.body if is_left_out(s, in_class=isinstance(node, ast.ClassDef))]
    dropped = {n for s in left_out for n in range(first_line(s), (s.end_lineno or s.lineno) + 1)}
    kept = "\n".join(line for n, line in enumerate(lines, 1) if n not in dropped)
    kept = re.sub(r"\n{3,}", "\n\n", kept)  # a gap where something was
    return re.sub(r":\n\n(?= )", ":\n", kept).strip() + "\n"


def first_line(statement: ast.stmt) -> int:
    """Where a statement begins: at its first decorator, if it has one."""
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])


def is_left_out(statement: ast.stmt, in_class: bool = False) -> bool:
    """Whether a statement is a docstring of the whole, a check of input, or a mark for the engine."""
    if isinstance(statement, ast.If | ast.For) and not statement.orelse:
        return all(isinstance(inner, ast.Raise) or is_left_out(inner) for inner in statement.body)
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        called = statement.value.func
        return getattr(called, "attr", getattr(called, "id", "")).startswith("check")
    if in_class and isinstance(statement, ast.FunctionDef):
        return statement.name in NOT_SHOWN
    if in_class and isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return statement.value is None or any(getattr(t, "id", "") in FOR_THE_ENGINE for t in targets)
    return False


def table(head: Sequence[str], rows: Iterable[Sequence[str]], sort: bool = False) -> None:
    """Show a table, in Markdown.

    Args:
        head: the columns' names.
        rows: the cells of each row, as Markdown.
        sort: whether the book lets the reader filter and sort its rows; it is for long tables.
    """
    lines = "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
    display(Markdown(f'<div class="sortable">\n\n{lines}\n\n</div>' if sort else lines))


def card(key: str) -> None:
    """Show what there is to know of a method before its derivation: a row of the catalogue as a card.

    Args:
        key: the method's key in `mtl_ref.catalogue.CONTESTANTS`.
    """
    display(Markdown(card_of(key)))


def card_of(key: str) -> str:
    """The card of a method, in Markdown."""
    row = CONTESTANTS[key]
    file = next(r.key for r in ROWS if r.call.split("(")[0] == row.call.split("(")[0])
    author, address = PAPERS[row.paper] if row.paper else ("none of its own", "")
    lines = [
        ("Formula", f"${row.formula}$"),
        ("Looks at", row.sees),
        ("Promise", row.promise),
        ("Use it when", row.when),
        ("Backward passes of the encoder", row.passes),
        ("Remembers", row.state),
        ("Your own priorities", row.priorities or "none"),
        ("Call", f"`{row.call}`" + (", then `backward(losses, features=z)`" if row.train.get("features") else "")),
        ("Source", f"[{row.file}]({REPOSITORY}/blob/main/{row.file})"),
        ("Paper", f"[{author}]({address})" if address else author),
        (
            "Without the package",
            f"`downloads/{file}.py`" if row.in_one_file else "no single file: it takes two batches",
        ),
    ]
    below = "\n".join(f"| **{name}** | {text} |" for name, text in lines)
    return f"| {row.name[0].upper()}{row.name[1:]} | |\n|---|---|\n{below}"


def check(name: str, value: Any, expected: Any = True, tolerance: float = 0.0, *, full: Any = ...) -> None:
    """Hold a value to what was recorded for it, and raise if it does not agree.

    In a notebook the checks of a cell are shown when the cell ends, folded to one line: each with the measured
    value, rounded to the tolerance, and the recorded one. Elsewhere each is printed.

    Args:
        name: what the value is, as a reader would say it.
        value: a truth value, a number, or numbers of any shape (a tensor, an array, a list).
        expected: the same kind of thing; True if left out, so that `check("it falls", a > b)` checks a claim.
        tolerance: the largest allowed `abs(value - expected)`, for every number.
        full: what is expected in the full profile instead, where that is something else. None if nothing has been
            recorded for it: then the full profile only shows the value.

    Raises:
        AssertionError: the value is further away than the tolerance, is nan, or has another shape.
    """
    if profile() == "full" and full is not ...:
        expected = full
    if expected is None:
        if profile() == "quick":
            raise ValueError(f"no number is recorded for {name}: give the expected value.")
        said = value if isinstance(value, str) else rounded(value, tolerance)
        report(name, said, "nothing for the full profile")
        return
    if isinstance(expected, bool | str):
        holds = type(expected)(value) == expected
        row = ("holds", "") if expected is True else (str(value), str(expected))
    else:
        measured, recorded = _numbers(value), _numbers(expected)
        holds = measured.shape == recorded.shape and bool(((measured - recorded).abs() <= tolerance).all())
        within = f" ± {tolerance:g}" if tolerance else ""
        row = (rounded(measured, tolerance), rounded(recorded, 0.0) + within)
    if not holds:
        raise AssertionError(f"{name} is {value}, but {expected} (within {tolerance:g}) was expected.")
    report(name, *row)


def report(name: str, measured: str, recorded: str) -> None:
    """Keep a check for the end of the cell, or print it where there are no cells."""
    shell = get_ipython()
    if shell is None:
        print(f"✓ {name}: {measured}" + (f" (recorded {recorded})" if recorded else ""))
        return
    checked.append((name, measured, recorded))
    shell.events.register("post_execute", show_checks)  # no more than once: it knows what it has


def show_checks() -> None:
    """Show the checks of the cell that ends, as a fold whose one line counts them."""
    if not checked:
        return
    rows = [
        f'<tr><td>{escape(name)}</td><td class="measured">{escape(measured)}</td><td>{escape(recorded)}</td></tr>'
        for name, measured, recorded in checked
    ]
    said = f"✓ {len(checked)} statement{'s' * (len(checked) > 1)} checked"
    head = '<tr><th scope="col">statement</th><th scope="col">measured</th><th scope="col">recorded</th></tr>'
    html = (
        f'<details class="checks"><summary>{said}</summary>\n<table>\n<thead>{head}</thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody>\n</table>\n</details>"
    )
    checked.clear()
    display({"text/html": html, "text/plain": said}, raw=True)


def rounded(value: Any, tolerance: float) -> str:
    """Numbers as a reader wants them: to a tenth of the tolerance, and to six digits at most."""
    numbers = _numbers(value)
    if numbers.ndim:
        return f"[{', '.join(rounded(n, tolerance) for n in numbers)}]"
    number = numbers.item()
    if tolerance and math.isfinite(number):
        number = round(number, 1 - math.floor(math.log10(tolerance)))
    return f"{number:.6g}".replace("-0", "0") if number == 0 else f"{number:.6g}"


def _numbers(values: Any) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64).detach().cpu()
