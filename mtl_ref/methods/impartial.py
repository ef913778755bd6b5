"""IMTL: one projection on every gradient, losses of one size, or both (chapter 14).

Source: Liu, Li, Kuang, Xue, Chen, Yang, Liao and Zhang, "Towards Impartial Multi-task Learning", ICLR 2021.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_ref.balancer import GradientBalancer, LossBalancer, TakesPriorities
from mtl_ref.checks import check_losses, check_num_tasks
from mtl_ref.solvers.unit import RANK, per_length, unit_gram


def impartial(M: Tensor) -> Tensor:
    """The α with Σ α = 1 for which d = Jᵀ α has equal inner products with all unit gradients; shape (T,)."""
    norms, C = unit_gram(M)
    inverse: Tensor = torch.linalg.pinv(C, rtol=RANK, hermitian=True)
    y = inverse @ torch.ones_like(norms)  # (IG.1)
    if y @ C @ y <= RANK:  # no mixture has equal products
        return torch.zeros_like(y)
    alpha = per_length(y, norms)  # (IG.2)
    total = alpha.sum()
    if total.abs() <= RANK * alpha.abs().sum():
        return torch.zeros_like(alpha)
    return alpha / total  # (IG.3)


class IMTLG(GradientBalancer):
    """d = Σ αᵢ gᵢ with Σ αᵢ = 1 and ⟨gᵢ, d⟩/‖gᵢ‖ equal for all tasks (Liu et al. 2021, IMTL-G).

    Its direction is plus or minus ConFIG's. Where the weights before their division have a negative sum, it is
    minus: then a step along −d raises *every* loss. That is the paper's formula, and it is left as it is. It
    takes three tasks, and lengths that differ or few parameters, to happen; `ConFIG` never does it.

    A gradient of zero takes no part. With dependent gradients the projections are as equal as they can be, in the
    sense of least squares of the unit gradients; TorchJD takes those of the gradients. If no mixture of the unit
    gradients has equal products, as of opposite gradients, or if the weights sum to zero, d is zero.
    """

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        return impartial(M)


class IMTLL(TakesPriorities, LossBalancer):
    """Σ e^{sᵢ} Lᵢ − sᵢ with learned sᵢ: at rest every scaled loss is one (Liu et al. 2021, IMTL-L).

    It is twice uncertainty weighting of regressions, at −s. Give `parameters()` to the optimiser in a group of its
    own, with weight decay 0. The losses must be positive: under a negative one, sᵢ grows without end.

    Args:
        num_tasks: the number of tasks T.
        priorities: your own weights v of the tasks, shape (T,), all > 0, of scaled loss and penalty alike: the
            best sᵢ does not depend on them. Where None, all are 1.

    Raises:
        ValueError: num_tasks < 1, a priority is not positive and finite, or there is not one a task.
    """

    sees_losses = False
    per_task = ("s",)

    def __init__(
        self,
        num_tasks: int,
        *,
        priorities: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.s = starts_at_zero(num_tasks)
        self.set_priorities(priorities, num_tasks)

    def forward(self, losses: Tensor) -> Tensor:
        check_losses(losses, num_tasks=len(self.s))
        scaled = torch.exp(self.s) * losses  # (IL.1)
        return (self.priorities * (scaled - self.s)).sum()  # (IL.2)

    @property
    def weights(self) -> Tensor:
        """The present task weights v e^s, shape (T,)."""
        return (self.priorities * torch.exp(self.s)).detach()


class IMTL(GradientBalancer):
    """IMTL-L and IMTL-G together: IMTL-G's direction for the gradients of the scaled losses e^{sᵢ} Lᵢ.

    The heads receive e^{sᵢ} ∇Lᵢ, and sᵢ its own gradient e^{sᵢ} Lᵢ − 1 once a step, from the losses of the whole
    batch. The weights are those of the scaled gradients; `forward` takes gradients that are scaled already.
    As IMTL-G, it may raise every loss, and as IMTL-L it needs `parameters()` in the optimiser.

    Args:
        num_tasks: the number of tasks T.

    Raises:
        ValueError: num_tasks < 1.
    """

    per_task = ("s",)

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.s = starts_at_zero(num_tasks)

    def check(self, losses: Tensor) -> None:
        check_losses(losses, num_tasks=len(self.s))

    def factors(self, losses: Tensor) -> Tensor:
        return torch.exp(self.s).detach().to(losses)  # (IT.1)

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        if losses is not None:
            scaled = torch.exp(self.s.detach()) * losses.to(self.s)
            torch.autograd.backward(self.s, scaled - 1)  # (IT.2)
        return impartial(M)  # (IT.3)


def starts_at_zero(num_tasks: int) -> nn.Parameter:
    """T learned numbers, shape (T,), or a ValueError where T is none."""
    return nn.Parameter(torch.zeros(check_num_tasks(num_tasks)))
