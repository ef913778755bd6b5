"""Methods that combine the losses: the model gets the gradients of forward, the weights are ∂ forward / ∂ Lᵢ."""

import copy

import pytest
import torch
from cases import LOSS, SCALES, Method, Net, both_ways, build, looks_at_gradients, loss_rows, rows

plain_rows = rows([row for row in LOSS if not looks_at_gradients(row)])
# the weights of losses far from the others are zero, or negative (the last two)
SOME_LEFT_OUT = {"uw-so", "groupdro", "go4align", "chebyshev", "stch", "pbi", "cosmos"}


@loss_rows
@both_ways
def test_the_model_gets_the_gradients_of_forward_and_the_weights_are_its_derivatives(row: Method, by: str) -> None:
    net, plain, balancer = Net(), Net(), build(row)
    for scale in (1.0, 0.5):  # at the first step, and with the state that it leaves
        net.zero_grad(), plain.zero_grad()
        losses = scale * plain.losses()
        torch.manual_seed(1)
        total = copy.deepcopy(balancer)(losses)
        assert total.shape == ()
        (derivatives,) = torch.autograd.grad(total, losses, retain_graph=True)
        total.backward()
        torch.manual_seed(1)
        weights = balancer.backward(scale * net.losses(), **net.given(by))
        torch.testing.assert_close(weights, derivatives, rtol=1e-12, atol=0)
        assert not weights.requires_grad
        torch.testing.assert_close(net.grads(), plain.grads(), rtol=1e-12, atol=1e-15)
        with pytest.raises(RuntimeError, match="a second time"):
            net.z.sum().backward()


@plain_rows
def test_shared_and_features_are_accepted_and_change_nothing(row: Method) -> None:
    found = []
    for both in (False, True):
        net = Net()
        losses = net.losses()
        given = {**net.given("shared"), **net.given("features")} if both else {}
        found.append((build(row).backward(losses, **given), net.grads()))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@plain_rows
@pytest.mark.parametrize("value", SCALES)
def test_tiny_and_huge_losses_have_finite_positive_weights_in_single_precision(row: Method, value: float) -> None:
    losses = torch.tensor([value, 1.0, value], requires_grad=True)
    weights = build(row).backward(losses)
    assert weights.dtype == torch.float32
    assert weights.isfinite().all()
    assert (weights > 0).all() or row.key in SOME_LEFT_OUT


@rows([row for row in LOSS if row.state != "random draws" and not looks_at_gradients(row)])
def test_duplicate_losses_get_equal_weights(row: Method) -> None:
    weights = build(row, (0, 0, 0)).backward(torch.full((3,), 0.7, dtype=torch.float64, requires_grad=True))
    torch.testing.assert_close(weights, weights[:1].expand(3), rtol=1e-12, atol=0)


@plain_rows
@pytest.mark.parametrize("overflow", [False, True])
def test_half_precision_steps_under_a_gradient_scaler_and_an_overflow_skips_the_step(
    row: Method, overflow: bool
) -> None:
    theta = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    optimizer = torch.optim.SGD([theta], lr=0.1)
    scale = 2.0**24 if overflow else 16.0
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    losses = theta.half().square()
    assert losses.dtype == torch.float16
    scaler.scale(build(row)(losses)).backward()
    weights = build(row).backward(torch.tensor([1.0, 4.0, 9.0], requires_grad=True))
    scaler.unscale_(optimizer)
    if overflow:
        assert not theta.grad.isfinite().all()
    else:
        torch.testing.assert_close(theta.grad, weights * torch.tensor([2.0, 4.0, 6.0]), rtol=1e-2, atol=1e-4)
    scaler.step(optimizer)
    scaler.update()
    assert (theta.tolist() == [1.0, 2.0, 3.0]) == overflow
    assert scaler.get_scale() == (scale / 2 if overflow else scale)
