"""Chapters are fully executed, portable to Colab, and tied to the code by their equation tags.

Each rule is a function from a notebook to its faults. Every chapter is held to every rule, and
every rule is shown to bite on a spoilt copy of a good notebook.
"""

import copy
import io
import re
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
SETUP = f"""try:
    import mtl_ref
except ImportError:
    %pip install -q git+{REPOSITORY}"""
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
HIDDEN = {"hide-input", "hide-cell"}
TAGS = HIDDEN | {
    "hide-output",
    "remove-cell",
    "raises-exception",
    "nbval-ignore-output",
    "nbval-skip",
}
LAST_SECTIONS = ["What to remember", "Differences", "Exercises", "References"]

Notebook = Any


def code_cells(notebook: Notebook) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell: Any) -> set[str]:
    return set(cell.metadata.get("tags", []))


def outputs(notebook: Notebook) -> Iterator[tuple[Any, Any]]:
    return ((cell, output) for cell in code_cells(notebook) for output in cell.outputs)


def without_code(markdown: str) -> str:
    """The text of a Markdown cell less its fenced and inline code."""
    text = re.sub(r"^(```|~~~)[\s\S]*?^\1", "", markdown, flags=re.M)
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", text)


def prose(notebook: Notebook) -> str:
    cells = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return "\n\n".join(without_code(source) for source in cells)


def headings(notebook: Notebook) -> list[tuple[int, str]]:
    found = re.findall(r"^(#+) +(.+?) *$", prose(notebook), flags=re.M)
    return [(len(marks), title) for marks, title in found]


def not_executed_in_sequence(notebook: Notebook) -> list[str]:
    counts = [cell.execution_count for cell in code_cells(notebook)]
    right = counts == list(range(1, len(counts) + 1))
    return [] if right and counts else [f"execution counts are {counts}"]


def empty_code_cells(notebook: Notebook) -> list[str]:
    return [f"cell {cell.id} is empty" for cell in code_cells(notebook) if not cell.source.strip()]


def unexpected_outputs(notebook: Notebook) -> list[str]:
    faults = []
    for cell, output in outputs(notebook):
        if output.output_type == "error" and "raises-exception" not in tags(cell):
            faults.append(f"an error: {output.ename}: {output.evalue}")
        if output.get("name") == "stderr":
            faults.append(f"stderr: {output.text!r}")
        if any("widget" in kind for kind in output.get("data", {})):
            faults.append("a widget")
    return faults


def unstable_text(notebook: Notebook) -> list[str]:
    """Addresses of objects and of files change from run to run and from machine to machine."""
    path = re.compile(r"(?<![\w.:/])(?:/(?:home|root|Users|tmp|work|content|usr|opt|mnt|var)/|[A-Z]:\\)")
    texts = [cell.source for cell in notebook.cells]
    for _, output in outputs(notebook):
        shown = [output.get("text", ""), *output.get("data", {}).get("text/plain", "").split("\n")]
        shown += [output.get("data", {}).get("text/html", ""), *output.get("traceback", [])]
        texts += shown
        if any(re.search(r"\bat 0x[0-9a-f]{6,}", text) for text in shown):
            return ["an output prints the address of an object"]
    return [f"an absolute path: {m.group()}" for text in texts if (m := path.search(text))]


def not_portable(notebook: Notebook) -> list[str]:
    """Only what Colab shows as the book does: CommonMark, tables, $, $$, <details>, algorithm boxes."""
    text = prose(notebook)
    raw = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    patterns = {
        "a MyST role": (r"\{[a-zA-Z][\w:.+-]*\}`", raw),
        "a MyST directive": (r"^\s*(?:```+|~~~+|:::+)\s*\{", raw),
        "a MyST block": (r"^(?::::+|\+\+\+|% |\([\w-]+\)=\s*$)", text),
        "a footnote": (r"\[\^", text),
        "a macro of its own": (
            r"\\(?:newcommand|renewcommand|def|DeclareMathOperator|require)\b",
            text,
        ),
        "an image that Colab does not find": (r"!\[[^\]]*\]\((?!https?:|attachment:)", text),
    }
    faults = [f"{what}: {m.group()!r}" for what, (p, t) in patterns.items() for m in re.finditer(p, t, re.M)]
    html = re.sub(r"\$\$[\s\S]*?\$\$|\$[^$\n]+\$", "", text)
    for tag in re.findall(r"</?[a-zA-Z][^<>]*>", html):
        allowed = r'</?details>|</?summary>|<div class="algorithm">|</div>|<https?://[^>]*>'
        if not re.fullmatch(allowed, tag):
            faults.append(f"HTML: {tag}")
    for cell in notebook.cells:
        for name in ("details", "summary", "div"):
            if cell.cell_type == "markdown" and (
                len(re.findall(f"<{name}[ >]", cell.source)) != cell.source.count(f"</{name}>")
            ):
                faults.append(f"<{name}> and </{name}> do not match in cell {cell.id}")
    return faults


