"""Scalars for one point of the front, and UW-SO: against TorchJD, limits, and a front that is not convex."""

import math

import pytest
import torch
from cases import draw, vector
from torch import Tensor
from torchjd.scalarization import COSMOS, PBI, STCH

import mtl_ref as mtl
from mtl_ref.balancer import LossBalancer

L, W, Z = draw(1, 4, 1)[0].abs() + 0.5, vector(0.1, 0.4, 0.2, 0.3), vector(0.0, 0.1, 0.2, 0.3)


def weights(balancer: LossBalancer, losses: Tensor = L) -> Tensor:
    return balancer.backward(losses.clone().requires_grad_())


@pytest.mark.parametrize(
    ("ours", "other"),
    [
        (mtl.STCH(0.1), STCH(0.1)),
        (mtl.STCH(0.3, W, Z), STCH(0.3, W, Z)),
        (mtl.PBI(5.0, W), PBI(5.0, W)),
        (mtl.PBI(0.7, W, Z), PBI(0.7, W, Z)),
        (mtl.COSMOS(2.0, W), COSMOS(2.0, W)),
        (mtl.COSMOS(), COSMOS(1.0, vector(1, 1, 1, 1) / 4)),
    ],
    ids=lambda b: type(b).__name__,
)
def test_values_and_weights_are_torchjds(ours: LossBalancer, other: torch.nn.Module) -> None:
    at = L.clone().requires_grad_()
    torch.testing.assert_close(ours(L), other(L), rtol=1e-9, atol=0)
    torch.testing.assert_close(weights(ours), torch.autograd.grad(other(at), at)[0], rtol=1e-9, atol=1e-12)


def test_chebyshev_is_the_largest_weighted_loss_and_ties_share() -> None:
    balancer = mtl.Chebyshev([0.5, 0.25, 0.25], [1.0, 0.0, 0.0])
    assert balancer(vector(3.0, 1.0, 2.0)) == 1.0
    assert weights(balancer, vector(3.0, 1.0, 2.0)).tolist() == [0.5, 0.0, 0.0]
    assert weights(balancer, vector(2.0, 1.0, 2.0)).tolist() == [0.25, 0.0, 0.125]


@pytest.mark.parametrize("T", [2, 5])
def test_stch_lies_between_the_maximum_and_mu_log_T_above(T: int) -> None:
    for seed in range(20):
        losses = draw(1, T, seed)[0].abs()
        worst = mtl.Chebyshev()(losses)
        for mu in (1e-3, 0.1, 10.0):
            assert worst - 1e-12 <= mtl.STCH(mu)(losses) <= worst + mu * math.log(T) + 1e-12
    torch.testing.assert_close(
        weights(mtl.STCH(1e6), losses), torch.full((T,), 1 / T**2).double(), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(weights(mtl.STCH(1e-6), losses), weights(mtl.Chebyshev(), losses))


def descend(balancer: LossBalancer, start: float = 0.1) -> float:
    """Where plain steps end on the front L₁ = x, L₂ = √(1 − x²), which bulges away from the origin."""
    x = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    for _ in range(2500):
        x.grad = None
        balancer.backward(torch.stack([x, (1 - x * x).clamp(min=1e-12).sqrt()]))
        with torch.no_grad():
            x.sub_(0.002 * x.grad).clamp_(0.0, 1.0)
    return x.item()


def test_on_a_front_that_is_not_convex_a_sum_ends_at_an_end_and_the_others_inside() -> None:
    assert descend(mtl.EqualWeighting()) == 0.0
    assert descend(mtl.EqualWeighting(), 0.9) > 0.99
    for balancer in (mtl.Chebyshev(), mtl.STCH(0.01), mtl.PBI(5.0)):
        assert abs(descend(balancer) - 0.5**0.5) < 0.02
    two_to_one = mtl.Chebyshev([2.0, 1.0])  # where 2 x = √(1 − x²)
    assert abs(descend(two_to_one) - 0.2**0.5) < 0.02


def test_on_its_ray_pbi_is_finite_and_a_large_penalty_holds_to_it() -> None:
    assert weights(mtl.PBI(5.0, [1.0, 2.0]), vector(1.0, 2.0)).isfinite().all()
    assert weights(mtl.PBI(5.0, [1.0, 2.0]), vector(3.0, 2.0))[1] < 0  # the loss below the ray is driven up
    assert (weights(mtl.PBI(0.0, [1.0, 2.0]), vector(3.0, 2.0)) > 0).all()


def test_cosmos_rewards_losses_in_the_ratio_of_the_weights() -> None:
    balancer = mtl.COSMOS(3.0, [1.0, 2.0])
    torch.testing.assert_close(balancer(vector(1.0, 2.0)), vector(5.0 - 3.0)[0])
    assert weights(mtl.COSMOS(50.0, [1.0, 2.0]), vector(1.0, 1.0))[1] < 0


def test_uwso_is_its_formula_and_lies_between_the_mean_and_the_smallest_loss() -> None:
    expected = torch.softmax(1 / L / 0.7, 0)
    torch.testing.assert_close(weights(mtl.UWSO(0.7)), expected)
    torch.testing.assert_close(mtl.UWSO(0.7)(L), (expected * L).sum())
    torch.testing.assert_close(weights(mtl.UWSO(1e9)), torch.full((4,), 0.25).double())
    assert weights(mtl.UWSO(1e-6)).argmax() == L.argmin()


def test_arguments_that_make_no_sense_are_named() -> None:
    for make, message in [
        (lambda: mtl.STCH(0.0), "mu is 0.0, but must be a finite positive number"),
        (lambda: mtl.PBI(-1.0), "theta is -1.0, but must be a finite number that is not negative"),
        (lambda: mtl.COSMOS(math.nan), "penalty is nan"),
        (lambda: mtl.UWSO(-1.0), "temperature is -1.0"),
        (lambda: mtl.Chebyshev([1.0, 0.0]), "the weight of task 1 .* positive"),
        (lambda: mtl.Chebyshev([1.0, 1.0], [0.0]), "there are 2 weights, but 1 ideal losses"),
        (lambda: mtl.Chebyshev([1.0, 1.0])(L), "built for 2 tasks but was given 4 losses"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
