"""Two losses over the plane, made to be hard for plain gradient descent: PCGrad's and CAGrad's (chapter 5).

Sources: Yu et al., NeurIPS 2020, Appendix D; Liu et al., "Conflict-Averse Gradient Descent", NeurIPS 2021, and its
released code. Nash-MTL and FAMO use the second one too.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mtl_ref.balancer import GradientBalancer, LossBalancer

PCGRAD_START = (0.5, -3.0)
CAGRAD_STARTS = ((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0))
FLOOR = 5e-6  # the least argument of the logarithms

Landscape = Callable[[Tensor], Tensor]


def pcgrad_landscape(theta: Tensor) -> Tensor:
    """Two curved valleys, one steep and one steeper, which cross.

    L₁ = 20 log max(abs(½θ₁ + tanh θ₂), 5e-6) and L₂ = 25 log max(abs(½θ₁ − tanh θ₂ + 2), 5e-6).

    Args:
        theta: points, shape (..., 2).

    Returns:
        The two losses at each point, shape (..., 2).
    """
    x, y = theta.unbind(-1)
    first = log_distance(0.5 * x + torch.tanh(y))
    second = log_distance(0.5 * x - torch.tanh(y) + 2)
    return torch.stack([20 * first, 25 * second], -1)


def cagrad_landscape(theta: Tensor) -> Tensor:
    """Logarithmic valleys in the upper half of the plane, two bowls in the lower half.

    Lᵢ = c fᵢ + c' hᵢ with c = max(tanh ½θ₂, 0), c' = max(−tanh ½θ₂, 0),
    f₁ = log max(abs(−½(θ₁ + 7) + tanh θ₂), 5e-6) + 6, f₂ = log max(abs(½(3 − θ₁) − tanh θ₂ + 2), 5e-6) + 6 and
    h₁,₂ = ((θ₁ ∓ 7)² + (θ₂ + 8)²/10)/10 − 20. CAGrad's and FAMO's papers print the tanh of f₂ with the other
    sign; their code, and their figures, have this one.

    Args:
        theta: points, shape (..., 2).

    Returns:
        The two losses at each point, shape (..., 2).
    """
    x, y = theta.unbind(-1)
    upper, lower = torch.tanh(y / 2).clamp(min=0), torch.tanh(-y / 2).clamp(min=0)
    f_1 = log_distance(-(x + 7) / 2 + torch.tanh(y)) + 6
    f_2 = log_distance((3 - x) / 2 - torch.tanh(y) + 2) + 6
    h_1, h_2 = (((x - side) ** 2 + (y + 8) ** 2 / 10) / 10 - 20 for side in (7, -7))
    return torch.stack([upper * f_1 + lower * h_1, upper * f_2 + lower * h_2], -1)


def log_distance(u: Tensor) -> Tensor:
    """The logarithm log max(abs(u), 5e-6)."""
    return u.abs().clamp(min=FLOOR).log()


def trajectories(
    landscape: Landscape,
    balancer: LossBalancer | GradientBalancer,
    starts: Tensor | Sequence[Sequence[float]],
    *,
    steps: int,
    lr: float,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
) -> Tensor:
    """The points that a method without state of its own visits from N starts, each independent of the others.

    Args:
        landscape: maps points (..., 2) to losses (..., 2).
        balancer: the method.
        starts: the first points, shape (N, 2).
        steps: of the optimiser.
        lr: the learning rate.
        optimizer: called as `optimizer([theta], lr=lr)`; it must treat coordinates one by one, as Adam does.

    Returns:
        Shape (N, steps + 1, 2), float64.
    """
    theta = torch.nn.Parameter(torch.as_tensor(starts, dtype=torch.float64).clone())  # (N, 2)
    update = optimizer([theta], lr=lr)
    visited = [theta.detach().clone()]
    for _ in range(steps):
        losses, J = gradients(landscape, theta)
        theta.grad = torch.stack([direction(balancer, *pair) for pair in zip(J, losses, strict=True)])
        update.step()
        visited.append(theta.detach().clone())
    return torch.stack(visited, 1)


def gradients(landscape: Landscape, theta: Tensor) -> tuple[Tensor, Tensor]:
    """The losses of N points (N, 2), shape (N, 2), and their gradients, a row a task, shape (N, 2, 2)."""
    points = theta.detach().clone().requires_grad_()
    losses = landscape(points)
    rows = [torch.autograd.grad(loss.sum(), points, retain_graph=True)[0] for loss in losses.unbind(-1)]
    return losses.detach(), torch.stack(rows, -2)


def direction(balancer: LossBalancer | GradientBalancer, J: Tensor, losses: Tensor) -> Tensor:
    """What a method subtracts, shape (P,), given T gradients (T, P) and losses (T,)."""
    if isinstance(balancer, GradientBalancer):
        return balancer.combine(J, losses)[0]
    losses = losses.clone().requires_grad_()
    (weights,) = torch.autograd.grad(balancer(losses), losses)
    return weights @ J
