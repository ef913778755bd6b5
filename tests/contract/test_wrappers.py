"""A method around another: the other is asked as it would be asked by itself, in every kind of call."""

import pytest
import torch
from cases import GRADIENT, Method, Net, both_ways, build, matrix_rows, rows

import mtl_ref as mtl
from mtl_ref.balancer import GradientBalancer, Wraps

AROUND = {"Normalized": mtl.Normalized, "CRMOGM": lambda inner: mtl.CRMOGM(inner, decay=0.0)}
INNER = [
    row
    for row in GRADIENT
    if type(build(row)).combine is GradientBalancer.combine
    and not build(row).by_parameter
    and not isinstance(build(row), Wraps)
]


def losses_without(net: Net) -> torch.Tensor:
    """The three losses, of which that of task 1 has no label."""
    losses = net.losses().unbind()
    return torch.stack([losses[0], losses[1] * torch.nan, losses[2]])


def steps(balancer: GradientBalancer, by: str) -> list[torch.Tensor]:
    """Weights and gradients of three steps: with all tasks, without one of them, and with all."""
    net, found = Net(), []
    torch.manual_seed(1)
    for present in (None, [True, False, True], None):
        net.zero_grad()
        losses = net.losses() if present is None else losses_without(net)
        weights = balancer.backward(losses, **net.given(by), present=present)
        found += [weights, net.grads(), *(p.grad.clone() for p in balancer.parameters())]
    return found


@rows(INNER)
@both_ways
def test_an_average_over_one_step_is_the_method_itself(row: Method, by: str) -> None:
    for one, two in zip(steps(mtl.CRMOGM(build(row), 0.0), by), steps(build(row), by), strict=True):
        torch.testing.assert_close(one, two)


@rows([row for row in INNER if not build(row).factors_by_losses])
def test_it_adds_up_micro_batches_as_the_method_itself_does(row: Method) -> None:
    found = []
    for balancer in (mtl.CRMOGM(build(row), 0.0), build(row)):
        net, step = Net(), mtl.Accumulation(balancer)
        torch.manual_seed(1)
        for _ in range(2):
            step.add(net.losses() / 2, shared=list(net.encoder.parameters()))
        found.append((step.finish(), net.grads()))
    torch.testing.assert_close(found[0], found[1])


@rows(INNER)
def test_normalised_gradients_are_what_the_method_sees(row: Method) -> None:
    """Of gradients of length one, `Normalized` is the method itself."""
    J = torch.tensor([[0.6, 0.8, 0.0], [1.0, 0.0, 0.0], [0.0, -0.6, 0.8]], dtype=torch.float64)
    losses = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    torch.manual_seed(1)
    expected = build(row)(J, losses)
    torch.manual_seed(1)
    torch.testing.assert_close(mtl.Normalized(build(row))(J, losses), expected)


@rows(INNER)
@pytest.mark.parametrize("around", AROUND)
def test_whether_it_draws_is_the_inner_methods(row: Method, around: str) -> None:
    """On several processes the draws of the first count, also those of a method inside."""
    inner = build(row)
    assert AROUND[around](inner).random == inner.random


@matrix_rows
@pytest.mark.parametrize("around", AROUND)
def test_a_method_that_needs_more_than_the_gram_matrix_is_refused(row: Method, around: str) -> None:
    with pytest.raises(ValueError, match="needs more of the gradients than their Gram matrix"):
        AROUND[around](build(row))


@pytest.mark.parametrize("around", AROUND)
def test_a_method_of_the_losses_is_refused(around: str) -> None:
    with pytest.raises(ValueError, match="must be a method of the gradients"):
        AROUND[around](mtl.EqualWeighting())
