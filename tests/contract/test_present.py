"""A task without labels: the step is that of a method of the other tasks, and its state stands still."""

import copy

import pytest
import torch
from cases import Method, Net, both_ways, build, every_row, loss_rows, rows, same, vector
from torch import Tensor

import mtl_ref as mtl
from mtl_ref.balancer import LooksAfter
from mtl_ref.catalogue import METHODS, ROWS

WITHOUT = [0, 2]  # the tasks that have labels where task 1 has none


def losses_without(net: Net) -> Tensor:
    """The three losses, of which that of task 1 is a mean over no label: nan."""
    losses = net.losses().unbind()
    return torch.stack([losses[0], losses[1] * torch.nan, losses[2]])


@every_row
@both_ways
@pytest.mark.parametrize("present", [[True, False, True], [5, 0, 2]], ids=["truth values", "numbers"])
def test_the_step_is_that_of_the_other_tasks(row: Method, by: str, present: list) -> None:
    net, other = Net(), Net()
    for _ in range(2):
        net.zero_grad()
        other.zero_grad()
        balancer, smaller = build(row), build(row, order=WITHOUT)
        torch.manual_seed(1)
        weights = balancer.backward(losses_without(net), **net.given(by), present=present)
        torch.manual_seed(1)
        expected = smaller.backward(other.losses()[WITHOUT], **other.given(by))
        assert (weights is None) == (expected is None)
        if weights is not None:
            torch.testing.assert_close(weights[WITHOUT], expected)
            assert weights[1] == 0
        torch.testing.assert_close(net.grads("encoder"), other.grads("encoder"))
        for task in WITHOUT:
            torch.testing.assert_close(net.grads(f"heads.{task}"), other.grads(f"heads.{task}"))
        assert not net.grads("heads.1").any()


@every_row
def test_all_tasks_present_is_no_change(row: Method) -> None:
    plain, net = Net(), Net()
    expected = build(row).backward(plain.losses(), **plain.given("shared"))
    weights = build(row).backward(net.losses(), **net.given("shared"), present=torch.tensor([True, True, True]))
    assert weights is expected is None or torch.equal(weights, expected)
    assert torch.equal(net.grads(), plain.grads())


@every_row
def test_what_is_kept_of_the_task_stands_still_and_the_rest_moves_on(row: Method) -> None:
    """What moves is what moves where all tasks are present."""

    def after(present: list[bool] | None, steps: int = 5) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        net, balancer = Net(), build(row)
        optimizer = torch.optim.SGD([*net.parameters(), *balancer.parameters()], lr=0.01)
        for step in range(1 + steps):
            if step == 1:
                before = copy.deepcopy(balancer.state_dict())
            optimizer.zero_grad()
            absent = present is not None and step > 0
            losses = losses_without(net) if absent else net.losses()
            balancer.backward(losses, **net.given("shared"), present=present if absent else None)
            optimizer.step()
            if isinstance(balancer, LooksAfter):
                balancer.update(net.losses(), present=present if absent else None)
        state = copy.deepcopy(balancer.state_dict())
        balancer.backward(net.losses(), **net.given("shared"))  # and it goes on with all
        return before, state

    before, whole = after(None)
    also_before, part = after([True, False, True])
    for name, old in before.items():
        new = part[name]
        assert new.shape == old.shape
        assert same(old, also_before[name])
        if old.ndim and len(old) == 3:
            assert same(old[1], new[1])
            assert old.shape != (3, 3) or same(old[:, 1], new[:, 1])
            moves = not same(old[WITHOUT], whole[name][WITHOUT])
            at_rest = row.key in ("moco", "modo", "sdmgrad")  # their weights of these two may lie in a corner
            assert at_rest or same(old[WITHOUT], new[WITHOUT]) != moves, name


@rows([row for row in ROWS if "learned" in row.state])
def test_what_an_optimiser_remembers_moves_the_weight_of_an_absent_task_little_and_then_not_at_all(
    row: Method,
) -> None:
    net, balancer, path = Net(), build(row), []
    (learned,) = balancer.parameters()
    optimizer = torch.optim.Adam(balancer.parameters(), lr=0.025)
    for step in range(450):
        optimizer.zero_grad()
        balancer.backward(net.losses(), **net.given("shared"), present=[True, step < 50, True])
        optimizer.step()
        path.append(learned.detach().clone())
    assert 0 < (path[-1] - path[49])[1].abs() < 10 * 0.025  # momentum of 0.9 is worth nine steps
    assert (path[-1] - path[249])[1].abs() < 1e-6
    assert ((path[-1] - path[49])[WITHOUT].abs() > 1e-3).any()


@rows([METHODS[key] for key in ("initial", "normalized-rate", "gradnorm")])
def test_the_first_loss_of_a_task_is_that_of_its_first_label(row: Method) -> None:
    net, balancer = Net(), build(row)
    first = net.losses().detach()
    balancer.backward(losses_without(net), **net.given("shared"), present=[True, False, True])
    balancer.backward(2 * net.losses(), **net.given("shared"))
    initial = next(state for name, state in balancer.state_dict().items() if name.endswith("_extra_state"))
    torch.testing.assert_close(initial, first * vector(1, 2, 1))


def test_GradNorms_weights_keep_their_sum() -> None:
    net, balancer = Net(), mtl.GradNorm(3)
    for step in range(30):
        present = [True, step % 3 == 0, step % 2 == 0]
        balancer.backward(net.losses(), **net.given("shared"), present=present)
        assert abs(balancer.weights.sum() - 3) < 1e-12
    assert (balancer.weights - 1).abs().min() > 0.01
    before = balancer.weights, balancer.m, balancer.v
    balancer.backward(net.losses(), **net.given("shared"), present=[True, False, True])
    for old, new in zip(before, (balancer.weights, balancer.m, balancer.v), strict=True):
        assert (old == new).tolist() == [False, True, False]


@every_row
@both_ways
def test_a_batch_without_any_label_changes_nothing(row: Method, by: str) -> None:
    net, balancer = Net(), build(row)
    before = copy.deepcopy(balancer.state_dict())
    assert torch.equal(
        balancer.backward(net.losses(), **net.given(by), present=[0, 0, 0]), torch.zeros(3).double()
    )
    assert all(p.grad is None for p in [*net.parameters(), *balancer.parameters()])
    assert str(balancer.state_dict()) == str(before)


@every_row
@pytest.mark.parametrize("present", [[True, True], [1, 1, -1], [1, 1, float("nan")], [[1, 1, 1]]], ids=str)
def test_what_does_not_say_who_is_present_is_refused(row: Method, present: list) -> None:
    net = Net()
    with pytest.raises(ValueError, match="present must hold True or False for each of 3 tasks"):
        build(row).backward(net.losses(), **net.given("shared"), present=present)
    assert all(p.grad is None for p in net.parameters())


@every_row
def test_a_group_is_one_or_the_word_alone(row: Method) -> None:
    net = Net()
    with pytest.raises(ValueError, match="group is 'lonely', but must be a process group, None, or 'alone'"):
        build(row).backward(net.losses(), **net.given("shared"), group="lonely")
    build(row).backward(net.losses(), **net.given("shared"), group="alone")


@loss_rows
def test_a_method_of_another_number_of_tasks_says_so(row: Method) -> None:
    net = Net(4)
    balancer = build(row)
    if any(tensor.shape == (3,) for tensor in [*balancer.parameters(), *balancer.buffers()]):
        with pytest.raises(ValueError, match="built for 3 tasks but was given 4 losses"):
            balancer.backward(net.losses(), **net.given("shared"), present=[1, 1, 1, 0])
