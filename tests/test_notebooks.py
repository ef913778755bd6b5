"""Chapters are fully executed, portable to Colab, and tied to the code by their equation tags.

The rules stand in `book/lint.py`. Every chapter is held to every rule, and every rule is shown to bite on a spoilt
copy of a good notebook.
"""

import copy
import io
import re
import tokenize
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from lint import (
    METADATA,
    NOTEBOOKS,
    ROOT,
    RULES,
    SETUP,
    Notebook,
    Rule,
    cells,
    checks_among_other_things,
    empty_code_cells,
    equation_tags,
    figures_without_alt_text,
    long_cells,
    main,
    malformed_tags,
    not_executed_in_sequence,
    not_portable,
    nothing_compared,
    open_pictures,
    open_solutions,
    rules_of,
    shown_tags_without_equation,
    tag_in_a_split_formula,
    unclean_metadata,
    unexpected_outputs,
    unreasoned_skips,
    unstable_text,
    wide_figures,
    wide_source,
    wrong_sections,
    wrong_setup_cell,
    wrong_title,
)
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

HELD = [(path, rule) for path in NOTEBOOKS for rule in rules_of(path)]


def read(path: Path) -> Notebook:
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize(("path", "rule"), HELD, ids=[f"{rule.__name__}-{path.stem}" for path, rule in HELD])
def test_chapter_keeps_the_rule(path: Path, rule: Rule) -> None:
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
    equations = [tag for path in NOTEBOOKS for _, tag in equation_tags(read(path))]
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
    figure.metadata = nbformat.from_dict(
        {"mystnb": {"image": {"alt": "A line that falls. " * 3}}, "tags": ["hide-input"]}
    )
    figure.outputs = [new_output("display_data", {"image/png": "", "text/plain": "<Figure>"})]
    end = new_markdown_cell(
        "## What to remember, and when not to use it\n\n## Differences\n\n## Exercises\n\n"
        "<details>\n<summary>Solution</summary>\n\nIt is.\n\n</details>"
    )
    solution = new_code_cell("1 + 1", execution_count=4)
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
    for _, cell in cells(notebook, "code"):
        if cell is not notebook.cells[FIGURE]:
            cell.outputs = []


def append_checks(notebook: Notebook) -> None:
    html = '<details class="checks"><summary>one</summary></details>'
    notebook.cells[SHOW].outputs.append(new_output("display_data", {"text/html": html}))


SPOILT: list[tuple[Rule, Callable[[Notebook], None]]] = [
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
    (open_solutions, append(END, "\n\nText after the fold.")),
    (open_solutions, put(SOLUTION, metadata={"tags": ["hide-input"]})),
    (checks_among_other_things, append_checks),
    (wide_source, put(SHOW, outputs=[new_output("display_data", {"text/html": f"<pre>{'x' * 79}</pre>"})])),
    (open_pictures, put(FIGURE, metadata={})),
    (wide_figures, append(FIGURE, "\nplt.figure(figsize=(8, 3))")),
    (wide_figures, append(FIGURE, "\nax.legend(fontsize=7)")),
    (nothing_compared, no_comparison),
    (unclean_metadata, put(SHOW, metadata={"execution": {"iopub.status.busy": "now"}})),
    (unclean_metadata, put(SHOW, metadata={"tags": ["hide-inptu"]})),
    (malformed_tags, append(TITLE, "\n\n$$ a \\tag{1} $$")),
    (malformed_tags, append(TITLE, "\n\n$$ a \\tag{GD.1} $$")),
    (shown_tags_without_equation, put(TITLE, source="# A title")),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_notebook_keeps_the_rule(rule: Rule) -> None:
    assert rule(good_notebook()) == []


@pytest.mark.parametrize(("rule", "spoil"), SPOILT, ids=lambda f: getattr(f, "__name__", ""))
def test_the_rule_bites(rule: Rule, spoil: Callable[[Notebook], None]) -> None:
    notebook = good_notebook()
    spoil(notebook)
    assert rule(notebook) != []


def test_every_rule_is_shown_to_bite() -> None:
    assert {rule for rule, _ in SPOILT} == set(RULES)


def test_faults_are_printed_with_the_number_of_the_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = good_notebook()
    put(SHOW, source="")(notebook)
    nbformat.write(notebook, tmp_path / "12_spoilt.ipynb")
    assert main([str(tmp_path / "12_spoilt.ipynb")]) == 1
    assert "12_spoilt.ipynb: cell 3 is empty\n" in capsys.readouterr().out
    nbformat.write(good_notebook(), tmp_path / "12_good.ipynb")
    assert main([str(tmp_path / "12_good.ipynb")]) == 0
