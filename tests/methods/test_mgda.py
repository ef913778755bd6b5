"""MGDA: closed forms, the exact solver, TorchJD, and its promise over sampled matrices."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from cases import Net, draw, gradient_matrices
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchjd import aggregation

import mtl_ref as mtl
from mtl_ref.methods.mgda import NORMALIZERS

generous = settings(max_examples=100)
each_normalizer = pytest.mark.parametrize("normalize", NORMALIZERS)


def matrix(rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def gram(J: Tensor) -> Tensor:
    return J @ J.T


# --- Closed forms of MGDA


def mgda(J: Tensor, losses: list[float] | None = None, **settings_: object) -> tuple[Tensor, Tensor]:
    d, weights = mtl.MGDA(**settings_).combine(J, None if losses is None else matrix(losses))  # type: ignore[arg-type]
    assert weights is not None
    return d, weights


def test_two_tasks_by_the_formula() -> None:
    for seed in range(50):
        g1, g2 = J = draw(2, 3, seed)
        alpha = float(np.clip(((g2 - g1) @ g2 / (g1 - g2).square().sum()).item(), 0, 1))
        for solver in (mtl.min_norm, mtl.min_norm_two, mtl.frank_wolfe):
            d, weights = mgda(J, solver=solver)
            assert weights.tolist() == pytest.approx([alpha, 1 - alpha], abs=1e-12)
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
    norms, losses = matrix([1.0, 3.0, 0.2, 10.0]), matrix([2.0, 0.5, 8.0, 1.0])
    Q, _ = torch.linalg.qr(draw(6, 6, 0))
    J = norms[:, None] * Q[:4]
    d, found = mgda(J, losses.tolist(), normalize=normalize)
    torch.testing.assert_close(found, weights(norms, losses), rtol=1e-9, atol=0)
    torch.testing.assert_close(d, found @ J)


def test_opposite_gradients_cancel_and_equal_gradients_are_kept() -> None:
    d, weights = mgda(matrix([[2.0, 0.0], [-1.0, 0.0]]))
    assert weights.tolist() == pytest.approx([1 / 3, 2 / 3], abs=1e-9)
    assert d.tolist() == pytest.approx([0, 0], abs=1e-9)
    d, weights = mgda(matrix([[1.0, 2.0]] * 3))
    assert weights.tolist() == pytest.approx([1 / 3] * 3)
    assert d.tolist() == pytest.approx([1, 2])


@each_normalizer
def test_one_task_keeps_its_direction(normalize: str) -> None:
    J = draw(1, 4, 0)
    d, weights = mgda(J, [2.0], normalize=normalize)
    scale = {"none": 1, "l2": 1 / J.norm(), "loss": 0.5, "loss+": 0.5 / J.norm()}[normalize]
    torch.testing.assert_close(d, scale * J[0])
    assert weights.tolist() == pytest.approx([float(scale)])


def test_l2_is_gradient_normalisation_for_two_tasks() -> None:
    for seed in range(20):
        J = draw(2, 5, seed)
        half = mtl.GradientNormalization()(J) / 2
        torch.testing.assert_close(mgda(J, normalize="l2")[0], half, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("exponent", [-12, -1, 1, 12])
def test_what_each_normaliser_is_invariant_to(exponent: int) -> None:
    J, losses = draw(3, 7, 3), matrix([2.0, 0.5, 8.0])
    factor = matrix([1.0, 10.0**exponent, 1.0])

    def direction(normalize: str, J: Tensor, losses: Tensor) -> Tensor:
        return mgda(J, losses.tolist(), normalize=normalize)[0]

    longer, other_unit = factor[:, None] * J, factor * losses
    same = {"rtol": 1e-8, "atol": 1e-12}
    torch.testing.assert_close(direction("l2", longer, losses), direction("l2", J, losses), **same)
    torch.testing.assert_close(direction("loss+", longer, losses), direction("loss+", J, losses), **same)
    torch.testing.assert_close(direction("loss", longer, other_unit), direction("loss", J, losses), **same)
    torch.testing.assert_close(direction("l2", longer, other_unit), direction("l2", J, losses), **same)
    for normalize in ("none", "loss+"):
        changed = direction(normalize, longer, other_unit)
        assert (changed - direction(normalize, J, losses)).norm() > 0.01 * changed.norm()


# --- TorchJD


def test_mgda_agrees_with_torchjd_on_its_documented_example() -> None:
    J = matrix([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    for solver in (mtl.min_norm, mtl.min_norm_two, mtl.frank_wolfe):
        d = mtl.MGDA(solver)(J)
        assert d.tolist() == pytest.approx([0, 1, 1], abs=1e-6)
        torch.testing.assert_close(d, aggregation.MGDA()(J), rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_frank_wolfe_agrees_with_torchjd_step_for_step(seed: int) -> None:
    J = draw(4, 6, seed)
    theirs = aggregation.MGDA(epsilon=1e-12, max_iters=20)(J)
    ours = mtl.MGDA(lambda M: mtl.frank_wolfe(M, iterations=20, tolerance=0))(J)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_the_exact_solver_is_never_longer_than_torchjds_hundred_iterations() -> None:
    ratios = []
    for seed in range(10):
        J = draw(40, 50, seed) * draw(40, 1, seed + 100).exp()
        ratios.append((aggregation.MGDA()(J).norm() / mtl.MGDA()(J).norm()).item())
    assert min(ratios) >= 1 - 1e-9
    assert max(ratios) > 1.05


# --- Properties over sampled matrices


def shortest_length(J: Tensor, normalize: str, losses: Tensor) -> Tensor:
    """The smallest length of the scaled gradients, to which rounding is compared."""
    s = mtl.MGDA(normalize=normalize).scale(gram(J), losses)
    return (s * J.norm(dim=1)).min()


@each_normalizer
@given(J=gradient_matrices(), seed=st.integers(0, 1000))
@generous
def test_direction_increases_no_loss_and_is_finite(normalize: str, J: Tensor, seed: int) -> None:
    losses = draw(len(J), 1, seed).squeeze(1).exp()
    d, weights = mgda(J, losses.tolist(), normalize=normalize)
    assert d.isfinite().all()
    assert weights.isfinite().all()
    assert (weights >= 0).all()
    torch.testing.assert_close(d, weights @ J)
    norms = J.norm(dim=1)
    along = J @ d / torch.where(norms > 0, norms, 1.0)
    assert along.min() >= -1e-9 * shortest_length(J, normalize, losses)


@each_normalizer
def test_every_task_with_a_weight_descends_at_the_same_rate(normalize: str) -> None:
    for seed in range(30):
        J, losses = draw(6, 8, seed), draw(6, 1, seed + 50).squeeze(1).exp()
        d, weights = mgda(J, losses.tolist(), normalize=normalize)
        s = mtl.MGDA(normalize=normalize).scale(gram(J), losses)
        rates = s * (J @ d)  # of the scaled losses
        assert rates[weights > 0].tolist() == pytest.approx([(d @ d).item()] * int((weights > 0).sum()), rel=1e-8)
        assert (rates >= (d @ d) * (1 - 1e-8)).all()


@pytest.mark.parametrize("factor", [1e-12, 1e-3, 1e12])
def test_direction_is_scale_equivariant(factor: float) -> None:
    J = draw(5, 8, 2)
    for solver in (mtl.min_norm, mtl.frank_wolfe):
        torch.testing.assert_close(mtl.MGDA(solver)(factor * J) / factor, mtl.MGDA(solver)(J))


@each_normalizer
def test_direction_is_zero_at_a_pareto_stationary_point(normalize: str) -> None:
    for seed in range(20):
        J = draw(4, 6, seed)
        positive = draw(4, 1, seed + 9).squeeze(1).exp()
        J[3] = -(positive[:3] @ J[:3]) / positive[3]  # Σ positiveᵢ gᵢ = 0
        d, _ = mgda(J, [1.0, 2.0, 0.5, 3.0], normalize=normalize)
        assert d.norm() <= 1e-8 * shortest_length(J, normalize, matrix([1.0, 2.0, 0.5, 3.0]))


@each_normalizer
def test_a_zero_gradient_takes_all_the_weight_and_stops_the_step(normalize: str) -> None:
    J = torch.cat([draw(2, 3, 0), torch.zeros(1, 3, dtype=torch.float64)])
    d, weights = mgda(J, [1.0, 2.0, 4.0], normalize=normalize)
    assert d.tolist() == [0, 0, 0]
    assert weights[:2].tolist() == [0, 0]
    d, weights = mgda(torch.zeros(3, 4, dtype=torch.float64), [1.0, 2.0, 4.0], normalize=normalize)
    assert d.tolist() == [0] * 4
    assert weights.isfinite().all()


def test_a_step_along_the_direction_decreases_every_loss() -> None:
    net = Net()
    before = net.losses()
    mtl.MGDA().backward(before, **net.given("shared"))
    with torch.no_grad():
        for p in net.encoder.parameters():
            p -= 1e-4 * p.grad
    assert (net.losses() < before).all()


def test_none_is_the_normaliser_for_a_grad_scaler() -> None:
    J, losses = draw(3, 5, 0), matrix([1.0, 2.0, 3.0])
    for normalize, power in {"none": 1, "l2": 0, "loss": 0, "loss+": -1}.items():
        balancer = mtl.MGDA(normalize=normalize)
        expected = 1024.0**power * balancer(J, losses)
        torch.testing.assert_close(balancer(1024 * J, 1024 * losses), expected)


# --- Bad input


def test_unknown_normalisers_and_other_than_two_tasks_for_min_norm_two_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'L2'.*\['none', 'l2', 'loss', 'loss\+'\]"):
        mtl.MGDA(normalize="L2")
    two, net = mtl.MGDA(mtl.min_norm_two), Net()
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        two(draw(3, 3, 0))
    with pytest.raises(ValueError, match="built for 2 tasks but was given 3"):
        two.backward(net.losses(), **net.given("shared"))
    assert all(p.grad is None for p in net.parameters())


def test_it_says_what_it_is() -> None:
    assert repr(mtl.MGDA()) == "MGDA(solver=min_norm, normalize=none)"
    assert repr(mtl.MGDA(mtl.frank_wolfe, "l2")) == "MGDA(solver=frank_wolfe, normalize=l2)"


@pytest.mark.parametrize("normalize", ["loss", "loss+"])
def test_a_loss_that_is_not_positive_cannot_divide_its_gradient(normalize: str) -> None:
    with pytest.raises(ValueError, match="task 1"):
        mtl.MGDA(normalize=normalize)(draw(2, 3), matrix([1.0, -1.0]))
