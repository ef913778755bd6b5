"""CR-MOGM against the average written out, TorchJD, and the inner method in its first step."""

import pytest
import torch
from cases import Net, draw, vector
from torchjd.aggregation import CRMOGMWeighting, GramianWeightedAggregator, UPGradWeighting

import mtl_ref as mtl


@pytest.mark.parametrize("inner", [mtl.MGDA, mtl.UPGrad, mtl.NashMTL])
@pytest.mark.parametrize("a", [0.0, 0.5, 0.9])
def test_weights_are_the_average_of_the_inner_ones(inner: type, a: float) -> None:
    balancer = mtl.CRMOGM(inner(), a)
    average = None
    for seed in range(5):
        J = draw(3, 6, seed)
        _, now = inner().combine(J)
        average = now if average is None else a * average + (1 - a) * now
        d, weights = balancer.combine(J)
        torch.testing.assert_close(weights, average)
        torch.testing.assert_close(d, average @ J)


def test_it_agrees_with_torchjd_on_gradients_that_upgrad_need_not_project() -> None:
    ours, theirs = (
        mtl.CRMOGM(mtl.UPGrad(), 0.7),
        GramianWeightedAggregator(CRMOGMWeighting(UPGradWeighting(), 0.7)),
    )
    for seed in range(4):
        J = draw(3, 6, seed).abs()
        torch.testing.assert_close(ours(J), theirs(J), rtol=1e-5, atol=1e-6)


def test_old_weights_of_new_gradients_may_raise_a_loss_where_mgda_does_not() -> None:
    balancer, rises = mtl.CRMOGM(mtl.MGDA()), 0
    for seed in range(100):
        J = draw(3, 6, seed)
        assert (J @ mtl.MGDA()(J) > -1e-9).all()
        rises += bool((J @ balancer(J) < -1e-6).any())
    assert rises > 10


def test_the_share_can_be_changed_between_steps_and_a_new_task_starts_at_its_own_weight() -> None:
    balancer, net = mtl.CRMOGM(mtl.MGDA()), Net()
    balancer.backward(net.losses(), **net.given("shared"), present=[True, False, True])
    first = balancer.average.clone()
    assert first.isnan().tolist() == [False, True, False]
    inner = mtl.MGDA().backward(net.losses(), **net.given("shared"))
    balancer.decay = 0.5
    weights = balancer.backward(net.losses(), **net.given("shared"))
    torch.testing.assert_close(weights, torch.where(first.isnan(), inner, (first + inner) / 2))


def test_arguments_that_make_no_sense_are_named() -> None:
    with pytest.raises(ValueError, match="must be a method of the gradients"):
        mtl.CRMOGM(mtl.EqualWeighting())
    with pytest.raises(ValueError, match=r"decay is 1\.0, but must be at least 0 and less than 1"):
        mtl.CRMOGM(mtl.MGDA(), 1.0)


def test_the_inner_method_sees_the_losses() -> None:
    J, losses = draw(3, 6), vector(2.0, 0.5, 8.0)
    inner = mtl.MGDA(normalize="loss")
    torch.testing.assert_close(mtl.CRMOGM(inner)(J, losses), inner(J, losses))
    with pytest.raises(ValueError, match=r"the loss of task 1 .* is -1\.0, .* must be positive"):
        mtl.CRMOGM(inner).check(vector(1.0, -1.0, 1.0))
