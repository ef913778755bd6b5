"""The trimmed mean against TorchJD and a plain loop, and what it is made for: a few gradients that are garbage."""

import pytest
import torch
import torchjd.aggregation
from cases import draw, matrix

import mtl_ref as mtl


@pytest.mark.parametrize("k", [0, 1, 2])
def test_direction_is_torchjds_and_a_loops(k: int) -> None:
    J = draw(5, 30)
    d = mtl.TrimmedMean(k)(J)
    torch.testing.assert_close(d, torchjd.aggregation.TrimmedMean(k)(J))
    for entry, column in zip(d.tolist(), J.T.tolist(), strict=True):
        rest = sorted(column)[k : 5 - k]
        assert entry == pytest.approx(sum(rest) / len(rest), rel=1e-12)


@pytest.mark.parametrize(("k", "garbage"), [(1, 1), (2, 1), (2, 2)])
def test_up_to_k_gradients_move_no_entry_beyond_the_others(k: int, garbage: int) -> None:
    J = draw(6, 40)
    J[:garbage] = 1e9 * draw(garbage, 40, seed=1)
    honest = J[garbage:]
    d = mtl.TrimmedMean(k)(J)
    assert (d >= honest.min(0).values).all()
    assert (d <= honest.max(0).values).all()
    assert mtl.TrimmedMean(0)(J).abs().max() > 1e7


def test_with_few_tasks_the_median_is_left() -> None:
    J = matrix([[1.0, 5.0, 9.0], [2.0, -7.0, 9.0], [4.0, 0.0, -1.0]])
    assert mtl.TrimmedMean(7)(J).tolist() == J.median(0).values.tolist() == [2, 0, 9]
    assert mtl.TrimmedMean(1)(J[:2]).tolist() == [1.5, -1, 9]
    assert mtl.TrimmedMean(1)(J[:1]).tolist() == [1, 5, 9]


def test_a_loss_may_rise() -> None:
    """Each entry follows the middle, which need not be the same task's in every entry."""
    J = matrix([[3.0, -1.0, -1.0], [-1.0, 3.0, -1.0], [-1.0, -1.0, 3.0]])
    assert mtl.TrimmedMean(1)(J).tolist() == [-1, -1, -1]
    assert (J @ mtl.TrimmedMean(1)(J) < 0).all()


@pytest.mark.parametrize("k", [-1, 0.5])
def test_a_k_that_is_none_is_named(k: float) -> None:
    with pytest.raises(ValueError, match=f"k is {k}, but must be a whole number"):
        mtl.TrimmedMean(k)
