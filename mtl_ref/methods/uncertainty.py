"""Weighting by homoscedastic uncertainty: a noise level per task, learned with the network (chapter 3).

Sources: Kendall, Gal and Cipolla, CVPR 2018; Liebel and Körner, arXiv 1805.06334, 2018.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_ref.balancer import LossBalancer, TakesPriorities
from mtl_ref.checks import as_vector, check_losses, check_num_tasks


class UncertaintyWeighting(TakesPriorities, LossBalancer):
    """Σ Lᵢ/(2σᵢ²) + log σᵢ for regression tasks, Σ Lᵢ/σᵢ² + log σᵢ for classification (Kendall 2018, eqs. 7, 10).

    It learns sᵢ = log σᵢ², which needs no constraint. Give `parameters()` to the optimiser in a group of its own,
    with weight decay 0: decay would pull every σ towards 1.

    Args:
        kinds: "regression" or "classification" for each of the T tasks. A regression loss is the squared
            error, a classification loss the cross-entropy.
        priorities: your own weights v of the tasks, shape (T,), all > 0, of loss and penalty alike: the best σᵢ
            does not depend on them. Where None, all are 1.
        start: T losses, shape (T,), all > 0, at which every sᵢ is the best one from the first step on, for
            instance those of the first batch. Where None, every sᵢ starts at 0.

    Raises:
        ValueError: a kind is neither of the two, a priority or a loss to start at is not positive and finite, or
            there is not one a task.
    """

    halves: Tensor
    sees_losses = False
    per_task = ("s", "halves")

    def __init__(
        self,
        kinds: Sequence[str],
        *,
        priorities: Tensor | Sequence[float] | None = None,
        start: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(kinds, str) or len(kinds) == 0:
            raise ValueError(f"kinds must be a list of one kind per task, but is {kinds!r}.")
        factor = {"regression": 0.5, "classification": 1.0}
        for task, kind in enumerate(kinds):
            if kind not in factor:
                raise ValueError(
                    f"the kind of task {task} (counting from 0) is {kind!r}, but must be 'regression' or "
                    "'classification'."
                )
        self.kinds = tuple(kinds)
        halves = torch.tensor([factor[kind] for kind in kinds])
        self.s = nn.Parameter(torch.zeros(len(kinds)))  # (UW.1) s = log σ²
        if start is not None:
            losses = as_vector(start, "the loss to start at", positive=True)
            check_losses(losses, num_tasks=len(kinds))
            self.s = nn.Parameter(torch.log(2 * halves * losses.to(halves)))
        self.register_buffer("halves", halves, persistent=False)
        self.set_priorities(priorities, len(kinds))

    def forward(self, losses: Tensor) -> Tensor:
        check_losses(losses, num_tasks=len(self.s))
        weighted = self.halves * torch.exp(-self.s) * losses  # (UW.2)
        return (self.priorities * (weighted + self.s / 2)).sum()  # (UW.3)

    @property
    def weights(self) -> Tensor:
        """The present task weights, v/(2σ²) or v/σ², shape (T,)."""
        return (self.priorities * self.halves * torch.exp(-self.s)).detach()

    def extra_repr(self) -> str:
        return ", ".join(filter(None, [f"kinds={list(self.kinds)}", super().extra_repr()]))


class AutomaticWeightedLoss(TakesPriorities, LossBalancer):
    """Σ Lᵢ/(2cᵢ²) + log(1 + cᵢ²), which never goes below zero (Liebel & Körner 2018).

    Popular as AutomaticWeightedLoss on GitHub. It learns cᵢ, starting at 1. Give `parameters()` to the
    optimiser in a group of its own with weight decay 0.

    Args:
        num_tasks: the number of tasks T.
        priorities: your own weights v of the tasks, shape (T,), all > 0, of loss and penalty alike. Where None,
            all are 1.

    Raises:
        ValueError: num_tasks < 1, a priority is not positive and finite, or there is not one a task.
    """

    sees_losses = False
    per_task = ("c",)

    def __init__(
        self,
        num_tasks: int,
        *,
        priorities: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_num_tasks(num_tasks)
        self.c = nn.Parameter(torch.ones(num_tasks))
        self.set_priorities(priorities, num_tasks)

    def forward(self, losses: Tensor) -> Tensor:
        check_losses(losses, num_tasks=len(self.c))
        weighted = losses / (2 * self.c**2)  # (AW.1)
        penalty = torch.log(1 + self.c**2)
        return (self.priorities * (weighted + penalty)).sum()  # (AW.2)

    @property
    def weights(self) -> Tensor:
        """The present task weights, v/(2c²), shape (T,)."""
        return (self.priorities / (2 * self.c**2)).detach()
