"""ExcessMTL: a task counts by how far its loss is from the least that it can be (chapter 15).

Source: He, Zhou, Zhang, Yun, Xu, Zeng, Chilimbi and Zhao, "Robust Multi-Task Learning with Excess Risks", ICML
2024, arXiv 2402.02009, Algorithm 1.
"""

import torch
from torch import Tensor

from mtl_ref.beyond_gram import RemembersGradients
from mtl_ref.checks import check_losses, check_num_tasks, check_positive
from mtl_ref.solvers.simplex import shares

LEAST = 1e-300  # a weight that is rounded to zero could never grow again


class ExcessMTL(RemembersGradients):
    """Σ wᵢ gᵢ, where wᵢ grows by the factor e^{η Eᵢ/Eᵢ(0)}: Eᵢ estimates what the loss is above its minimum.

    The estimate is gᵢᵀ Hᵢ⁻¹ gᵢ with AdaGrad's diagonal, the root of the sum of all squares of gᵢ so far, in the
    place of the Hessian. A task whose labels are noise has a large loss but soon little excess.

    As in the released code, Eᵢ(0) is that of the first step, in which the weights stay equal. The paper averages
    it over the first three epochs; TorchJD uses Eᵢ undivided in the first step. The weights sum to 1 as in the
    paper, in the released code to T, and there they multiply the gradients of the heads too.

    Args:
        num_tasks: the number of tasks T.
        rate: η > 0.

    Attributes:
        weights: w, shape (T,), float64; they start equal, and sum to 1.
        initial: E(0), shape (T,), float64; 0 of a task that had no gradient yet.
        kept: the diagonals of H, shape (T, P).

    Raises:
        ValueError: num_tasks < 1, or the rate is not positive and finite.
    """

    weights: Tensor
    initial: Tensor
    exact = ("weights", "initial")
    per_task = ("weights", "initial")

    def __init__(self, num_tasks: int, rate: float = 1.0) -> None:
        super().__init__()
        check_num_tasks(num_tasks)
        check_positive(rate, "rate")
        self.rate = rate
        weights = torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64)
        self.register_buffer("weights", weights)
        self.register_buffer("initial", torch.zeros_like(weights))

    def check(self, losses: Tensor) -> None:
        check_losses(losses, len(self.weights))

    def mix(self, J: Tensor, losses: Tensor | None) -> tuple[Tensor, Tensor]:
        self.kept = H = torch.hypot(self.last(J), J)  # (EX.1)  (T, P)
        tiny = torch.finfo(J.dtype).tiny
        E = (J / H.clamp(min=tiny) * J).sum(1)  # (EX.2)  (T,)
        E = E.to(self.weights)
        new = self.initial == 0
        relative = torch.where(new, 0.0, E / self.initial)  # (EX.3)
        w = self.weights.clamp(min=LEAST).log() + self.rate * relative
        self.weights = self.weights.sum() * w.softmax(0)  # (EX.4)
        self.initial = torch.where(new, E, self.initial)
        w = shares(self.weights)
        return w.to(J) @ J, w

    def extra_repr(self) -> str:
        return f"num_tasks={len(self.weights)}, rate={self.rate}"
