"""What every method does around its formula: gradients once, each parameter its share, nothing else touched."""

import math

import pytest
import torch
from benchmarks.step_cost import peak_memory
from torch import nn

import mtl_ref as mtl
from mtl_ref.gradients import gram, task_gradients


class Sum(mtl.GradientBalancer):
    """d = Σ gᵢ, so that every gradient must agree with that of the plain sum."""

    def task_weights(self, M, losses=None):
        self.seen = M, losses
        return torch.ones(len(M), dtype=torch.float64)


class Weighted(mtl.GradientBalancer):
    """d = Σ wᵢ gᵢ with given weights."""

    def __init__(self, weights):
        super().__init__()
        self.w = torch.tensor(weights, dtype=torch.float64)

    def task_weights(self, M, losses=None):
        return self.w


class Net(nn.Module):
    """An encoder of two layers, one head a task, and a parameter that no task uses."""

    def __init__(self, tasks=3, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        self.heads = nn.ModuleList(
            [nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1)) for _ in range(tasks)]
        )
        self.unused = nn.Parameter(torch.ones(2))
        self.x = torch.randn(6, 4)
        self.to(dtype)
        self.x = self.x.to(dtype)

    def losses(self):
        z = self.encoder(self.x)
        return z, [(i + 1) * head(z).square().mean() for i, head in enumerate(self.heads)]


def expected(net, weights):
    """∂/∂θ of Σ wᵢ Lᵢ for the encoder, and of Σ Lᵢ for all else, by plain autograd; the T rows of J too."""
    _, losses = net.losses()
    shared = list(net.encoder.parameters())
    rows = [torch.autograd.grad(loss, shared, retain_graph=True) for loss in losses]
    J = torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])
    direction = [sum(w * row[k] for w, row in zip(weights, rows, strict=True)) for k in range(len(shared))]
    rest = list(net.heads.parameters())
    return J, direction, torch.autograd.grad(sum(losses), rest)


def check_gradients(net, weights, rtol=1e-12):
    _, direction, own = expected(net, weights)
    for parameter, wanted in zip(net.encoder.parameters(), direction, strict=True):
        torch.testing.assert_close(parameter.grad, wanted, rtol=rtol, atol=rtol)
    for parameter, wanted in zip(net.heads.parameters(), own, strict=True):
        torch.testing.assert_close(parameter.grad, wanted, rtol=rtol, atol=rtol)
    assert net.unused.grad is None


WEIGHTS = [0.5, 2.0, -1.0]


@pytest.mark.parametrize("by", ["shared", "features"])
@pytest.mark.parametrize("stacked", [True, False])
def test_shared_parameters_get_the_weighted_sum_and_heads_their_own_gradient(by, stacked):
    net = Net()
    z, losses = net.losses()
    losses = torch.stack(losses) if stacked else torch.cat([loss[None] for loss in losses])
    given = {"shared": net.encoder.parameters()} if by == "shared" else {"features": z}
    weights = Weighted(WEIGHTS).backward(losses, **given)
    check_gradients(net, WEIGHTS)
    assert weights.tolist() == WEIGHTS
    assert not weights.requires_grad


@pytest.mark.parametrize("by", ["shared", "features"])
def test_gradients_are_added_to_those_that_are_there(by):
    net = Net()
    for _ in range(2):
        z, losses = net.losses()
        given = {"shared": net.encoder.parameters()} if by == "shared" else {"features": z}
        Weighted(WEIGHTS).backward(torch.stack(losses), **given)
    for parameter in net.parameters():
        if parameter is not net.unused:
            parameter.grad /= 2
    check_gradients(net, WEIGHTS)


def passes(net, **given):
    """How many times a step goes back through the encoder, and through each head."""
    counts = {"encoder": 0, "heads": [0] * len(net.heads)}

    def in_encoder(gradient):
        counts["encoder"] += 1

    hooks = [net.encoder[0].register_forward_hook(lambda m, x, out: out.register_hook(in_encoder) and None)]
    for i, head in enumerate(net.heads):

        def in_head(gradient, i=i):
            counts["heads"][i] += 1

        hooks.append(head[0].register_forward_hook(lambda m, x, out, h=in_head: out.register_hook(h) and None))
    z, losses = net.losses()
    for hook in hooks:
        hook.remove()
    given = {"features": z} if given.get("features") else {"shared": net.encoder.parameters()}
    mtl.MGDA().backward(torch.stack(losses), **given)
    return counts