def tag_in_a_split_formula(notebook: Notebook) -> list[str]:
    r"""Sphinx wraps a $$ with a line break in `split`, where \tag is an error."""
    formulas = re.findall(r"\$\$([\s\S]*?)\$\$", prose(notebook))
    return [f"a \\tag beside \\\\: {f.strip()}" for f in formulas if r"\tag" in f and r"\\" in f]


def unreasoned_skips(notebook: Notebook) -> list[str]:
    faults = []
    for cell in code_cells(notebook):
        skips = tags(cell) & {"nbval-skip", "nbval-ignore-output"}
        if skips and not re.match(r"# Not compared: \w.{9,}", cell.source):
            faults.append(f"{skips} without a first line '# Not compared: <reason>'")
        if "raises-exception" in tags(cell) and not re.match(r"# Raises: \w.{9,}", cell.source):
            faults.append("raises-exception without a first line '# Raises: <reason>'")
        if re.search(r"^\s*#\s*(NBVAL_|PYTEST_VALIDATE)", cell.source, re.M):
            faults.append("a comment that skips a comparison: use a tag and a reason")
    return faults


def figures_without_alt_text(notebook: Notebook) -> list[str]:
    faults = []
    for cell, output in outputs(notebook):
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if any(kind.startswith("image/") for kind in output.get("data", {})) and len(alt) < 40:
            faults.append(f"cell {cell.id}: the figure's alt text is {alt!r}, under 40 characters")
    return faults


def wrong_setup_cell(notebook: Notebook) -> list[str]:
    first = code_cells(notebook)[:1]
    right = first and first[0].source == SETUP and tags(first[0]) == {"remove-cell"}
    return [] if right else [f"the first code cell, tagged remove-cell, must be\n{SETUP}"]


def long_cells(notebook: Notebook) -> list[str]:
    lengths = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    return [f"a code cell of {n} lines; does it belong in mtl_ref?" for n in lengths if n > 40]


def wrong_title(notebook: Notebook) -> list[str]:
    levels = [level for level, _ in headings(notebook)]
    right = levels.count(1) == 1 and levels[0] == 1
    return [] if right else ["there must be one title, and it must come first"]


def wrong_sections(notebook: Notebook) -> list[str]:
    titles = [title for level, title in headings(notebook) if level == 2]
    last = titles[-len(LAST_SECTIONS) :]
    if len(last) < 4 or any(not t.startswith(s) for t, s in zip(last, LAST_SECTIONS, strict=True)):
        return [f"the last sections are {last}, not {LAST_SECTIONS}"]
    return []


def open_solutions(notebook: Notebook) -> list[str]:
    faults, section, folded = [], "", False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found = re.findall(r"^## +(.+?) *$", without_code(cell.source), flags=re.M)
            section = found[-1] if found else section
            folded |= section == "Exercises" and "<details>" in cell.source
        elif section == "Exercises":
            folded |= bool(tags(cell) & HIDDEN)
            if not tags(cell) & HIDDEN:
                faults.append(f"cell {cell.id} of the exercises is tagged neither of {HIDDEN}")
    return faults if folded else [*faults, "no exercise has a folded solution"]


def nothing_compared(notebook: Notebook) -> list[str]:
    kinds = {"text/plain", "text/html", "text/latex"}
    for cell, output in outputs(notebook):
        figure = any(kind.startswith("image/") for kind in output.get("data", {}))
        text = output.output_type == "stream" or kinds & set(output.get("data", {}))
        if text and not figure and not tags(cell) & {"nbval-skip", "nbval-ignore-output"}:
            return []
    return ["no output that nbval compares"]


def unclean_metadata(notebook: Notebook) -> list[str]:
    faults = []
    if notebook.metadata != METADATA or (notebook.nbformat, notebook.nbformat_minor) != (4, 5):
        faults.append(f"the notebook's metadata: {notebook.metadata}; `make run` cleans it")
    for cell in notebook.cells:
        if set(cell.metadata) - {"tags", "mystnb"} or tags(cell) - TAGS:
            faults.append(f"metadata of cell {cell.id}: {cell.metadata}")
    faults += [f"metadata of an output: {o.metadata}" for _, o in outputs(notebook) if o.get("metadata")]
    return faults


def equation_tags(notebook: Notebook) -> list[str]:
    return re.findall(r"\\tag\{(.*?)\}", prose(notebook))


