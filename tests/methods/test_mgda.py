"""MGDA: closed forms, TorchJD, and its promise over sampled matrices."""

from collections.abc import Callable

import pytest
import torch
from cases import Net, draw, gradient_matrices, vector
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchjd import aggregation

import mtl_ref as mtl
from mtl_ref.methods.mgda import NORMALIZERS

each_normalizer = pytest.mark.parametrize("normalize", NORMALIZERS)
each_solver = pytest.mark.parametrize("solver", [mtl.min_norm, mtl.min_norm_two, mtl.frank_wolfe])


def positive(T: int, seed: int) -> Tensor:
    return draw(T, 1, seed).squeeze(1).exp()


def scaled(J: Tensor, losses: Tensor, normalize: str) -> Tensor:
    """The gradients of which MGDA takes the min-norm point."""
    return mtl.MGDA(normalize=normalize).scale(J @ J.T, losses)[:, None] * J


# --- Closed forms


@each_solver
@pytest.mark.parametrize("seed", range(10))
def test_two_tasks_by_the_formula(solver: Callable[[Tensor], Tensor], seed: int) -> None:
    g1, g2 = J = draw(2, 3, seed)
    alpha = ((g2 - g1) @ g2 / (g1 - g2).square().sum()).clamp(0, 1)
    d, weights = mtl.MGDA(solver).combine(J)
    torch.testing.assert_close(weights, torch.stack([alpha, 1 - alpha]), rtol=0, atol=1e-12)
    torch.testing.assert_close(d, alpha * g1 + (1 - alpha) * g2)


@pytest.mark.parametrize(
    ("normalize", "weights"),
    [
        ("none", lambda n, L: n**-2 / (n**-2).sum()),
        ("l2", lambda n, L: n**-1 / len(n)),
        ("loss", lambda n, L: L * n**-2 / (L**2 * n**-2).sum()),
        ("loss+", lambda n, L: L * n**-1 / (L**2).sum()),
    ],
)
def test_orthogonal_gradients_by_the_formula(normalize: str, weights: Callable[[Tensor, Tensor], Tensor]) -> None:
    norms, losses = vector(1.0, 3.0, 0.2, 10.0), vector(2.0, 0.5, 8.0, 1.0)
    Q, _ = torch.linalg.qr(draw(6, 6))
    _, found = mtl.MGDA(normalize=normalize).combine(norms[:, None] * Q[:4], losses)
    torch.testing.assert_close(found, weights(norms, losses), rtol=1e-9, atol=0)


@each_normalizer
def test_a_zero_gradient_takes_all_the_weight_and_stops_the_step(normalize: str) -> None:
    J = torch.cat([draw(2, 3), torch.zeros(1, 3)])
    d, weights = mtl.MGDA(normalize=normalize).combine(J, vector(1.0, 2.0, 4.0))
    assert d.tolist() == [0, 0, 0]
    assert weights[:2].tolist() == [0, 0]


# --- TorchJD


@each_solver
def test_direction_agrees_with_torchjd_on_its_documented_example(solver: Callable[[Tensor], Tensor]) -> None:
    J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
    for d in (mtl.MGDA(solver)(J), aggregation.MGDA()(J)):
        torch.testing.assert_close(d, vector(0, 1, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_frank_wolfe_agrees_with_torchjd_step_for_step(seed: int) -> None:
    J = draw(4, 6, seed)
    theirs = aggregation.MGDA(epsilon=1e-12, max_iters=20)(J)
    ours = mtl.MGDA(lambda M: mtl.frank_wolfe(M, iterations=20, tolerance=0))(J)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


# --- Properties


@each_normalizer
@given(J=gradient_matrices(), seed=st.integers(0, 1000))
@settings(max_examples=100)
def test_direction_increases_no_loss(normalize: str, J: Tensor, seed: int) -> None:
    losses = positive(len(J), seed)
    d, weights = mtl.MGDA(normalize=normalize).combine(J, losses)
    assert (weights >= 0).all()
    norms = J.norm(dim=1)
    along = J @ d / torch.where(norms > 0, norms, 1.0)
    assert along.min() >= -1e-9 * scaled(J, losses, normalize).norm(dim=1).min()


@each_normalizer
@pytest.mark.parametrize("seed", range(10))
def test_every_task_with_a_weight_descends_at_the_same_rate_and_no_other_slower(normalize: str, seed: int) -> None:
    J, losses = draw(6, 8, seed), positive(6, seed + 50)
    d, weights = mtl.MGDA(normalize=normalize).combine(J, losses)
    rates = scaled(J, losses, normalize) @ d / d.square().sum()  # of the scaled losses
    torch.testing.assert_close(rates[weights > 0], torch.ones_like(rates)[weights > 0], rtol=1e-8, atol=0)
    assert (rates >= 1 - 1e-8).all()


@each_normalizer
@pytest.mark.parametrize("seed", range(10))
def test_direction_is_zero_at_a_pareto_stationary_point(normalize: str, seed: int) -> None:
    J, c, losses = draw(4, 6, seed), positive(4, seed + 9), vector(1.0, 2.0, 0.5, 3.0)
    J[3] = -(c[:3] @ J[:3]) / c[3]  # Σ cᵢ gᵢ = 0
    d = mtl.MGDA(normalize=normalize)(J, losses)
    assert d.norm() <= 1e-8 * scaled(J, losses, normalize).norm(dim=1).min()


def test_a_solver_of_two_takes_no_other_number_of_tasks() -> None:
    two, net = mtl.MGDA(mtl.min_norm_two), Net()
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        two(draw(3, 3))
    with pytest.raises(ValueError, match="built for 2 tasks but was given 3"):
        two.backward(net.losses(), **net.given("shared"))
    assert all(p.grad is None for p in net.parameters())
