"""DWA against TorchJD, SoftAdapt and ReLoBRaLo against their formulas, written out for a run of losses."""

import math
from itertools import pairwise

import pytest
import torch
from cases import draw, vector
from torch import Tensor
from torchjd.scalarization import DWA

import mtl_ref as mtl
from mtl_ref.balancer import LossBalancer

LOSSES = draw(12, 3).abs() + 0.1  # of twelve steps


def weights(balancer: LossBalancer, losses: Tensor) -> Tensor:
    return balancer.backward(losses.clone().requires_grad_())


def softmax(x: list[float]) -> list[float]:
    e = [math.exp(v) for v in x]
    return [v / sum(e) for v in e]


@pytest.mark.parametrize("temperature", [2.0, 0.5])
def test_dwa_is_torchjds_over_four_epochs(temperature: float) -> None:
    ours, other = mtl.DWA(3, temperature), DWA(temperature)
    for epoch in LOSSES.split(3):
        for losses in epoch:
            at = losses.clone().requires_grad_()
            torch.testing.assert_close(weights(ours, losses), torch.autograd.grad(other(at), at)[0])
        torch.testing.assert_close(ours(losses), other(losses))  # one more step for both
        ours.end_epoch(), other.step()
    assert (ours.weights - 1).abs().max() > 0.05


def test_dwas_weights_stay_one_until_two_epochs_are_over_and_sum_to_T() -> None:
    balancer = mtl.DWA(3)
    for number, losses in enumerate(LOSSES[:5]):
        w = weights(balancer, losses)
        assert ((w == 1).all()) == (number < 2)
        torch.testing.assert_close(w.sum(), vector(3.0)[0])
        balancer.end_epoch()
    before = balancer.weights
    balancer.end_epoch()  # an epoch without a step
    assert torch.equal(balancer.weights, before)


def test_a_task_without_labels_in_an_epoch_keeps_its_means() -> None:
    balancer = mtl.DWA(3)
    for losses, present in zip(LOSSES, ([1, 1, 1], [1, 1, 1], [1, 0, 1]), strict=False):
        balancer.backward(losses.clone().requires_grad_(), present=present)
        balancer.end_epoch()
    expected = [LOSSES[2, 0] / LOSSES[1, 0], LOSSES[1, 1] / LOSSES[0, 1], LOSSES[2, 2] / LOSSES[1, 2]]
    torch.testing.assert_close(balancer.weights, 3 * torch.softmax(torch.stack(expected) / 2, 0))


def test_mtl_train_ends_the_epochs_of_dwa() -> None:
    from cases import Tiny

    balancer = mtl.DWA(3)
    history = mtl.train(Tiny(), balancer, epochs=3, device="cpu", lr=0.1)
    rates = torch.tensor(history.losses[1]) / torch.tensor(history.losses[0])
    torch.testing.assert_close(torch.tensor(history.weights[2]), 3 * torch.softmax(rates / 2, 0))


def test_softadapt_weighs_by_what_the_losses_did_in_the_last_step() -> None:
    balancer = mtl.SoftAdapt(3, beta=0.7)
    torch.testing.assert_close(weights(balancer, LOSSES[0]), vector(1, 1, 1) / 3)
    for before, now in pairwise(LOSSES):
        expected = softmax([0.7 * (b - a) for a, b in zip(before.tolist(), now.tolist(), strict=True)])
        torch.testing.assert_close(weights(balancer, now), vector(*expected))


@pytest.mark.parametrize(("rho", "alpha"), [(1.0, 0.9), (0.0, 0.9), (0.5, 0.8)])
def test_relobralo_averages_two_comparisons_and_forgets_when_it_is_drawn(rho: float, alpha: float) -> None:
    tau = 0.7
    balancer = mtl.ReLoBRaLo(3, tau, alpha, rho, torch.Generator().manual_seed(1))
    draws = torch.Generator().manual_seed(1)
    expected, first, last = [1.0, 1.0, 1.0], LOSSES[0].tolist(), LOSSES[0].tolist()
    kept = []
    for losses in LOSSES:
        now = losses.tolist()
        to_start, to_last = (
            [3 * v for v in softmax([n / (tau * b) for n, b in zip(now, then, strict=True)])]
            for then in (first, last)
        )
        kept.append(torch.rand((), generator=draws).item() < rho)
        past = expected if kept[-1] else to_start
        expected = [alpha * p + (1 - alpha) * r for p, r in zip(past, to_last, strict=True)]
        torch.testing.assert_close(weights(balancer, losses), vector(*expected))
        last = now
    assert (sum(kept) / len(kept) == rho) if rho in (0, 1) else 0 < sum(kept) < len(kept)


@pytest.mark.parametrize(
    "balancer", [mtl.DWA(3), mtl.SoftAdapt(3), mtl.ReLoBRaLo(3)], ids=lambda b: type(b).__name__
)
def test_an_overflow_leaves_no_trace(balancer: LossBalancer) -> None:
    for losses in LOSSES[:2].half():
        weights(balancer, losses)
    before = str(balancer.state_dict())
    weights(balancer, torch.tensor([1.0, math.inf, 2.0], dtype=torch.float16))
    assert str(balancer.state_dict()) == before


def test_arguments_that_make_no_sense_are_named() -> None:
    for make, message in [
        (lambda: mtl.DWA(0), "num_tasks is 0, but must be at least 1"),
        (lambda: mtl.DWA(2, 0.0), "temperature is 0.0, but must be a finite positive number"),
        (lambda: mtl.SoftAdapt(2, -1.0), "beta is -1.0, but must be a finite positive"),
        (lambda: mtl.ReLoBRaLo(2, alpha=1.5), "alpha is 1.5, but must be between 0 and 1"),
        (lambda: mtl.ReLoBRaLo(2, rho=-0.1), "rho is -0.1, but must be between 0 and 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