def malformed_tags(notebook: Notebook) -> list[str]:
    found = Counter(equation_tags(notebook))
    faults = [
        f"{tag}: not of the form PC.1 or PC.a" for tag in found if not re.fullmatch(r"[A-Z]{2}\.(\d+|[a-z])", tag)
    ]
    return faults + [f"{tag}: {n} times" for tag, n in found.items() if n > 1]


def shown_tags_without_equation(notebook: Notebook) -> list[str]:
    html = "".join(output.get("data", {}).get("text/html", "") for _, output in outputs(notebook))
    shown = set(re.findall(r"#mjx-eqn:([\w.]+)", html))
    return [f"({tag}) is linked but not on the page" for tag in shown - set(equation_tags(notebook))]


RULES: list[Callable[[Notebook], list[str]]] = [
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
    wrong_title,
    wrong_sections,
    open_solutions,
    nothing_compared,
    unclean_metadata,
    malformed_tags,
    shown_tags_without_equation,
]
OF_CHAPTERS = {wrong_sections, open_solutions}  # a page such as errata.ipynb, without a number, has no exercises


def is_chapter(path: Path) -> bool:
    return re.match(r"\d\d_", path.stem) is not None


HELD = [(path, rule) for rule in RULES for path in NOTEBOOKS if is_chapter(path) or rule not in OF_CHAPTERS]


def read(path: Path) -> Notebook:
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize(("path", "rule"), HELD, ids=[f"{rule.__name__}-{path.stem}" for path, rule in HELD])
def test_chapter_keeps_the_rule(path: Path, rule: Callable[[Notebook], list[str]]) -> None:
    assert rule(read(path)) == []


def test_every_notebook_is_a_chapter_of_the_book() -> None:
    toc = (ROOT / "_toc.yml").read_text()
    chapters = re.findall(r"file: (notebooks/\S+)", toc)
    assert chapters
    assert sorted(chapters) == [f"notebooks/{path.stem}" for path in NOTEBOOKS]


