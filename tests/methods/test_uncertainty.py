"""Uncertainty weighting against the likelihood, the formulas on paper, and closed-form optima; in float64."""

import math

import pytest
import torch
from cases import draw, vector
from hypothesis import given, settings
from hypothesis import strategies as st

import mtl_ref as mtl

QUICK = settings(max_examples=50)
KINDS = ("regression", "classification")
LOSS = st.floats(1e-12, 1e12)


def uncertainty(kinds: list[str], s: list[float]) -> mtl.UncertaintyWeighting:
    balancer = mtl.UncertaintyWeighting(kinds).double()
    balancer.s.data = vector(*s)
    return balancer


def automatic(c: list[float]) -> mtl.AutomaticWeightedLoss:
    balancer = mtl.AutomaticWeightedLoss(len(c)).double()
    balancer.c.data = vector(*c)
    return balancer


def learn(balancer: mtl.LossBalancer, values: list[float]) -> tuple[float, list[float], list[float]]:
    """The value, the weights, and the derivatives with respect to what is learned."""
    losses = vector(*values).requires_grad_()
    weights = balancer.backward(losses)
    assert losses.grad.tolist() == weights.tolist() == pytest.approx(balancer.weights.tolist(), rel=1e-15)
    return balancer(losses).item(), weights.tolist(), next(balancer.parameters()).grad.tolist()


def test_they_start_at_sigma_one_and_c_one_and_keep_nothing_else() -> None:
    for balancer, name, start, weights in [
        (mtl.UncertaintyWeighting(KINDS), "s", [0, 0], [0.5, 1.0]),
        (mtl.AutomaticWeightedLoss(2), "c", [1, 1], [0.5, 0.5]),
    ]:
        assert {key: value.tolist() for key, value in balancer.state_dict().items()} == {name: start}
        assert balancer.weights.tolist() == weights
        assert not balancer.weights.requires_grad


@QUICK
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.floats(-30.0, 30.0), LOSS), min_size=1, max_size=6))
def test_uncertainty_value_and_gradients_are_those_on_paper(tasks: list[tuple[str, float, float]]) -> None:
    kinds, s, values = (list(column) for column in zip(*tasks, strict=True))
    total, weights, slopes = learn(uncertainty(kinds, s), values)
    sigma = [math.exp(si / 2) for si in s]
    expected = [1 / (2 * x**2 if kind == "regression" else x**2) for kind, x in zip(kinds, sigma, strict=True)]
    assert weights == pytest.approx(expected, rel=1e-12)
    terms = [w * L + math.log(x) for w, L, x in zip(expected, values, sigma, strict=True)]
    assert total == pytest.approx(math.fsum(terms), rel=0, abs=1e-12 * (1 + sum(map(abs, terms))))
    for slope, weight, loss in zip(slopes, weights, values, strict=True):
        assert slope == pytest.approx(0.5 - weight * loss, rel=0, abs=1e-12 * (0.5 + weight * loss))


@QUICK
@given(st.lists(st.tuples(st.floats(0.01, 100.0), LOSS), min_size=1, max_size=6))
def test_automatic_value_and_gradients_are_those_on_paper(tasks: list[tuple[float, float]]) -> None:
    c, values = (list(column) for column in zip(*tasks, strict=True))
    total, weights, slopes = learn(automatic(c), values)
    assert total == pytest.approx(math.fsum(L / (2 * ci**2) + math.log(1 + ci**2) for ci, L in tasks), rel=1e-12)
    assert total > 0
    assert weights == pytest.approx([1 / (2 * ci**2) for ci in c], rel=1e-12)
    for slope, ci, loss in zip(slopes, c, values, strict=True):
        down, up = loss / ci**3, 2 * ci / (1 + ci**2)
        assert slope == pytest.approx(up - down, rel=0, abs=1e-12 * (up + down))


@QUICK
@given(st.floats(0.1, 10.0), st.integers(0, 1000))
def test_a_regression_is_the_gaussian_likelihood_less_a_constant(sigma: float, seed: int) -> None:
    y, f = draw(2, 50, seed)
    likelihood = -torch.distributions.Normal(f, sigma).log_prob(y).mean()
    value = uncertainty(["regression"], [2 * math.log(sigma)])((y - f).square().mean().reshape(1))
    assert (likelihood - value).item() == pytest.approx(math.log(2 * math.pi) / 2)


@QUICK
@given(st.sampled_from(KINDS), LOSS)
def test_the_best_variance_is_the_loss_or_twice_the_loss(kind: str, loss: float) -> None:
    s = math.log(loss if kind == "regression" else 2 * loss)
    total, (weight,), (slope,) = learn(uncertainty([kind], [s]), [loss])
    assert abs(slope) < 1e-12
    assert total == pytest.approx(0.5 + s / 2, abs=1e-12)
    assert weight == pytest.approx(0.5 / loss, rel=1e-12)  # half of what real-time scaling has


@QUICK
@given(LOSS)
def test_the_best_c_is_the_root_of_its_quadratic(loss: float) -> None:
    c = math.sqrt((loss + math.sqrt(loss**2 + 8 * loss)) / 4)
    total, _, (slope,) = learn(automatic([c]), [loss])
    assert abs(slope * c) < 1e-10 * (1 + loss / c**2)
    assert total < min(learn(automatic([factor * c]), [loss])[0] for factor in (0.99, 1.01))


@pytest.mark.parametrize("kind", KINDS)
def test_started_at_the_first_losses_every_s_is_at_its_optimum(kind: str) -> None:
    balancer = mtl.UncertaintyWeighting([kind, kind], start=torch.tensor([0.3, 40.0], dtype=torch.float64))
    assert balancer.s.dtype == torch.get_default_dtype()
    balancer(torch.tensor([0.3, 40.0])).backward()
    assert balancer.s.grad.abs().max() < 1e-6


@pytest.mark.parametrize(
    ("start", "said"), [([1.0], "2 tasks"), ([1.0, 0.0], "task 1"), ([1, math.nan], "task 1")]
)
def test_a_loss_to_start_at_must_be_one_a_task_and_positive(start: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mtl.UncertaintyWeighting(KINDS, start=start)
