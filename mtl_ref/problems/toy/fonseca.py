"""Fonseca's two losses: their Pareto front is known exactly, and most of it is concave (chapter 6).

Sources: Fonseca and Fleming, Evolutionary Computation 3, 1995; used by Lin et al., "Pareto Multi-Task Learning",
NeurIPS 2019, and most papers since.
"""

import torch
from torch import Tensor


def fonseca(theta: Tensor) -> Tensor:
    """Two bumps turned upside down: Lᵢ = 1 − exp(−‖θ ∓ c‖²) with c = (1, …, 1)/√n.

    Args:
        theta: points, shape (..., n).

    Returns:
        The two losses at each point, shape (..., 2), each in [0, 1).
    """
    c = theta.shape[-1] ** -0.5
    squares = torch.stack([(theta - c).square().sum(-1), (theta + c).square().sum(-1)], -1)
    return -torch.expm1(-squares)


def fonseca_optima(s: Tensor, n: int = 2) -> Tensor:
    """The Pareto optimal points θ = s c for s in [−1, 1]: shape (N,) to (N, n).

    At s = 1 the first loss is zero, at s = −1 the second.
    """
    return s.unsqueeze(-1) * s.new_full((n,), n**-0.5)


def fonseca_front(num_points: int = 201) -> Tensor:
    """Points of the exact front √(−log(1 − L₁)) + √(−log(1 − L₂)) = 2, shape (N, 2), float64.

    It runs from the best first loss (0, 0.9817) by the middle (0.6321, 0.6321) to the best second loss, and is
    the same for every n.
    """
    s = torch.linspace(1, -1, num_points, dtype=torch.float64)
    return -torch.expm1(-torch.stack([1 - s, 1 + s], -1).square())
