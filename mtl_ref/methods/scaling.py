"""Scaling losses by what they are worth: initial, prior and real-time values (chapter 2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ref.balancer import KeepsInitial, LossBalancer, TakesPriorities
from mtl_ref.checks import as_vector, check_losses


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
