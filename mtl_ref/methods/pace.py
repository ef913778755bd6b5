"""More weight for the losses that fell least in the last step: SoftAdapt and ReLoBRaLo (chapter 13).

Sources: Heydari, Thompson and Mehmood, "SoftAdapt: Techniques for Adaptive Loss Weighting of Neural Networks with
Multi-Part Loss Functions", 2019, arXiv 1912.12355; Bischof and Kraus, "Multi-Objective Loss Balancing for
Physics-Informed Deep Learning", 2021, arXiv 2110.09813.
"""

import torch
from torch import Tensor

from mtl_ref.balancer import LossBalancer
from mtl_ref.checks import as_memory, check_losses, check_num_tasks, check_positive


class SoftAdapt(LossBalancer):
    """Σ wᵢ Lᵢ with w = softmax(β s), where sᵢ = Lᵢ − Lᵢ(one step before); they sum to 1.

    The paper's first form, with the simplest difference; it also has forms that divide s by Σ abs(sᵢ) and that
    multiply by the losses, and differences over several steps. PhysicsNeMo divides by the last loss instead.

    Args:
        num_tasks: the number of tasks T.
        beta: β; positive favours the loss that grows most, or falls least.

    Raises:
        ValueError: num_tasks < 1, or beta is not positive and finite.
    """

    exact = per_task = ("last",)
    last: Tensor  # nan before the first step

    def __init__(self, num_tasks: int, beta: float = 0.1) -> None:
        super().__init__()
        self.beta = check_positive(beta, "beta")
        ones = torch.ones(check_num_tasks(num_tasks), dtype=torch.float64)
        self.register_buffer("last", ones * torch.nan)

    def forward(self, losses: Tensor) -> Tensor:
        check_losses(losses, len(self.last))
        now = as_memory(losses, self.last)
        s = (now - self.last).nan_to_num()  # (SA.1)
        if now.isfinite().all():
            self.last = now
        w = torch.softmax(self.beta * s, 0)  # (SA.2)
        return (w.to(losses) * losses).sum()

    def extra_repr(self) -> str:
        return f"num_tasks={len(self.last)}, beta={self.beta}"


class ReLoBRaLo(LossBalancer):
    """Σ wᵢ Lᵢ, w a slow average of T softmax(Lᵢ/τ Lᵢ′), where L′ are the losses one step before or at the start.

    "Relative loss balancing with random look-back": with the probability 1 − ρ, drawn in each step, the average
    forgets its past and begins from the comparison with the start.

    Args:
        num_tasks: the number of tasks T.
        temperature: τ > 0; the larger, the more equal the weights.
        alpha: α in [0, 1], how slow the average is.
        rho: the probability ρ that the past is kept.
        generator: a CPU generator that draws; where None, PyTorch's global one.

    Raises:
        ValueError: num_tasks < 1, the temperature is not positive and finite, or alpha or rho is not in [0, 1].
    """

    exact = per_task = ("weights", "last", "initial")
    random = True
    weights: Tensor
    last: Tensor  # nan before the first step,
    initial: Tensor  # as these

    def __init__(
        self,
        num_tasks: int,
        temperature: float = 0.1,
        alpha: float = 0.999,
        rho: float = 0.999,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("alpha", alpha), ("rho", rho)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}, but must be between 0 and 1.")
        self.temperature = check_positive(temperature, "temperature")
        self.alpha, self.rho, self.generator = alpha, rho, generator
        ones = torch.ones(check_num_tasks(num_tasks), dtype=torch.float64)
        self.register_buffer("weights", ones)
        self.register_buffer("last", ones * torch.nan)
        self.register_buffer("initial", ones * torch.nan)

    def forward(self, losses: Tensor) -> Tensor:
        check_losses(losses, len(self.last), positive=True)
        now = as_memory(losses, self.last)
        if now.isfinite().all():
            new = self.last.isnan()
            self.initial = torch.where(new, now, self.initial)
            self.last = torch.where(new, now, self.last)
            self.learn(now)
            self.last = now
        return (self.weights.to(losses) * losses).sum()

    def learn(self, now: Tensor) -> None:
        """The weights of this step, from the losses, shape (T,)."""
        kept = torch.rand((), generator=self.generator).item() < self.rho
        since_start = self.compare(now, self.initial)
        past = self.weights if kept else since_start  # (RB.2)
        recent = self.compare(now, self.last)
        self.weights = self.alpha * past + (1 - self.alpha) * recent  # (RB.3)

    def compare(self, now: Tensor, before: Tensor) -> Tensor:
        """How far each loss has come, as weights that sum to T."""
        ratio = now / (self.temperature * before)
        return len(now) * torch.softmax(ratio, 0)  # (RB.1)

    def extra_repr(self) -> str:
        parts = f"num_tasks={len(self.last)}", f"temperature={self.temperature}"
        return ", ".join([*parts, f"alpha={self.alpha}", f"rho={self.rho}"])
