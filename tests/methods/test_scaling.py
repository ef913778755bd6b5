"""Losses scaled by initial, prior and real-time values, and means, against closed forms in NumPy and SciPy."""

import numpy as np
import pytest
import torch
from cases import vector
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

import mtl_ref as mtl

VALUES = [2.0, 0.5, 8.0]
INITIAL = np.array([4.0, 0.25, 3.0])
G = 2.0  # the geometric mean of VALUES

scales = st.floats(-12, 12).map(lambda exponent: 10.0**exponent)
sampled_losses = st.lists(scales, min_size=1, max_size=6).flatmap(
    lambda losses: st.sampled_from([losses, losses * 2, [losses[0]] * len(losses)])
)
exponents = st.one_of(
    st.floats(-5, 5).filter(lambda gamma: gamma == 0 or abs(gamma) > 1e-200),  # M / γ must not overflow
    st.sampled_from([0, 1e-9, -1e-15, 1e-100, 1, -1, 100, -1e4, 1e30, -1e300]),
)


def value_and_weights(balancer, values, dtype=torch.float64):
    losses = torch.tensor(values, dtype=dtype, requires_grad=True)
    total = balancer(losses)
    (weights,) = torch.autograd.grad(total, losses)
    return total.item(), weights.numpy()


def close(found, expected, rel=1e-12):
    return bool(found == pytest.approx(expected, rel=rel, abs=0))


@pytest.mark.parametrize("losses", [VALUES, [1e-300, 1e300, 1.0], [1e300] * 3], ids=str)  # products overflow
@pytest.mark.parametrize(
    ("balancer", "value", "weights"),
    [
        (mtl.InitialLossScaling(vector(*INITIAL)), lambda L: (L / INITIAL).sum(), lambda L: 1 / INITIAL),
        (mtl.PriorLossScaling(vector(*INITIAL)), lambda L: (L / INITIAL).sum(), lambda L: 1 / INITIAL),
        (mtl.RealTimeLossScaling(), lambda L: 3, lambda L: 1 / L),
        (mtl.GeometricMean(), stats.gmean, lambda L: stats.gmean(L) / (3 * L)),
        (mtl.PowerMean(0), stats.gmean, lambda L: stats.gmean(L) / (3 * L)),
    ],
)
def test_values_and_weights_are_the_closed_forms(balancer, value, weights, losses):
    found, found_weights = value_and_weights(balancer, losses)
    assert close(found, value(np.array(losses)))
    assert close(found_weights, weights(np.array(losses)))


def test_initial_scaling_measures_the_first_losses_and_keeps_them():
    balancer = mtl.InitialLossScaling()
    for losses in (INITIAL.tolist(), VALUES, [0.0, 0.5, 0.0]):  # later losses may be zero
        total, weights = value_and_weights(balancer, losses)
        assert close(total, (losses / INITIAL).sum())
        assert close(weights, 1 / INITIAL)


@pytest.mark.parametrize("gamma", [-300.5, -2, -1, -0.5, 1e-3, 0.5, 1, 2, 3.25, 300])
def test_power_mean_agrees_with_scipy(gamma):
    total, weights = value_and_weights(mtl.PowerMean(gamma), VALUES)
    assert close(total, stats.pmean(VALUES, gamma), rel=1e-11)
    assert weights == pytest.approx([(x / total) ** (gamma - 1) / 3 for x in VALUES], rel=1e-11, abs=1e-300)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [1e-4, 1e-7, 1e-12, 1e-16, 1e-17, 1e-30])
@pytest.mark.parametrize("sign", [1, -1])
def test_power_mean_tends_to_the_geometric_mean_without_losing_digits(dtype, gamma, sign):
    total, weights = value_and_weights(mtl.PowerMean(sign * gamma), VALUES, dtype)
    epsilon = torch.finfo(dtype).eps
    spread = np.var(np.log(VALUES))  # M(γ) = G (1 + γ var(log L)/2 + …)
    assert close(total, G * (1 + sign * gamma * spread / 2), rel=20 * epsilon + 10 * gamma**2)
    assert close(weights.tolist(), [G / (3 * x) for x in VALUES], rel=20 * epsilon + 10 * gamma)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [1e3, 1e6, 1e12, 1e30])
def test_a_large_exponent_follows_the_largest_loss_and_a_large_negative_one_the_smallest(dtype, gamma):
    for sign, followed in ((1, 2), (-1, 1)):
        total, weights = value_and_weights(mtl.PowerMean(sign * gamma), VALUES, dtype)
        assert close(total, VALUES[followed], rel=2 / gamma + 1e-6)
        assert weights.tolist() == pytest.approx(np.eye(3)[followed].tolist(), abs=2 / gamma + 1e-6)


@given(sampled_losses, exponents, exponents, scales)
def test_power_means_lie_between_the_losses_grow_with_the_exponent_and_are_homogeneous(values, one, other, factor):
    low, high = sorted([one, other])
    smaller, _ = value_and_weights(mtl.PowerMean(low), values)
    larger, weights = value_and_weights(mtl.PowerMean(high), values)
    assert min(values) * (1 - 1e-12) <= smaller <= larger * (1 + 1e-12) <= max(values) * (1 + 1e-11)
    assert (weights >= 0).all()
    assert close(weights @ values, larger, rel=1e-9)  # Euler's theorem
    assert close(value_and_weights(mtl.PowerMean(high), [factor * x for x in values])[0], factor * larger, 1e-10)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20), st.integers(0, 3))
@example([2**24 + 1, 1], 0)  # no float32
def test_an_answer_without_the_input_has_the_entropy_of_its_frequencies_as_its_cross_entropy(counts, unseen):
    found = mtl.prior_cross_entropy(counts + [0.0] * unseen)
    assert found == pytest.approx(stats.entropy(counts), rel=1e-12, abs=1e-12)
    assert close(mtl.uniform_cross_entropy(len(counts) + 1), stats.entropy(np.ones(len(counts) + 1)))


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3), min_size=1, max_size=8))
def test_squared_errors_without_the_input_are_summed_over_outputs_and_averaged_over_samples(rows):
    y = np.array(rows)
    for targets, columns in ((y, y), (y[:, 0], y[:, :1])):
        squares = (columns**2).sum(1)
        assert mtl.zero_mse(torch.from_numpy(targets)) == pytest.approx(squares.mean(), rel=1e-12, abs=1e-300)
        assert mtl.prior_mse(torch.from_numpy(targets)) == pytest.approx(columns.var(0).sum(), rel=1e-9, abs=1e-9)
    assert mtl.zero_mse(torch.tensor([[1, 3], [3, 7]])) == (1 + 9 + 9 + 49) / 2  # whole numbers too
