"""PCGrad against Algorithm 1 written out on the vectors, TorchJD, and the closed form of two tasks."""

import itertools
import math

import pytest
import torch
from cases import SCALES, draw, vector
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchjd.aggregation import PCGrad as TorchJD

import mtl_ref as mtl


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def project(J: Tensor, i: int, order: tuple[int, ...]) -> Tensor:
    """Lines 2 to 7 of Algorithm 1, on the vectors themselves."""
    g = J[i].clone()
    for j in order:
        if g @ J[j] < 0:
            g = g - (g @ J[j]) / J[j].norm() ** 2 * J[j]
    return g


def projected(J: Tensor, generator: torch.Generator) -> Tensor:
    """The T projected gradients, shape (T, P), in the orders that a generator draws."""
    T = len(J)
    orders = [[j for j in torch.randperm(T, generator=generator).tolist() if j != i] for i in range(T)]
    return torch.stack([project(J, i, tuple(order)) for i, order in enumerate(orders)])


def all_directions(J: Tensor) -> list[Tensor]:
    """The directions of Algorithm 1 for all orders of all tasks."""
    T = len(J)
    choices = [[project(J, i, o) for o in itertools.permutations(set(range(T)) - {i})] for i in range(T)]
    return [sum(parts) for parts in itertools.product(*choices)]


@pytest.mark.parametrize("T", [1, 2, 3, 4, 7, 40])
@pytest.mark.parametrize("seed", range(5))
def test_direction_is_that_of_algorithm_1_in_the_orders_of_the_generator(T: int, seed: int) -> None:
    J = draw(T, 3, seed)
    expected = projected(J, seeded(seed)).sum(0)
    torch.testing.assert_close(mtl.PCGrad(seeded(seed))(J), expected, rtol=1e-11, atol=1e-12)


def test_every_order_of_every_task_occurs_equally_often() -> None:
    J = draw(3, 3, seed=1)
    J[2] = -J[0] - J[1] + 0.1 * J[2]  # all conflict, so that each order counts
    found, balancer = all_directions(J), mtl.PCGrad(seeded(0))
    counts = torch.zeros(len(found))
    for _ in range(1600):
        d = balancer(J)
        counts[min(range(len(found)), key=lambda k: (d - found[k]).norm())] += 1
    assert len({tuple(round(x, 9) for x in d.tolist()) for d in found}) == 8
    assert (counts - 200).abs().max() < 5 * math.sqrt(1600 / 8 * 7 / 8)


@pytest.mark.parametrize("T", [2, 3, 5, 8])
@pytest.mark.parametrize("seed", range(5))
def test_direction_agrees_with_torchjd_in_the_orders_of_the_global_generator(T: int, seed: int) -> None:
    J = draw(T, 4, seed)
    torch.manual_seed(seed)
    theirs = TorchJD()(J)
    torch.manual_seed(seed)
    torch.testing.assert_close(mtl.PCGrad()(J), theirs, rtol=1e-11, atol=1e-12)


@given(st.integers(0, 10_000))
def test_two_tasks_follow_the_closed_form_and_never_conflict_with_the_direction(seed: int) -> None:
    J = draw(2, 3, seed)
    (a, b), M = J.norm(dim=1), J @ J.T
    c = (M[0, 1] / (a * b)).clamp(max=0)
    d, alpha = mtl.PCGrad().combine(J)
    torch.testing.assert_close(alpha, torch.stack([1 - c * b / a, 1 - c * a / b]), rtol=1e-9, atol=0)
    assert (J @ d >= -1e-12 * J.norm() * d.norm()).all()


@pytest.mark.parametrize("T", [1, 2, 5])
def test_gradients_that_do_not_conflict_are_summed(T: int) -> None:
    _, alpha = mtl.PCGrad().combine(draw(T, 4).abs())
    assert alpha.tolist() == [1.0] * T


def test_a_gradient_is_not_projected_on_itself() -> None:
    """With j = i among them, the projected first gradient could lose ⟨g^PC, g⟩ = −1/8 (errata of the blog)."""
    angles = torch.deg2rad(vector(0, 150, -150))
    J = torch.stack([angles.cos(), angles.sin()], 1)
    d = mtl.PCGrad(seeded(0))(J)
    first_then_itself = [
        [project(J, i, (*o, i)) for o in itertools.permutations({0, 1, 2} - {i})] for i in range(3)
    ]
    assert min((d - e).norm() for e in all_directions(J)) < 1e-12
    assert min((d - sum(parts)).norm() for parts in itertools.product(*first_then_itself)) > 0.1


@pytest.mark.parametrize("scale", SCALES)
def test_scaling_one_task_scales_its_own_part_alone(scale: float) -> None:
    J, scales = draw(4, 3, seed=3), vector(1.0, scale, 1.0, 1.0)
    ours = mtl.PCGrad(seeded(4))(scales[:, None] * J)
    parts = projected(J, seeded(4))
    torch.testing.assert_close(ours, scales @ parts, rtol=1e-9, atol=1e-9)


def test_a_gradient_of_zero_adds_nothing_and_conflicts_with_nothing() -> None:
    J = torch.tensor([[0.0, 0.0], [1.0, -2.0], [-1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(mtl.PCGrad()(J), mtl.PCGrad()(J[1:]))


def test_an_own_generator_leaves_the_global_state_alone_and_draws_the_same_orders_again() -> None:
    J, generator, state = draw(6, 3, seed=6), seeded(0), torch.get_rng_state()
    balancer = mtl.PCGrad(generator)
    first = balancer(J)
    generator.manual_seed(0)
    assert torch.equal(balancer(J), first)
    assert torch.equal(torch.get_rng_state(), state)
