"""State: a run that is resumed, copied, pickled or moved goes on as the one it came from."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from cases import Method, Net, build, every_row, same
from torch import Tensor, nn

import mtl_ref as mtl


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
    assert all(same(value, state[name]) for name, value in resumed.state_dict().items())


@every_row
def test_it_says_what_it_learns_and_what_it_remembers(row: Method) -> None:
    """The catalogue: numbers that the optimiser learns are parameters, what a method remembers is in its state."""
    balancer = build(row)
    assert bool(list(balancer.parameters())) == ("learned" in row.state) == ("balancer_lr" in row.train)
    if row.state == "none" or (row.state.startswith("random") and "," not in row.state):
        before = copy.deepcopy(balancer.state_dict())
        net = Net()
        balancer.backward(net.losses(), **net.given("shared"))
        assert all(same(value, before[name]) for name, value in balancer.state_dict().items())


@every_row
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_moves_with_to(row: Method, dtype: torch.dtype) -> None:
    net, balancer = Net(dtype=dtype), build(row)
    run(row, balancer, net, 1)
    balancer.to(dtype)
    exact = [getattr(balancer, name) for name in balancer.named("exact")]  # stays in float64
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
    assert all(same(value, state[name]) for name, value in balancer.state_dict().items())
    balancer.backward(net.losses(), **net.given("shared"))
    assert used is before is None or torch.equal(used, before)


@pytest.mark.parametrize(
    ("method", "name"),
    [(mtl.FixedWeighting, "weights"), (mtl.InitialLossScaling, "initial"), (mtl.PriorLossScaling, "prior")],
)
def test_numbers_given_to_the_constructor_are_copied_and_saved(
    method: Callable[[object], nn.Module], name: str
) -> None:
    given = torch.tensor([4.0, 0.25, 3.0])
    balancer, fresh = method(given), method([0, 1, 1] if name == "weights" else [1, 1, 1])
    given.zero_()
    fresh.load_state_dict(balancer.state_dict())
    assert getattr(fresh, name).tolist() == [4.0, 0.25, 3.0]


@pytest.mark.parametrize(
    ("balancer", "shown"),
    [
        (mtl.FixedWeighting([1, 2]), "weights=[1.0, 2.0]"),
        (mtl.PriorLossScaling([1, 2]), "prior=[1.0, 2.0]"),
        (mtl.PowerMean(-2), "gamma=-2"),
        (mtl.UncertaintyWeighting(["regression", "classification"]), "kinds=['regression', 'classification']"),
        (mtl.GradientNormalization(0.5), "alpha=0.5"),
        (mtl.GradNorm(3, 0.12, lr=0.5, update="sgd"), "num_tasks=3, lr=0.5, update=sgd"),
        (mtl.GradNorm(3, 0.12), "alpha=0.12"),
        (mtl.MGDA(), "MGDA(solver=min_norm, normalize=none)"),
        (mtl.MGDA(mtl.frank_wolfe, "l2"), "MGDA(solver=frank_wolfe, normalize=l2)"),
    ],
)
def test_what_a_checkpoint_must_agree_on_is_shown(balancer: nn.Module, shown: str) -> None:
    assert shown in repr(balancer)
