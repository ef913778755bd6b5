"""CAGrad against a search over the simplex, the duality gap, and the ends of its range."""

import pytest
import torch
from cases import SCALES, draw, matrix, vector
from scipy import optimize
from torch import Tensor

import mtl_ref as mtl


def gap(J: Tensor, d: Tensor, c: float) -> float:
    """How far min ⟨gᵢ, d⟩ may be from the best, relative to the longest gradient squared; never negative.

    The weights that d itself speaks of, d − g₀ ∝ g_w, give an upper bound: the objective of the dual problem.
    """
    mean, M = J.mean(0), J @ J.T
    weights = torch.linalg.lstsq(J.T, ((d - mean) / (d - mean).norm())[:, None]).solution[:, 0].clamp(min=0)
    w = weights / weights.sum()
    bound = w @ M.mean(1) + c * mean.norm() * (w @ J).norm()
    assert (d - mean).norm() <= c * mean.norm() * (1 + 1e-9)
    return float((bound - (J @ d).min()) / M.diag().max())


@pytest.mark.parametrize("T", [2, 3, 7])
@pytest.mark.parametrize("c", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("seed", range(8))
def test_no_direction_in_the_ball_has_a_larger_least_gain(T: int, c: float, seed: int) -> None:
    J = draw(T, 9, seed)
    assert -1e-12 < gap(J, mtl.CAGrad(c)(J), c) < 1e-7


@pytest.mark.parametrize("seed", range(5))
def test_a_search_over_the_weights_finds_no_lower_value(seed: int) -> None:
    J, c = draw(3, 5, seed), 0.5
    M, radius = J @ J.T, c * J.mean(0).norm()

    def objective(free: list[float]) -> float:
        w = vector(*free, 1 - sum(free))
        return float(w @ M.mean(1) + radius * (w @ M @ w).clamp(min=0).sqrt())

    grid = [(a / 200, b / 200) for a in range(201) for b in range(201 - a)]
    best = min(grid, key=objective)
    limits = {"type": "ineq", "fun": lambda free: 1 - sum(free)}
    found = optimize.minimize(objective, best, bounds=[(0, 1)] * 2, constraints=limits, tol=1e-14).fun
    assert abs((J @ mtl.CAGrad(c)(J)).min() - found) < 1e-6


def test_direction_is_the_one_of_torchjds_printed_example() -> None:
    d = mtl.CAGrad(0.5)(matrix([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
    torch.testing.assert_close(d, vector(0.1835, 1.2041, 1.2041), rtol=0, atol=5e-5)


def test_without_room_it_is_the_mean_and_with_much_room_it_is_mgda() -> None:
    J = draw(4, 6, 1)
    assert torch.equal(mtl.CAGrad(0.0)(J), vector(*[0.25] * 4) @ J)
    far, shortest = mtl.CAGrad(1e5)(J), mtl.MGDA()(J)
    torch.testing.assert_close(far / far.norm(), shortest / shortest.norm(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("scale", SCALES)
def test_one_factor_on_all_gradients_is_a_factor_on_the_direction(scale: float) -> None:
    J = draw(5, 7, 2)
    torch.testing.assert_close(mtl.CAGrad()(scale * J), scale * mtl.CAGrad()(J), rtol=1e-7, atol=0)


@pytest.mark.parametrize("c", [1.0, 1.5])
def test_from_c_1_on_no_loss_rises(c: float) -> None:
    for seed in range(50):
        J = draw(4, 4, seed)
        d = mtl.CAGrad(c)(J)
        assert (J @ d >= -1e-7 * J.norm(dim=1) * J.mean(0).norm()).all()


def test_at_a_stationary_point_it_takes_from_the_mean_what_raises_a_loss() -> None:
    """g₁ = −g₂, and g₃ across: along the first two nothing can be gained, along the third all can."""
    J = matrix([[1.0, 0.0], [-1.0, 0.0], [0.2, 1.0]])
    d = mtl.CAGrad(0.5)(J)
    torch.testing.assert_close(J[:2] @ d, vector(0.0, 0.0), rtol=0, atol=1e-6)
    assert J[2] @ d > 0.2


@pytest.mark.parametrize("c", [-0.1, float("nan"), float("inf")])
def test_a_radius_that_is_none_is_refused(c: float) -> None:
    with pytest.raises(ValueError, match=f"c is {c}"):
        mtl.CAGrad(c)
