"""What users of such tools hit in their training loops: each kind of failure, with the value that is right."""

import copy
import io
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import mtl_ref as mtl
from mtl_ref.checks import in_float64
from mtl_ref.gradients import add_to_grad, gradient_norms, gram, task_gradients

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


# --- `.grad` as PyTorch's own accumulation leaves it (U3, U18, U22)


def test_gradients_have_the_strides_of_their_parameters() -> None:
    def model() -> tuple[nn.Parameter, nn.Parameter, nn.Parameter, Tensor]:
        torch.manual_seed(0)
        w, v = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(4, 3).T)
        holes = torch.randn(3, 8)[:, ::2].requires_grad_()
        z = torch.randn(5, 4)
        rows = [torch.einsum("bi,oi->bo", z, p) for p in (w, v, holes)]
        return w, v, holes, torch.stack([sum(r.square().mean() for r in rows), sum(r.sin().mean() for r in rows)])

    *plain, losses = model()
    losses.sum().backward()
    wanted = [p.grad.stride() for p in plain]
    assert wanted == [(4, 1), (1, 3), (4, 1)]
    for shared in ([0], [0, 1, 2], [1]):
        *ours, losses = model()
        mtl.PCGrad().backward(losses, shared=[ours[i] for i in shared])
        assert [p.grad.stride() for p in ours] == wanted
    image = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    out = image(torch.randn(2, 3, 5, 5))
    mtl.MGDA().backward(torch.stack([out.square().mean(), out.sin().mean()]), shared=image.parameters())
    assert image.weight.grad.stride() == image.weight.stride() == (27, 1, 9, 3)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_table_used_sparse_and_dense_gets_what_two_plain_backwards_give(order: tuple[int, int]) -> None:
    def model() -> tuple[nn.Embedding, Tensor, list[Tensor]]:
        torch.manual_seed(0)
        table, enc = nn.Embedding(5, 4, sparse=True), nn.Linear(3, 4)
        index, z = torch.tensor([1, 3, 3]), enc(torch.randn(3, 3))
        losses = [(z * table(index)).mean(), nn.functional.cross_entropy(z @ table.weight.T, index)]
        return table, z, [losses[i] for i in order]

    table, _, losses = model()
    for loss in losses:
        loss.backward(retain_graph=True)
    wanted = table.weight.grad
    for _ in range(2):
        table, z, losses = model()
        mtl.MGDA().backward(torch.stack(losses), features=z)
        torch.testing.assert_close(table.weight.grad, wanted)


def test_a_sparse_gradient_stays_sparse() -> None:
    table, head = nn.Embedding(5, 4, sparse=True), nn.Linear(4, 4)
    for times in (1, 2):
        z = head(torch.ones(3, 4))
        losses = torch.stack([(z * table(torch.tensor([1, 3, 3]))).sum(), z.square().sum()])
        mtl.MGDA().backward(losses, features=z)
        assert table.weight.grad.is_sparse
        rows = z.detach()[0] * times
        torch.testing.assert_close(table.weight.grad.to_dense()[[1, 3]], torch.stack([rows, 2 * rows]))


def test_each_piece_goes_to_the_device_of_its_parameter() -> None:
    elsewhere = nn.Parameter(torch.ones(3, 2, device="meta"))
    add_to_grad(elsewhere, torch.ones(3, 2))
    assert elsewhere.grad.device.type == "meta"
    add_to_grad(elsewhere, torch.ones(3, 2))
    assert elsewhere.grad.shape == (3, 2)


# --- α meets J in float32 or better, and the direction is rounded once (U4, U5, U10, U20)


