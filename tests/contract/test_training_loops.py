"""What users of such tools hit in their training loops: each kind of failure, with the value that is right."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import mtl_ref as mtl

LOSS_LEVEL = {
    "fixed": lambda: mtl.FixedWeighting([0.5, 2.0]),
    "equal": mtl.EqualWeighting,
    "initial": mtl.InitialLossScaling,
    "prior": lambda: mtl.PriorLossScaling([1.0, 2.0]),
    "real-time": mtl.RealTimeLossScaling,
    "geometric": mtl.GeometricMean,
    "power": lambda: mtl.PowerMean(2.0),
    "uncertainty": lambda: mtl.UncertaintyWeighting(["regression", "classification"]),
    "automatic": lambda: mtl.AutomaticWeightedLoss(2),
}
GRADIENT_LEVEL = {"MGDA": mtl.MGDA, "PCGrad": mtl.PCGrad, "normalised": mtl.GradientNormalization}
ALL = {**LOSS_LEVEL, "GradNorm": lambda: mtl.GradNorm(2), **GRADIENT_LEVEL}


class Net(nn.Module):
    """An encoder and two heads, with a batch of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enc = nn.Linear(8, 4)
        self.heads = nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)])
        self.X, self.Y = torch.randn(16, 8), torch.randn(16, 2)

    def losses(self) -> tuple[Tensor, Tensor]:
        z = self.enc(self.X)
        errors = [(head(z)[:, 0] - y).square().mean() for head, y in zip(self.heads, self.Y.T, strict=True)]
        return torch.stack(errors), z


def grads(module: nn.Module) -> list[Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in module.parameters()]


def untouched(module: nn.Module) -> bool:
    return all(g is None for g in grads(module))


# --- The graph is walked by edge: a node can have several outputs (U1, U2)


def test_a_model_compiled_as_a_whole_is_refused_with_features() -> None:
    net = Net()
    losses, z = torch.compile(net.losses, backend="aot_eager")()
    with pytest.raises(ValueError, match="compile encoder and heads each for itself"):
        mtl.MGDA().backward(losses, features=z)
    assert untouched(net)


@pytest.mark.parametrize("how", ["shared", "features"])
def test_a_compiled_model_gives_eagers_gradients(how: str) -> None:
    net, eager = Net(), Net()
    losses, z = eager.losses()
    given = {"shared": eager.enc.parameters()} if how == "shared" else {"features": z}
    mtl.MGDA().backward(losses, **given)
    enc = torch.compile(net.enc, backend="aot_eager")
    z = enc(net.X)
    errors = [(head(z)[:, 0] - y).square().mean() for head, y in zip(net.heads, net.Y.T, strict=True)]
    given = {"shared": net.enc.parameters()} if how == "shared" else {"features": z}
    with torch._functorch.config.patch(donated_buffer=False):
        mtl.MGDA().backward(torch.stack(errors), **given)
    for found, wanted in zip(grads(net), grads(eager), strict=True):
        torch.testing.assert_close(found, wanted)


def test_an_output_of_the_same_node_that_is_not_given_is_noticed() -> None:
    net = Net()
    a, b = net.enc(net.X).chunk(2, 1)
    losses = torch.stack([a.square().mean(), b.square().mean()])
    with pytest.raises(ValueError, match="the features do not separate"):
        mtl.MGDA().backward(losses, features=a)
    assert untouched(net)


@pytest.mark.parametrize("method", list(GRADIENT_LEVEL))
def test_outputs_of_one_node_may_be_given_together(method: str) -> None:
    whole, parts = Net(), Net()
    z = whole.enc(whole.X)
    GRADIENT_LEVEL[method]().backward(torch.stack([z[:, :3].square().mean(), z.sum()]), features=z)
    a, b = parts.enc(parts.X).chunk(2, 1)
    z = torch.cat([a, b], 1)
    GRADIENT_LEVEL[method]().backward(torch.stack([z[:, :3].square().mean(), z.sum()]), features=[a, b])
    torch.testing.assert_close(parts.enc.weight.grad, whole.enc.weight.grad)


# --- What is given must be what the losses depend on (U6, U7, U9, U26)


@pytest.mark.parametrize("method", ["GradNorm", *GRADIENT_LEVEL])
@pytest.mark.parametrize("how", ["shared", "features"])
def test_what_no_loss_reaches_is_refused(method: str, how: str) -> None:
    net = Net()
    other = copy.deepcopy(net)
    losses, _ = net.losses()
    given = {"shared": other.enc.parameters()} if how == "shared" else {"features": other.losses()[1]}
    balancer = ALL[method]()
    with pytest.raises(ValueError, match=f"no loss depends on any tensor in {how}"):
        balancer.backward(losses, **given)
    assert untouched(net)
    assert untouched(other)


