"""CAGrad: not far from the mean gradient, and as good as it can be for the task that gains least (chapter 12).

Source: Liu, Liu, Jin, Stone and Liu, "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021,
arXiv 2110.14048, Algorithm 1.
"""

import math

import torch
from torch import Tensor

from mtl_ref.balancer import GradientBalancer
from mtl_ref.checks import check_positive
from mtl_ref.solvers.min_norm import min_norm
from mtl_ref.solvers.root import root


def length(w: Tensor, M: Tensor) -> float:
    """‖Jᵀ w‖."""
    return math.sqrt(max((w @ M @ w).item(), 0.0))


class CAGrad(GradientBalancer):
    """The d within c ‖g₀‖ of the mean gradient g₀ for which min ⟨gᵢ, d⟩ is largest.

    The paper's form. Its released code multiplies d by 1/(1 + c²) or 1/(1 + c) too, and nash-mtl's copy by T.

    Args:
        c: 0 is the mean gradient. The larger c, the more the least gain counts, and from c = 1 on no loss rises.

    Raises:
        ValueError: c is negative or not finite.
    """

    def __init__(self, c: float = 0.5) -> None:
        super().__init__()
        check_positive(c, "c", zero=True)
        self.c = c

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        mean = torch.full_like(M[0], 1 / len(M))  # the weights of g₀
        radius = self.c * length(mean, M)  # c ‖g₀‖
        if radius == 0:
            return mean

        def excess(lam: float) -> float:
            return length(self.weights_for(lam, M, mean), M) - lam * radius

        longest = M.diag().max().sqrt().item()
        # ‖g_w‖ is between these; at a stationary point λ would be zero
        shortest = max(length(min_norm(M), M), 1e-8 * longest)
        lam = root(excess, shortest / radius, longest / radius)  # (CA.2)
        return mean + self.weights_for(lam, M, mean) / lam  # (CA.3)

    def weights_for(self, lam: float, M: Tensor, mean: Tensor) -> Tensor:
        """The min-norm weights of the gradients gᵢ + λ g₀, shape (T,)."""
        b = M @ mean  # ⟨gᵢ, g₀⟩
        shifted = M + lam * (b[:, None] + b) + lam**2 * (b @ mean)
        return min_norm(shifted)  # (CA.1)

    def extra_repr(self) -> str:
        return f"c={self.c}"
