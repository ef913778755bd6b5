"""The rate at which a task is trained, relative to the others (chapter 4).

Source: Chen, Badrinarayanan, Lee and Rabinovich, "GradNorm", ICML 2018, arXiv 1711.02257.
"""

import torch
from torch import Tensor

from mtl_ref.balancer import KeepsInitial
from mtl_ref.checks import check_positive, in_float64


class RateTerm(KeepsInitial):
    """rᵢ^α: above 1 for a task that learns more slowly than the others, below 1 for one that is ahead.

    The initial losses Lᵢ(0) are those of the first call. They are part of `state_dict`, so that a resumed run
    keeps them. With α = 0 nothing is measured and every task has 1.

    Args:
        alpha: the exponent α ≥ 0.
    """

    def __init__(self, alpha: float) -> None:
        super().__init__()
        check_positive(alpha, "alpha", zero=True)
        self.alpha = alpha
        self.initial = torch.empty(0, dtype=torch.float64)

    def check(self, losses: Tensor) -> None:
        """Raise a ValueError for losses without a rate: L(0) ≤ 0, L < 0, or another number of tasks."""
        if self.alpha == 0:
            return
        self.check_initial(losses)
        if (losses < 0).any():
            task = int((losses < 0).nonzero()[0])
            raise ValueError(
                f"the loss of task {task} (counting from 0) is {losses[task].item()}, but must not be negative: "
                "its rate of training is L / L(0). Use alpha=0 for losses that can be negative."
            )

    def forward(self, losses: Tensor) -> Tensor:
        """The T factors rᵢ^α, shape (T,), from the losses, shape (T,)."""
        self.check(losses)
        if self.alpha == 0:
            return torch.ones_like(losses)
        initial = self.at_first(in_float64(losses)).to(losses.device)
        ratio = losses / initial  # (GN.2)  (T,)
        tiny = torch.finfo(ratio.dtype).tiny
        r = ratio / ratio.mean().clamp(min=tiny)  # (GN.3)  (T,)
        return r**self.alpha

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"
