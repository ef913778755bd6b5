"""The two landscapes: the printed formulas, the floor of their logarithms, their gradients and trajectories."""

import copy
import math

import pytest
import torch
from cases import draw
from torch import Tensor, nn

import mtl_ref as mtl
from mtl_ref.problems.toy import landscapes as toy_landscapes


def points(n: int, seed: int = 0) -> Tensor:
    return 6 * draw(n, 2, seed)


def test_pcgrad_landscape_is_the_printed_one():
    x, y = toy_landscapes.PCGRAD_START
    first = 20 * math.log(max(abs(0.5 * x + math.tanh(y)), 5e-6))
    second = 25 * math.log(max(abs(0.5 * x - math.tanh(y) + 2), 5e-6))
    losses = toy_landscapes.pcgrad_landscape(torch.tensor([x, y], dtype=torch.float64))
    assert losses.tolist() == pytest.approx([first, second])


@pytest.mark.parametrize("point", [(-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0), (0.3, 0.0), (4.0, -0.1)])
def test_cagrad_landscape_is_that_of_the_released_code(point):
    x, y = point
    f_1 = math.log(max(abs(0.5 * (-x - 7) - math.tanh(-y)), 5e-6)) + 6
    f_2 = math.log(max(abs(0.5 * (-x + 3) + math.tanh(-y) + 2), 5e-6)) + 6
    h_1 = ((-x + 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    h_2 = ((-x - 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    c_1, c_2 = max(math.tanh(0.5 * y), 0), max(math.tanh(-0.5 * y), 0)
    losses = toy_landscapes.cagrad_landscape(torch.tensor(point, dtype=torch.float64))
    assert losses.tolist() == pytest.approx([c_1 * f_1 + c_2 * h_1, c_1 * f_2 + c_2 * h_2])


@pytest.mark.parametrize("landscape", [toy_landscapes.pcgrad_landscape, toy_landscapes.cagrad_landscape])
def test_landscapes_take_points_of_any_shape(landscape):
    theta = points(12).view(3, 4, 2)
    assert landscape(theta).shape == (3, 4, 2)
    torch.testing.assert_close(landscape(theta)[1, 2], landscape(theta[1, 2]))


@pytest.mark.parametrize("landscape", [toy_landscapes.pcgrad_landscape, toy_landscapes.cagrad_landscape])
def test_floor_of_the_logarithms_keeps_gradients_finite(landscape):
    valley = torch.tensor([[0.0, 0.0], [-4.0, 0.0], [-7.0, 0.0]], dtype=torch.float64)
    losses, J = toy_landscapes.gradients(landscape, valley)
    assert losses.isfinite().all()
    assert J.isfinite().all()


def test_gradients_agree_with_finite_differences():
    theta = points(5, seed=1)
    losses, J = toy_landscapes.gradients(toy_landscapes.cagrad_landscape, theta)
    torch.testing.assert_close(losses, toy_landscapes.cagrad_landscape(theta))
    for k in range(2):
        step = 1e-6 * torch.eye(2, dtype=torch.float64)[k]
        up, down = (toy_landscapes.cagrad_landscape(theta + s * step) for s in (1, -1))
        torch.testing.assert_close(J[:, :, k], (up - down) / 2e-6, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [mtl.EqualWeighting, mtl.PCGrad, lambda: mtl.FixedWeighting([1.0, 3.0])])
def test_trajectories_are_those_of_backward_and_adam(make):
    starts = points(3, seed=2)
    together = toy_landscapes.trajectories(toy_landscapes.cagrad_landscape, make(), starts, steps=20, lr=0.1)
    assert together.shape == (3, 21, 2)
    for start, visited in zip(starts, together, strict=True):
        theta = nn.Parameter(start.clone())
        optimizer = torch.optim.Adam([theta], lr=0.1)
        balancer = copy.deepcopy(make())
        for point in visited:
            torch.testing.assert_close(theta.detach(), point, rtol=1e-9, atol=1e-9)
            optimizer.zero_grad()
            balancer.backward(toy_landscapes.cagrad_landscape(theta), shared=[theta])
            optimizer.step()
