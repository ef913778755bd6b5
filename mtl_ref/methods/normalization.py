"""Gradients of one length, by division (chapter 4)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ref.balancer import GradientBalancer, TakesPriorities
from mtl_ref.checks import check_losses
from mtl_ref.rate import RateTerm


class GradientNormalization(TakesPriorities, GradientBalancer):
    """Σ vᵢ rᵢ^α gᵢ / ‖gᵢ‖: every gradient has length one, or rᵢ^α if the rates of training are to count.

    Plain normalisation, α = 0, is often credited to GradNorm, which learns weights instead. With α > 0 the
    weights are those that the blog behind this book proposes and had not tried.

    A task whose gradient is zero has no direction to normalise: its weight is 0. The length of the direction
    does not fall near a minimum, so with plain gradient descent the learning rate must.

    Args:
        alpha: the exponent α ≥ 0 of the rate term. With α > 0 all losses must start positive and stay ≥ 0.
        priorities: your own weights v of the tasks, shape (T,), all > 0; used as they are. Where None, all are 1.

    Raises:
        ValueError: alpha is negative or not finite, or a priority is not positive and finite.
    """

    def __init__(
        self,
        alpha: float = 0.0,
        *,
        priorities: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.rate = RateTerm(alpha)
        self.set_priorities(priorities)

    def check(self, losses: Tensor) -> None:
        check_losses(losses, self.tasks_with_priority)
        self.rate.check(losses)

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        norms = M.diagonal().sqrt()  # (GN.1)  (T,)
        if losses is None:
            if self.rate.alpha != 0:
                raise ValueError(f"alpha is {self.rate.alpha}, so the rates of training count: give the losses.")
            losses = torch.ones_like(norms)
        check_losses(losses, num_tasks=len(M))
        check_losses(losses, self.tasks_with_priority)
        v = self.priorities.to(norms)
        w = v * self.rate(losses) / norms  # (GN.4)  (T,)
        return torch.where(norms > 0, w, 0.0)