@pytest.mark.parametrize("tasks", [1, 2, 7])
def test_each_gradient_is_formed_once(tasks):
    assert passes(Net(tasks)) == {"encoder": tasks, "heads": [1] * tasks}


@pytest.mark.parametrize("tasks", [1, 2, 7])
def test_with_features_the_encoder_is_passed_once(tasks):
    assert passes(Net(tasks), features=True) == {"encoder": 1, "heads": [1] * tasks}


def test_the_method_sees_the_gram_matrix_and_the_losses_in_float64():
    net = Net(dtype=torch.float32)
    J, _, _ = expected(net, WEIGHTS)
    _, losses = net.losses()
    balancer = Sum()
    balancer.backward(torch.stack(losses), shared=net.encoder.parameters())
    M, seen = balancer.seen
    assert M.dtype == seen.dtype == torch.float64
    assert not seen.requires_grad
    torch.testing.assert_close(M, J.double() @ J.double().T, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(seen, torch.stack(losses).detach().double())


def test_rows_are_autograds_gradients():
    net = Net()
    J, _, _ = expected(net, WEIGHTS)
    _, losses = net.losses()
    torch.testing.assert_close(task_gradients(torch.stack(losses), list(net.encoder.parameters())), J)


def test_losses_that_one_node_makes_stay_apart():
    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    first, second = torch.stack([3 * x[0], 5 * x[1]]).unbind()  # a node with two outputs
    J = task_gradients(torch.stack([second, first]), [x])
    assert torch.equal(J, torch.tensor([[0.0, 5.0], [3.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("columns", [1, 7, 100, 1000])
def test_the_gram_matrix_does_not_depend_on_its_blocks(columns):
    J = torch.randn(3, 100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gram(J, columns), J @ J.T, rtol=1e-13, atol=1e-13)


def test_the_gram_matrix_of_dependent_gradients_is_as_good_as_semidefinite():
    generator = torch.Generator().manual_seed(0)
    J = torch.randn(40, 3, generator=generator) @ torch.randn(3, 50_000, generator=generator)
    J[7] = -J[3]
    M = gram(J)
    eigenvalues = torch.linalg.eigvalsh(M)
    exact = J.double() @ J.double().T
    assert M.dtype == torch.float64
    assert eigenvalues[0] > -1e-13 * eigenvalues[-1]
    torch.testing.assert_close(M, exact, rtol=1e-11, atol=1e-11 * exact.abs().max().item())


def large_encoder(tasks: int, size: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor, int]:
    """An encoder with many parameters, its representation, the losses, and the parameters' size in bytes."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))
    z = encoder(torch.randn(2, size))
    losses = torch.stack([z[:, t].square().mean() for t in range(tasks)])
    return encoder, z, losses, 4 * sum(p.numel() for p in encoder.parameters())


def test_memory_is_at_most_that_of_t_plus_2_gradients():
    encoder, _, losses, one = large_encoder(8, 700)
    peak = peak_memory(lambda: mtl.MGDA().backward(losses, shared=encoder.parameters()))
    assert 8 * one < peak <= (8 + 2) * one


def test_features_need_no_memory_for_the_encoders_gradients():
    _, z, losses, one = large_encoder(8, 700)
    assert peak_memory(lambda: mtl.MGDA().backward(losses, features=z)) <= 1.5 * one


def test_a_parameter_in_a_nested_module_or_in_two_heads_is_found():
    torch.manual_seed(0)
    W, scale = nn.Parameter(torch.randn(3)), nn.Parameter(torch.tensor(2.0))
    nested = nn.Sequential(nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.Linear(2, 1))))
    losses = torch.stack([scale * nested(W).square().sum(), scale * W.square().sum() + nested(W).sum()])
    rest = [scale, *nested.parameters()]
    wanted = torch.autograd.grad(losses.sum(), rest, retain_graph=True)
    Weighted([0.3, 0.7]).backward(losses, shared=[W])
    for parameter, gradient in zip(rest, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_encoder_parameters_that_are_not_given_get_the_plain_sum():
    net = Net()
    _, losses = net.losses()
    Weighted(WEIGHTS).backward(torch.stack(losses), shared=net.encoder[2].parameters())
    _, direction, _ = expected(net, WEIGHTS)
    _, plain, _ = expected(net, [1.0, 1.0, 1.0])
    for parameter, wanted in zip(net.encoder.parameters(), [*plain[:2], *direction[2:]], strict=True):
        torch.testing.assert_close(parameter.grad, wanted)


def test_a_task_that_does_not_use_a_shared_parameter_has_gradient_zero_there():
    a, b, c = (nn.Parameter(torch.tensor([float(i)])) for i in (1, 2, 3))
    losses = torch.stack([(a * 3).sum(), (b * a).sum()])
    assert task_gradients(losses, [a, b, c]).tolist() == [[3.0, 0.0, 0.0], [2.0, 1.0, 0.0]]


def test_a_shared_parameter_that_no_task_uses_gets_a_gradient_of_zero():
    a, idle = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    Sum().backward(torch.stack([a.sum(), a.square().sum()]), shared=[a, idle])
    assert idle.grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_constant_loss_has_gradient_zero(place):
    a, head = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    losses = [(a * head).sum(), 3 * a.sum()]
    losses.insert(place, torch.tensor(4.0))
    balancer = Sum()
    balancer.backward(torch.stack(losses), shared=[a])
    M, _ = balancer.seen
    assert M[place].tolist() == [0.0, 0.0, 0.0]
    assert a.grad.tolist() == [4.0, 4.0]
    assert head.grad.tolist() == [1.0, 1.0]


def test_frozen_parameters_stay_without_gradient():
    net = Net()
    net.encoder[0].weight.requires_grad_(False)
    net.heads[1][0].weight.requires_grad_(False)
    _, losses = net.losses()
    Weighted(WEIGHTS).backward(torch.stack(losses), shared=net.encoder.parameters())
    assert net.encoder[0].weight.grad is None
    assert net.heads[1][0].weight.grad is None
    net.requires_grad_(True)
    _, direction, _ = expected(net, WEIGHTS)
    torch.testing.assert_close(net.encoder[2].weight.grad, direction[2])


def test_duplicates_count_once():
    a = nn.Parameter(torch.tensor([1.0, 2.0]))
    balancer = Sum()
    balancer.backward(torch.stack([a.sum(), a.square().sum()]), shared=[a, a])
    assert balancer.seen[0].tolist() == [[2.0, 6.0], [6.0, 20.0]]
    assert a.grad.tolist() == [3.0, 5.0]
    a.grad = None
    z = a * 1
    balancer.backward(torch.stack([z.sum(), z.square().sum()]), features=[z, z])
    assert a.grad.tolist() == [3.0, 5.0]


def test_one_tensor_may_be_given_instead_of_a_list():
    W = nn.Parameter(torch.eye(2))
    Weighted([0.5, 2.0]).backward(torch.ones(2) @ W, shared=W)
    assert W.grad.tolist() == [[0.5, 2.0], [0.5, 2.0]]


def test_several_features_are_combined_together():
    net = Net()
    z, _ = net.losses()
    left, right = z.chunk(2, dim=1)
    both = torch.cat([left, right], dim=1)
    losses = [(i + 1) * head(both).square().mean() for i, head in enumerate(net.heads)]
    Weighted(WEIGHTS).backward(torch.stack(losses), features=[left, right])
    check_gradients(net, WEIGHTS)


def past_the_features():
    """Losses and features between which a gradient would count twice, and the parameters."""
    net = Net()
    hidden = net.encoder[:2](net.x)
    z = net.encoder[2](hidden)
    W = nn.Parameter(torch.ones(2))
    tied = W * 3
    skipping = torch.stack([head(z).mean() + hidden.mean() for head in net.heads])
    plain = torch.stack([head(z).mean() for head in net.heads])
    return {
        "a feature computed from another": (plain, [hidden, z], net.parameters()),
        "a skip connection": (skipping, [z], net.parameters()),
        "a weight of the encoder in a head": (torch.stack([tied.sum(), (W * tied).sum()]), [tied], [W]),
    }


@pytest.mark.parametrize("case", list(past_the_features()))
def test_features_that_do_not_separate_heads_from_encoder_are_refused(case):
    losses, features, parameters = past_the_features()[case]
    with pytest.raises(ValueError, match="the features do not separate the heads from the encoder"):
        Sum().backward(losses, features=features)
    assert all(p.grad is None for p in parameters)


def test_a_skip_connection_is_no_hindrance_to_shared_parameters():
    net = Net()
    hidden = net.encoder[:2](net.x)
    losses = [head(net.encoder[2](hidden)).mean() + i * hidden.mean() for i, head in enumerate(net.heads)]
    shared = list(net.encoder.parameters())
    wanted = torch.autograd.grad(
        sum(w * loss for w, loss in zip(WEIGHTS, losses, strict=True)), shared, retain_graph=True
    )
    Weighted(WEIGHTS).backward(torch.stack(losses), shared=shared)
    for parameter, gradient in zip(shared, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_two_parameters_never_share_the_memory_of_a_gradient():
    a, b, c = (nn.Parameter(torch.ones(3)) for _ in range(3))
    for _ in range(2):
        Sum().backward(torch.stack([(a * (b + c)).sum(), a.square().sum()]), shared=[a])
    assert b.grad.tolist() == [2.0, 2.0, 2.0]
    assert c.grad.tolist() == [2.0, 2.0, 2.0]
    b.grad.mul_(0)
    assert c.grad.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_keep_their_type(dtype):
    exact, net = Net(), Net(dtype=dtype)
    _, direction, _ = expected(exact, WEIGHTS)
    for by in ("shared", "features"):
        net.zero_grad()
        z, losses = net.losses()
        given = {"shared": net.encoder.parameters()} if by == "shared" else {"features": z}
        Weighted(WEIGHTS).backward(torch.stack(losses), **given)
        for parameter, wanted in zip(net.encoder.parameters(), direction, strict=True):
            assert parameter.grad.dtype == dtype
            torch.testing.assert_close(parameter.grad.double(), wanted, rtol=0.1, atol=0.05)


def test_parameters_of_different_types_are_combined_in_the_wider_one():
    a, b = nn.Parameter(torch.ones(2, dtype=torch.bfloat16)), nn.Parameter(torch.ones(3))
    losses = torch.stack([a.float().sum() + b.sum() * 1.001, b.square().sum()])
    assert task_gradients(losses, [a, b]).dtype == torch.float32
    losses = torch.stack([a.float().sum() + b.sum() * 1.001, b.square().sum()])
    Weighted([1.0, 1.0]).backward(losses, shared=[a, b])
    assert a.grad.dtype == torch.bfloat16
    torch.testing.assert_close(b.grad, torch.full((3,), 3.001))


def test_gradients_that_are_not_finite_pass_through_to_the_scaler():
    a = nn.Parameter(torch.tensor([0.0, 1.0]))
    weights = mtl.MGDA().backward(torch.stack([a.sqrt().sum(), a.sum()]), shared=[a])
    assert weights.isnan().all()
    assert a.grad.isnan().all()
    assert mtl.MGDA()(torch.full((1, 2), torch.inf)).isnan().all()  # of one task too


def test_sparse_gradients_are_combined():
    table = nn.Embedding(3, 2, sparse=True)
    z = table(torch.tensor([0, 2]))
    Weighted([0.5, 2.0]).backward(torch.stack([z[0].sum(), z[1].sum()]), shared=table.parameters())
    assert table.weight.grad.tolist() == [[0.5, 0.5], [0.0, 0.0], [2.0, 2.0]]


def test_a_hook_on_a_parameter_sees_each_gradient_once():
    net, seen = Net(), []
    net.heads[0][0].weight.register_hook(seen.append)
    z, losses = net.losses()
    Sum().backward(torch.stack(losses), features=z)
    assert len(seen) == 1


@pytest.mark.parametrize("by", ["shared", "features"])
def test_the_graph_is_freed_as_by_backward(by):
    net = Net()
    z, losses = net.losses()
    losses = torch.stack(losses)
    given = {"shared": list(net.encoder.parameters())} if by == "shared" else {"features": z}
    Sum().backward(losses, **given)
    with pytest.raises(RuntimeError, match="a second time"):
        losses.sum().backward()
    with pytest.raises(RuntimeError, match="a second time"):
        z.sum().backward()


def bad_calls(net):
    z, losses = net.losses()
    losses = torch.stack(losses)
    shared = list(net.encoder.parameters())
    frozen = nn.Parameter(torch.ones(1), requires_grad=False)
    return {
        "give exactly one of shared=parameters and features=representation, not both": (
            losses,
            {"shared": shared, "features": z},
        ),
        "give exactly one of shared=parameters and features=representation, not neither": (losses, {}),
        "no tensor in shared requires a gradient": (losses, {"shared": [frozen]}),
        "no tensor in shared requires .* nothing to combine": (losses, {"shared": iter([])}),
        "no tensor in features requires a gradient": (losses, {"features": z.detach()}),
        "no tensor in features requires .* It may be empty": (losses, {"features": []}),
        "losses are not on a graph": (losses.detach(), {"shared": shared}),
        r"losses must be a floating-point tensor of shape .T,.*shape .3, 1": (losses[:, None], {"shared": shared}),
        r"the loss of task 1 .counting from 0. is nan": (
            losses * torch.tensor([1.0, math.nan, 1.0]),
            {"shared": shared},
        ),
        r"the loss of task 2 .counting from 0. is inf": (
            losses * torch.tensor([1.0, 1.0, math.inf]),
            {"features": z},
        ),
    }


@pytest.mark.parametrize("message", list(bad_calls(Net())))
def test_bad_input_is_named_before_anything_is_touched(message):
    net = Net()
    before = [p.detach().clone() for p in net.parameters()]
    losses, given = bad_calls(net)[message]
    with pytest.raises(ValueError, match=message):
        Sum().backward(losses, **given)
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


@pytest.mark.parametrize("gradients", [torch.ones(3), torch.ones(0, 3), torch.ones(2, 3, dtype=torch.long)])
def test_forward_takes_one_row_a_task(gradients):
    with pytest.raises(ValueError, match=r"gradients must be a floating-point tensor of shape \(T, P\)"):
        Sum()(gradients)


def test_forward_gives_the_direction_in_the_type_of_the_gradients():
    J = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
    d = Weighted([2.0, -1.0])(J)
    assert not d.requires_grad
    assert d.dtype == torch.float32
    assert d.tolist() == [-2.0, -1.0, 0.0]


def test_a_loss_balancers_backward_is_that_of_its_forward():
    net, plain = Net(), Net()
    weighting = mtl.FixedWeighting([0.5, 2.0, 0.25])
    z, losses = net.losses()
    weights = weighting.backward(torch.stack(losses), shared=net.encoder.parameters(), features=z)
    _, losses = plain.losses()
    weighting(torch.stack(losses)).backward()
    assert weights.tolist() == [0.5, 2.0, 0.25]
    assert not weights.requires_grad
    for ours, wanted in zip(net.parameters(), plain.parameters(), strict=True):
        assert (ours.grad is None and wanted.grad is None) or torch.equal(ours.grad, wanted.grad)
    with pytest.raises(RuntimeError, match="a second time"):
        z.sum().backward()


def test_a_loss_balancer_returns_the_derivatives_of_its_forward():
    losses = torch.tensor([2.0, 0.5, 8.0], dtype=torch.float64, requires_grad=True)
    weights = mtl.GeometricMean().backward(losses)
    torch.testing.assert_close(weights, 2.0 / (3 * losses.detach()))
    torch.testing.assert_close(losses.grad, weights)


def test_a_loss_balancer_refuses_losses_without_a_graph():
    with pytest.raises(ValueError, match="losses are not on a graph"):
        mtl.EqualWeighting().backward(torch.ones(2))
