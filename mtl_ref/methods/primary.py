"""One loss that counts, and others that must not suffer or must gain a little: PrimaryTask and PCD (chapter 14).

Sources: Su, third part of a blog on multi-task learning, 2022, spaces.ac.cn/archives/8907 (the problem is GEM's,
Lopez-Paz and Ranzato, NeurIPS 2017); Varam and AlHajri, "Not All Objectives Are Born Equal: Priority-Constrained
Descent for Hierarchical Multi-Objective Optimization", TMLR 2026, arXiv 2606.29521, Algorithm 1.
"""

import torch
from torch import Tensor

from mtl_ref.balancer import GradientBalancer, Remembers
from mtl_ref.checks import check_losses
from mtl_ref.solvers.dual_cone import above_margins
from mtl_ref.solvers.unit import RANK, per_length, unit_gram


class HasPrimary(GradientBalancer):
    """Part of a method in which one task comes first.

    Attributes:
        primary: its index.
    """

    def __init__(self, primary: int = 0) -> None:
        super().__init__()
        if primary < 0:
            raise ValueError(f"primary is {primary}, but must be the index of a task, counting from 0.")
        self.primary = primary

    @property
    def place(self) -> int | None:
        """Its row of M; None in a batch without a label of it. Then the shared parameters stay."""
        if self.there is None:
            return self.primary
        return int(self.there[: self.primary].sum()) if self.there[self.primary] else None

    def check(self, losses: Tensor) -> None:
        check_losses(losses)
        self.check_primary(len(losses))

    def check_primary(self, tasks: int) -> None:
        """Raise a ValueError where there is no such task, among those that are there and those that are not."""
        tasks = tasks if self.there is None else len(self.there)
        if self.primary >= tasks:
            raise ValueError(f"primary is {self.primary}, counting from 0, but there are {tasks} tasks.")

    def extra_repr(self) -> str:
        return f"primary={self.primary}"


class PrimaryTask(HasPrimary):
    """The u with the largest ⟨u, g₀⟩ − ½‖u‖² of all with ⟨u, gᵢ⟩ ≥ 0: the projection of the primary g₀.

    The closest direction to the primary task's gradient along which no other loss rises. Found exactly. With one
    other task it is g₀ + λ g₁, λ = max(0, −⟨g₀, g₁⟩)/‖g₁‖².

    Args:
        primary: the index of the task that comes first.

    Raises:
        ValueError: primary is negative, or there are no more tasks than that.
    """

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        self.check_primary(len(M))
        norms, C = unit_gram(M)
        first = self.place
        if first is None:
            return torch.zeros_like(norms)
        e = above_margins(C, first, torch.zeros_like(norms))  # (PR.1)
        return per_length(norms[first] * e, norms)  # (PR.2)


class PCD(Remembers, HasPrimary):
    """min ½‖d − g̃₁‖² with ⟨g̃ⱼ, d⟩ ≥ τ‖g̃ⱼ‖² for every other task, then d as long as the primary gradient.

    g̃ᵢ is gᵢ divided by the root of an average of ‖gᵢ‖² over the steps. If no d meets all the conditions, or d is
    zero, they are dropped for the step, or d is zero, as in the paper. The paper adds 10⁻⁸ to the average; here
    nothing is added, so that the unit of a loss does not count for short gradients either.

    Args:
        primary: the index of the task that comes first.
        tau: the share τ, from 0 to 1, of the progress along its own gradient that every other task shall have.
        beta: the decay β of the average, at least 0 and less than 1.

    Attributes:
        average: of ‖gᵢ‖², and of ones, which corrects its start; shape (T, 2), float64; empty at first.

    Raises:
        ValueError: an argument is not in its range, or there are no more tasks than `primary`.
    """

    average: Tensor
    memory = "average"
    per_task = ("average",)

    def __init__(
        self,
        primary: int = 0,
        tau: float = 0.02,
        beta: float = 0.999,
    ) -> None:
        super().__init__(primary)
        if not 0 <= tau <= 1:
            raise ValueError(f"tau is {tau}, but must be a number from 0 to 1.")
        if not 0 <= beta < 1:
            raise ValueError(f"beta is {beta}, but must be at least 0 and less than 1.")
        self.tau, self.beta = tau, beta
        self.average = torch.empty(0, dtype=torch.float64)

    def check(self, losses: Tensor) -> None:
        super().check(losses)
        check_losses(losses, len(self.average) or None)

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        self.check_primary(len(M))
        check_losses(M.diagonal(), len(self.average) or None)
        norms, C = unit_gram(M)
        now = torch.stack([norms**2, torch.ones_like(norms)], 1)  # (T, 2)
        old = self.average.nan_to_num().to(now)
        old = old if len(old) else torch.zeros_like(now)
        self.average = self.beta * old + (1 - self.beta) * now  # (PD.1)
        usual = (self.average[:, 0] / self.average[:, 1]).sqrt()  # (PD.2)
        size = per_length(norms, usual)  # ‖g̃ᵢ‖
        first = self.place
        if first is None or norms[first] == 0:
            return torch.zeros_like(norms)
        margins = self.tau * size / size[first]  # (PD.3)
        e = above_margins(C, first, margins)  # (PD.4)
        square = e @ C @ e
        if square <= RANK * e.abs().sum() ** 2:
            return torch.zeros_like(norms)
        e = norms[first] * e / square.sqrt()  # (PD.5)
        return per_length(e, norms)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, tau={self.tau}, beta={self.beta}"
