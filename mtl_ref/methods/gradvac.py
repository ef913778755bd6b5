"""GradVac: as PCGrad, but cosines are raised to what they have been on average, not to zero (chapter 14).

Source: Wang, Tsvetkov, Firat and Cao, "Gradient Vaccine: Investigating and Improving Multi-task Optimization in
Massively Multilingual Models", ICLR 2021, arXiv 2010.05874, Algorithm 1.
"""

import math

import numpy as np
import torch
from torch import Tensor

from mtl_ref.balancer import GradientBalancer, Remembers
from mtl_ref.checks import check_losses

STEEP = 1 - 1e-9  # no cosine is raised further: to reach 1 would take infinitely much of the other gradient


class GradVac(Remembers, GradientBalancer):
    """d = Σᵢ gᵢ', where gᵢ' starts as gᵢ and is lifted to the cosine φᵢⱼ with each other gⱼ, in random order.

    φᵢⱼ is an exponential average of the cosines that were met, and starts at 0. With φ = 0 it is PCGrad. This is
    the paper's form for all shared parameters together; its experiments also take layers one by one. TorchJD's
    default of β is 0.5, the paper's 0.01. On several processes the φ and the order of the first count.

    A gradient of zero has no cosine: it adds nothing, and its φ stand still.

    Args:
        beta: the share β of the new cosine in φ, from 0 to 1.
        generator: a CPU generator that draws the orders; its state is the caller's to save. Where None, PyTorch's
            global one draws.

    Attributes:
        phi: φ, shape (T, T), float64; empty before the first step.

    Raises:
        ValueError: beta is not between 0 and 1.
    """

    phi: Tensor
    memory = "phi"
    per_pair = ("phi",)
    random = True

    def __init__(
        self,
        beta: float = 0.01,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= beta <= 1:
            raise ValueError(f"beta is {beta}, but must be a number from 0 to 1.")
        self.beta, self.generator = beta, generator
        self.phi = torch.empty(0, dtype=torch.float64)

    def check(self, losses: Tensor) -> None:
        check_losses(losses, len(self.phi) or None)

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        self.check(M.diagonal())
        G = M.cpu().numpy()  # (T, T)
        phi = self.phi.nan_to_num().cpu().numpy()
        phi = phi if len(phi) else np.zeros_like(G)
        C = np.eye(len(G))  # (T, T): row i is of gᵢ' = Σₖ Cᵢₖ gₖ
        for i in range(len(G)):
            self.lift(i, G, C[i], phi[i])
        self.phi = torch.from_numpy(phi)
        return torch.from_numpy(C.sum(axis=0))  # (GV.5)  (T,)

    def lift(
        self,
        i: int,
        G: np.ndarray,
        row: np.ndarray,
        phi: np.ndarray,
    ) -> None:
        """Lift gᵢ: its row of C changes, and each φᵢⱼ moves."""
        norms = np.sqrt(G.diagonal())
        inner, length = G[i].copy(), norms[i]  # ⟨gᵢ', gⱼ⟩ for all j, ‖gᵢ'‖
        order = torch.randperm(len(G), generator=self.generator)
        for j in order.tolist():
            if j == i or length * norms[j] == 0:
                continue
            cosine = inner[j] / (length * norms[j])  # (GV.1)
            cosine = np.clip(cosine, -1, 1)
            if cosine < phi[j]:
                aim = min(phi[j], STEEP)
                ratio = math.sqrt((1 - cosine**2) / (1 - aim**2))
                turn = aim * ratio - cosine
                share = length / norms[j] * turn  # (GV.2)
                row[j] += share
                inner += share * G[j]
                length *= ratio  # (GV.3)
            phi[j] += self.beta * (cosine - phi[j])  # (GV.4)

    def extra_repr(self) -> str:
        return f"beta={self.beta}"
