"""PCGrad against Algorithm 1 written out on the vectors, TorchJD, and the closed form of two tasks."""

import itertools
import math

import pytest
import torch
from cases import SCALES, draw
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchjd.aggregation import PCGrad as TorchJD

import mtl_ref as mtl


def project(J: Tensor, i: int, order: list[int]) -> Tensor:
    """Lines 2 to 7 of Algorithm 1, on the vectors themselves."""
    g = J[i].clone()
    for j in order:
        if g @ J[j] < 0:
            g = g - (g @ J[j]) / J[j].norm() ** 2 * J[j]
    return g


def by_hand(J: Tensor, orders: list[list[int]]) -> Tensor:
    return sum(project(J, i, order) for i, order in enumerate(orders))


def all_directions(J: Tensor) -> list[Tensor]:
    """The directions of Algorithm 1 for all orders of all tasks."""
    T = len(J)
    choices = [itertools.permutations([j for j in range(T) if j != i]) for i in range(T)]
    return [by_hand(J, [list(order) for order in orders]) for orders in itertools.product(*choices)]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("T", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(10))
def test_direction_is_that_of_algorithm_1_for_one_of_the_orders(T, seed):
    J = draw(T, 3, seed)
    ours = mtl.PCGrad(seeded(seed))(J)
    assert min((ours - d).norm() for d in all_directions(J)) < 1e-12 * J.norm()


@pytest.mark.parametrize("T", [2, 3, 4, 7, 40])
@pytest.mark.parametrize("seed", range(10))
def test_generator_decides_the_order_of_each_task(T, seed):
    J = draw(T, 3, seed)
    generator = seeded(seed)
    orders = [[j for j in torch.randperm(T, generator=generator).tolist() if j != i] for i in range(T)]
    torch.testing.assert_close(mtl.PCGrad(seeded(seed))(J), by_hand(J, orders), rtol=1e-11, atol=1e-12)


def test_every_order_of_every_task_occurs_equally_often():
    J = draw(3, 3, seed=1)
    J[2] = -J[0] - J[1] + 0.1 * J[2]  # all conflict, so that each order counts
    found = all_directions(J)
    balancer = mtl.PCGrad(seeded(0))
    counts = torch.zeros(len(found))
    for _ in range(1600):
        d = balancer(J)
        counts[min(range(len(found)), key=lambda k: (d - found[k]).norm())] += 1
    distinct = {tuple(round(x, 9) for x in d.tolist()) for d in found}
    assert len(distinct) == 8
    assert (counts - 200).abs().max() < 5 * math.sqrt(1600 / 8 * 7 / 8)


def test_direction_is_the_sum_of_the_printed_example():
    J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    torch.testing.assert_close(mtl.PCGrad()(J), torch.tensor([0.5848, 3.8012, 3.8012]), atol=5e-5, rtol=0)


@pytest.mark.parametrize("T", [2, 3, 5, 8])
@pytest.mark.parametrize("seed", range(5))
def test_direction_agrees_with_torchjd(T, seed):
    J = draw(T, 4, seed)
    torch.manual_seed(seed)
    theirs = TorchJD()(J)
    torch.manual_seed(seed)
    torch.testing.assert_close(mtl.PCGrad()(J), theirs, rtol=1e-11, atol=1e-12)


@given(st.integers(0, 10_000))
def test_two_conflicting_tasks_follow_the_closed_form(seed):
    J = draw(2, 3, seed)
    (a, b), M = J.norm(dim=1), J @ J.T
    c = min(M[0, 1] / (a * b), torch.tensor(0.0))
    _, alpha = mtl.PCGrad(seeded(0)).combine(J)
    expected = torch.stack([1 - c * b / a, 1 - c * a / b])
    torch.testing.assert_close(alpha, expected, rtol=1e-9, atol=0)


@given(st.integers(0, 10_000))
def test_two_tasks_never_conflict_with_the_direction(seed):
    J = draw(2, 3, seed)
    d = mtl.PCGrad()(J)
    assert (J @ d >= -1e-12 * J.norm() * d.norm()).all()


@pytest.mark.parametrize("T", [1, 2, 5])
def test_gradients_that_do_not_conflict_are_summed(T):
    J = draw(T, 4).abs()
    d, alpha = mtl.PCGrad().combine(J)
    torch.testing.assert_close(d, J.sum(0))
    assert alpha.tolist() == [1.0] * T


def test_gradient_is_not_projected_on_itself():
    """With j = i among them, the projected first gradient could lose ⟨g^PC, g⟩ = −1/8 (errata of the blog)."""
    g, up, down = ((math.cos(math.radians(phi)), math.sin(math.radians(phi))) for phi in (0, 150, -150))
    J = torch.tensor([g, up, down], dtype=torch.float64)
    d = mtl.PCGrad(seeded(0))(J)
    with_itself = [
        sum(project(J, i, list(orders[i])) for i in range(3))
        for orders in itertools.product(itertools.permutations(range(3)), repeat=3)
        if all(o[-1] == i for i, o in enumerate(orders))
    ]
    assert min((d - e).norm() for e in all_directions(J)) < 1e-12
    assert min((d - e).norm() for e in with_itself) > 0.1


@given(st.integers(0, 10_000))
def test_order_of_two_tasks_does_not_matter(seed):
    J = draw(2, 3, seed)
    torch.testing.assert_close(mtl.PCGrad()(J), mtl.PCGrad()(J.flip(0)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", SCALES)
def test_scaling_one_task_scales_its_own_part_alone(scale):
    J = draw(4, 3, seed=3)
    scales = torch.tensor([1.0, scale, 1.0, 1.0], dtype=torch.float64)
    generator = seeded(4)
    orders = [[j for j in torch.randperm(4, generator=generator).tolist() if j != i] for i in range(4)]
    parts = torch.stack([project(J, i, order) for i, order in enumerate(orders)])
    d = mtl.PCGrad(seeded(4))(scales.unsqueeze(1) * J)
    torch.testing.assert_close(d, scales @ parts, rtol=1e-9, atol=1e-9)


def test_opposite_gradients_cancel():
    J = torch.tensor([[1.0, 2.0], [-10.0, -20.0]], dtype=torch.float64)
    assert mtl.PCGrad()(J).norm() < 1e-13


def test_a_gradient_of_zero_adds_nothing_and_conflicts_with_nothing():
    J = torch.tensor([[0.0, 0.0], [1.0, -2.0], [-1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(mtl.PCGrad(seeded(0))(J), mtl.PCGrad(seeded(1))(J[1:]))


def test_own_generator_leaves_the_global_state_alone():
    state = torch.get_rng_state()
    mtl.PCGrad(seeded(0))(draw(3, 3))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_generator_set_back_draws_the_same_orders_again():
    J = draw(6, 3, seed=6)
    generator = seeded(0)
    balancer = mtl.PCGrad(generator)
    balancer(J)
    state = generator.get_state()
    following = balancer(J)
    generator.set_state(state)
    assert torch.equal(balancer(J), following)
