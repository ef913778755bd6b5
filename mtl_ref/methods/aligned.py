"""Aligned-MTL: gradients made orthogonal and equally long, with as little change as possible (chapter 12).

Source: Senushkin, Patakin, Kuznetsov and Konushin, "Independent Component Alignment for Multi-Task Learning",
CVPR 2023, arXiv 2305.19000.
"""

import torch
from torch import Tensor

from mtl_ref.balancer import GradientBalancer
from mtl_ref.solvers.unit import RANK


class AlignedMTL(GradientBalancer):
    """d = Σ ĝᵢ, where the rows ĝᵢ of σ_min (J Jᵀ)^−½ J are orthogonal and as long as the smallest singular value.

    The paper's form with equal preferences: the rows are summed. TorchJD takes their mean.
    Singular values that are zero are left out. Which are is decided relative to the largest.
    """

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        squares, V = torch.linalg.eigh(M)  # (AL.1)  σ², ascending
        kept = squares > RANK * squares[-1]
        if not kept.any():
            return torch.zeros_like(M[0])
        Q: Tensor = V[:, kept]
        sigma: Tensor = squares[kept].sqrt()
        B = sigma[0] * (Q / sigma) @ Q.T  # (AL.2)  (T, T)
        return B.sum(1)  # (AL.3)