@pytest.mark.parametrize("method", list(GRADIENT_LEVEL))
def test_autocast_has_no_part_in_the_combination(method: str) -> None:
    rows = torch.tensor([[1.0, 0.01], [-0.7, 0.01]])
    directions = []
    for enabled in (False, True):
        torch.manual_seed(0)
        W = nn.Parameter(torch.zeros(2))
        losses = torch.stack([(row * W).sum() + 1 for row in rows])
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            GRADIENT_LEVEL[method]().backward(losses, shared=[W])
            torch.manual_seed(0)
            torch.testing.assert_close(GRADIENT_LEVEL[method]()(rows), W.grad, rtol=0, atol=0)
        directions.append(W.grad)
    assert torch.equal(*directions)
    if method == "MGDA":
        torch.testing.assert_close(rows @ directions[1], torch.full((2,), 1e-4), rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", list(GRADIENT_LEVEL))
def test_in_half_precision_the_direction_is_rounded_once(method: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    for scale in (1.0, 2.0**-12):
        for _ in range(20):
            J = (scale * torch.randn(2, 6, generator=generator)).to(dtype)
            W = nn.Parameter(torch.zeros(6, dtype=dtype))
            torch.manual_seed(0)
            GRADIENT_LEVEL[method]().backward(torch.stack([(row * W).sum() for row in J]), shared=[W])
            torch.manual_seed(0)
            exact = GRADIENT_LEVEL[method]()(J.double())
            torch.testing.assert_close(W.grad, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=2.0**-24)
            torch.manual_seed(0)
            assert torch.equal(GRADIENT_LEVEL[method]()(J), W.grad)


def test_the_weights_of_a_half_precision_model_are_not_rounded() -> None:
    W = nn.Parameter(torch.zeros(2, dtype=torch.float16))
    losses = torch.stack([(torch.tensor([1e-6, 0.0]).half() * W).sum(), W[1] * 3])
    weights = mtl.GradientNormalization().backward(losses, shared=[W])
    assert weights.dtype == torch.float32
    assert W.grad.tolist() == [1, 1]


@pytest.mark.parametrize("method", list(GRADIENT_LEVEL))
def test_complex_parameters_are_refused_before_anything_is_written(method: str) -> None:
    c, head = nn.Parameter(torch.tensor([1 + 1j, 2j])), nn.Parameter(torch.ones(2))
    losses = torch.stack([(head * c.abs().square()).sum(), (head * c.real).sum()])
    with pytest.raises(ValueError, match="a tensor in shared is complex"):
        GRADIENT_LEVEL[method]().backward(losses, shared=[c])
    assert c.grad is None
    assert head.grad is None


def test_the_norm_of_a_complex_gradient_counts_both_parts() -> None:
    c = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    losses = torch.stack([3 * c[0].imag + 4 * c[1].imag, 3 * c[0].real + 4 * c[1].imag])
    assert gradient_norms(losses, [c]).tolist() == [5, 5]
    balancer = mtl.GradNorm(2, alpha=0.0)
    balancer.backward(losses * torch.tensor([1.0, 3.0]), shared=[c])
    assert balancer.weights[0] > balancer.weights[1]


@pytest.mark.parametrize("method", [*GRADIENT_LEVEL, "rated", "GradNorm", "fixed", "equal", "uncertainty"])
def test_scaled_losses_that_overflow_are_left_to_the_scaler(method: str) -> None:
    kinds = {**ALL, "rated": lambda: mtl.GradientNormalization(1.0), "GradNorm": lambda: mtl.GradNorm(2, 0.5)}
    balancer = kinds[method]()
    W, head = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([W, head, *balancer.parameters()], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**17)
    taken = []
    for _ in range(4):
        losses = torch.stack([(W * head).sum().half(), (W * W).sum().half()])
        optimizer.zero_grad()
        before = W.detach().clone()
        state = copy.deepcopy(balancer.state_dict())
        balancer.backward(scaler.scale(losses), shared=[W])
        scaler.step(optimizer)
        scaler.update()
        taken.append(not torch.equal(before, W))
        if not taken[-1]:
            assert all(torch.equal(x, state[name]) for name, x in balancer.state_dict().items())
    assert not taken[0]
    assert taken[-1]
    assert W.isfinite().all()
    assert scaler.get_scale() < 2.0**17


@pytest.mark.parametrize("method", list(ALL))
@pytest.mark.parametrize(
    ("value", "dtype"), [("nan", torch.float16), ("nan", torch.float32), ("inf", torch.float32)]
)
def test_other_losses_that_are_not_finite_are_errors(method: str, value: str, dtype: torch.dtype) -> None:
    W = nn.Parameter(torch.ones(2))
    losses = torch.stack([W.sum().to(dtype), W.sum().to(dtype) * float(value)])
    with pytest.raises(ValueError, match=f"the loss of task 1 .counting from 0. is {value}"):
        ALL[method]().backward(losses, shared=[W])
    assert W.grad is None


def test_an_overflow_is_never_kept_as_an_initial_loss() -> None:
    losses = torch.tensor([1.0, float("inf")], dtype=torch.float16, requires_grad=True)
    with pytest.raises(ValueError, match=r"the loss of task 1 .counting from 0. is inf"):
        mtl.InitialLossScaling().backward(losses)


# --- Losses that are multiplied by numbers cost what stacked ones do (U27)

CHANGES = {
    "as stacked": lambda L: L,
    "divided": lambda L: L / 4,
    "scaled": lambda L: L * torch.tensor(1024.0),
    "preferred": lambda L: 3 * (L * torch.tensor([1.0, 2.0])),
    "by itself": lambda L: L / L.detach() + 1,
    "double": lambda L: -L.double(),
    "logarithm": torch.log,
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_pass_goes_through_its_own_head_only(change: str) -> None:
    net, plain = Net(), Net()
    passes = []
    for t, head in enumerate(net.heads):
        head.register_forward_hook(lambda m, x, out, t=t: out.register_hook(lambda g: passes.append(t)) and None)
    losses = CHANGES[change](net.losses()[0])
    mtl.PCGrad().backward(losses, shared=net.enc.parameters())
    assert passes == [0, 1]
    wanted = CHANGES[change](plain.losses()[0])
    for ours, head in zip(net.heads, plain.heads, strict=True):
        (gradient,) = torch.autograd.grad(wanted.sum(), head.weight, retain_graph=True)
        torch.testing.assert_close(ours.weight.grad, gradient)


@pytest.mark.parametrize(
    "mix", [lambda L: L * L, lambda L: L / L.sum(), lambda L: L.softmax(0), lambda L: L.flip(0)]
)
def test_losses_that_are_mixed_are_differentiated_as_they_are(mix: Callable[[Tensor], Tensor]) -> None:
    net = Net()
    losses = mix(net.losses()[0])
    rows = [torch.autograd.grad(loss, net.enc.weight, retain_graph=True)[0].flatten() for loss in losses]
    torch.testing.assert_close(task_gradients(losses, [net.enc.weight]), torch.stack(rows))


def test_learned_factors_on_the_losses_learn() -> None:
    net, factors = Net(), nn.Parameter(torch.ones(2))
    losses = net.losses()[0]
    mtl.MGDA().backward(losses * factors, shared=net.enc.parameters())
    torch.testing.assert_close(factors.grad, losses.detach())


# --- State that copies of the model can follow, and that resumes a run (U19)


class WithBalancer(Net):
    def __init__(self, balancer: nn.Module) -> None:
        super().__init__()
        self.balancer = balancer
        self.norm = nn.BatchNorm1d(4)


STATEFUL = {
    **ALL,
    "rated": lambda: mtl.GradientNormalization(1.0),
    "given": lambda: mtl.InitialLossScaling([1, 2]),
}


@pytest.mark.parametrize("method", list(STATEFUL))
@pytest.mark.parametrize("buffers", [False, True])
def test_an_average_of_a_model_that_holds_a_balancer_works(method: str, buffers: bool) -> None:
    net = WithBalancer(STATEFUL[method]())
    before = torch.optim.swa_utils.AveragedModel(net, use_buffers=buffers)
    for step in range(2):
        losses, _ = net.losses()
        net.balancer.backward(losses / (step + 1), shared=net.enc.parameters())
        before.update_parameters(net)
        after = torch.optim.swa_utils.AveragedModel(net, use_buffers=buffers)
        after.update_parameters(net)
    before.load_state_dict(after.state_dict())


@pytest.mark.parametrize("method", list(STATEFUL))
def test_a_run_resumes_exactly(method: str) -> None:
    net, resumed = WithBalancer(STATEFUL[method]()), WithBalancer(STATEFUL[method]())
    scale = torch.tensor([1.0, 3.0])
    for factor in (scale, scale.flip(0)):
        net.balancer.backward(net.losses()[0] * factor, shared=net.enc.parameters())
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file))
    found = []
    for model in (net, resumed):
        torch.manual_seed(0)
        model.zero_grad()
        model.balancer.backward(2 * model.losses()[0], shared=model.enc.parameters())
        found.append(grads(model.enc))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


# --- float64 only where the device has it (U21)


class Apple(Tensor):
    """A tensor that says it is on Apple's GPU, and on which float64 is an error."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is Tensor.cpu:
            with torch._C.DisableTorchFunctionSubclass():
                return args[0].as_subclass(Tensor)
        if func == Tensor.device.__get__:
            return torch.device("mps")
        found = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(found, cls) and func is not Tensor.as_subclass:
            with torch._C.DisableTorchFunctionSubclass():
                if found.dtype == torch.float64:
                    raise TypeError("the MPS framework doesn't support float64")
        return found


def test_the_simulated_device_has_no_float64() -> None:
    with pytest.raises(TypeError, match="float64"):
        torch.ones(2).as_subclass(Apple).double()


def test_products_of_gradients_are_formed_in_float64_on_the_cpu() -> None:
    J = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    M = gram(J.as_subclass(Apple))
    assert type(M) is Tensor
    assert torch.equal(M, gram(J))
    assert type(in_float64(J.as_subclass(Apple))) is Tensor
    mtl.min_norm(M.float().as_subclass(Apple))


def test_power_means_take_their_logarithms_on_the_cpu() -> None:
    losses = torch.tensor([1.0, 2.0, 4.0])
    with pytest.MonkeyPatch.context() as patch:  # the result goes back to a device that is not here
        patch.setattr(Tensor, "to", lambda x, *args: x if args == (torch.device("mps"),) else torch.clone(x))
        assert float(mtl.PowerMean(2.0)(losses.as_subclass(Apple))) == pytest.approx(7**0.5)


def test_state_in_float64_stays_on_the_cpu_and_keeps_its_type() -> None:
    def to_apple(t: Tensor) -> Tensor:
        with torch._C.DisableTorchFunctionSubclass():
            if t.dtype == torch.float64:
                raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return t.as_subclass(Apple)

    for balancer in (mtl.GradNorm(2), mtl.GradientNormalization(1.0), nn.ModuleList([mtl.GradNorm(2)])):
        balancer._apply(to_apple)
    gradnorm = mtl.GradNorm(2).half().bfloat16().float()
    assert gradnorm.weights.dtype == torch.float64
    assert gradnorm.weights.tolist() == [1, 1]
    assert gradnorm.to("meta").weights.device.type == "meta"


# --- GradNorm says that it cannot learn from a framework's own backward (U8)


def test_gradnorm_says_once_that_it_does_not_learn_from_plain_backward() -> None:
    net, balancer = Net(), mtl.GradNorm(2)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(30):
            balancer(net.losses()[0]).backward()
    assert len(said) == 1
    assert "do not learn from loss.backward()" in str(said[0].message)


def test_gradnorm_used_as_it_should_be_says_nothing() -> None:
    net, balancer = Net(), mtl.GradNorm(2)
    for _ in range(12):
        losses, z = net.losses()
        balancer(losses).backward(retain_graph=True)  # to look at it
        balancer.backward(losses, features=z)
    with torch.no_grad():
        balancer(net.losses()[0])


# --- What PyTorch does around a step, and what to do instead (U32, U33, U34)


@pytest.mark.parametrize("method", list(ALL))
@pytest.mark.parametrize("how", ["shared", "features"])
def test_hooks_after_accumulation_run_where_one_backward_pass_of_pytorchs_accumulates(
    method: str, how: str
) -> None:
    net, seen = Net(), []
    for name, parameter in (("encoder", net.enc.weight), ("head", net.heads[0].weight)):
        parameter.register_post_accumulate_grad_hook(lambda p, name=name: seen.append(name))
    losses, z = net.losses()
    ALL[method]().backward(losses, **({"features": z} if how == "features" else {"shared": net.enc.parameters()}))
    if method in GRADIENT_LEVEL:
        assert seen == (["encoder"] if how == "features" else [])
    else:
        assert sorted(seen) == ["encoder", "head"]


def test_features_of_separate_batches_have_no_products_and_shared_parameters_do() -> None:
    found = {}
    for how in ("features", "shared"):
        W = nn.Parameter(torch.tensor([1.0, 2.0]))
        first, second = W * 1, W * 1  # a forward pass for each task
        losses = torch.stack([first.sum(), -2 * second[0]])
        given = {"features": [first, second]} if how == "features" else {"shared": [W]}
        found[how] = mtl.PCGrad().backward(losses, **given).tolist()
    assert found == {"features": [1, 1], "shared": [1 + 1, 1 + 0.5]}


def test_a_model_compiled_as_a_whole_takes_shared_parameters_if_no_buffer_is_donated() -> None:
    eager = Net()
    mtl.PCGrad().backward(eager.losses()[0], shared=eager.enc.parameters())
    for donated in (True, False):
        torch._dynamo.reset()
        net = Net()
        with torch._functorch.config.patch(donated_buffer=donated):
            compiled = torch.compile(net.losses, backend="aot_eager")
            compiled()[0].sum().backward()  # a step of equal weights before
            net.zero_grad()
            losses, _ = compiled()
            if donated:
                with pytest.raises(RuntimeError, match="donated buffers"):
                    mtl.PCGrad().backward(losses, shared=net.enc.parameters())
                assert untouched(net)
            else:
                mtl.PCGrad().backward(losses, shared=net.enc.parameters())
                for found, wanted in zip(grads(net), grads(eager), strict=True):
                    torch.testing.assert_close(found, wanted)


def test_sparse_adam_takes_the_gradients_that_come_through_features() -> None:
    for how in ("shared", "features"):
        table = nn.Embedding(5, 4, sparse=True)
        z = table(torch.tensor([1, 3]))
        losses = torch.stack([z[0].sum(), z[1].square().sum()])
        mtl.MGDA().backward(losses, **({"features": z} if how == "features" else {"shared": table.parameters()}))
        optimizer = torch.optim.SparseAdam(table.parameters())
        if how == "shared":
            with pytest.raises(RuntimeError, match="does not support dense gradients"):
                optimizer.step()
        else:
            before = table.weight.detach().clone()
            optimizer.step()
            assert (table.weight != before).any(1).tolist() == [False, True, False, True, False]
