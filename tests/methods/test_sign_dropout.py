"""GradDrop: the mean and the variance over its draws in closed form, and TorchJD on the same draw."""

import pytest
import torch
import torchjd.aggregation
from cases import draw, matrix, vector

import mtl_ref as mtl

ENTRIES = matrix([[3.0, 1.0, 0.0, 2.0, -1.0], [-1.0, 2.0, 0.0, -2.0, -4.0]])


def drawn(leak: float, times: int) -> torch.Tensor:
    """Many directions at once: the columns are repeated, and each draws for itself."""
    generator = torch.Generator().manual_seed(0)
    d = mtl.GradDrop(leak, generator)(ENTRIES.repeat_interleave(times, dim=1))
    return d.view(ENTRIES.shape[1], times)


@pytest.mark.parametrize("leak", [0.0, 0.3])
def test_the_mean_over_the_draws_is_the_sum_and_the_variance_is_in_closed_form(leak: float) -> None:
    """With a the sum of what is positive and −b that of the rest, the mean is a − b, the variance (1 − ℓ)² a b."""
    times = 40_000
    d = drawn(leak, times)
    a, b = ENTRIES.clamp(min=0).sum(0), -ENTRIES.clamp(max=0).sum(0)
    variance = (1 - leak) ** 2 * a * b
    error = (d.mean(1) - (a - b)).abs()
    assert (error <= 4 * (variance / times).sqrt()).all()
    torch.testing.assert_close(d.var(1), variance, rtol=0.03, atol=0)


def test_what_is_drawn_is_all_of_one_sign() -> None:
    d = drawn(0.0, 100)
    found = [sorted(set(row.tolist())) for row in d]
    assert found == [[-1, 3], [3], [0], [-2, 2], [-5]]


def test_a_sign_that_all_share_is_always_kept() -> None:
    J = draw(4, 2000).abs() * torch.tensor([1.0, -1.0]).repeat(1000)
    torch.testing.assert_close(mtl.GradDrop()(J), J.sum(0), rtol=1e-14, atol=0)


@pytest.mark.parametrize("leak", [0.0, 0.25])
def test_direction_is_torchjds_for_one_draw(leak: float) -> None:
    J = draw(3, 500, dtype=torch.float32)
    theirs = torchjd.aggregation.GradDrop(leak=torch.full((3,), leak))
    torch.manual_seed(5)
    expected = theirs(J)
    torch.manual_seed(5)
    torch.testing.assert_close(mtl.GradDrop(leak)(J), expected, rtol=1e-6, atol=1e-6)


def test_a_generator_draws_and_leaves_the_global_one_alone() -> None:
    J, state = draw(3, 50), torch.get_rng_state()
    first, second = (mtl.GradDrop(generator=torch.Generator().manual_seed(s))(J) for s in (1, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, mtl.GradDrop(generator=torch.Generator().manual_seed(2))(J))
    assert torch.equal(torch.get_rng_state(), state)


def test_all_leaks_is_the_sum() -> None:
    J = draw(3, 50)
    torch.testing.assert_close(mtl.GradDrop(1.0)(J), J.sum(0))
    torch.testing.assert_close(mtl.GradDrop(1.0)(vector(1, -2)[:, None]), vector(-1))


@pytest.mark.parametrize("leak", [-0.1, 1.1, float("nan")])
def test_a_leak_that_is_none_is_named(leak: float) -> None:
    with pytest.raises(ValueError, match=f"leak is {leak}, but must be between 0 and 1"):
        mtl.GradDrop(leak)
