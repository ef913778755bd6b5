"""GradVac against Algorithm 1 on the vectors, TorchJD, PCGrad, and the cosine that it promises."""

import pytest
import torch
from cases import draw, vector
from torch import Tensor
from torchjd.aggregation import GradVac as TorchJD

import mtl_ref as mtl


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_algorithm_1(J: Tensor, phi: Tensor, beta: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The direction and the new φ, with the gradients themselves."""
    phi, lifted = phi.clone(), []
    for i, start in enumerate(J):
        g = start.clone()
        for j in torch.randperm(len(J), generator=generator).tolist():
            if j == i:
                continue
            cosine = torch.cosine_similarity(g, J[j], dim=0)
            if cosine < phi[i, j]:
                across, aimed = (1 - cosine**2).sqrt(), (1 - phi[i, j] ** 2).sqrt()
                g = g + g.norm() * (phi[i, j] * across - cosine * aimed) / (J[j].norm() * aimed) * J[j]
            phi[i, j] = (1 - beta) * phi[i, j] + beta * cosine
        lifted.append(g)
    return sum(lifted), phi


@pytest.mark.parametrize("T", [1, 2, 3, 6])
@pytest.mark.parametrize("beta", [0.01, 0.5, 1.0])
def test_steps_are_those_of_algorithm_1_in_the_orders_of_the_generator(T: int, beta: float) -> None:
    balancer, orders = mtl.GradVac(beta, seeded(1)), seeded(1)
    phi = torch.zeros(T, T, dtype=torch.float64)
    for seed in range(6):
        J = draw(T, 4, seed) + 0.5  # most agree, so that φ is positive and counts
        expected, phi = by_algorithm_1(J, phi, beta, orders)
        torch.testing.assert_close(balancer(J), expected, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(balancer.phi, phi, rtol=1e-8, atol=1e-12)


def test_steps_agree_with_torchjd_for_two_tasks_where_the_order_is_no_choice() -> None:
    ours, theirs = mtl.GradVac(0.5), TorchJD(beta=0.5, eps=0.0)
    for seed in range(6):
        J = draw(2, 4, seed) + 0.3
        torch.testing.assert_close(ours(J), theirs(J), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("T", [2, 3, 7])
def test_with_phi_held_at_zero_it_is_pcgrad(T: int) -> None:
    vaccine, surgery = mtl.GradVac(0.0, seeded(2)), mtl.PCGrad(seeded(2))
    for seed in range(10):
        J = draw(T, 4, seed)
        torch.testing.assert_close(vaccine(J), surgery(J), rtol=1e-9, atol=1e-11)
        assert not vaccine.phi.any()


@pytest.mark.parametrize("phi", [-0.3, 0.2, 0.9])
def test_a_cosine_below_phi_is_lifted_to_it_and_one_above_is_left(phi: float) -> None:
    for seed in range(20):
        J = draw(2, 3, seed)
        balancer = mtl.GradVac(0.0)
        balancer.phi = torch.full((2, 2), phi, dtype=torch.float64)
        lifted = [g + balancer_part for g, balancer_part in zip(J, parts(balancer, J), strict=True)]
        before = torch.cosine_similarity(J[0], J[1], dim=0)
        for i in range(2):
            after = torch.cosine_similarity(lifted[i], J[1 - i], dim=0)
            torch.testing.assert_close(after, before.clamp(min=phi))


def parts(balancer: mtl.GradVac, J: Tensor) -> list[Tensor]:
    """What is added to each of two gradients, a multiple of the other: the weights less one."""
    _, alpha = balancer.combine(J)
    return [(alpha[1] - 1) * J[1], (alpha[0] - 1) * J[0]]


def test_a_gradient_of_zero_adds_nothing_and_its_phi_stands_still() -> None:
    balancer = mtl.GradVac(0.5)
    balancer.phi = torch.full((3, 3), 0.4, dtype=torch.float64)
    d, _ = balancer.combine(torch.cat([draw(2, 4), torch.zeros(1, 4)]))
    assert (balancer.phi[2] == 0.4).all()
    assert (balancer.phi[:, 2] == 0.4).all()
    assert balancer.phi[0, 1] != 0.4
    other = mtl.GradVac(0.5)
    other.phi = torch.full((2, 2), 0.4, dtype=torch.float64)
    torch.testing.assert_close(d, other(draw(2, 4)))


def test_equal_gradients_for_thousands_of_steps_and_then_others_stay_finite() -> None:
    balancer = mtl.GradVac(1.0)
    balancer(vector(1.0, 1.0)[:, None] * draw(1, 4))
    assert balancer(draw(2, 4, 1)).isfinite().all()


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan")])
def test_a_share_outside_zero_and_one_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match=r"beta is .*, but must be a number from 0 to 1"):
        mtl.GradVac(beta)
