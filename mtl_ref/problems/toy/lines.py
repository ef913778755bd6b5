"""Two noisy lines: the smallest problem with two noise levels (chapter 3)."""

import torch
from torch import Tensor

KENDALL_SIGMAS = (10.0, 1.0)  # the noise of Kendall's two lines


def kendall_lines(num_points: int = 100, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two noisy lines over one input: y₁ = 2x + 8 + 10 ε₁ and y₂ = 3x + 3 + ε₂, with x and ε standard normal.

    Source: the example that accompanies Kendall, Gal and Cipolla, CVPR 2018 (chapter 3).

    Args:
        num_points: the number N of points.
        generator: a CPU generator; the same seed draws the same points everywhere.

    Returns:
        x, shape (N, 1), and y, shape (N, 2), both float64.
    """
    x = torch.randn(num_points, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(num_points, 2, generator=generator, dtype=torch.float64)
    slope, intercept, sigma = (x.new_tensor(v) for v in ((2, 3), (8, 3), KENDALL_SIGMAS))
    return x, slope * x + intercept + sigma * noise
