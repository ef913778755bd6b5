"""Normalized against the same methods on gradients that were divided by hand."""

import pytest
import torch
from cases import SCALES, Method, build, draw, matrix_rows, vector

import mtl_ref as mtl

INNER = [mtl.MGDA(), mtl.UPGrad(), mtl.CAGrad(), mtl.AlignedMTL(), mtl.NashMTL(), mtl.FairGrad(2.0)]


@pytest.mark.parametrize("inner", INNER, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("scale", SCALES)
def test_it_is_the_method_on_unit_gradients_in_whatever_units(inner: mtl.GradientBalancer, scale: float) -> None:
    J = draw(4, 6, 1)
    units = vector(1.0, scale, 1.0, 10.0)[:, None]
    expected = inner(J / J.norm(dim=1, keepdim=True))
    torch.testing.assert_close(mtl.Normalized(inner)(units * J), expected, rtol=1e-7, atol=1e-9)


def test_with_mgda_it_is_mgdas_l2_and_with_pcgrad_of_two_a_multiple_of_the_bisector() -> None:
    J = vector(1.0, 100.0)[:, None] * draw(2, 5, 2)
    torch.testing.assert_close(mtl.Normalized(mtl.MGDA())(J), mtl.MGDA(normalize="l2")(J))
    d, bisector = mtl.Normalized(mtl.PCGrad())(J), mtl.GradientNormalization()(J)
    torch.testing.assert_close(d / d.norm(), bisector / bisector.norm())


def test_a_condition_of_the_inner_method_is_checked() -> None:
    x = torch.ones(2, requires_grad=True)
    losses = torch.stack([x.sum(), -x.sum()])
    with pytest.raises(ValueError, match="loss"):
        mtl.Normalized(mtl.MGDA(normalize="loss")).backward(losses, shared=[x])
    assert x.grad is None


def test_what_is_no_method_of_the_gradients_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a method of the gradients"):
        mtl.Normalized(mtl.EqualWeighting())


@matrix_rows
def test_a_method_that_needs_more_than_the_gram_matrix_is_refused(row: Method) -> None:
    inner = build(row)
    with pytest.raises(ValueError, match=f"{type(inner).__name__} needs more of the gradients than their Gram"):
        mtl.Normalized(inner)
