"""MoDo: multi-gradient descent whose weights take steps on products of gradients of two batches (chapter 15).

Source: Chen, Fernando, Ying and Chen, "Three-Way Trade-Off in Multi-Objective Learning: Optimization,
Generalization and Conflict-Avoidance", NeurIPS 2023, arXiv 2305.20057, Algorithm 2.
"""

import torch
from torch import Tensor

from mtl_ref.beyond_gram import TwoSamples
from mtl_ref.checks import check_losses, check_num_tasks, check_positive
from mtl_ref.solvers.simplex import project, shares


class MoDo(TwoSamples):
    """d = Jᵀ λ, where λ takes projected steps on ½ ‖Jᵀλ‖² with the unbiased estimate J₁J₂ᵀ of the matrix in it.

    The paper's form with the term ½ ρ ‖λ‖² of its longer version, but for one thing: there, a third batch gives J
    in d; here it is the mean of J₁ and J₂, as TorchJD shows it too. λ is updated before it is used.

    Args:
        num_tasks: the number of tasks T.
        gamma: the rate γ > 0 of λ. It is multiplied by products of gradients: other units need another γ.
        rho: ρ ≥ 0, which draws λ to equal weights.

    Attributes:
        weights: λ, shape (T,), float64; they start equal, and sum to 1.

    Raises:
        ValueError: num_tasks < 1, or gamma or rho is out of its range.
    """

    weights: Tensor
    exact = ("weights",)
    per_task = ("weights",)

    def __init__(
        self,
        num_tasks: int,
        gamma: float = 0.1,
        rho: float = 0.0,
    ) -> None:
        super().__init__()
        check_num_tasks(num_tasks)
        check_positive(gamma, "gamma")
        check_positive(rho, "rho", zero=True)
        self.gamma, self.rho = gamma, rho
        weights = torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64)
        self.register_buffer("weights", weights)

    def check(self, losses: Tensor) -> None:
        check_losses(losses, len(self.weights))

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        lam = shares(self.weights).to(M)  # of the tasks with labels
        slope = M @ lam + self.rho * lam  # (MD.1)  (T,), M is J₁J₂ᵀ
        lam = project(lam - self.gamma * slope)  # (MD.2)
        self.weights = self.weights.sum() * lam.to(self.weights)
        return lam

    def extra_repr(self) -> str:
        return f"num_tasks={len(self.weights)}, gamma={self.gamma}, rho={self.rho}"
