import ast
import configparser
import inspect
import math
import re
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

import mtl_ref as mtl
from mtl_ref import page
from mtl_ref.catalogue import PAPERS, ROWS

ROOT = Path(__file__).parents[1]
BIBLIOGRAPHY = (ROOT / "book" / "references.bib").read_text()


def test_check_prints_what_was_measured_beside_what_was_recorded(capsys):
    page.check("left accuracy", 0.93721, expected=0.92, tolerance=0.02)
    page.check("it falls", 3 > 2)
    page.check("weights", torch.tensor([0.5, 0.25]), expected=[0.5, 0.25])
    page.check("winner", "b", expected="b")
    assert capsys.readouterr().out.splitlines() == [
        "✓ left accuracy: 0.937 (recorded 0.92 ± 0.02)",
        "✓ it falls: holds",
        "✓ weights: [0.5, 0.25] (recorded [0.5, 0.25])",
        "✓ winner: b (recorded b)",
    ]


@pytest.mark.parametrize(
    ("value", "tolerance", "said"),
    [
        (1 / 3, 1e-12, "0.333333"),
        (3e-17, 1e-12, "0"),
        (-3e-17, 1e-12, "0"),
        (12345.678, 10.0, "12346"),
        (12345.678, 1000.0, "12300"),
        (0.0123, 0.5, "0.01"),
        (math.inf, 0.1, "inf"),
        ([[1.25, 2.0]], 0.1, "[[1.25, 2]]"),
    ],
)
def test_a_number_is_rounded_to_a_tenth_of_the_tolerance(value, tolerance, said):
    assert page.rounded(value, tolerance) == said


def in_a_notebook(*sources):
    """The outputs of code cells, one after the other."""
    cells = [nbformat.v4.new_code_cell(source) for source in ("from mtl_ref import page", *sources)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, kernel_name="python3", allow_errors=True).execute()
    return [cell.outputs for cell in notebook.cells[1:]]


def test_in_a_notebook_a_cell_shows_its_checks_when_it_ends_and_only_its_own():
    two, none, failed = in_a_notebook(
        "page.check('a < b', 0.1234, 0.12, 0.02); page.check('so', True)",
        "1 + 1",
        "page.check('one', True); page.check('two', 2, 3); page.check('three', True)",
    )
    (shown,) = two
    assert shown.data["text/plain"] == "✓ 2 statements checked"
    assert "<summary>✓ 2 statements checked</summary>" in shown.data["text/html"]
    row = '<tr><td>a &lt; b</td><td class="measured">0.123</td><td>0.12 ± 0.02</td></tr>'
    assert row in shown.data["text/html"]
    assert [output.output_type for output in none] == ["execute_result"]
    assert sorted(output.output_type for output in failed) == ["display_data", "error"]
    assert "✓ 1 statement checked" in next(o for o in failed if o.output_type == "display_data").data["text/html"]


def test_what_ci_does_not_compare_is_the_measured_digits_and_pictures():
    rules = configparser.ConfigParser()
    rules.read(ROOT / "notebooks" / "nbval.cfg")

    def compared(text):
        for rule in rules.sections():
            text = re.sub(rules[rule]["regex"], rules[rule]["replace"], text)
        return text

    row = '<td>a</td><td class="measured">{}</td><td>{}</td>'
    assert compared(row.format("0.1", "0.2 ± 0.1")) == compared(row.format("0.3", "0.2 ± 0.1"))
    assert compared(row.format("0.1", "0.2 ± 0.1")) != compared(row.format("0.1", "0.2 ± 0.2"))
    assert compared("<?xml version='1.0'?>\n<svg>a</svg>\n") == compared("<?xml version='1.0'?>\n<svg>b</svg>\n")
    assert compared("<p>a</p>") != compared("<p>b</p>")


@pytest.mark.parametrize(
    ("value", "expected", "tolerance"),
    [
        (0.95, 0.92, 0.02),
        (0.89, 0.92, 0.02),
        (math.nan, 0.92, 0.02),
        (1 / 3 + 1e-12, 1 / 3, 1e-13),
        (math.inf, 0.92, 0.02),
        (False, True, 0.0),
        (0, True, 0.0),
        ([1.0, 2.0], [1.0, 2.1], 0.05),
        ([1.0, 1.0], 1.0, 0.1),
        ("a", "b", 0.0),
    ],
)
def test_check_raises_with_both_values(value, expected, tolerance):
    with pytest.raises(AssertionError, match="was expected"):
        page.check("it", value, expected=expected, tolerance=tolerance)


