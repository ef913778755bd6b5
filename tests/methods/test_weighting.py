"""FixedWeighting and EqualWeighting, held to hand formulas through the public API."""

import math

import pytest
import torch
from cases import Net, vector
from hypothesis import given
from hypothesis import strategies as st

import mtl_ref as mtl

losses_and_weights = st.integers(1, 8).flatmap(
    lambda tasks: st.tuples(
        st.lists(st.floats(-1e12, 1e12), min_size=tasks, max_size=tasks),
        st.lists(st.floats(0, 1e6), min_size=tasks, max_size=tasks),
    )
)


def test_fixed_weighting_gives_the_weighted_sum() -> None:
    assert mtl.FixedWeighting([0.5, 2.0, 1.0])(vector(4.0, 3.0, -1.0)).item() == 7.0


def test_equal_weighting_gives_the_mean_and_not_the_sum() -> None:
    assert mtl.EqualWeighting()(vector(4.0, 3.0, -1.0)).item() == 2.0


@given(losses_and_weights)
def test_fixed_weighting_agrees_with_an_exact_sum_and_returns_its_weights(
    drawn: tuple[list[float], list[float]],
) -> None:
    losses, weights = drawn
    terms = [w * x for w, x in zip(weights, losses, strict=True)]
    balancer, leaf = mtl.FixedWeighting(vector(*weights)), vector(*losses).requires_grad_()
    exact = pytest.approx(math.fsum(terms), rel=1e-12, abs=1e-13 * math.fsum(map(abs, terms)))
    assert balancer(leaf).item() == exact
    assert balancer.backward(leaf).tolist() == leaf.grad.tolist() == weights


@given(losses_and_weights)
def test_equal_weighting_is_fixed_weighting_with_one_over_t(drawn: tuple[list[float], list[float]]) -> None:
    losses, _ = drawn
    tasks = len(losses)
    leaf = vector(*losses).requires_grad_()
    assert mtl.EqualWeighting().backward(leaf).tolist() == pytest.approx([1 / tasks] * tasks, rel=1e-15)
    fixed = mtl.FixedWeighting(torch.full((tasks,), 1 / tasks, dtype=torch.float64))
    size = sum(map(abs, losses))
    assert mtl.EqualWeighting()(leaf).item() == pytest.approx(fixed(leaf).item(), rel=1e-12, abs=1e-13 * size)


def test_the_plain_sum_steps_t_times_as_far_as_the_mean() -> None:
    mean, plain = Net(), Net()
    mtl.EqualWeighting().backward(mean.losses())
    mtl.FixedWeighting([1.0, 1.0, 1.0]).backward(plain.losses())
    torch.testing.assert_close(plain.grads(), 3 * mean.grads())


def test_opposite_gradients_cancel_and_equal_losses_count_once_each() -> None:
    theta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    mtl.EqualWeighting().backward(torch.stack([3 * theta, -3 * theta]))
    assert theta.grad.item() == 0.0
    mtl.FixedWeighting([1.0, 3.0]).backward(torch.stack([theta, theta]))
    assert theta.grad.item() == 4.0


def test_weights_are_a_copy_neither_normalised_nor_learned() -> None:
    given_weights = torch.tensor([0.5, 50.0])
    balancer = mtl.FixedWeighting(given_weights)
    given_weights.zero_()
    assert balancer.weights.tolist() == [0.5, 50.0]
    assert list(balancer.parameters()) == []
    assert list(mtl.EqualWeighting().state_dict()) == []


def test_whole_numbers_and_zeros_are_accepted_as_weights() -> None:
    assert mtl.FixedWeighting([0, 2])(vector(1.0, 1.0)).item() == 2.0


def test_state_dict_restores_the_weights() -> None:
    fresh = mtl.FixedWeighting([7.0, 7.0])
    fresh.load_state_dict(mtl.FixedWeighting([1.0, 2.0]).state_dict())
    assert fresh.weights.tolist() == [1.0, 2.0]
    assert fresh(vector(1.0, 1.0)).item() == 3.0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -0.5], r"weight of task 1 \(counting from 0\) is -0\.5.*not negative"),
        ([math.nan, 1.0], r"weight of task 0 \(counting from 0\) is nan.*finite"),
        ([1.0, math.inf], r"weight of task 1 \(counting from 0\) is inf.*finite"),
        ([], r"one number per task, but has shape \(0,\)"),
        ([[1.0, 2.0]], r"one number per task, but has shape \(1, 2\)"),
    ],
)
def test_bad_weights_are_named(weights: list[float] | list[list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mtl.FixedWeighting(weights)
