"""NTKMTL against the released formula on the gradients, and against plain normalisation."""

import pytest
import torch
from cases import SCALES, draw, vector
from torch import Tensor

import mtl_ref as mtl


def released(J: Tensor, exponent: float) -> Tensor:
    """Σ (tr JJᵀ / ‖gᵢ‖²)^p gᵢ, before the authors' code multiplies by T and clips."""
    kernels = torch.stack([g @ g for g in J])
    return sum((kernels.sum() / kernel) ** exponent * g for kernel, g in zip(kernels, J, strict=True))


@pytest.mark.parametrize("exponent", [0.0, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("scale", SCALES)
def test_direction_is_that_of_the_released_formula(exponent: float, scale: float) -> None:
    J = vector(1.0, scale, 3.0)[:, None] * draw(3, 5)
    torch.testing.assert_close(mtl.NTKMTL(exponent)(J), released(J, exponent), rtol=1e-9, atol=0)


@pytest.mark.parametrize("T", [1, 2, 5])
def test_with_a_half_it_is_the_sum_of_unit_gradients_times_the_norm_of_the_matrix(T: int) -> None:
    J = 10.0 ** draw(T, 1, 1) * draw(T, 6)
    torch.testing.assert_close(mtl.NTKMTL()(J), J.norm() * mtl.GradientNormalization()(J))


def test_a_zero_gradient_has_no_weight_and_priorities_multiply() -> None:
    J = torch.cat([draw(2, 4), torch.zeros(1, 4)])
    _, alpha = mtl.NTKMTL().combine(J)
    assert alpha[2] == 0
    _, with_them = mtl.NTKMTL(priorities=[2.0, 1.0, 5.0]).combine(J)
    torch.testing.assert_close(with_them, alpha * vector(2.0, 1.0, 5.0))


@pytest.mark.parametrize("exponent", [-1.0, float("inf"), float("nan")])
def test_an_exponent_that_is_none_is_refused(exponent: float) -> None:
    with pytest.raises(ValueError, match=r"exponent is .*, but must be a finite number that is not negative"):
        mtl.NTKMTL(exponent)


def test_the_exponent_is_shown_with_the_priorities_or_without() -> None:
    assert "NTKMTL(exponent=0.75)" in repr(mtl.NTKMTL(0.75))
    assert "NTKMTL(exponent=0.5, priorities=[1.0, 2.0])" in repr(mtl.NTKMTL(priorities=[1.0, 2.0]))


def test_priorities_of_another_number_are_refused_for_losses_and_for_gradients() -> None:
    balancer = mtl.NTKMTL(priorities=[1.0, 2.0])
    for ask in (lambda: balancer.check(vector(1, 1, 1)), lambda: balancer(draw(3, 4))):
        with pytest.raises(ValueError, match="built for 2 tasks but was given 3 losses"):
            ask()
