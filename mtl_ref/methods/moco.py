"""MoCo: multi-gradient descent on gradients that are tracked over the steps (chapter 15).

Source: Fernando, Shen, Liu, Chaudhury, Murugesan and Chen, "Mitigating Gradient Bias in Multi-objective Learning:
A Provably Convergent Approach", ICLR 2023, arXiv 2210.12624, Algorithm 1.
"""

import math

import torch
from torch import Tensor

from mtl_ref.beyond_gram import RemembersGradients
from mtl_ref.checks import check_losses, check_num_tasks, check_positive
from mtl_ref.gradients import gram
from mtl_ref.solvers.simplex import project, shares


class MoCo(RemembersGradients):
    """d = yᵀ λ: y follows the gradients, λ takes a projected gradient step on ½ ‖yᵀ λ‖².

    The paper's form with constant rates, and without the term ρ ‖λ‖² that its analysis adds. y starts at zero, and
    λ is updated before it is used. LibMTL first makes every gradient as long as its loss, puts a softmax in the
    place of the projection, and lets both rates fall as 1/√k.

    d is of the tracked gradients and no weighted sum of the present ones, so `backward` returns None.

    Args:
        num_tasks: the number of tasks T.
        beta: the rate of y, 0 < β ≤ 1; with 1, y is the present gradients.
        gamma: the rate γ > 0 of λ. It is multiplied by products of gradients: other units need another γ.

    Attributes:
        weights: λ, shape (T,), float64; they start equal, and sum to 1.
        kept: y, shape (T, P).

    Raises:
        ValueError: num_tasks < 1, or a rate is out of its range.
    """

    weights: Tensor
    exact = ("weights",)
    per_task = ("weights",)

    def __init__(
        self,
        num_tasks: int,
        beta: float = 0.5,
        gamma: float = 0.1,
    ) -> None:
        super().__init__()
        check_num_tasks(num_tasks)
        if not (math.isfinite(beta) and 0 < beta <= 1):
            raise ValueError(f"beta is {beta}, but must be above 0 and at most 1.")
        check_positive(gamma, "gamma")
        self.beta, self.gamma = beta, gamma
        weights = torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64)
        self.register_buffer("weights", weights)

    def check(self, losses: Tensor) -> None:
        check_losses(losses, len(self.weights))

    def mix(self, J: Tensor, losses: Tensor | None) -> tuple[Tensor, None]:
        y = self.last(J)
        y = y - self.beta * (y - J)  # (MO.1)  (T, P)
        lam = shares(self.weights)  # of the tasks with labels
        slope = gram(y).to(lam) @ lam  # (MO.2)  (T,)
        lam = project(lam - self.gamma * slope)  # (MO.3)
        self.kept, self.weights = y, self.weights.sum() * lam
        return lam.to(y) @ y, None  # (MO.4)

    def extra_repr(self) -> str:
        return f"num_tasks={len(self.weights)}, beta={self.beta}, gamma={self.gamma}"
