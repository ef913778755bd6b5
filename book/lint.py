"""The rules for chapters: each is a function from a notebook to its faults, with the numbers of the cells.

    python book/lint.py [NOTEBOOK ...]      (all of notebooks/ if none is named)

Prints the faults, and exits with 1 if there is one. `make run` prints them after it has stored a chapter.
"""

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import nbformat
import yaml

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
SETUP = f"""try:
    import mtl_ref
except ImportError:
    url = "git+{REPOSITORY}"
    %pip install -q "mtl_ref[book,benchmark] @ {{url}}\""""
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA = {"tags", "mystnb"}
HIDDEN = {"hide-input", "hide-cell"}
NOT_COMPARED = {"nbval-skip", "nbval-ignore-output"}
TAGS = HIDDEN | NOT_COMPARED | {"hide-output", "remove-cell", "remove-input", "raises-exception"}
CHECKS = '<details class="checks">'
LAST_SECTIONS = ["What to remember", "Differences", "Exercises", "References"]

Notebook = Any
Cell = Any
Rule = Callable[[Notebook], list[str]]


# What the rules look at.


def cells(notebook: Notebook, kind: str) -> list[tuple[str, Cell]]:
    """The cells of a kind, each with its name: "cell 1" is the first of the notebook."""
    return [(f"cell {n}", cell) for n, cell in enumerate(notebook.cells, 1) if cell.cell_type == kind]


def outputs(notebook: Notebook) -> Iterator[tuple[str, Cell, Any]]:
    """Every output, with its cell and the cell's name."""
    return ((name, cell, output) for name, cell in cells(notebook, "code") for output in cell.outputs)


def tags(cell: Cell) -> set[str]:
    """The tags of a cell."""
    return set(cell.metadata.get("tags", []))


def is_figure(output: Any) -> bool:
    """Whether an output is an image."""
    return any(kind.startswith("image/") for kind in output.get("data", {}))


def without_code(markdown: str) -> str:
    """The text of a Markdown cell less its fenced and inline code."""
    text = re.sub(r"^(```|~~~)[\s\S]*?^\1", "", markdown, flags=re.M)
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", text)


def prose(notebook: Notebook) -> list[tuple[str, str]]:
    """The text of each Markdown cell less its code, with the cell's name."""
    return [(name, without_code(cell.source)) for name, cell in cells(notebook, "markdown")]


def headings(notebook: Notebook) -> list[tuple[int, str]]:
    """The level and the title of each heading."""
    found = (m for _, text in prose(notebook) for m in re.finditer(r"^(#+) +(.+?) *$", text, flags=re.M))
    return [(len(match[1]), match[2]) for match in found]


def equation_tags(notebook: Notebook) -> list[tuple[str, str]]:
    r"""The name in each \tag{…}, after the name of its cell."""
    return [(name, tag) for name, text in prose(notebook) for tag in re.findall(r"\\tag\{(.*?)\}", text)]


# The rules.


def not_executed_in_sequence(notebook: Notebook) -> list[str]:
    """Stored from one run, from the top."""
    counts = [cell.execution_count for _, cell in cells(notebook, "code")]
    right = counts == list(range(1, len(counts) + 1))
    return [] if right and counts else [f"execution counts are {counts}"]


def empty_code_cells(notebook: Notebook) -> list[str]:
    """No code cell without code."""
    return [f"{name} is empty" for name, cell in cells(notebook, "code") if not cell.source.strip()]


def unexpected_outputs(notebook: Notebook) -> list[str]:
    """No error that is not meant, no warning, no progress bar."""
    faults = []
    for name, cell, output in outputs(notebook):
        if output.output_type == "error" and "raises-exception" not in tags(cell):
            faults.append(f"{name}: an error: {output.ename}: {output.evalue}")
        if output.get("name") == "stderr":
            faults.append(f"{name}: stderr: {output.text!r}")
        if any("widget" in kind for kind in output.get("data", {})):
            faults.append(f"{name}: a widget")
    return faults


