"""Priorities: a user's own weights v, which count after the method's scaling as the catalogue says."""

import copy
import inspect
import math
from itertools import pairwise

import pytest
import torch
from cases import Method, Net, both_ways, build, rows, vector
from torch import Tensor

import mtl_ref as mtl
from mtl_ref.catalogue import METHODS, ROWS

TAKE = [row for row in ROWS if row.priorities and row.key != "fixed"]  # there they are the weights themselves
MEANS = [METHODS[key] for key in ("geometric", "power")]
BY_MEAN = [*MEANS, METHODS["gradnorm"]]  # these divide them by their mean
SUMS = [row for row in TAKE if row not in BY_MEAN]
V = [10.0, 1.0, 4.0]
take_rows, sum_rows, mean_rows, by_mean_rows = rows(TAKE), rows(SUMS), rows(MEANS), rows(BY_MEAN)


def steps(row: Method, by: str, priorities: list[float] | None, number: int = 3) -> list[tuple[Tensor, Tensor]]:
    """The weights of some steps and the gradients they left, of plain descent that does not depend on them."""
    net, found = Net(), []
    balancer = build(row) if priorities is None else build(row, priorities=priorities)
    for step in range(number):
        net.zero_grad()
        weights = balancer.backward(net.losses() / (1 + step), **net.given(by))
        found.append((weights, net.grads("encoder")))
    return found


@take_rows
@both_ways
def test_all_one_is_the_default_to_the_last_bit(row: Method, by: str) -> None:
    for one, other in zip(steps(row, by, None), steps(row, by, [1.0, 1.0, 1.0]), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


@sum_rows
@both_ways
def test_the_weights_are_those_without_times_the_priorities(row: Method, by: str) -> None:
    for (without, _), (with_them, _) in zip(steps(row, by, None), steps(row, by, V), strict=True):
        torch.testing.assert_close(with_them, without * vector(*V), rtol=1e-12, atol=0)


@by_mean_rows
@both_ways
def test_a_common_factor_changes_nothing(row: Method, by: str) -> None:
    for one, other in zip(steps(row, by, V), steps(row, by, [8 * v for v in V]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


@mean_rows
@both_ways
def test_the_weights_of_a_mean_are_in_the_ratio_of_the_priorities(row: Method, by: str) -> None:
    for (without, _), (with_them, _) in zip(steps(row, by, None), steps(row, by, V), strict=True):
        ratio = with_them / without
        torch.testing.assert_close(ratio / ratio[1], vector(*V), rtol=1e-6, atol=0)


def test_a_mean_with_priorities_is_a_weighted_mean() -> None:
    losses, q = vector(2.0, 0.5, 8.0), vector(*V) / sum(V)
    for row, expected in zip(MEANS, [(losses**q).prod(), (q * losses**2).sum().sqrt()], strict=True):
        torch.testing.assert_close(build(row, priorities=V)(losses), expected, rtol=1e-6, atol=0)
        same = torch.full((3,), 0.7, dtype=torch.float64)
        torch.testing.assert_close(build(row, priorities=V)(same), same[0], rtol=1e-6, atol=0)


def test_a_power_mean_close_to_the_geometric_keeps_its_digits() -> None:
    losses = vector(2.0, 0.5, 8.0)
    v = torch.tensor(V, dtype=torch.float64)
    expected = build(METHODS["geometric"], priorities=v)(losses)
    torch.testing.assert_close(mtl.PowerMean(1e-9, priorities=v)(losses), expected, rtol=1e-8, atol=0)
    for gamma in (40.0, -40.0):
        expected = (v / v.sum() * losses**gamma).sum() ** (1 / gamma)
        torch.testing.assert_close(mtl.PowerMean(gamma, priorities=v)(losses), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("update", ["relative", "adam"])
def test_gradnorm_rests_where_the_weighted_norms_are_in_their_ratio(update: str) -> None:
    norms, v = vector(0.5, 2.0, 1.0), [10.0, 1.0, 4.0]
    balancer, path = mtl.GradNorm(3, alpha=0.0, lr=1e-3, update=update, priorities=v), []
    for _ in range(6000):
        balancer.update(norms, vector(1, 1, 1))
        path.append(balancer.weights * norms)
    G = torch.stack(path[-2000:]).mean(0)
    torch.testing.assert_close(G / G[1], vector(*v), rtol=0.02, atol=0)


@rows([row for row in TAKE if "learned" in row.state])
def test_learned_numbers_have_one_optimum_whatever_the_priorities(row: Method) -> None:
    """Loss and penalty carry vᵢ alike, so the derivative by task i's own number is vᵢ times the one without."""
    plain, other = build(row), build(row, priorities=V)
    for balancer in (plain, other):
        weights = balancer.backward(Net().losses())
        torch.testing.assert_close(weights, balancer.weights.double())
    for one, two in zip(plain.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad * torch.tensor(V))


@take_rows
def test_they_come_from_the_constructor_and_stand_in_its_name(row: Method) -> None:
    """`state_dict` has the keys that it has without; a copy takes them along."""
    plain, balancer = build(row), build(row, priorities=V)
    assert plain.state_dict().keys() == balancer.state_dict().keys()
    assert not any("priorities" in name for name in plain.state_dict())
    assert "priorities" in repr(balancer)
    assert "priorities" not in repr(plain)
    net = Net()
    balancer.backward(net.losses(), **net.given("shared"))
    again = build(row, priorities=V)
    again.load_state_dict(balancer.state_dict())
    found = [b.backward(net.losses(), **net.given("shared")) for b in (again, copy.deepcopy(balancer), balancer)]
    assert all(torch.equal(one, other) for one, other in pairwise(found))


@take_rows
@both_ways
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_keep_a_type_that_losses_can_have(row: Method, by: str, dtype: torch.dtype) -> None:
    net, balancer = Net(dtype=torch.float32), build(row, priorities=V)
    weights = balancer.backward(net.losses().to(dtype), **net.given(by))
    assert weights.isfinite().all()
    assert net.grads().isfinite().all()


@take_rows
@pytest.mark.parametrize("value", [0.0, -2.0, math.nan, math.inf])
def test_a_priority_that_is_not_positive_and_finite_is_named(row: Method, value: float) -> None:
    with pytest.raises(ValueError, match=rf"the priority of task 1 \(counting from 0\) is {value}.* positive"):
        build(row, priorities=[1.0, value, 1.0])
    with pytest.raises(ValueError, match="the priority must hold one number per task"):
        build(row, priorities=[[1.0, 1.0, 1.0]])


@take_rows
@both_ways
def test_a_number_of_tasks_that_does_not_fit_is_refused_before_anything_is_touched(row: Method, by: str) -> None:
    net = Net()
    if {"num_tasks", "kinds", "prior"} & set(inspect.signature(type(build(row))).parameters):  # say T themselves
        with pytest.raises(ValueError, match="built for 3 tasks but was given 2 priorities"):
            build(row, priorities=[1.0, 2.0])
        return
    balancer = build(row, priorities=[1.0, 2.0])
    before = copy.deepcopy(balancer.state_dict())
    with pytest.raises(ValueError, match="built for 2 tasks but was given 3 losses"):
        balancer.backward(net.losses(), **net.given(by))
    if row.gram:
        with pytest.raises(ValueError, match="built for 2 tasks but was given 3 losses"):
            balancer(torch.eye(3, dtype=torch.float64), vector(1, 1, 1))
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in balancer.state_dict().items())


@rows([row for row in ROWS if row not in TAKE])
def test_methods_without_them_refuse_the_keyword(row: Method) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'priorities'"):
        build(row, priorities=V)
