"""Methods that combine the gradients: from J to the direction, and from the direction to `.grad`."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from cases import (
    BY_PARAMETER,
    DEGENERATE,
    GRADIENT,
    SCALES,
    Method,
    Net,
    both_ways,
    build,
    by_parameter_rows,
    draw,
    gradient_matrices,
    gradient_rows,
    gram_rows,
    jacobian,
    rows,
    vector,
)
from hypothesis import given, settings
from torch import Tensor

import mtl_ref as mtl

LOSSES = vector(2.0, 0.5, 8.0, 1.0, 3.0, 0.2, 5.0)


def direction(row: Method, J: Tensor) -> tuple[Tensor, Tensor | None]:
    return build(row, range(len(J))).combine(J, LOSSES[: len(J)].to(J))


# --- From J to the direction


@gram_rows
@given(J=gradient_matrices())
@settings(max_examples=25)
def test_the_direction_is_the_weighted_sum_and_finite(row: Method, J: Tensor) -> None:
    d, alpha = direction(row, J)
    assert d.isfinite().all()
    assert alpha.isfinite().all()
    torch.testing.assert_close(d, alpha @ J)
    assert torch.equal(d, build(row, range(len(J)))(J, LOSSES[: len(J)]))


@gradient_rows
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_gradients_give_a_finite_direction(row: Method, scale: float, dtype: torch.dtype) -> None:
    for name, gradients in DEGENERATE.items():
        d, alpha = direction(row, scale * torch.tensor(gradients, dtype=dtype))
        assert d.dtype == dtype
        assert d.isfinite().all(), name
        assert alpha is None or alpha.isfinite().all(), name


@gram_rows
def test_the_direction_turns_with_the_gradients(row: Method) -> None:
    J, (Q, _) = draw(4, 6), torch.linalg.qr(draw(6, 6, 1))
    (d, alpha), (turned, same) = direction(row, J), direction(row, J @ Q)
    torch.testing.assert_close(same, alpha, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(turned, d @ Q, rtol=1e-8, atol=1e-10)


TIES = {("krum", "stationary")}  # all gradients are equally far from the others


@gram_rows
@pytest.mark.parametrize("name", DEGENERATE)
def test_rounding_does_not_decide_where_gradients_are_degenerate(row: Method, name: str) -> None:
    """What is zero divided by zero in exact arithmetic must not be rounding divided by rounding."""
    J = torch.tensor(DEGENERATE[name], dtype=torch.float64)
    d = direction(row, J)[0]
    for seed in range(0 if (row.key, name) in TIES else 5):
        Q = torch.linalg.qr(draw(5, 5, seed))[0][:2]
        away = (direction(row, J @ Q)[0] - d @ Q).norm()
        assert away <= 1e-6 * d.norm() + 1e-9 * J.norm(dim=1).max(), (seed, d)


@gradient_rows
def test_one_task_keeps_its_direction(row: Method) -> None:
    g = draw(1, 5)
    d, _ = direction(row, g)
    torch.testing.assert_close(d / d.norm(), g[0] / g.norm())


@gradient_rows
def test_zero_gradients_give_no_direction(row: Method) -> None:
    assert direction(row, torch.zeros(3, 4))[0].tolist() == [0] * 4


@gradient_rows
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_direction_has_the_type_of_the_gradients_and_is_found_in_double(
    row: Method, dtype: torch.dtype
) -> None:
    J = draw(3, 5, 2).to(dtype)
    d, alpha = direction(row, J)
    exact, _ = direction(row, J.double())
    assert d.dtype == dtype
    assert alpha is None or alpha.dtype in (dtype, torch.float32, torch.float64)
    torch.testing.assert_close(
        d.double(), exact, rtol=0, atol=8 * torch.finfo(dtype).eps * exact.abs().max().item()
    )


@gradient_rows
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_gradients_that_are_not_finite_give_nan_and_no_error(row: Method, bad: float) -> None:
    J = draw(3, 4, dtype=torch.float32)
    J[1, 2] = bad
    d, alpha = direction(row, J)
    assert d.isnan().all()
    assert alpha is None or alpha.isnan().all()


# --- From the direction to `.grad`


@gradient_rows
@both_ways
def test_the_encoder_gets_the_direction_and_each_head_its_own_unscaled_gradient(row: Method, by: str) -> None:
    net = Net()
    losses = net.losses()
    encoder = list(net.encoder.parameters())
    own = torch.cat([jacobian(losses[t : t + 1], list(h.parameters()))[0] for t, h in enumerate(net.heads)])
    inputs = [net.z] if by == "features" else encoder
    J = jacobian(losses, inputs)
    factors = build(row).factors(losses.detach())
    if factors is not None:  # of each loss, in all its gradients
        J = factors[:, None] * J
        own = torch.cat([f * g for f, g in zip(factors, own.view(3, -1), strict=True)])
    d, alpha = build(row).direction(SimpleNamespace(whole=True, inputs=inputs), J, losses.detach())
    if by == "features":
        pulled = torch.autograd.grad(net.z, encoder, d.view_as(net.z), retain_graph=True)
        d = torch.cat([g.flatten() for g in pulled])
    passes: list[int] = []
    net.z.grad_fn.register_hook(lambda *_: passes.append(1))
    balancer = build(row)
    weights = balancer.backward(losses, **net.given(by))
    assert len(passes) == (1 if by == "features" else 3)
    assert (weights is None) == (alpha is None)
    if weights is not None:
        assert not weights.requires_grad
        torch.testing.assert_close(weights, alpha, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(net.grads("encoder"), d, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(net.grads("heads"), own)


@by_parameter_rows
def test_features_are_refused_where_gradients_of_two_batches_are_held_against_each_other(row: Method) -> None:
    net, balancer = Net(), build(row)
    losses = net.losses()
    before = str(balancer.state_dict())
    with pytest.raises(ValueError, match=rf"{type(balancer).__name__} holds .* Give shared=parameters"):
        balancer.backward(losses, features=net.z)
    assert all(p.grad is None for p in net.parameters())
    assert str(balancer.state_dict()) == before


@rows([row for row in GRADIENT if row not in BY_PARAMETER])
def test_it_does_not_matter_how_losses_and_features_are_put_together(row: Method) -> None:
    ways: list[tuple[Callable[[Tensor], Tensor], Callable[[Tensor], object]]] = [
        (lambda losses: losses, lambda z: z),
        (lambda losses: torch.cat([loss.reshape(1) for loss in losses]), lambda z: [z]),
        (lambda losses: losses * 1.0, lambda z: iter([z])),
        (lambda losses: torch.stack([*losses, losses[0]])[:3], lambda z: (z, z)),
    ]
    found = []
    for way, wrap in ways:
        net = Net()
        weights = build(row).backward(way(net.losses()), features=wrap(net.z))
        found.append((net.grads(), weights))
    for gradients, weights in found[1:]:
        torch.testing.assert_close(gradients, found[0][0])
        assert weights is None or torch.allclose(weights, found[0][1])


@gradient_rows
@both_ways
def test_a_grad_scaler_sees_gradients_that_are_not_finite_and_skips_the_step(row: Method, by: str) -> None:
    net = Net(dtype=torch.float32)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = net.encoder[0].weight.detach().clone()
    for overflow in (True, False):
        optimizer.zero_grad()
        losses = scaler.scale(net.losses())
        if overflow:  # the root of 0 has an infinite derivative
            losses = losses + (net.z - net.z.detach()).sum().sqrt()
        build(row).backward(losses, **net.given(by))
        assert net.grads("encoder").isnan().all() == overflow
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(net.encoder[0].weight, before) == overflow


class Watching(mtl.MGDA):
    """A method with a `combine` of its own, which looks at the gradients themselves."""

    def combine(self, gradients, losses=None):
        self.seen = gradients
        d, _ = super().combine(gradients, losses)
        return 2 * d, None


@both_ways
def test_a_combine_of_ones_own_is_what_backward_uses(by: str) -> None:
    net, plain, balancer = Net(), Net(), Watching()
    mtl.MGDA().backward(plain.losses(), **plain.given(by))
    assert balancer.backward(net.losses(), **net.given(by)) is None
    torch.testing.assert_close(net.grads("encoder"), 2 * plain.grads("encoder"))
    assert len(balancer.seen) == 3


def test_accumulation_uses_it_too_where_it_has_whole_gradients() -> None:
    net, plain = Net(), Net()
    mtl.MGDA().backward(plain.losses(), **plain.given("shared"))
    step = mtl.Accumulation(Watching())
    for _ in range(2):
        step.add(net.losses() / 2, **net.given("shared"))
    assert step.finish() is None
    torch.testing.assert_close(net.grads("encoder"), 2 * plain.grads("encoder"))
    losses = net.losses()
    with pytest.raises(ValueError, match="Watching has a combine of its own"):
        mtl.Accumulation(Watching()).add(losses, features=net.z)