@pytest.mark.parametrize("method", ["GradNorm", *GRADIENT_LEVEL])
def test_a_shared_tensor_that_is_no_leaf_belongs_in_features(method: str) -> None:
    hyper = nn.Linear(3, 8)
    W = hyper(torch.ones(3)).view(4, 2)
    losses = (torch.ones(5, 4) @ W).square().mean(0)
    with pytest.raises(ValueError, match="Give such a tensor as features"):
        ALL[method]().backward(losses, shared=[W])
    assert untouched(hyper)
    ALL[method]().backward(losses, features=W)
    assert hyper.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("method", ["GradNorm", *GRADIENT_LEVEL])
def test_a_shared_layer_inside_a_reentrant_checkpoint_is_refused(method: str) -> None:
    net, last = Net(), nn.Linear(4, 2)
    X = net.X.requires_grad_()
    for shared in (list(net.enc.parameters()), [*net.enc.parameters(), *last.parameters()]):
        z = last(checkpoint(net.enc, X, use_reentrant=True))
        balancer = ALL[method]()
        with pytest.raises(ValueError, match="use_reentrant=False"):
            balancer.backward(z.square().mean(0), shared=shared)
        assert untouched(net)
    z = last(checkpoint(net.enc, X, use_reentrant=False))
    ALL[method]().backward(z.square().mean(0), shared=net.enc.parameters())
    assert net.enc.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("method", list(ALL))
@pytest.mark.parametrize("kind", ["list", "dict", "float"])
def test_losses_that_are_no_tensor_are_said_in_words(method: str, kind: str) -> None:
    net = Net()
    a, b = net.losses()[0]
    losses = {"list": [a, b], "dict": {"a": a, "b": b}, "float": 2.0}[kind]
    for call in (ALL[method]().backward, ALL[method]() if method in LOSS_LEVEL else ALL[method]().backward):
        with pytest.raises(ValueError, match=rf"losses must be one tensor .* is a {kind}.*torch\.stack"):
            call(losses)
    assert untouched(net)


@pytest.mark.parametrize("method", ["GradNorm", *GRADIENT_LEVEL])
def test_containers_that_hold_no_tensors_are_said_in_words(method: str) -> None:
    net = Net()
    losses, z = net.losses()
    cases = [
        ({"shared": net.enc}, r"a Linear.*module\.parameters\(\)"),
        ({"shared": nn.Sequential(net.enc)}, r"a Linear.*module\.parameters\(\)"),
        ({"shared": net.enc.named_parameters()}, r"a tuple.*named_parameters\(\)"),
        ({"shared": dict(net.enc.named_parameters())}, r"a dict.*list\(d\.values\(\)\)"),
        ({"features": {"z": z}}, r"a dict.*list\(d\.values\(\)\)"),
    ]
    for given, message in cases:
        with pytest.raises(ValueError, match=message):
            ALL[method]().backward(losses, **given)
    assert untouched(net)


# --- Losses that keep a gradient, and graphs that are used again (U17, U29)


@pytest.mark.parametrize("method", [*LOSS_LEVEL, "GradNorm"])
def test_losses_that_retain_their_gradient_hold_the_weights_once(method: str) -> None:
    net = Net()
    losses, z = net.losses()
    losses.retain_grad()
    weights = ALL[method]().backward(losses, features=z)
    assert torch.equal(losses.grad, weights)
    losses.grad.zero_()
    assert weights.abs().sum() > 0


@pytest.mark.parametrize("method", list(ALL))
@pytest.mark.parametrize("how", ["shared", "features"])
def test_the_graph_stays_where_retain_graph_says_so(method: str, how: str) -> None:
    net, plain = Net(), Net()
    losses, z = net.losses()
    given = {"shared": list(net.enc.parameters())} if how == "shared" else {"features": z}
    ALL[method]().backward(losses, **given, retain_graph=True)
    once = grads(net)
    (3 * losses.sum() + z.sum()).backward()
    losses, z = plain.losses()
    (3 * losses.sum() + z.sum()).backward()
    for both, first, second in zip(grads(net), once, grads(plain), strict=True):
        torch.testing.assert_close(both, first + second)
    losses, z = net.losses()
    given = {"shared": list(net.enc.parameters())} if how == "shared" else {"features": z}
    ALL[method]().backward(losses, **given)
    with pytest.raises(RuntimeError, match="a second time"):
        losses.sum().backward()
