"""SDMGrad: the shortest weighted mean of the gradients, pulled to their plain mean, from two batches (chapter 15).

Source: Xiao, Ban and Ji, "Direction-oriented Multi-objective Learning: Simple and Provable Stochastic Algorithms",
NeurIPS 2023, arXiv 2305.18409, Algorithm 1.
"""

import torch
from torch import Tensor

from mtl_ref.beyond_gram import TwoSamples
from mtl_ref.checks import check_losses, check_num_tasks, check_positive
from mtl_ref.solvers.simplex import project, shares


class SDMGrad(TwoSamples):
    """d = (g_w + λ g₀)/(1 + λ): w takes projected steps on ½ ‖g_w + λ g₀‖², where g_w = Jᵀw and g₀ is the mean.

    In the paper each of the steps on w has two batches of its own, J₁J₂ᵀ, and a further batch gives J in d. Here
    all steps have the same two, and J is their mean. The released code writes its three batches into one tensor,
    so that it works with the last alone: with `second` left out, so does this.

    As there, the matrix is divided by the squared mean of the roots of its diagonal, so that the rate has no unit,
    w starts where it was left, and the steps have momentum. There the rate is 10, too large for w to settle.

    Args:
        num_tasks: the number of tasks T.
        lam: λ ≥ 0. 0 is MGDA; the larger it is, the closer d is to the mean.
        rate: of the steps on w, > 0.
        momentum: of these steps, at least 0 and below 1.
        steps: how many there are in each step of the model.

    Attributes:
        weights: w, shape (T,), float64; they start equal, and sum to 1.

    Raises:
        ValueError: num_tasks or steps < 1, or lam, rate or momentum is out of its range.
    """

    weights: Tensor
    exact = ("weights",)
    per_task = ("weights",)

    def __init__(
        self,
        num_tasks: int,
        lam: float = 0.3,
        rate: float = 0.5,
        momentum: float = 0.5,
        steps: int = 20,
    ) -> None:
        super().__init__()
        check_num_tasks(num_tasks)
        if steps < 1:
            raise ValueError(f"steps is {steps}, but must be at least 1.")
        check_positive(lam, "lam", zero=True)
        check_positive(rate, "rate")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum}, but must be at least 0 and below 1.")
        self.lam, self.rate = lam, rate
        self.momentum, self.steps = momentum, steps
        weights = torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64)
        self.register_buffer("weights", weights)

    def check(self, losses: Tensor) -> None:
        check_losses(losses, len(self.weights))

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        scale = M.diagonal().clamp(min=0).sqrt().mean()
        A = M / scale**2 if scale > 0 else torch.zeros_like(M)
        mean = torch.full_like(M[0], 1 / len(M))  # the weights of g₀
        w, v = shares(self.weights).to(M), torch.zeros_like(mean)
        for _ in range(self.steps):
            slope = A @ (w + self.lam * mean)  # (SD.1)  (T,), M is J₁J₂ᵀ
            v = self.momentum * v + slope
            w = project(w - self.rate * v)  # (SD.2)
        self.weights = self.weights.sum() * w.to(self.weights)
        return (w + self.lam * mean) / (1 + self.lam)  # (SD.3)

    def extra_repr(self) -> str:
        parts = f"num_tasks={len(self.weights)}", f"lam={self.lam}", f"rate={self.rate}"
        return ", ".join([*parts, f"momentum={self.momentum}", f"steps={self.steps}"])
