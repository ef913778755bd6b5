"""Scaling losses by what they are worth: initial, prior and real-time values, and means (chapter 2)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ref.balancer import KeepsInitial, LossBalancer, TakesPriorities
from mtl_ref.checks import as_vector, check_losses, in_float64


class InitialLossScaling(TakesPriorities, KeepsInitial, LossBalancer):
    """Σ vᵢ Lᵢ / Lᵢ⁽⁰⁾: every loss starts at one, or at its priority.

    Args:
        initial: the T initial losses, shape (T,), all > 0. Where None, the losses of the first call are
            taken; they are part of `state_dict`, so that a resumed run keeps them.
        priorities: your own weights v of the tasks, shape (T,), all > 0; used as they are. Where None, all are 1.

    Raises:
        ValueError: an initial loss or a priority is not positive and finite, or there is not one a task.
    """

    def __init__(
        self,
        initial: Tensor | Sequence[float] | None = None,
        *,
        priorities: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.initial = torch.empty(0)
        if initial is not None:
            self.initial = as_vector(initial, "the initial loss", True)
        self.set_priorities(priorities, len(self.initial) or None)

    def forward(self, losses: Tensor) -> Tensor:
        self.check_initial(losses, self.tasks_with_priority, kept=True)
        v, initial = self.priorities, self.at_first(losses)  # (T,)
        return (v * losses / initial).sum()  # (IS.1)


class PriorLossScaling(TakesPriorities, LossBalancer):
    """Σ vᵢ Lᵢ / Lᵢ^prior, where Lᵢ^prior is the loss of the best answer that ignores the input.

    Args:
        prior: the T prior losses, shape (T,), all > 0; see `prior_cross_entropy` and `prior_mse`.
        priorities: your own weights v of the tasks, shape (T,), all > 0; used as they are. Where None, all are 1.

    Raises:
        ValueError: a prior loss or a priority is not positive and finite, or there is not one a task.
    """

    prior: Tensor
    sees_losses = False
    per_task = ("prior",)

    def __init__(
        self,
        prior: Tensor | Sequence[float],
        *,
        priorities: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        prior = as_vector(prior, "the prior loss", positive=True)
        self.register_buffer("prior", prior)
        self.set_priorities(priorities, len(self.prior))

    def forward(self, losses: Tensor) -> Tensor:
        check_losses(losses, num_tasks=len(self.prior))
        return (self.priorities * losses / self.prior).sum()  # (PS.1)

    def extra_repr(self) -> str:
        return ", ".join(filter(None, [f"prior={self.prior.tolist()}", super().extra_repr()]))


class RealTimeLossScaling(TakesPriorities, LossBalancer):
    """Σ vᵢ Lᵢ / sg(Lᵢ), where sg stops the gradient: each loss is divided by its own present value.

    The value is always Σ vᵢ, which is T without priorities; the gradient is that of Σ vᵢ log Lᵢ.

    Args:
        priorities: your own weights v of the tasks, shape (T,), all > 0; used as they are. Where None, all are 1.

    Raises:
        ValueError: a priority is not positive and finite.
    """

    def __init__(
        self,
        *,
        priorities: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.set_priorities(priorities)

    def forward(self, losses: Tensor) -> Tensor:
        check_losses(losses, self.tasks_with_priority, positive=True)
        v = self.priorities.to(losses)
        return (v * losses / losses.detach()).sum()  # (RS.1)


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


def uniform_cross_entropy(num_classes: int) -> float:
    """The cross-entropy of the uniform guess over K classes, log K: where a fresh network starts."""
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}, but a classification has at least 2 classes.")
    return math.log(num_classes)  # (TL.1)


def prior_cross_entropy(frequencies: Tensor | Sequence[float]) -> float:
    """The cross-entropy of always answering with the class frequencies: their entropy −Σ pₖ log pₖ.

    Args:
        frequencies: counts or frequencies of the K classes, shape (K,), all ≥ 0, not all zero.
    """
    counts = torch.as_tensor(frequencies, dtype=torch.float64)
    counts = as_vector(counts, "the class frequency")
    if counts.sum() == 0:
        raise ValueError("the class frequencies are all zero.")
    p = counts / counts.sum()
    return -torch.xlogy(p, p).sum().item()  # (TL.2)


def zero_mse(targets: Tensor) -> float:
    """The squared error of answering zero, E‖y‖²: where a fresh regression starts.

    Args:
        targets: N targets, shape (N,) or (N, D). The error is summed over D, averaged over N; divide by D
            to compare with a loss that averages over D as well, as `torch.nn.MSELoss` does.
    """
    y = _targets(targets)  # (N, D)
    return y.square().sum(1).mean().item()  # (TL.3)


def prior_mse(targets: Tensor) -> float:
    """The squared error of always answering with the mean target, E‖y − μ‖²; shapes as in `zero_mse`."""
    y = _targets(targets)  # (N, D)
    return (y - y.mean(0)).square().sum(1).mean().item()  # (TL.4)


def _targets(targets: Tensor) -> Tensor:
    if targets.ndim not in (1, 2) or len(targets) == 0:
        raise ValueError(f"targets must have shape (N,) or (N, D), but have {tuple(targets.shape)}.")
    return targets.double().reshape(len(targets), -1)
