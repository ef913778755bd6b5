"""DB-MTL, dual balancing: logarithms of the losses, and tracked gradients of one length (chapter 15).

Source: Lin, Jiang, Ye, Zhang, Chen, Chen, Liu, Tsang and Kwok, "Dual-Balancing for Multi-Task Learning", 2023,
arXiv 2308.12029, Algorithm 1.
"""

import math

import torch
from torch import Tensor

from mtl_ref.beyond_gram import RemembersGradients
from mtl_ref.checks import check_losses
from mtl_ref.gradients import gram
from mtl_ref.solvers.unit import per_length


class DBMTL(RemembersGradients):
    """d = max‖ĝ‖ Σ ĝᵢ/‖ĝᵢ‖, with ĝᵢ an average over the steps of the gradients of log Lᵢ.

    The paper's form: ĝ starts at zero and keeps the share β/√k of itself in step k. The tasks' own parameters get
    the gradients of the logarithms too, which is what `backward` differentiates, so all losses must be positive.
    `forward` takes the gradients of the logarithms. LibMTL keeps the share β in every step, unless told otherwise.

    A tracked gradient of zero adds nothing. d is no weighted sum of the gradients: `backward` returns None.

    Args:
        beta: 0 ≤ β < 1; with 0 nothing is averaged.

    Attributes:
        kept: ĝ, shape (T, P).
        steps: k, how many steps have been taken.

    Raises:
        ValueError: beta is out of its range.
    """

    steps: Tensor
    exact = ("steps",)
    factors_by_losses = True

    def __init__(self, beta: float = 0.9) -> None:
        super().__init__()
        if not (math.isfinite(beta) and 0 <= beta < 1):
            raise ValueError(f"beta is {beta}, but must be at least 0 and below 1.")
        self.beta = beta
        steps = torch.zeros((), dtype=torch.float64)
        self.register_buffer("steps", steps)

    def check(self, losses: Tensor) -> None:
        super().check(losses)
        check_losses(losses, positive=True)

    def factors(self, losses: Tensor) -> Tensor:
        """What turns the gradient of Lᵢ into that of log Lᵢ, shape (T,)."""
        return 1 / losses  # (DB.1)

    def mix(self, J: Tensor, losses: Tensor | None) -> tuple[Tensor, None]:
        self.steps = self.steps + 1
        share = self.beta / math.sqrt(self.steps)  # (DB.2)
        g = share * self.last(J) + (1 - share) * J  # (DB.3)  (T, P)
        norms = gram(g).diagonal().sqrt()  # (T,)
        alpha = norms.max() * per_length(torch.ones_like(norms), norms)
        self.kept = g
        return alpha.to(g) @ g, None  # (DB.4)

    def extra_repr(self) -> str:
        return f"beta={self.beta}"
