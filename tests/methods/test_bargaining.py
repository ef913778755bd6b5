"""Nash-MTL and FairGrad against the equation that defines them, and the ends of FairGrad's range."""

import pytest
import torch
from cases import SCALES, draw, matrix, vector

import mtl_ref as mtl


def error(alpha: torch.Tensor, J: torch.Tensor, a: float) -> float:
    """‖M α − α^(−1/a)‖ ÷ ‖α^(−1/a)‖."""
    asked = alpha ** (-1 / a)
    return float((J @ (J.T @ alpha) - asked).norm() / asked.norm())


@pytest.mark.parametrize("a", [0.2, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("T", [2, 5, 40])
def test_every_task_gains_what_its_weight_asks_for(T: int, a: float) -> None:
    for seed in range(10):
        lengths = (2 * draw(T, 1, 1000 + seed)).exp()  # log-normal
        J = lengths * draw(T, 2 * T, seed)
        _, alpha = mtl.FairGrad(a).combine(J)
        assert (alpha > 0).all()
        assert error(alpha, J, a) < 1e-8, seed
        assert (J @ (J.T @ alpha) > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_fairgrad_with_1_is_nash_and_its_length_the_root_of_t(seed: int) -> None:
    J = draw(6, 8, seed)
    d, alpha = mtl.NashMTL().combine(J)
    torch.testing.assert_close(mtl.FairGrad(1.0).combine(J)[1], alpha)
    torch.testing.assert_close(d.norm(), vector(6.0)[0].sqrt())


def test_no_direction_of_its_length_has_a_larger_product_of_gains() -> None:
    J = draw(3, 4, 1)
    d = mtl.NashMTL()(J)
    best = (J @ d).log().sum()
    for seed in range(300):
        other = d + 0.3 * draw(1, 4, seed)[0]
        gains = J @ (other * d.norm() / other.norm())
        assert (gains <= 0).any() or gains.log().sum() <= best


@pytest.mark.parametrize("scale", SCALES)
def test_nash_does_not_change_when_one_loss_changes_its_unit(scale: float) -> None:
    J = draw(4, 6, 2)
    scaled = vector(1.0, scale, 1.0, 1.0)[:, None] * J
    torch.testing.assert_close(mtl.NashMTL()(scaled), mtl.NashMTL()(J), rtol=1e-8, atol=1e-9)


def test_fairgrad_goes_from_the_sum_to_the_largest_least_gain() -> None:
    J = draw(3, 8, 4).abs() * vector(1.0, 3.0, 0.5)[:, None]
    near, far = mtl.FairGrad(0.01)(J), mtl.FairGrad(100.0)(J)
    for d, limit in ((near, J.sum(0)), (far, mtl.MGDA()(J))):
        assert torch.cosine_similarity(d, limit, dim=0) > 0.999


def test_direction_is_the_one_of_torchjds_printed_example() -> None:
    d = mtl.NashMTL()(matrix([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
    torch.testing.assert_close(d, vector(0.0766, 0.9985, 0.9985), rtol=0, atol=5e-5)


@pytest.mark.parametrize("method", [mtl.NashMTL, mtl.FairGrad])
def test_a_zero_gradient_takes_no_part_and_a_stationary_point_is_kept(method: type) -> None:
    J = draw(3, 4)
    with_zero = torch.cat([J, torch.zeros(1, 4)])
    torch.testing.assert_close(method()(with_zero), method()(J))
    stationary = torch.cat([J, -J.sum(0, keepdim=True)])
    assert method()(stationary).tolist() == [0.0] * 4


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_an_alpha_that_is_none_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match=f"alpha is {alpha}"):
        mtl.FairGrad(alpha)
