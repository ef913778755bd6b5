"""CR-MOGM: the weights of any method of the gradients, averaged over the steps (chapter 14).

Source: Zhou, Zhang, Jiang, Zhong, Gu and Zhu, "On the Convergence of Stochastic Multi-Objective Gradient
Manipulation and Beyond", NeurIPS 2022.
"""

import torch
from torch import Tensor

from mtl_ref.balancer import GradientBalancer, Remembers, Wraps
from mtl_ref.checks import check_losses


class CRMOGM(Remembers, Wraps):
    """d = Σ λᵢ gᵢ with λ ← a λ + (1 − a) λ̂, where λ̂ are the weights that another method finds in this step.

    λ starts at the first λ̂, so the first step is the other method's. Its promise is no longer kept in each step:
    old weights of new gradients may raise a loss. The paper lets a grow to 1 as the learning rate falls: set
    `decay` between steps. TorchJD has 0.9 too.

    Args:
        inner: the other method; its weights must follow from the Gram matrix of one batch.
        decay: a, at least 0 and less than 1.

    Attributes:
        average: λ, shape (T,), float64; empty before the first step.

    Raises:
        ValueError: inner is no method of the gradients, or needs more of them, or decay is not in the range.
    """

    average: Tensor
    memory = "average"
    per_task = ("average",)

    def __init__(self, inner: GradientBalancer, decay: float = 0.9) -> None:
        super().__init__(inner)
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}, but must be at least 0 and less than 1.")
        self.decay = decay
        self.average = torch.empty(0, dtype=torch.float64)

    def check(self, losses: Tensor) -> None:
        super().check(losses)
        check_losses(losses, len(self.average) or None)

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        check_losses(M.diagonal(), len(self.average) or None)
        now = self.inner.task_weights(M, losses)  # (CR.1)
        old = self.average.to(now) if len(self.average) else now
        old = torch.where(old.isnan(), now, old)  # a task that is new
        self.average = self.decay * old + (1 - self.decay) * now  # (CR.2)
        return self.average.clone()

    def extra_repr(self) -> str:
        return f"decay={self.decay}"
