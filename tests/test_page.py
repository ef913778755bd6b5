import math

import pytest
import torch

import mtl_ref as mtl
from mtl_ref import page


def test_check_prints_what_was_expected_not_what_was_measured(capsys):
    page.check("left accuracy", 0.93721, expected=0.92, tolerance=0.02)
    page.check("it falls", 3 > 2)
    page.check("weights", torch.tensor([0.5, 0.25]), expected=[0.5, 0.25])
    assert capsys.readouterr().out == (
        "✓ left accuracy = 0.92 (within 0.02)\n✓ it falls\n✓ weights = [0.5, 0.25]\n"
    )


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
    assert capsys.readouterr().out == "it: 1.5 (measured; nothing is recorded for the full profile)\n"


def test_the_full_profile_expects_what_it_is_told_or_else_the_same(monkeypatch, capsys):
    monkeypatch.setenv("MTL_REF_PROFILE", "full")
    page.check("it", 1.5, 1.0, full=1.5)
    assert capsys.readouterr().out == "✓ it = 1.5\n"
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


def test_source_is_the_running_code_without_the_docstring():
    shown = page.source(mtl.EqualWeighting)
    assert shown.startswith("class EqualWeighting(LossBalancer):\n    sees_losses = False")
    assert "return losses.sum() / len(losses)  # (WS.2)" in shown
    assert '"""' not in shown
    assert page.source(mtl.uniform_cross_entropy).splitlines()[0].startswith("def uniform_cross_entropy")


def test_every_tag_links_to_its_equation(monkeypatch):
    pages = []
    monkeypatch.setattr(page, "display", pages.append)
    page.show(mtl.UncertaintyWeighting)
    for tag in ("UW.1", "UW.2", "UW.3"):
        assert f'<a href="#mjx-eqn:{tag}">({tag})</a>' in pages[0].data
