"""Uncertainty weighting against the likelihood, its closed-form optimum, and real-time scaling; all in float64."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import Tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mtl_ref as mtl
from mtl_ref.problems import toy

QUICK = settings(max_examples=50)
KINDS = ("regression", "classification")
LOSS = st.floats(1e-12, 1e12)
S = st.floats(-30.0, 30.0)
TASK = st.tuples(st.sampled_from(KINDS), S, LOSS)
C = st.floats(0.01, 100.0)
BUILD: dict[str, Callable[[int], mtl.LossBalancer]] = {
    "uncertainty": lambda t: mtl.UncertaintyWeighting((KINDS * t)[:t]),
    "automatic": mtl.AutomaticWeightedLoss,
}


def losses_of(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def uncertainty(kinds: list[str], s: list[float]) -> mtl.UncertaintyWeighting:
    balancer = mtl.UncertaintyWeighting(kinds).double()
    balancer.s.data = torch.tensor(s, dtype=torch.float64)
    return balancer


def automatic(c: list[float]) -> mtl.AutomaticWeightedLoss:
    balancer = mtl.AutomaticWeightedLoss(len(c)).double()
    balancer.c.data = torch.tensor(c, dtype=torch.float64)
    return balancer


def best_c(loss: float) -> float:
    return math.sqrt((loss + math.sqrt(loss**2 + 8 * loss)) / 4)


@QUICK
@given(st.lists(TASK, min_size=1, max_size=6))
def test_the_objective_is_a_sum_over_tasks_of_their_formula(tasks: list[tuple[str, float, float]]) -> None:
    kinds, s, values = (list(column) for column in zip(*tasks, strict=True))
    terms = []
    for kind, si, loss in tasks:
        sigma = math.exp(si / 2)
        terms.append(loss / (2 * sigma**2 if kind == "regression" else sigma**2) + math.log(sigma))
    size = sum(abs(term) for term in terms) + 1
    assert abs(uncertainty(kinds, s)(losses_of(values)).item() - math.fsum(terms)) <= 1e-12 * size


@QUICK
@given(st.floats(0.1, 10.0), st.integers(0, 1000))
def test_a_regression_is_the_gaussian_likelihood_less_a_constant(sigma: float, seed: int) -> None:
    y, f = torch.randn(2, 50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    likelihood = -torch.distributions.Normal(f, sigma).log_prob(y).mean()
    value = uncertainty(["regression"], [2 * math.log(sigma)])((y - f).square().mean().reshape(1))
    torch.testing.assert_close(likelihood - value, torch.tensor(math.log(2 * math.pi) / 2, dtype=torch.float64))


def test_a_classification_is_the_softmax_likelihood_where_the_temperature_is_one() -> None:
    scores = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = torch.nn.functional.cross_entropy(scores, torch.zeros(50, dtype=torch.long))
    assert uncertainty(["classification"], [0.0])(loss.reshape(1)).item() == pytest.approx(loss.item(), rel=1e-15)


@QUICK
@given(st.lists(TASK, min_size=1, max_size=6))
def test_uncertainty_gradients_are_those_on_paper(tasks: list[tuple[str, float, float]]) -> None:
    kinds, s, values = (list(column) for column in zip(*tasks, strict=True))
    balancer, losses = uncertainty(kinds, s), losses_of(values)
    weights = balancer.backward(losses)
    assert weights is not None
    expected = [(0.5 if kind == "regression" else 1.0) * math.exp(-si) for kind, si, _ in tasks]
    assert weights.tolist() == pytest.approx(expected, rel=1e-12)
    assert losses.grad is not None
    assert balancer.s.grad is not None
    assert losses.grad.tolist() == weights.tolist() == balancer.weights.tolist()
    for gradient, weight, loss in zip(balancer.s.grad.tolist(), expected, values, strict=True):
        assert abs(gradient - (0.5 - weight * loss)) <= 1e-12 * (0.5 + weight * loss)


@QUICK
@given(st.lists(st.tuples(C, LOSS), min_size=1, max_size=6))
def test_automatic_value_and_gradients_are_those_on_paper(tasks: list[tuple[float, float]]) -> None:
    c, values = (list(column) for column in zip(*tasks, strict=True))
    balancer, losses = automatic(c), losses_of(values)
    total, weights = balancer(losses), balancer.backward(losses)
    expected = math.fsum(loss / (2 * ci**2) + math.log(1 + ci**2) for ci, loss in tasks)
    assert total.item() == pytest.approx(expected, rel=1e-12)
    assert weights is not None
    assert weights.tolist() == pytest.approx([1 / (2 * ci**2) for ci in c], rel=1e-12)
    assert losses.grad is not None
    assert balancer.c.grad is not None
    assert losses.grad.tolist() == weights.tolist()
    assert balancer.weights.tolist() == pytest.approx(weights.tolist(), rel=1e-15)
    for gradient, ci, loss in zip(balancer.c.grad.tolist(), c, values, strict=True):
        down, up = loss / ci**3, 2 * ci / (1 + ci**2)
        assert abs(gradient - (up - down)) <= 1e-12 * (up + down)


@QUICK
@given(st.sampled_from(KINDS), LOSS)
def test_the_best_variance_is_the_loss_or_twice_the_loss(kind: str, loss: float) -> None:
    variance = loss if kind == "regression" else 2 * loss
    balancer, losses = uncertainty([kind], [math.log(variance)]), losses_of([loss])
    balancer.backward(losses)
    assert balancer.s.grad is not None
    assert abs(balancer.s.grad.item()) < 1e-12
    best = balancer(losses).item()
    assert best == pytest.approx(0.5 + 0.5 * math.log(variance), abs=1e-12)
    assert (balancer.weights * losses).item() == pytest.approx(0.5, rel=1e-12)
    for step in (-0.01, 0.01):
        assert uncertainty([kind], [math.log(variance) + step])(losses).item() > best


@QUICK
@given(LOSS)
def test_the_best_c_is_the_root_of_its_quadratic(loss: float) -> None:
    c = best_c(loss)
    balancer, losses = automatic([c]), losses_of([loss])
    balancer.backward(losses)
    assert balancer.c.grad is not None
    assert abs(balancer.c.grad.item() * c) < 1e-10 * (1 + loss / c**2)
    best = balancer(losses).item()
    for factor in (0.99, 1.01):
        assert automatic([factor * c])(losses).item() > best


def test_a_small_loss_gets_22_instead_of_500() -> None:
    assert automatic([best_c(1e-3)]).weights.item() == pytest.approx(22.11, abs=0.01)
    assert uncertainty(["regression"], [math.log(1e-3)]).weights.item() == pytest.approx(500)


@QUICK
@given(st.lists(st.tuples(C, st.floats(0, 1e12)), min_size=1, max_size=6))
def test_the_automatic_objective_is_never_negative(tasks: list[tuple[float, float]]) -> None:
    c, values = (list(column) for column in zip(*tasks, strict=True))
    assert automatic(c)(losses_of(values)).item() >= 0


@QUICK
@given(st.lists(st.tuples(st.sampled_from(KINDS), LOSS), min_size=1, max_size=6), st.integers(0, 1000))
def test_at_its_optimum_the_gradient_is_half_that_of_real_time_scaling(
    tasks: list[tuple[str, float]], seed: int
) -> None:
    directions = torch.randn(len(tasks), 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    kinds, values = (list(column) for column in zip(*tasks, strict=True))
    gradients = []
    best = [math.log(loss if kind == "regression" else 2 * loss) for kind, loss in tasks]
    for balancer in (uncertainty(kinds, best), mtl.RealTimeLossScaling()):
        theta = torch.zeros(7, dtype=torch.float64, requires_grad=True)
        balancer.backward(torch.tensor(values, dtype=torch.float64) * (1 + directions @ theta))
        gradients.append(theta.grad)
    half = 0.5 * gradients[1]
    torch.testing.assert_close(gradients[0], half, rtol=0, atol=1e-12 * directions.abs().sum().item())


@QUICK
@given(S, LOSS)
def test_a_classification_is_a_regression_whose_s_is_shifted_by_log_2(s: float, loss: float) -> None:
    one, other = uncertainty(["classification"], [s]), uncertainty(["regression"], [s - math.log(2)])
    losses = losses_of([loss])
    size = 1 + abs(one(losses).item())
    assert abs((one(losses) - other(losses)).item() - 0.5 * math.log(2)) <= 1e-12 * size
    assert one.weights.item() == pytest.approx(other.weights.item(), rel=1e-12)


@pytest.mark.parametrize("name", BUILD)
def test_a_task_does_not_depend_on_the_others(name: str) -> None:
    gradients = []
    for other in (1e-12, 0.0, 1e12):
        balancer = BUILD[name](2).double()
        balancer.backward(losses_of([2.0, other]))
        gradients.append(next(balancer.parameters()).grad)
    assert len({gradient[0].item() for gradient in gradients if gradient is not None}) == 1


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6, 1e12])
def test_scaling_a_loss_shifts_the_best_s_by_its_logarithm(scale: float) -> None:
    balancer, losses = uncertainty(list(KINDS), [0.0, 0.0]), losses_of([0.3 * scale, 7.0 * scale])
    for _ in range(100):  # Newton's method in s
        balancer.zero_grad()
        balancer.backward(losses)
        assert balancer.s.grad is not None
        curvature = (balancer.weights * losses.detach()).clamp(min=0.25)
        balancer.s.data -= balancer.s.grad / curvature
    expected = [math.log(0.3 * scale), math.log(2 * 7.0 * scale)]
    assert balancer.s.tolist() == pytest.approx(expected, abs=1e-9)


def test_they_start_at_sigma_one_and_c_one() -> None:
    assert mtl.UncertaintyWeighting(KINDS).s.tolist() == [0, 0]
    assert mtl.UncertaintyWeighting(KINDS).weights.tolist() == [0.5, 1.0]
    assert mtl.AutomaticWeightedLoss(2).c.tolist() == [1, 1]
    assert mtl.AutomaticWeightedLoss(2).weights.tolist() == [0.5, 0.5]


def test_the_state_is_the_learned_parameters_and_no_more() -> None:
    assert list(mtl.UncertaintyWeighting(KINDS).state_dict()) == ["s"]
    assert list(mtl.AutomaticWeightedLoss(2).state_dict()) == ["c"]


@pytest.mark.parametrize("kinds", ["regression", "", [], ()])
def test_kinds_must_be_a_list_of_one_kind_per_task(kinds: list[str]) -> None:
    with pytest.raises(ValueError, match="one kind per task"):
        mtl.UncertaintyWeighting(kinds)


def test_an_unknown_kind_is_named_with_its_task() -> None:
    with pytest.raises(ValueError, match=r"task 1 \(counting from 0\) is 'ranking'"):
        mtl.UncertaintyWeighting(["regression", "ranking"])


@pytest.mark.parametrize("num_tasks", [0, -1])
def test_there_must_be_a_task(num_tasks: int) -> None:
    with pytest.raises(ValueError, match=f"num_tasks is {num_tasks}, but must be at least 1"):
        mtl.AutomaticWeightedLoss(num_tasks)


def test_the_kinds_are_shown() -> None:
    assert "'regression', 'classification'" in repr(mtl.UncertaintyWeighting(KINDS))


@pytest.mark.parametrize("name", BUILD)
def test_train_gives_the_learned_weights_their_own_group_without_decay(name: str) -> None:
    groups: list[dict[str, object]] = []

    def optimizer(parameters: list[dict[str, object]], lr: float) -> torch.optim.Optimizer:
        made = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.1)
        groups.extend(made.param_groups)
        return made

    balancer = BUILD[name](2)
    (learned,) = balancer.parameters()
    before = learned.detach().clone()
    mtl.train(Tiny((0, 1)), balancer, epochs=2, optimizer=optimizer, lr=1e-3, balancer_lr=0.05)
    (own,) = (group for group in groups if any(p is learned for p in group["params"]))
    assert len(own["params"]) == 1
    assert (own["weight_decay"], own["lr"]) == (0.0, 0.05)
    assert [group["weight_decay"] for group in groups if group is not own] == [0.1]
    torch.testing.assert_close((learned - before).abs()[0], torch.tensor(0.1), rtol=0.05, atol=0)


def test_without_a_rate_of_its_own_s_has_that_of_the_network() -> None:
    balancer = mtl.UncertaintyWeighting(["regression", "regression"])
    mtl.train(Tiny((0, 1)), balancer, epochs=1, lr=1e-3)
    assert balancer.s.abs().tolist() == pytest.approx([1e-3, 1e-3], rel=1e-3)


def test_learned_noise_levels_are_those_of_maximum_likelihood() -> None:
    x, y = toy.kendall_lines(generator=torch.Generator().manual_seed(0))
    design = torch.cat([x, torch.ones_like(x)], 1)
    expected = (y - design @ torch.linalg.lstsq(design, y).solution).square().mean(0)
    line = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    balancer = uncertainty(["regression", "regression"], [0.0, 0.0])
    optimizer = torch.optim.LBFGS([line, balancer.s], max_iter=200, line_search_fn="strong_wolfe")

    def objective() -> float:
        optimizer.zero_grad()
        losses = (y - design @ line).square().mean(0)
        balancer.backward(losses)
        return balancer(losses).item()

    for _ in range(5):
        optimizer.step(objective)
    torch.testing.assert_close(balancer.s.detach().exp(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "balancer",
    [mtl.UncertaintyWeighting(["regression", "classification"]), mtl.AutomaticWeightedLoss(2)],
    ids=repr,
)
def test_the_weights_that_are_shown_are_numbers_not_a_graph(balancer: Any) -> None:
    assert not balancer.weights.requires_grad
