"""NTKMTL: weights from the tasks' neural tangent kernels, which for a batch's mean loss are lengths (chapter 14).

Source: Qin, Wang, Liao and Yan, "NTKMTL: Mitigating Task Imbalance in Multi-Task Learning from Neural Tangent
Kernel Perspective", NeurIPS 2025, arXiv 2510.18258.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ref.balancer import GradientBalancer, TakesPriorities
from mtl_ref.checks import check_losses, check_positive


class NTKMTL(TakesPriorities, GradientBalancer):
    """Σ vᵢ wᵢ gᵢ with wᵢ = (Σⱼ ‖gⱼ‖² / ‖gᵢ‖²)^p; with p = ½ the unit gradients, times ‖J‖ (Frobenius).

    The form that the authors run (n = 1): one gradient of the mean loss a task, so that a task's kernel is the
    number ‖gᵢ‖². Their code multiplies the direction by T and clips its length at 1. A gradient of zero has the
    weight 0.

    Args:
        exponent: the power p ≥ 0. 0 is the sum; with 1 a longer gradient has less of a say than a shorter one.
        priorities: your own weights v of the tasks, shape (T,), all > 0; used as they are. Where None, all are 1.

    Raises:
        ValueError: exponent is negative or not finite, or a priority is not positive and finite.
    """

    def __init__(
        self,
        exponent: float = 0.5,
        *,
        priorities: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_positive(exponent, "exponent", zero=True)
        self.exponent = exponent
        self.set_priorities(priorities)

    def check(self, losses: Tensor) -> None:
        check_losses(losses, self.tasks_with_priority)

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        check_losses(M.diagonal(), self.tasks_with_priority)
        speed = M.diagonal()  # (NT.1)  ‖gᵢ‖²
        share = speed.sum() / torch.where(speed > 0, speed, 1.0)
        w = self.priorities.to(M) * share**self.exponent  # (NT.2)  (T,)
        return torch.where(speed > 0, w, 0.0)

    def extra_repr(self) -> str:
        return ", ".join(filter(None, [f"exponent={self.exponent}", super().extra_repr()]))
