"""Micro-batches: the step is that of the whole batch, for every method, and its state moves once."""

import pytest
import torch
from cases import GRADIENT, LOSS, MATRIX, Method, Net, both_ways, build, loss_rows, rows
from torch import Tensor

import mtl_ref as mtl
from mtl_ref.catalogue import ROWS

# those of the loss of the whole batch cannot be multiplied by it before it is known
ADDING = [row for row in ROWS if row in LOSS or not build(row).factors_by_losses]
adding_rows, adding_gradient_rows = rows(ADDING), rows([row for row in GRADIENT if row in ADDING])

PARTS = [slice(0, 1), slice(1, 4), slice(4, 6)]  # of the six examples


def micro_batch(net: Net, part: slice, whole: Tensor) -> Tensor:
    """What these examples bring to the three mean losses; the second task has no labels among the first three."""
    net.z = net.encoder(whole[part])
    known = torch.arange(6)[part] >= 3
    errors = [(t + 1) * (head(net.z)[:, 0] - t).square() for t, head in enumerate(net.heads)]
    return torch.stack([errors[0].sum() / 6, (errors[1] * known).sum() / 3, errors[2].sum() / 6])


@rows([row for row in ROWS if row not in ADDING])
def test_a_method_that_multiplies_by_the_loss_of_the_whole_batch_says_so(row: Method) -> None:
    net, step = Net(), mtl.Accumulation(build(row))
    losses = net.losses()
    for given in (net.given("shared"), {"features": net.z}):
        with pytest.raises(
            ValueError, match="multiplies each loss by a number that depends on the loss of the whole"
        ):
            step.add(losses, **given)
    assert all(p.grad is None for p in net.parameters())


@rows([row for row in MATRIX if row in ADDING])
def test_features_are_refused_where_their_gram_matrix_is_not_enough(row: Method) -> None:
    net, step = Net(), mtl.Accumulation(build(row))
    losses = net.losses()
    with pytest.raises(
        ValueError, match=f"{type(build(row)).__name__} (has a combine of its own|holds the gradi)"
    ):
        step.add(losses, features=net.z)
    assert all(p.grad is None for p in net.parameters())


@adding_rows
@both_ways
def test_the_step_is_that_of_the_whole_batch(row: Method, by: str) -> None:
    if row in MATRIX and by == "features":
        return  # the test above
    whole, net = Net(), Net()
    expecting, balancer = build(row), build(row)
    step = mtl.Accumulation(balancer)
    for _ in range(2):
        torch.manual_seed(1)
        expected = expecting.backward(micro_batch(whole, slice(0, 6), whole.x), **whole.given(by))
        torch.manual_seed(1)
        for part in PARTS:
            losses = micro_batch(net, part, net.x)
            step.add(losses, **net.given(by), present=[True, part != PARTS[0], True])
        torch.testing.assert_close(step.finish(), expected)
        if by == "features" or row in LOSS:
            for part in PARTS:
                losses = micro_batch(net, part, net.x)
                step.backward(losses, features=net.z, present=[True, part != PARTS[0], True])
        torch.testing.assert_close(net.grads(), whole.grads())  # of both steps: gradients are added to
    for name, value in expecting.state_dict().items():
        torch.testing.assert_close(balancer.state_dict()[name], value, equal_nan=True)


@adding_rows
def test_a_task_without_labels_in_all_of_them_is_absent(row: Method) -> None:
    whole, net = Net(), Net()
    torch.manual_seed(1)
    expected = build(row).backward(whole.losses(), **whole.given("shared"), present=[1, 0, 1])
    torch.manual_seed(1)
    step = mtl.Accumulation(build(row))
    for _ in range(2):
        step.add(net.losses() / 2, **net.given("shared"), present=[1, 0, 1])
    torch.testing.assert_close(step.finish(), expected)


@adding_rows
def test_calls_out_of_order_are_named(row: Method) -> None:
    net, step = Net(), mtl.Accumulation(build(row))
    with pytest.raises(ValueError, match="nothing was added"):
        step.finish()
    step.add(net.losses(), **net.given("shared"))
    with pytest.raises(ValueError, match="call finish first"):
        step.backward(net.losses(), features=net.z)
    step.finish()
    before = str(step.balancer.state_dict()), str([p.grad for p in net.parameters()])
    with pytest.raises(ValueError, match="nothing was added"):
        step.finish()
    assert str(step.balancer.state_dict()) == before[0]
    assert str([p.grad for p in net.parameters()]) == before[1]
    step.add(net.losses(), **net.given("shared"))  # a new step


@adding_rows
def test_another_number_of_losses_is_named_before_anything_is_written(row: Method) -> None:
    net, step = Net(), mtl.Accumulation(build(row))
    step.add(net.losses(), **net.given("shared"))
    net.zero_grad()
    with pytest.raises(ValueError, match="this micro-batch has 2 losses, but those before have 3"):
        step.add(net.losses()[:2], **net.given("shared"))
    assert all(p.grad is None for p in net.parameters())


@adding_gradient_rows
def test_a_method_of_another_number_of_tasks_says_so_in_add(row: Method) -> None:
    net, balancer = Net(4), build(row)
    build_for_three = Net()
    balancer.backward(build_for_three.losses(), **build_for_three.given("shared"))
    if any(state.shape[:1] == (3,) for state in balancer.state_dict().values()):
        with pytest.raises(ValueError, match="built for 3 tasks but was given 4 losses"):
            mtl.Accumulation(balancer).add(net.losses(), **net.given("shared"))
        assert all(p.grad is None for p in net.parameters())


@adding_gradient_rows
def test_what_is_given_must_stay_the_same(row: Method) -> None:
    net, step = Net(), mtl.Accumulation(build(row))
    step.add(net.losses(), **net.given("shared"))
    losses = net.losses()
    others = [{"shared": net.encoder[0].parameters()}]
    if row not in MATRIX:
        others.append({"features": net.z})
    for other in others:
        with pytest.raises(ValueError, match="the same shared parameters, or features each"):
            step.add(losses, **other)
    step.finish()
    with pytest.raises(ValueError, match="with shared, finish was the step"):
        step.backward(losses, features=net.z)


@adding_rows
def test_a_bad_loss_is_named_before_anything_is_written(row: Method) -> None:
    net, step = Net(), mtl.Accumulation(build(row))
    with pytest.raises(ValueError, match=r"the loss of task 0 \(counting from 0\) is nan"):
        step.add(net.losses() * torch.nan, **net.given("shared"))
    assert all(p.grad is None for p in net.parameters())


@loss_rows
def test_losses_without_a_graph_do_for_methods_that_see_no_gradient(row: Method) -> None:
    net, balancer = Net(), build(row)
    step = mtl.Accumulation(balancer)
    if not balancer.sees_norms:
        step.add(net.losses().detach())
        torch.testing.assert_close(step.finish(), build(row).backward(net.losses()))


@adding_gradient_rows
def test_the_graph_of_a_micro_batch_is_freed(row: Method) -> None:
    net, step = Net(), mtl.Accumulation(build(row))
    losses = net.losses()
    step.add(losses, **net.given("shared"))
    with pytest.raises(RuntimeError, match="a second time"):
        losses.sum().backward()
