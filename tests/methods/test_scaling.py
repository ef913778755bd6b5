"""Losses scaled by initial, prior and real-time values, and means, against closed forms in NumPy and SciPy."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

import mtl_ref as mtl

Balancer = mtl.LossBalancer

VALUES = [2.0, 0.5, 8.0]
INITIAL = [4.0, 0.25, 3.0]
POSITIVE: list[Balancer] = [
    mtl.InitialLossScaling(),
    mtl.RealTimeLossScaling(),
    mtl.GeometricMean(),
    *(mtl.PowerMean(gamma) for gamma in (-2, 0, 1e-9, 3.0)),
]

scales = st.floats(-12, 12).map(lambda exponent: 10.0**exponent)
sampled_losses = st.lists(scales, min_size=1, max_size=6).flatmap(
    lambda losses: st.sampled_from([losses, losses * 2, [losses[0]] * len(losses)])
)
exponents = st.one_of(
    st.floats(-5, 5).filter(lambda gamma: gamma == 0 or abs(gamma) > 1e-200),  # M / γ must not overflow
    st.sampled_from([0, 1e-9, -1e-15, 1e-100, 1, -1, 100, -1e4, 1e30, -1e300]),
)


def on_graph(values: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def value_and_weights(balancer: Balancer, values: list[float]) -> tuple[float, np.ndarray]:
    losses = on_graph(values)
    total = balancer(losses)
    assert total.shape == ()
    (weights,) = torch.autograd.grad(total, losses)
    return total.item(), weights.numpy()


def close(found: object, expected: object, rel: float = 1e-12) -> bool:
    return bool(found == pytest.approx(expected, rel=rel, abs=0))


# --- Values and weights


@pytest.mark.parametrize("method", [mtl.InitialLossScaling, mtl.PriorLossScaling])
def test_initial_and_prior_scaling_are_the_sum_of_quotients(
    method: Callable[[Tensor], Balancer],
) -> None:
    total, weights = value_and_weights(method(torch.tensor(INITIAL, dtype=torch.float64)), VALUES)
    assert close(total, 2 / 4 + 0.5 / 0.25 + 8 / 3)
    assert close(weights, [1 / 4, 1 / 0.25, 1 / 3])


def test_initial_scaling_measures_the_first_losses_and_keeps_them() -> None:
    balancer = mtl.InitialLossScaling()
    total, weights = value_and_weights(balancer, INITIAL)
    assert close(total, 3)
    assert close(weights, [1 / x for x in INITIAL])
    total, weights = value_and_weights(balancer, VALUES)
    assert close(total, 2 / 4 + 0.5 / 0.25 + 8 / 3)
    assert close(weights, [1 / x for x in INITIAL])


def test_a_loss_may_reach_zero_after_its_initial_value_is_known() -> None:
    total, weights = value_and_weights(mtl.InitialLossScaling(INITIAL), [0.0, 0.5, 0.0])
    assert close(total, 2)
    assert close(weights, [1 / 4, 4, 1 / 3], rel=1e-6)


def test_real_time_scaling_has_the_value_T_and_the_gradient_of_the_sum_of_logarithms() -> None:
    total, weights = value_and_weights(mtl.RealTimeLossScaling(), VALUES)
    assert close(total, 3)
    assert close(weights, [1 / 2, 1 / 0.5, 1 / 8])


def test_geometric_mean_agrees_with_scipy_and_weighs_by_its_quotient_with_the_loss() -> None:
    total, weights = value_and_weights(mtl.GeometricMean(), VALUES)
    assert close(total, stats.gmean(VALUES))
    assert close(total, 2)
    assert close(weights, [total / (3 * x) for x in VALUES])


@pytest.mark.parametrize("gamma", [-300.5, -2, -1, -0.5, 1e-3, 0.5, 1, 2, 3.25, 300])
def test_power_mean_agrees_with_scipy(gamma: float) -> None:
    total, weights = value_and_weights(mtl.PowerMean(gamma), VALUES)
    assert close(total, stats.pmean(VALUES, gamma), rel=1e-11)
    assert weights == pytest.approx([(x / total) ** (gamma - 1) / 3 for x in VALUES], rel=1e-11, abs=1e-300)


def test_power_mean_at_its_named_exponents() -> None:
    assert close(value_and_weights(mtl.PowerMean(1), VALUES)[0], 3.5)
    assert close(value_and_weights(mtl.PowerMean(0), VALUES)[0], 2.0)
    assert close(value_and_weights(mtl.PowerMean(-1), VALUES)[0], stats.hmean(VALUES))
    assert close(value_and_weights(mtl.PowerMean(2), VALUES)[0], math.sqrt((4 + 0.25 + 64) / 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [1e-4, 1e-7, 1e-12, 1e-16, 1e-17, 1e-30])
@pytest.mark.parametrize("sign", [1, -1])
def test_power_mean_tends_to_the_geometric_mean_without_losing_digits(
    dtype: torch.dtype, gamma: float, sign: int
) -> None:
    losses = on_graph(VALUES, dtype)
    total = mtl.PowerMean(sign * gamma)(losses)
    (weights,) = torch.autograd.grad(total, losses)
    epsilon = torch.finfo(dtype).eps
    spread = np.var(np.log(VALUES))  # M(γ) = G (1 + γ var(log L)/2 + …)
    assert close(total.item(), 2 * (1 + sign * gamma * spread / 2), rel=20 * epsilon + 10 * gamma**2)
    assert close(weights.tolist(), [2 / (3 * x) for x in VALUES], rel=20 * epsilon + 10 * gamma)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [1e3, 1e6, 1e12, 1e30])
def test_a_large_exponent_follows_the_largest_loss_and_a_large_negative_one_the_smallest(
    dtype: torch.dtype, gamma: float
) -> None:
    for sign, expected, followed in [(1, 8.0, 2), (-1, 0.5, 1)]:
        losses = on_graph(VALUES, dtype)
        total = mtl.PowerMean(sign * gamma)(losses)
        (weights,) = torch.autograd.grad(total, losses)
        assert close(total.item(), expected, rel=2 / gamma + 1e-6)
        one_hot = [float(task == followed) for task in range(3)]
        assert weights.tolist() == pytest.approx(one_hot, abs=2 / gamma + 1e-6)


@pytest.mark.parametrize("values", [[1e-300, 1e300, 1.0], [1e-12] * 40, [1e12] * 40, [1e300] * 3])
def test_no_mean_overflows_where_the_product_of_the_losses_does(values: list[float]) -> None:
    expected = math.exp(math.fsum(math.log(x) for x in values) / len(values))
    for balancer in (mtl.GeometricMean(), mtl.PowerMean(0)):
        total, weights = value_and_weights(balancer, values)
        assert close(total, expected)
        assert close(weights, [expected / len(values) / x for x in values])


# --- What an answer without learning costs


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_uniform_cross_entropy_is_that_of_equal_logits(classes: int) -> None:
    logits = torch.full((1, classes), 0.7, dtype=torch.float64)
    expected = nn.functional.cross_entropy(logits, torch.tensor([1])).item()
    assert close(mtl.uniform_cross_entropy(classes), expected)
    assert close(mtl.uniform_cross_entropy(classes), math.log(classes))


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20), st.integers(0, 3))
def test_prior_cross_entropy_is_the_entropy_of_the_frequencies(counts: list[float], unseen: int) -> None:
    found = mtl.prior_cross_entropy(counts + [0.0] * unseen)
    assert found == pytest.approx(stats.entropy(counts), rel=1e-12, abs=1e-12)
    assert -1e-12 <= found <= math.log(len(counts)) + 1e-12


def test_prior_cross_entropy_takes_counts_frequencies_lists_and_tensors_alike() -> None:
    expected = -(0.1 * math.log(0.1) + 0.9 * math.log(0.9))
    given_as = [[0.1, 0.9], [1, 9], torch.tensor([1, 9]), torch.tensor([0.1, 0.9], dtype=torch.float64)]
    assert all(close(mtl.prior_cross_entropy(f), expected) for f in given_as)
    big = [2**24 + 1, 1]  # not a float32
    assert close(mtl.prior_cross_entropy(big), stats.entropy(big))


def test_prior_cross_entropy_of_one_certain_class_is_zero() -> None:
    assert mtl.prior_cross_entropy([5]) == 0
    assert mtl.prior_cross_entropy([0, 7, 0]) == 0


def test_the_class_frequencies_are_the_best_constant_answer() -> None:
    p = np.array([0.5, 0.3, 0.2])
    generator = np.random.default_rng(0)
    for q in generator.dirichlet(np.ones(3), 200):
        assert -(p * np.log(q)).sum() >= mtl.prior_cross_entropy(p.tolist())
    assert close(mtl.prior_cross_entropy(p.tolist()), -(p * np.log(p)).sum())


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3), min_size=1, max_size=8))
def test_squared_errors_of_zero_and_of_the_mean_agree_with_numpy(rows: list[list[float]]) -> None:
    y = np.array(rows)
    targets = torch.tensor(rows, dtype=torch.float64)
    norms = [math.fsum(v * v for v in row) for row in rows]
    assert mtl.zero_mse(targets) == pytest.approx(math.fsum(norms) / len(rows), rel=1e-12, abs=1e-300)
    assert mtl.prior_mse(targets) == pytest.approx(y.var(0).sum(), rel=1e-9, abs=1e-9)
    assert mtl.zero_mse(targets[:, 0]) == pytest.approx((y[:, 0] ** 2).mean(), rel=1e-12, abs=1e-300)
    assert mtl.prior_mse(targets[:, 0]) == pytest.approx(y[:, 0].var(), rel=1e-9, abs=1e-9)
    gap = mtl.zero_mse(targets) - mtl.prior_mse(targets)
    assert gap == pytest.approx((y.mean(0) ** 2).sum(), rel=1e-6, abs=1e-6)


def test_squared_errors_sum_over_outputs_and_average_over_samples() -> None:
    y = torch.tensor([[1, 3], [3, 7]])  # whole numbers too
    assert mtl.zero_mse(y) == (1 + 9 + 9 + 49) / 2
    assert mtl.prior_mse(y) == ((1 + 4) + (1 + 4)) / 2
    mean_over_both = nn.MSELoss()(torch.zeros(2, 2), y.float()).item()
    assert mtl.zero_mse(y) / 2 == mean_over_both


# --- Properties


@given(sampled_losses, exponents)
def test_power_means_lie_between_the_smallest_and_the_largest_loss(values: list[float], gamma: float) -> None:
    total, weights = value_and_weights(mtl.PowerMean(gamma), values)
    assert min(values) * (1 - 1e-12) <= total <= max(values) * (1 + 1e-12)
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()


@given(sampled_losses, exponents, exponents)
def test_power_means_grow_with_the_exponent(values: list[float], one: float, other: float) -> None:
    low, high = sorted([one, other])
    smaller, _ = value_and_weights(mtl.PowerMean(low), values)
    larger, _ = value_and_weights(mtl.PowerMean(high), values)
    assert smaller <= larger * (1 + 1e-12)


@given(sampled_losses, exponents, scales)
def test_means_are_homogeneous_and_weighted_losses_sum_to_the_mean(
    values: list[float], gamma: float, factor: float
) -> None:
    for balancer in (mtl.PowerMean(gamma), mtl.GeometricMean()):
        total, weights = value_and_weights(balancer, values)
        scaled, scaled_weights = value_and_weights(balancer, [factor * x for x in values])
        assert close(scaled, factor * total, rel=1e-10)
        assert close(weights @ values, total, rel=1e-9)  # Euler's theorem
        if abs(gamma) <= 100:  # beyond, rounding of the losses themselves is magnified
            assert scaled_weights == pytest.approx(weights, rel=1e-9, abs=1e-300)


@given(sampled_losses)
def test_real_time_scaling_ignores_the_scale_of_each_loss_and_equal_weights_do_not(factors: list[float]) -> None:
    def gradient(balancer: Balancer, factors: list[float]) -> np.ndarray:
        theta = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
        rows = torch.arange(3.0 * len(factors), dtype=torch.float64).reshape(-1, 3).cos()
        losses = torch.tensor(factors, dtype=torch.float64) * ((rows @ theta).square() + 1)
        balancer.backward(losses)
        assert theta.grad is not None
        return theta.grad.numpy()

    plain = [1.0] * len(factors)
    real_time = mtl.RealTimeLossScaling()
    assert gradient(real_time, factors) == pytest.approx(gradient(real_time, plain), rel=1e-9, abs=1e-12)
    initial = gradient(mtl.InitialLossScaling(), factors)
    assert initial == pytest.approx(gradient(mtl.InitialLossScaling(), plain), rel=1e-9, abs=1e-12)
    if len(factors) > 1 and max(factors) > 2 * min(factors):
        direction = [gradient(mtl.EqualWeighting(), f) for f in (factors, plain)]
        unit = [d / np.linalg.norm(d) for d in direction]
        assert not np.allclose(unit[0], unit[1], rtol=0, atol=1e-6)


@given(sampled_losses)
def test_the_gradient_of_the_geometric_mean_is_that_of_real_time_scaling_times_G_over_T(
    values: list[float],
) -> None:
    mean, weights = value_and_weights(mtl.GeometricMean(), values)
    total, real_time = value_and_weights(mtl.RealTimeLossScaling(), values)
    assert close(total, len(values))
    assert close(real_time @ values, len(values))
    assert close(weights, mean / len(values) * real_time, rel=1e-10)
    assert close(weights @ values, mean, rel=1e-10)


@given(sampled_losses)
def test_at_the_first_step_initial_scaling_is_real_time_scaling(values: list[float]) -> None:
    total, weights = value_and_weights(mtl.InitialLossScaling(), values)
    assert close(total, len(values))
    assert close(weights @ values, len(values))
    assert close(weights, value_and_weights(mtl.RealTimeLossScaling(), values)[1])


@given(scales, exponents)
def test_one_task_is_its_own_mean_and_scales_to_one(value: float, gamma: float) -> None:
    for balancer in (mtl.GeometricMean(), mtl.PowerMean(gamma)):
        total, weights = value_and_weights(balancer, [value])
        assert close(total, value)
        assert close(weights, [1.0])
    for balancer in (mtl.RealTimeLossScaling(), mtl.InitialLossScaling()):
        total, weights = value_and_weights(balancer, [value])
        assert close(total, 1)
        assert close(weights, [1 / value])


@pytest.mark.parametrize("balancer", POSITIVE, ids=repr)
@pytest.mark.parametrize("value", [1e-12, 1e12])
def test_tiny_and_huge_losses_have_finite_weights_in_single_precision(balancer: Balancer, value: float) -> None:
    losses = on_graph([value, 1.0, value], torch.float32)
    weights = copy.deepcopy(balancer).backward(losses)
    assert weights is not None
    assert weights.isfinite().all()
    assert (weights > 0).all()


# --- State


def test_state_of_given_values_is_saved() -> None:
    for method, name in [(mtl.InitialLossScaling, "initial"), (mtl.PriorLossScaling, "prior")]:
        saved = method(INITIAL)
        assert list(saved.state_dict()) == [{"initial": "_extra_state"}.get(name, name)]
        loaded = method([1.0, 1.0, 1.0])
        loaded.load_state_dict(saved.state_dict())
        assert getattr(loaded, name).tolist() == INITIAL


def test_given_values_are_copied() -> None:
    given_tensor = torch.tensor(INITIAL)
    balancers = mtl.InitialLossScaling(given_tensor), mtl.PriorLossScaling(given_tensor)
    given_tensor.zero_()
    assert balancers[0].initial.tolist() == INITIAL
    assert balancers[1].prior.tolist() == INITIAL


def test_methods_without_state_have_none() -> None:
    for balancer in (mtl.RealTimeLossScaling(), mtl.GeometricMean(), mtl.PowerMean(2)):
        assert balancer.state_dict() == {}


def test_the_exponent_is_shown() -> None:
    assert "gamma=-2" in repr(mtl.PowerMean(-2))


# --- Bad input


@pytest.mark.parametrize("gamma", [math.nan, math.inf, -math.inf])
def test_an_exponent_that_is_not_finite_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match=rf"gamma is {gamma}, but must be a finite number"):
        mtl.PowerMean(gamma)


@pytest.mark.parametrize(
    ("method", "name"), [(mtl.InitialLossScaling, "initial"), (mtl.PriorLossScaling, "prior")]
)
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_known_loss_that_is_not_positive_and_finite_is_refused_by_task(
    method: Callable[[list[float]], Balancer], name: str, bad: float
) -> None:
    with pytest.raises(
        ValueError, match=rf"the {name} loss of task 1 .*is {bad}, but must be finite and positive"
    ):
        method([1.0, bad])


@pytest.mark.parametrize("method", [mtl.InitialLossScaling, mtl.PriorLossScaling])
@pytest.mark.parametrize("bad", [[], [[1.0, 2.0]], 3.0])
def test_known_losses_that_are_not_a_vector_are_refused(method: Callable[[object], Balancer], bad: object) -> None:
    with pytest.raises(ValueError, match="must hold one number per task, but has shape"):
        method(bad)


@pytest.mark.parametrize("classes", [1, 0, -3])
def test_a_classification_of_fewer_than_two_classes_is_refused(classes: int) -> None:
    with pytest.raises(ValueError, match=f"num_classes is {classes}, but a classification has at least 2"):
        mtl.uniform_cross_entropy(classes)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_a_class_frequency_that_is_negative_or_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=rf"class frequency.* 1 .*is {bad}, but must be finite and not negative"):
        mtl.prior_cross_entropy([1.0, bad])


def test_class_frequencies_must_hold_something() -> None:
    with pytest.raises(ValueError, match="the class frequencies are all zero"):
        mtl.prior_cross_entropy([0, 0, 0])
    for bad in ([], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="class frequency must hold one number"):
            mtl.prior_cross_entropy(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("function", [mtl.zero_mse, mtl.prior_mse])
@pytest.mark.parametrize("shape", [(), (0,), (0, 2), (2, 3, 4)])
def test_targets_of_another_shape_are_refused(function: Callable[[Tensor], float], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"targets must have shape \(N,\) or \(N, D\), but have "):
        function(torch.zeros(shape))
