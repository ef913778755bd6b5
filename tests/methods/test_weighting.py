"""FixedWeighting and EqualWeighting, held to hand formulas through the public API."""

import math

import pytest
import torch
from cases import Net, vector
from hypothesis import given
from hypothesis import strategies as st

import mtl_ref as mtl

loss = st.floats(-1e12, 1e12, allow_subnormal=False)  # a processor may take subnormal numbers for zero
weight = st.floats(0, 1e6, allow_subnormal=False)
losses_and_weights = st.lists(st.tuples(loss, weight), min_size=1, max_size=8)


def test_fixed_weighting_gives_the_weighted_sum_and_equal_weighting_the_mean() -> None:
    losses = vector(4.0, 3.0, -1.0)
    assert mtl.FixedWeighting([0.5, 2.0, 1.0])(losses).item() == 7.0
    assert mtl.FixedWeighting([0, 2, 0])(losses).item() == 6.0  # whole numbers and zeros too
    assert mtl.EqualWeighting()(losses).item() == 2.0


@given(losses_and_weights)
def test_fixed_weighting_agrees_with_an_exact_sum_and_returns_its_weights_as_they_are(drawn) -> None:
    losses, weights = (list(column) for column in zip(*drawn, strict=True))
    terms = [w * x for x, w in drawn]
    balancer, leaf = mtl.FixedWeighting(vector(*weights)), vector(*losses).requires_grad_()
    exact = pytest.approx(math.fsum(terms), rel=1e-12, abs=1e-13 * math.fsum(map(abs, terms)))
    assert balancer(leaf).item() == exact
    assert balancer.backward(leaf).tolist() == leaf.grad.tolist() == weights


@given(losses_and_weights)
def test_equal_weighting_is_fixed_weighting_with_one_over_t(drawn) -> None:
    losses = vector(*(x for x, _ in drawn)).requires_grad_()
    share = torch.full_like(losses, 1 / len(losses))
    torch.testing.assert_close(mtl.EqualWeighting().backward(losses), share.detach(), rtol=1e-15, atol=0)
    found, fixed = mtl.EqualWeighting()(losses), mtl.FixedWeighting(share)(losses)
    assert found.item() == pytest.approx(fixed.item(), rel=1e-12, abs=1e-13 * losses.abs().sum().item())


def test_the_plain_sum_steps_t_times_as_far_as_the_mean() -> None:
    mean, plain = Net(), Net()
    mtl.EqualWeighting().backward(mean.losses())
    mtl.FixedWeighting([1.0, 1.0, 1.0]).backward(plain.losses())
    torch.testing.assert_close(plain.grads(), 3 * mean.grads())
