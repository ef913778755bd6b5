"""Means of the losses other than the arithmetic one: geometric, and with any exponent (chapter 2)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ref.balancer import LossBalancer, TakesPriorities
from mtl_ref.checks import check_losses, in_float64


class GeometricMean(TakesPriorities, LossBalancer):
    """(∏ Lᵢ^vᵢ)^{1/T}, Σ vᵢ = T, computed as exp of the mean logarithm so that the product cannot overflow.

    Args:
        priorities: your own weights v of the tasks, shape (T,), all > 0; they are divided by their mean.
            Where None, all are 1.

    Raises:
        ValueError: a priority is not positive and finite.
    """

    def __init__(
        self,
        *,
        priorities: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.set_priorities(priorities, mean_one=True)

    def forward(self, losses: Tensor) -> Tensor:
        check_losses(losses, self.tasks_with_priority, positive=True)
        v = self.priorities.to(losses)
        return (v * torch.log(losses)).mean().exp()  # (GM.1)


class PowerMean(TakesPriorities, LossBalancer):
    """((1/T) Σ vᵢ Lᵢ^γ)^{1/γ}, Σ vᵢ = T: the arithmetic mean at γ = 1, the geometric mean at γ = 0.

    Args:
        gamma: the exponent γ, any finite number. A large γ follows the largest loss, a large −γ the smallest.
        priorities: your own weights v of the tasks, shape (T,), all > 0; they are divided by their mean.
            Where None, all are 1.

    Raises:
        ValueError: gamma is not finite, or a priority is not positive and finite.
    """

    def __init__(
        self,
        gamma: float,
        *,
        priorities: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not math.isfinite(gamma):
            raise ValueError(f"gamma is {gamma}, but must be a finite number.")
        self.gamma = gamma
        self.set_priorities(priorities, mean_one=True)

    def forward(self, losses: Tensor) -> Tensor:
        check_losses(losses, self.tasks_with_priority, positive=True)
        if self.gamma == 0:
            v = self.priorities.to(losses)
            return (v * torch.log(losses)).mean().exp()  # (GM.1)
        logs = torch.log(in_float64(losses))  # (T,)
        # the largest power is divided by, so that none overflows
        largest = logs.amax() if self.gamma > 0 else logs.amin()
        v = self.priorities.to(logs)
        powers = self.gamma * (logs - largest)  # (T,), log Lᵢ^γ, all ≤ 0
        if powers.amin() > -1:
            # of a mean close to 1, logsumexp would lose the digits
            log_mean = torch.log1p((v * torch.expm1(powers)).mean())
        else:
            log_sum = torch.logsumexp(powers + v.log(), 0)
            log_mean = log_sum - math.log(len(losses))
        mean = torch.exp(largest + log_mean / self.gamma)  # (PM.1)
        return mean.to(losses.dtype).to(losses.device)

    def extra_repr(self) -> str:
        return ", ".join(filter(None, [f"gamma={self.gamma}", super().extra_repr()]))
