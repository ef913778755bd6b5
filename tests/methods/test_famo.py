"""FAMO against TorchJD, what it promises on a quadratic, and the order of its calls."""

import math

import pytest
import torch
from cases import Tiny, vector
from torch import Tensor
from torchjd.scalarization import FAMO

import mtl_ref as mtl

SCALES = vector(1.0, 10.0, 0.3)


def quadratics(x: Tensor) -> Tensor:
    """Three losses that stay positive, of different size and curvature."""
    return SCALES * (x - vector(1.0, -1.0, 2.0)).square() + 0.1


@pytest.mark.parametrize("lower", [None, [0.05, 0.0, 0.1 - 1e-3]])
def test_it_is_torchjds_over_thirty_steps(lower: list[float] | None) -> None:
    bound = None if lower is None else vector(*lower)
    ours, other = mtl.FAMO(3, lower), FAMO(3, bound).double()
    xs = [vector(0.0, 0.5, 0.0).requires_grad_() for _ in range(2)]
    for _ in range(30):
        for x in xs:
            x.grad = None
        w = ours.backward(quadratics(xs[0]))
        torch.testing.assert_close(w.sum(), vector(1.0)[0])
        other(quadratics(xs[1])).backward()
        torch.testing.assert_close(xs[0].grad, xs[1].grad, rtol=1e-6, atol=0)  # it adds 1e-8 to each loss
        with torch.no_grad():
            for x in xs:
                x -= 0.02 * x.grad
            ours.update(quadratics(xs[0]))
            other.update(quadratics(xs[1]))
    assert (torch.softmax(ours.logits, 0) - 1 / 3).abs().max() > 0.01


def test_where_the_logits_have_settled_the_losses_fall_by_one_share() -> None:
    """Two losses of one parameter each, with z free to settle: each step takes the same share of both."""
    ends = vector(3.0, 1.0)
    x, balancer = torch.zeros(2, dtype=torch.float64, requires_grad=True), mtl.FAMO(2, lr=0.01, decay=0.0)
    shares = []
    for _ in range(3000):
        x.grad = None
        losses = vector(1.0, 50.0) * (x - ends).square() + vector(1.0, 1.0)
        balancer.backward(losses)
        with torch.no_grad():
            x -= 1e-4 * x.grad
            after = vector(1.0, 50.0) * (x - ends).square() + vector(1.0, 1.0)
        shares.append(losses.detach().log() - after.log())
        balancer.update(after)
    late = torch.stack(shares[-200:]).mean(0)
    early = torch.stack(shares[:10]).mean(0)
    assert early.max() / early.min() > 5
    assert late.max() / late.min() < 1.2


def test_decay_draws_the_logits_to_zero() -> None:
    strong, weak = mtl.FAMO(2, decay=10.0), mtl.FAMO(2, decay=0.0)
    for balancer in (strong, weak):
        for _ in range(200):
            balancer.backward(vector(1.0, 1.0).requires_grad_())
            balancer.update(vector(0.9, 0.99))
    assert weak.logits[0] < -1 < 1 < weak.logits[1]
    assert strong.logits.abs().max() < 0.1


def test_the_calls_have_an_order() -> None:
    balancer, losses = mtl.FAMO(2), vector(1.0, 2.0)
    with pytest.raises(ValueError, match="call backward with the losses before the step first"):
        balancer.update(losses)
    balancer.backward(losses.clone().requires_grad_())
    for bad, message in [
        (vector(1.0, 2.0, 3.0), "built for 2 tasks but was given 3"),
        (vector(1.0, math.nan), "task 1 .* is nan"),
        (vector(1.0, 0.0), "task 1 .* is 0.0, but every loss must be positive"),
    ]:
        before = str(balancer.state_dict())
        with pytest.raises(ValueError, match=message):
            balancer.update(bad)
        assert str(balancer.state_dict()) == before
    balancer.update(losses)
    with pytest.raises(ValueError, match="call backward with the losses before"):
        balancer.update(losses)


def test_a_task_without_labels_learns_nothing_and_an_overflow_changes_nothing() -> None:
    balancer = mtl.FAMO(3)
    balancer.backward(vector(1.0, math.nan, 3.0).requires_grad_(), present=[1, 0, 1])
    balancer.update(vector(0.5, math.nan, 2.9), present=[1, 0, 1])
    assert (balancer.logits == 0).tolist() == [False, True, False]
    before = balancer.logits
    balancer.backward(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float16, requires_grad=True))
    balancer.update(torch.tensor([1.0, math.inf, 3.0], dtype=torch.float16))
    assert torch.equal(balancer.logits, before)


def test_mtl_train_calls_update_after_each_step() -> None:
    balancer = mtl.FAMO(3)
    mtl.train(Tiny(), balancer, epochs=3, device="cpu", lr=0.1)
    assert balancer.steps == 3
    assert balancer.before.isnan().all()
    assert (balancer.logits != 0).all()


def test_arguments_that_make_no_sense_are_named() -> None:
    for make, message in [
        (lambda: mtl.FAMO(0), "num_tasks is 0"),
        (lambda: mtl.FAMO(2, [1.0]), "built for 2 tasks but was given 1"),
        (lambda: mtl.FAMO(2, lr=0.0), "lr is 0.0, but must be a finite positive"),
        (lambda: mtl.FAMO(2, decay=-1.0), "decay is -1.0, but must be a finite number that is not negative"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(ValueError, match=r"task 0 .* is -0\.5, but every loss must be positive"):
        mtl.FAMO(2, [1.5, 0.0]).backward(vector(1.0, 2.0).requires_grad_())
