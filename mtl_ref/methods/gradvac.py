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
    default of β is 0.5, the paper's 0.01. On several processes φ and the order are those of the first.

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

    def __init__(self, beta: float = 0.01, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not 0 <= beta <= 1:
            raise ValueError(f"beta is {beta}, but must be a number from 0 to 1.")
        self.beta, self.generator = beta, generator
        self.phi = torch.empty(0, dtype=torch.float64)

    def check(self, losses: Tensor) -> None:
        check_losses(losses, len(self.phi) or None)

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        self.check(M.diagonal())
        G, T = M.cpu().numpy(), len(M)
        lengths = np.sqrt(G.diagonal())
        phi = self.phi.nan_to_num().cpu().numpy() if len(self.phi) else np.zeros((T, T))
        C = np.eye(T)  # (T, T): row i is of gᵢ' = Σₖ Cᵢₖ gₖ
        for i in range(T):
            inner, length = G[i].copy(), lengths[i]  # ⟨gᵢ', gⱼ⟩ for every j, and ‖gᵢ'‖
            for j in torch.randperm(T, generator=self.generator).tolist():
                if j == i or length * lengths[j] == 0:
                    continue
                cosine = np.clip(inner[j] / (length * lengths[j]), -1, 1)  # (GV.1)
                if cosine < phi[i, j]:
                    aim = min(phi[i, j], STEEP)
                    ratio = math.sqrt((1 - cosine**2) / (1 - aim**2))
                    share = length / lengths[j] * (aim * ratio - cosine)  # (GV.2)
                    C[i, j] += share
                    inner += share * G[j]
                    length *= ratio  # (GV.3)
                phi[i, j] = (1 - self.beta) * phi[i, j] + self.beta * cosine  # (GV.4)
        self.phi = torch.from_numpy(phi)
        return torch.from_numpy(C.sum(axis=0))  # (GV.5)  (T,)

    def extra_repr(self) -> str:
        return f"beta={self.beta}"
