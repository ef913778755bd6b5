"""DB-MTL: normalised gradients where nothing is averaged, its recurrence restated, and the losses' logarithm."""

import pytest
import torch
from cases import Net, draw, jacobian

import mtl_ref as mtl


def test_without_an_average_it_is_the_sum_of_unit_gradients_times_the_largest_length() -> None:
    for seed in range(10):
        J = draw(4, 6, seed) * torch.tensor([[1e-3], [1.0], [10.0], [1e3]])
        expected = J.norm(dim=1).max() * mtl.GradientNormalization()(J)
        torch.testing.assert_close(mtl.DBMTL(beta=0.0)(J), expected, rtol=1e-10, atol=0)


def test_direction_is_that_of_the_recurrence() -> None:
    balancer, tracked = mtl.DBMTL(beta=0.8), torch.zeros(3, 5).double()
    for k in range(1, 6):
        J = draw(3, 5, k)
        share = 0.8 / k**0.5
        tracked = share * tracked + (1 - share) * J
        lengths = tracked.norm(dim=1, keepdim=True)
        torch.testing.assert_close(balancer(J), lengths.max() * (tracked / lengths).sum(0))
    assert balancer.steps == 5


def test_encoder_and_heads_get_gradients_of_the_logarithms() -> None:
    net, plain = Net(), Net()
    logs = plain.losses().log()
    J = jacobian(logs, list(plain.encoder.parameters()))
    heads = jacobian(logs, list(plain.heads.parameters())).sum(0)
    assert mtl.DBMTL(beta=0.0).backward(net.losses(), **net.given("shared")) is None
    torch.testing.assert_close(net.grads("heads"), heads)
    torch.testing.assert_close(net.grads("encoder"), mtl.DBMTL(beta=0.0)(J))


def test_a_task_without_labels_has_no_part_in_it() -> None:
    net, plain = Net(), Net()
    balancer, other = mtl.DBMTL(), mtl.DBMTL()
    losses = net.losses().unbind()
    balancer.backward(
        torch.stack([losses[0], losses[1] * torch.nan, losses[2]]), **net.given("shared"), present=[1, 0, 1]
    )
    other.backward(plain.losses()[[0, 2]], **plain.given("shared"))
    torch.testing.assert_close(net.grads("encoder"), plain.grads("encoder"))
    assert balancer.kept[1].isnan().all()
    balancer.backward(net.losses(), **net.given("shared"))
    assert balancer.kept.isfinite().all()


@pytest.mark.parametrize("beta", [-0.1, 1.0, float("nan")])
def test_a_beta_that_is_none_is_named(beta: float) -> None:
    with pytest.raises(ValueError, match=f"beta is {beta}, but must be at least 0 and below 1"):
        mtl.DBMTL(beta)