def code_tags(source: str) -> set[str]:
    """The tags in the comments of a Python file."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = (token.string for token in tokens if token.type == tokenize.COMMENT)
    return {tag for comment in comments for tag in re.findall(r"\(([A-Z]{2}\.\d+)\)", comment)}


def tag_faults(equations: list[str], code: set[str]) -> list[str]:
    """Equations whose tag ends in a letter are steps of a derivation, which no line computes."""
    numbered = {tag for tag in equations if tag[-1].isdigit()}
    return (
        [f"({tag}): more than one equation" for tag, n in Counter(equations).items() if n > 1]
        + [f"({tag}): an equation without a line of code" for tag in sorted(numbered - code)]
        + [f"({tag}): a line of code without an equation" for tag in sorted(code - numbered)]
    )


def test_equations_and_code_lines_carry_the_same_tags() -> None:
    equations = [tag for path in NOTEBOOKS for tag in equation_tags(read(path))]
    code = {t for p in (ROOT / "mtl_ref").rglob("*.py") for t in code_tags(p.read_text())}
    assert equations
    assert code
    assert tag_faults(equations, code) == []


def test_tag_faults_are_found() -> None:
    source = 'x = 1  # (AB.1)\ny = "(AB.2)"\nz = 3  # (AB.3)  (T,)\n# (UW.a) and (T, P)\n'
    assert code_tags(source) == {"AB.1", "AB.3"}
    assert tag_faults(["AB.1", "AB.3", "AB.a"], {"AB.1", "AB.3"}) == []
    assert len(tag_faults(["AB.1", "AB.1"], {"AB.1"})) == 1
    assert len(tag_faults(["AB.1", "AB.2"], {"AB.1"})) == 1
    assert len(tag_faults(["AB.1"], {"AB.1", "AB.2"})) == 1


def good_notebook() -> Notebook:
    text = new_markdown_cell(
        "# A title\n\nProse with $a<b$ and `<b>`.\n\n$$ x = y \\tag{GD.1} $$\n\n"
        '<div class="algorithm">\n\n1. step\n\n</div>'
    )
    setup = new_code_cell(SETUP, execution_count=1, metadata={"tags": ["remove-cell"]})
    show = new_code_cell("page.show(f)", execution_count=2)
    show.outputs = [new_output("display_data", {"text/html": '<a href="#mjx-eqn:GD.1">GD.1</a>'})]
    figure = new_code_cell("plot()", execution_count=3)
    figure.metadata = nbformat.from_dict({"mystnb": {"image": {"alt": "A line that falls. " * 3}}})
    figure.outputs = [new_output("display_data", {"image/png": "", "text/plain": "<Figure>"})]
    end = new_markdown_cell(
        "## What to remember, and when not to use it\n\n## Differences\n\n## Exercises\n\n"
        "<details>\n<summary>Solution</summary>\n\nIt is.\n\n</details>"
    )
    solution = new_code_cell("1 + 1", execution_count=4, metadata={"tags": ["hide-input"]})
    solution.outputs = [new_output("execute_result", {"text/plain": "2"})]
    cells = [text, setup, show, figure, end, solution, new_markdown_cell("## References")]
    return new_notebook(cells=cells, metadata=copy.deepcopy(METADATA))


TITLE, SETUP_CELL, SHOW, FIGURE, END, SOLUTION = range(6)


def append(cell: int, text: str) -> Callable[[Notebook], None]:
    def spoil(notebook: Notebook) -> None:
        notebook.cells[cell].source += text

    return spoil


def put(cell: int, **changes: Any) -> Callable[[Notebook], None]:
    def spoil(notebook: Notebook) -> None:
        notebook.cells[cell].update(nbformat.from_dict(changes))

    return spoil


def no_comparison(notebook: Notebook) -> None:
    for cell in code_cells(notebook):
        if cell is not notebook.cells[FIGURE]:
            cell.outputs = []


SPOILT: list[tuple[Callable[[Notebook], list[str]], Callable[[Notebook], None]]] = [
    (not_executed_in_sequence, put(SHOW, execution_count=None)),
    (not_executed_in_sequence, put(SHOW, execution_count=7)),
    (empty_code_cells, put(SHOW, source=" \n")),
    (unexpected_outputs, put(SHOW, outputs=[new_output("error", ename="E", evalue="")])),
    (unexpected_outputs, put(SHOW, outputs=[new_output("stream", name="stderr", text="!")])),
    (
        unexpected_outputs,
        put(
            SHOW,
            outputs=[new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}})],
        ),
    ),
    (unstable_text, put(SHOW, outputs=[new_output("stream", text="<f at 0x7f001234>")])),
    (unstable_text, append(SHOW, "\nopen('/home/me/data')")),
    (not_portable, append(TITLE, "\n\nsee {cite}`sener2018`")),
    (not_portable, append(TITLE, "\n\n```{note}\nx\n```")),
    (not_portable, append(TITLE, "\n\n:::{note}\nx\n:::")),
    (not_portable, append(TITLE, "\n\n(label)=\n")),
    (not_portable, append(TITLE, "\n\n<b>x</b>")),
    (not_portable, append(TITLE, "\n\n<details>")),
    (not_portable, append(TITLE, "\n\n$\\newcommand{\\x}{y}$")),
    (not_portable, append(TITLE, "\n\n![x](x.png)")),
    (tag_in_a_split_formula, append(TITLE, "\n\n$$ a \\\\ b \\tag{GD.2} $$")),
    (unreasoned_skips, put(SHOW, metadata={"tags": ["nbval-skip"]})),
    (unreasoned_skips, put(SHOW, metadata={"tags": ["raises-exception"]})),
    (unreasoned_skips, append(SHOW, "\n# NBVAL_IGNORE_OUTPUT")),
    (figures_without_alt_text, put(FIGURE, metadata={})),
    (wrong_setup_cell, append(SETUP_CELL, "\n")),
    (wrong_setup_cell, put(SETUP_CELL, metadata={})),
    (long_cells, append(SHOW, "\nx" * 40)),
    (wrong_sections, append(END, "\n\n## More")),
    (wrong_title, append(END, "\n\n# Another title")),
    (open_solutions, put(SOLUTION, metadata={})),
    (nothing_compared, no_comparison),
    (unclean_metadata, put(SHOW, metadata={"execution": {"iopub.status.busy": "now"}})),
    (unclean_metadata, put(SHOW, metadata={"tags": ["hide-inptu"]})),
    (malformed_tags, append(TITLE, "\n\n$$ a \\tag{1} $$")),
    (malformed_tags, append(TITLE, "\n\n$$ a \\tag{GD.1} $$")),
    (shown_tags_without_equation, put(TITLE, source="# A title")),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_notebook_keeps_the_rule(rule: Callable[[Notebook], list[str]]) -> None:
    assert rule(good_notebook()) == []


@pytest.mark.parametrize(("rule", "spoil"), SPOILT, ids=lambda f: getattr(f, "__name__", ""))
def test_the_rule_bites(rule: Callable[[Notebook], list[str]], spoil: Callable[[Notebook], None]) -> None:
    notebook = good_notebook()
    spoil(notebook)
    assert rule(notebook) != []


def test_every_rule_is_shown_to_bite() -> None:
    assert {rule for rule, _ in SPOILT} == set(RULES)
