"""GroupDRO in closed form, and GO4Align against all groupings."""

import itertools

import pytest
import torch
from cases import draw, vector
from torch import Tensor

import mtl_ref as mtl
from mtl_ref.methods.hedge import group_means

LOSSES = draw(6, 4).abs() + 0.1


def best_means(x: Tensor, groups: int) -> Tensor:
    """The means of the groups with the least squared distances, of all ways to make at most that many groups."""
    options = []
    for labels in itertools.product(range(groups), repeat=len(x)):
        means = torch.zeros_like(x)
        for g in set(labels):
            inside = torch.tensor([label == g for label in labels])
            means[inside] = x[inside].mean()
        options.append(means)
    return min(options, key=lambda means: ((x - means) ** 2).sum().item())


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("groups", [1, 2, 3, 5])
def test_groups_are_the_best_of_all(groups: int, seed: int) -> None:
    x = draw(1, 5, seed)[0]
    torch.testing.assert_close(group_means(x, groups), best_means(x, groups))


def test_groupdros_weights_are_the_softmax_of_all_losses_so_far() -> None:
    balancer = mtl.GroupDRO(4, lr=0.3)
    for step, losses in enumerate(LOSSES):
        q = balancer.backward(losses.clone().requires_grad_())
        torch.testing.assert_close(q, torch.softmax(0.3 * LOSSES[: step + 1].sum(0), 0))


def test_groupdro_ends_at_the_smallest_largest_loss() -> None:
    """Of |x|, |x − 1| + ½, the largest is least at x = ¾."""
    x = torch.zeros((), dtype=torch.float64, requires_grad=True)
    balancer, path = mtl.GroupDRO(2, lr=0.05), []
    for _ in range(3000):
        x.grad = None
        balancer.backward(torch.stack([x.abs(), (x - 1).abs() + 0.5]))
        with torch.no_grad():
            x -= 0.01 * x.grad
        path.append(x.item())
    assert abs(sum(path) / len(path) - 0.75) < 0.02


@pytest.mark.parametrize("groups", [1, 2, 4, 9])
def test_go4aligns_weights_are_its_formula_over_all_groupings(groups: int) -> None:
    balancer = mtl.GO4Align(4, groups, lr=0.2)
    q = vector(1, 1, 1, 1) / 4
    for losses in LOSSES:
        q = q * torch.exp(-0.2 * losses)
        q = q / q.sum()
        expected = best_means(losses.sum() / losses * q, min(groups, 4))
        torch.testing.assert_close(balancer.backward(losses.clone().requires_grad_()), expected)


def test_with_a_group_a_task_and_a_small_step_go4align_is_real_time_scaling() -> None:
    balancer, losses = mtl.GO4Align(4, 4, lr=1e-9), LOSSES[0].clone().requires_grad_()
    realtime = mtl.RealTimeLossScaling().backward(LOSSES[0].clone().requires_grad_())
    torch.testing.assert_close(balancer.backward(losses), realtime * LOSSES[0].sum() / 4)


@pytest.mark.parametrize("method", [mtl.GroupDRO, mtl.GO4Align])
def test_huge_losses_and_an_overflow_are_no_trap(method: type) -> None:
    balancer = method(3)
    for losses in ([1e12, 1.0, 1.0], [1.0, 1.0, 1e13]):
        w = balancer.backward(vector(*losses).requires_grad_())
        assert w.isfinite().all()
    before = str(balancer.state_dict())
    balancer.backward(torch.tensor([1.0, torch.inf, 2.0], dtype=torch.float16, requires_grad=True))
    assert str(balancer.state_dict()) == before
    w = balancer.backward(vector(1.0, 2e13, 1.0).requires_grad_())
    assert (w[1] > 0.99) == (method is mtl.GroupDRO)


def test_arguments_that_make_no_sense_are_named() -> None:
    for make, message in [
        (lambda: mtl.GroupDRO(0), "num_tasks is 0"),
        (lambda: mtl.GroupDRO(2, lr=0.0), "lr is 0.0, but must be a finite positive number"),
        (lambda: mtl.GO4Align(2, groups=0), "groups is 0, but must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