def test_nothing_passes_unchecked_in_the_quick_profile():
    with pytest.raises(ValueError, match="no number is recorded"):
        page.check("it", 1.0, expected=None)
    with pytest.raises(AssertionError, match="was expected"):
        page.check("it", 1.5, 1.0, full=None)
    with pytest.raises(AssertionError, match="was expected"):
        page.check("it", 1.5, 1.0, full=1.5)


def test_the_full_profile_prints_what_nobody_has_recorded(monkeypatch, capsys):
    monkeypatch.setenv("MTL_REF_PROFILE", "full")
    page.check("it", 1.5, expected=1.0, full=None)
    page.check("name", "b", expected="a", full=None)
    assert capsys.readouterr().out.splitlines() == [
        "✓ it: 1.5 (recorded nothing for the full profile)",
        "✓ name: b (recorded nothing for the full profile)",
    ]


def test_the_full_profile_expects_what_it_is_told_or_else_the_same(monkeypatch, capsys):
    monkeypatch.setenv("MTL_REF_PROFILE", "full")
    page.check("it", 1.5, 1.0, full=1.5)
    assert capsys.readouterr().out == "✓ it: 1.5 (recorded 1.5)\n"
    with pytest.raises(AssertionError, match="was expected"):
        page.check("it", 1.5, 1.0)
    with pytest.raises(AssertionError, match="was expected"):
        page.check("it", 1.0, 1.0, full=1.5)


def test_the_profile_is_quick_or_full(monkeypatch):
    monkeypatch.delenv("MTL_REF_PROFILE", raising=False)
    assert page.choose(quick=1, full=2) == 1
    monkeypatch.setenv("MTL_REF_PROFILE", "full")
    assert page.choose(quick=1, full=2) == 2
    monkeypatch.setenv("MTL_REF_PROFILE", "fast")
    with pytest.raises(ValueError, match="'fast', but must be 'quick' or 'full'"):
        page.profile()


def test_source_is_the_running_code_without_docstring_and_input_checks():
    shown = page.source(mtl.EqualWeighting)
    assert shown.startswith("class EqualWeighting(LossBalancer):\n    def forward")
    assert "return losses.sum() / len(losses)  # (WS.2)" in shown
    assert '"""' not in shown
    assert "check_losses" not in shown
    assert "sees_losses" not in shown
    assert page.source(mtl.uniform_cross_entropy).splitlines()[0].startswith("def uniform_cross_entropy")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_shown_source_keeps_every_tag_and_raises_nothing(row):
    method = type(eval(row.call, {"mtl": mtl}))
    shown = page.source(method)
    assert set(page.TAG.findall(shown)) == set(page.TAG.findall(inspect.getsource(method)))
    assert "raise " not in shown
    ast.parse(shown)


def test_every_tag_links_to_its_equation_and_can_be_linked_to_once(monkeypatch):
    pages = []
    monkeypatch.setattr(page, "display", pages.append)
    page.show(mtl.GeometricMean, mtl.PowerMean)
    for tag, times in (("GM.1", 2), ("PM.1", 1)):
        assert pages[0].data.count(f'href="#mjx-eqn:{tag}">({tag})</a>') == times
        assert pages[0].data.count(f'id="code:{tag}"') == 1
    assert f"{page.REPOSITORY}/blob/main/mtl_ref/methods/means.py" in pages[0].data


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_a_card_says_what_the_catalogue_says(row, monkeypatch):
    cards = []
    monkeypatch.setattr(page, "display", cards.append)
    page.card(row.key)
    text = cards[0].data
    for part in (row.formula, row.promise, row.when, row.passes, row.state, row.call, row.file):
        assert part in text
    assert "|" not in row.formula, "a bar would end the cell of the table"
    assert (ROOT / row.file).is_file()
    made = eval(row.call, {"mtl": mtl})
    assert isinstance(made, mtl.LossBalancer | mtl.GradientBalancer)
    if row.gram:  # which is made without a word on the problem
        assert repr(made) == repr(row.make(None))
    if row.paper:
        address = PAPERS[row.paper][1]
        assert address in text
        entry = re.search(rf"@\w+{{{row.paper},.*?^}}", BIBLIOGRAPHY, re.DOTALL | re.MULTILINE)
        assert re.sub(r"https://(arxiv.org/abs|doi.org)/", "", address) in entry[0]


def test_a_table_is_markdown_and_sorts_on_request(monkeypatch):
    shown = []
    monkeypatch.setattr(page, "display", lambda shown_: shown.append(shown_.data))
    page.table(["a", "b"], [["1", "2"], ["3", "4"]])
    page.table(["a", "b"], [["1", "2"]], sort=True)
    assert shown[0] == "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |"
    assert shown[1] == '<div class="sortable">\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n</div>'