def unstable_text(notebook: Notebook) -> list[str]:
    """Addresses of objects and of files change from run to run and from machine to machine."""
    path = re.compile(r"(?<![\w.:/])(?:/(?:home|root|Users|tmp|work|content|usr|opt|mnt|var)/|[A-Z]:\\)")
    faults = []
    texts = [(f"cell {n}", cell.source) for n, cell in enumerate(notebook.cells, 1)]
    for name, _, output in outputs(notebook):
        data = output.get("data", {})
        shown = [output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")]
        text = "\n".join([*shown, *output.get("traceback", [])])
        texts.append((name, text))
        if re.search(r"\bat 0x[0-9a-f]{6,}", text):
            faults.append(f"{name} prints the address of an object")
    return faults + [f"{name}: an absolute path: {m[0]}" for name, text in texts if (m := path.search(text))]


def not_portable(notebook: Notebook) -> list[str]:
    """Only what Colab shows as the book does: CommonMark, tables, $, $$, <details>, algorithm boxes."""
    whole = {  # in the cell as it stands
        "a MyST role": r"\{[a-zA-Z][\w:.+-]*\}`",
        "a MyST directive": r"^\s*(?:```+|~~~+|:::+)\s*\{",
    }
    outside_code = {
        "a MyST block": r"^(?::::+|\+\+\+|% |\([\w-]+\)=\s*$)",
        "a footnote": r"\[\^",
        "a macro of its own": r"\\(?:newcommand|renewcommand|def|DeclareMathOperator|require)\b",
        "an image that Colab does not find": r"!\[[^\]]*\]\((?!https?:|attachment:)",
    }
    allowed = r'</?details>|</?summary>|<div class="algorithm">|</div>|<https?://[^>]*>'
    faults = []
    for name, cell in cells(notebook, "markdown"):
        text = without_code(cell.source)
        for patterns, where in ((whole, cell.source), (outside_code, text)):
            for fault, pattern in patterns.items():
                faults += [f"{name}: {fault}: {m[0]!r}" for m in re.finditer(pattern, where, re.M)]
        html = re.findall(r"</?[a-zA-Z][^<>]*>", re.sub(r"\$\$[\s\S]*?\$\$|\$[^$\n]+\$", "", text))
        faults += [f"{name}: HTML: {tag}" for tag in html if not re.fullmatch(allowed, tag)]
        for tag in ("details", "summary", "div"):
            if len(re.findall(f"<{tag}[ >]", cell.source)) != cell.source.count(f"</{tag}>"):
                faults.append(f"{name}: <{tag}> and </{tag}> do not match")
    return faults


def tag_in_a_split_formula(notebook: Notebook) -> list[str]:
    r"""Sphinx wraps a $$ with a line break in `split`, where \tag is an error."""
    formulas = [(name, f) for name, text in prose(notebook) for f in re.findall(r"\$\$([\s\S]*?)\$\$", text)]
    return [f"{name}: a \\tag beside \\\\: {f.strip()}" for name, f in formulas if r"\tag" in f and r"\\" in f]


def unreasoned_skips(notebook: Notebook) -> list[str]:
    """A cell that is not compared, or is meant to fail, says why in its first line."""
    faults = []
    for name, cell in cells(notebook, "code"):
        skips = tags(cell) & NOT_COMPARED
        if skips and not re.match(r"# Not compared: \w.{9,}", cell.source):
            faults.append(f"{name}: {skips} without a first line '# Not compared: <reason>'")
        if "raises-exception" in tags(cell) and not re.match(r"# Raises: \w.{9,}", cell.source):
            faults.append(f"{name}: raises-exception without a first line '# Raises: <reason>'")
        if re.search(r"^\s*#\s*(NBVAL_|PYTEST_VALIDATE)", cell.source, re.M):
            faults.append(f"{name}: a comment that skips a comparison: use a tag and a reason")
    return faults


def figures_without_alt_text(notebook: Notebook) -> list[str]:
    """Alt text that says what the figure shows."""
    faults = []
    for name, cell, output in outputs(notebook):
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if is_figure(output) and len(alt) < 40:
            faults.append(f"{name}: the figure's alt text is {alt!r}, under 40 characters")
    return faults


def wrong_setup_cell(notebook: Notebook) -> list[str]:
    """The first code cell installs the package where it is missing, the same in all chapters."""
    name, first = next(iter(cells(notebook, "code")), ("the notebook", None))
    right = first and first.source == SETUP and tags(first) == {"remove-cell"}
    return [] if right else [f"{name}: the first code cell, tagged remove-cell, must be\n{SETUP}"]


def long_cells(notebook: Notebook) -> list[str]:
    """At most 40 lines of code in a cell."""
    lengths = [(name, len(cell.source.splitlines())) for name, cell in cells(notebook, "code")]
    return [f"{name}: {n} lines of code; do they belong in mtl_ref?" for name, n in lengths if n > 40]


def checks_among_other_things(notebook: Notebook) -> list[str]:
    """A cell of checks shows nothing else, so that it can be folded to one line."""
    faults = []
    for name, cell in cells(notebook, "code"):
        html = [output.get("data", {}).get("text/html", "") for output in cell.outputs]
        if any(CHECKS in text for text in html) and len(html) > 1:
            faults.append(f"{name}: checks beside other outputs: give them a cell of their own")
    return faults


def wide_source(notebook: Notebook) -> list[str]:
    """Shown source is as wide as a column of the page, 78 characters."""
    faults = []
    for name, _, output in outputs(notebook):
        html = output.get("data", {}).get("text/html", "")
        for block in re.findall(r"<pre>(.*?)</pre>", html, re.DOTALL):
            wide = [line for line in unescape(re.sub(r"<.+?>", "", block)).splitlines() if len(line) > 78]
            faults += [f"{name}: over 78 characters: {line.strip()}" for line in wide]
    return faults


def open_pictures(notebook: Notebook) -> list[str]:
    """The code of a picture is folded: the picture is what is read."""
    shown = {name: cell for name, cell, output in outputs(notebook) if is_figure(output)}
    return [
        f"{name}: a picture whose code is not tagged hide-input"
        for name, c in shown.items()
        if not tags(c) & HIDDEN
    ]


def wide_figures(notebook: Notebook) -> list[str]:
    """A figure is at most 7 inches wide, and its letters have at least 8.5 points."""
    faults = []
    for name, cell in cells(notebook, "code"):
        widths = re.findall(r"figsize=\(([\d.]+)", cell.source)
        sizes = re.findall(r"fontsize=([\d.]+)|labelsize=([\d.]+)", cell.source)
        faults += [f"{name}: a figure of {width} inches" for width in widths if float(width) > 7]
        faults += [f"{name}: letters of {a or b} points" for a, b in sizes if float(a or b) < 8.5]
    return faults


def wrong_title(notebook: Notebook) -> list[str]:
    """One title, at the top."""
    levels = [level for level, _ in headings(notebook)]
    right = levels.count(1) == 1 and levels[0] == 1
    return [] if right else ["there must be one title, and it must come first"]


def wrong_sections(notebook: Notebook) -> list[str]:
    """The sections that every chapter ends with."""
    titles = [title for level, title in headings(notebook) if level == 2]
    last = titles[-len(LAST_SECTIONS) :]
    if len(last) < 4 or any(not t.startswith(s) for t, s in zip(last, LAST_SECTIONS, strict=True)):
        return [f"the last sections are {last}, not {LAST_SECTIONS}"]
    return []


def open_solutions(notebook: Notebook) -> list[str]:
    """A solution is folded: its code follows the cell that ends with the fold, where the book puts it in."""
    faults, section, folded, open_end = [], "", False, True
    for n, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "markdown":
            found = re.findall(r"^## +(.+?) *$", without_code(cell.source), flags=re.M)
            section = found[-1] if found else section
            folded |= section == "Exercises" and "<details>" in cell.source
            open_end = not cell.source.rstrip().endswith("</details>")
        elif section == "Exercises":
            if open_end:
                faults.append(f"cell {n} of the exercises does not follow the fold of a solution")
            if tags(cell) & HIDDEN:
                faults.append(f"cell {n} of the exercises is folded by itself, inside the fold of its solution")
    return faults if folded else [*faults, "no exercise has a folded solution"]


def nothing_compared(notebook: Notebook) -> list[str]:
    """At least one output is text that nbval compares."""
    kinds = {"text/plain", "text/html", "text/latex"}
    for _, cell, output in outputs(notebook):
        text = output.output_type == "stream" or kinds & set(output.get("data", {}))
        if text and not is_figure(output) and not tags(cell) & NOT_COMPARED:
            return []
    return ["no output that nbval compares"]


def unclean_metadata(notebook: Notebook) -> list[str]:
    """Nothing that depends on who ran it, and when; no misspelt tag."""
    faults = []
    if notebook.metadata != METADATA or (notebook.nbformat, notebook.nbformat_minor) != (4, 5):
        faults.append(f"the notebook's metadata: {notebook.metadata}; `make run` cleans it")
    for n, cell in enumerate(notebook.cells, 1):
        if set(cell.metadata) - CELL_METADATA or tags(cell) - TAGS:
            faults.append(f"cell {n}: its metadata: {cell.metadata}")
    kept = [(name, output.get("metadata")) for name, _, output in outputs(notebook)]
    return faults + [f"{name}: metadata of an output: {metadata}" for name, metadata in kept if metadata]


def malformed_tags(notebook: Notebook) -> list[str]:
    """Two capitals for the method, then a number, or a letter for a step that no code computes; once."""
    found = equation_tags(notebook)
    faults = [
        f"{name}: {tag}: not of the form PC.1 or PC.a"
        for name, tag in found
        if not re.fullmatch(r"[A-Z]{2}\.(\d+|[a-z])", tag)
    ]
    return faults + [f"{tag}: {n} times" for tag, n in Counter(tag for _, tag in found).items() if n > 1]


def shown_tags_without_equation(notebook: Notebook) -> list[str]:
    """A tag in the shown source leads to an equation of the same page."""
    equations = {tag for _, tag in equation_tags(notebook)}
    html = [(name, output.get("data", {}).get("text/html", "")) for name, _, output in outputs(notebook)]
    shown = {(name, tag) for name, text in html for tag in re.findall(r"#mjx-eqn:([\w.]+)", text)}
    return [
        f"{name}: ({tag}) is linked but not on the page" for name, tag in sorted(shown) if tag not in equations
    ]


RULES: list[Rule] = [
    not_executed_in_sequence,
    empty_code_cells,
    unexpected_outputs,
    unstable_text,
    not_portable,
    tag_in_a_split_formula,
    unreasoned_skips,
    figures_without_alt_text,
    wrong_setup_cell,
    long_cells,
    checks_among_other_things,
    wide_source,
    open_pictures,
    wide_figures,
    wrong_title,
    wrong_sections,
    open_solutions,
    nothing_compared,
    unclean_metadata,
    malformed_tags,
    shown_tags_without_equation,
]
OF_CHAPTERS = [wrong_sections, open_solutions]  # a page such as errata.ipynb, without a number, has no exercises


def rules_of(path: Path) -> list[Rule]:
    """The rules that a notebook is held to: all of them, if it is a chapter."""
    chapter = re.match(r"\d\d_", path.stem)
    return [rule for rule in RULES if chapter or rule not in OF_CHAPTERS]


def faults(path: Path) -> list[str]:
    """What a stored notebook breaks."""
    notebook = nbformat.read(path, as_version=4)
    return [f"{path.name}: {fault}" for rule in rules_of(path) for fault in rule(notebook)]


def main(arguments: list[str]) -> int:
    """Print the faults of each notebook; 1 if there is one."""
    found = [fault for path in map(Path, arguments or NOTEBOOKS) for fault in faults(path)]
    print("\n".join(found) or "keep every rule")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
