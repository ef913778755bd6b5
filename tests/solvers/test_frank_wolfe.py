"""Frank–Wolfe: its steps by hand, its bound, and its gap against the exact solver."""

import pytest
import torch
from cases import draw, gradient_matrices, gram, matrix
from hypothesis import given, settings
from torch import Tensor

import mtl_ref as mtl

ZIGZAG = [[1.0, 1.0], [-1.0, 1.0], [0.1, 2.5]]


def half_square(M: Tensor, alpha: Tensor) -> float:
    return (alpha @ M @ alpha).item() / 2


def test_frank_wolfe_starts_in_the_middle() -> None:
    assert mtl.frank_wolfe(gram(draw(5, 9, 0)), iterations=0).tolist() == [0.2] * 5


def test_first_step_by_hand() -> None:
    # ĝ = (1/30, 1.5), inner products 46/30, 44/30, 3.75 + 1/300: to g₂ with γ = ⟨ĝ − g₂, ĝ⟩/‖ĝ − g₂‖²
    G, start = matrix(ZIGZAG), matrix([1 / 30, 1.5])
    gamma = ((start - G[1]) @ start / (start - G[1]).square().sum()).item()
    alpha = mtl.frank_wolfe(gram(G), iterations=1)
    assert alpha.tolist() == pytest.approx([(1 - gamma) / 3, (1 - gamma) / 3 + gamma, (1 - gamma) / 3], abs=1e-15)
    assert gamma == pytest.approx(0.595278, abs=1e-6)


def test_a_step_does_not_leave_the_simplex() -> None:
    # from (2, 0) to (1, 0) the shortest point of the whole line would be at γ = 2
    assert mtl.frank_wolfe(gram(matrix([[1, 0], [3, 0]]))).tolist() == [1, 0]


@pytest.mark.parametrize("iterations", [1, 2, 5, 10, 30, 100, 300])
@pytest.mark.parametrize("seed", range(6))
def test_frank_wolfe_keeps_its_bound_on_the_value(iterations: int, seed: int) -> None:
    G = matrix(ZIGZAG) if seed == 0 else draw(6, 4, seed)
    M = gram(G)
    alpha = mtl.frank_wolfe(M, iterations=iterations, tolerance=0)
    error = half_square(M, alpha) - half_square(M, mtl.min_norm(M))
    diameter = torch.cdist(G, G).max().item()
    assert -1e-12 <= error <= 2 * diameter**2 / (iterations + 2)
    assert error <= mtl.duality_gap(M, alpha) + 1e-12


def test_frank_wolfe_really_is_as_slow_as_one_over_k() -> None:
    M = gram(matrix(ZIGZAG))
    gaps = [k * mtl.duality_gap(M, mtl.frank_wolfe(M, k, tolerance=0)).item() for k in (10, 100, 1000)]
    assert gaps == pytest.approx([0.789131, 0.954907, 0.993071], abs=1e-6)


@given(gradient_matrices())
@settings(max_examples=100)
def test_frank_wolfe_stays_on_the_simplex_and_its_gap_bounds_the_error(J: Tensor) -> None:
    M = gram(J)
    alpha = mtl.frank_wolfe(M)
    assert (alpha >= 0).all()
    assert alpha.sum().item() == pytest.approx(1, abs=1e-12)
    best = mtl.min_norm(M)
    scale = M.diag().max().item()
    gap = mtl.duality_gap(M, alpha).item()
    distance = J.T @ (alpha - best)
    assert (distance @ distance).item() <= gap + 1e-10 * scale
    assert (M @ alpha).min().item() >= (alpha @ M @ alpha).item() - gap - 1e-12 * scale


def test_frank_wolfe_stops_at_its_tolerance() -> None:
    for seed in range(20):
        M = gram(draw(5, 20, seed))
        for tolerance in (1e-1, 1e-2, 1e-3):
            alpha = mtl.frank_wolfe(M, iterations=100_000, tolerance=tolerance)
            assert mtl.duality_gap(M, alpha) <= tolerance * M.diag().max()
    far_apart = torch.diag(matrix([1.0, 1.0, 1e4]))  # relative to the longest, not to the shortest
    assert mtl.frank_wolfe(far_apart, tolerance=0.5).tolist() == [1 / 3] * 3
    G = gram(matrix(ZIGZAG))
    early, late = (mtl.frank_wolfe(G, 1000, tolerance=t) for t in (0.1, 0))
    assert mtl.duality_gap(G, early) > 10 * mtl.duality_gap(G, late)


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_frank_wolfe_does_not_depend_on_the_scale_of_all_gradients(factor: float) -> None:
    J = draw(5, 3, 1)
    torch.testing.assert_close(mtl.frank_wolfe(gram(factor * J)), mtl.frank_wolfe(gram(J)), rtol=1e-6, atol=1e-8)


def test_the_slides_argmax_never_moves() -> None:
    for seed in range(100):
        M = gram(draw(5, 10, seed))
        alpha = torch.full((5,), 0.2, dtype=torch.float64)
        inner = M @ alpha
        t = inner.argmax()
        gamma = (inner @ alpha - inner[t]) / (inner @ alpha + M[t, t] - 2 * inner[t])
        assert gamma.clamp(0, 1) == 0
        assert half_square(M, mtl.frank_wolfe(M, iterations=5)) < half_square(M, alpha)
