"""State: a run that is resumed, copied, pickled or moved goes on as the one it came from."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from cases import Method, Net, build, every_row
from torch import Tensor, nn


def run(row: Method, balancer: nn.Module, net: Net, steps: int) -> list[Tensor]:
    """Some steps of the network, and of the method's own parameters where it has some: the weights of each."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD([*net.parameters(), *balancer.parameters()], lr=1e-3)
    weights = []
    for _ in range(steps):
        optimizer.zero_grad()
        weights.append(balancer.backward(net.losses(), **net.given("shared")))
        optimizer.step()
    return weights


def loaded(row: Method, balancer: nn.Module) -> nn.Module:
    fresh = build(row)
    fresh.load_state_dict(copy.deepcopy(balancer.state_dict()))
    return fresh


WAYS: dict[str, Callable[[Method, nn.Module], nn.Module]] = {
    "state_dict": loaded,
    "deepcopy": lambda row, balancer: copy.deepcopy(balancer),
    "pickle": lambda row, balancer: pickle.loads(pickle.dumps(balancer)),
}


@every_row
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("steps", [0, 3])
def test_a_run_goes_on_exactly(row: Method, way: str, steps: int) -> None:
    net, balancer = Net(), build(row)
    run(row, balancer, net, steps)
    other, resumed = Net(), WAYS[way](row, balancer)
    other.load_state_dict(net.state_dict())
    expected, found = run(row, balancer, net, 3), run(row, resumed, other, 3)
    for one, two in zip(expected, found, strict=True):
        assert one is two is None or torch.equal(one, two)
    for one, two in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    state = balancer.state_dict()
    assert state.keys() == resumed.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in resumed.state_dict().items())


@every_row
def test_it_says_what_it_learns_and_what_it_remembers(row: Method) -> None:
    """The catalogue: numbers that the optimiser learns are parameters, what a method remembers is in its state."""
    balancer = build(row)
    assert bool(list(balancer.parameters())) == ("learned" in row.state) == ("balancer_lr" in row.train)
    if row.state in ("none", "random order"):
        before = copy.deepcopy(balancer.state_dict())
        net = Net()
        balancer.backward(net.losses(), **net.given("shared"))
        assert all(torch.equal(value, before[name]) for name, value in balancer.state_dict().items())


@every_row
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_moves_with_to(row: Method, dtype: torch.dtype) -> None:
    net, balancer = Net(dtype=dtype), build(row)
    run(row, balancer, net, 1)
    balancer.to(dtype)
    exact = [getattr(balancer, name) for name in balancer.exact]  # stays in float64
    assert all(x.dtype == dtype for x in balancer.parameters())
    assert all(x.dtype == dtype or any(x is y for y in exact) for x in balancer.buffers())
    assert all(x.dtype == torch.float64 for x in exact)
    run(row, balancer, net, 2)
    assert net.grads().isfinite().all()


@every_row
def test_what_it_was_given_and_what_it_returned_is_a_copy(row: Method) -> None:
    net, balancer = Net(), build(row)
    losses = net.losses()
    used = balancer.backward(losses, **net.given("shared"))
    before, state = copy.deepcopy((used, balancer.state_dict()))
    with torch.no_grad():
        losses.mul_(10)
    assert all(torch.equal(value, state[name]) for name, value in balancer.state_dict().items())
    balancer.backward(net.losses(), **net.given("shared"))
    assert used is before is None or torch.equal(used, before)
