"""FAMO: all losses shall fall by the same share, judged by what the last step did (chapter 13).

Source: Liu, Feng, Stone and Liu, "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023, arXiv 2306.03792,
Algorithm 2 of the appendix, which has Adam in the place of Algorithm 1's plain step.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ref.balancer import LooksAfter, LossBalancer
from mtl_ref.checks import as_memory, as_vector, check_losses, check_num_tasks, check_positive, in_float64


class FAMO(LooksAfter, LossBalancer):
    """c Σ zᵢ log(Lᵢ − bᵢ), z = softmax(ξ): a common share of every loss, at the cost of one more forward pass.

    After each `optimizer.step()` call `update(losses)` with the losses of the same batch, so that ξ learns::

        balancer.backward(losses)
        optimizer.step()
        with torch.no_grad():
            balancer.update(losses_of(model, batch))

    The factor c makes the weights of the losses sum to 1. The released code also clips the gradient, which is the
    training loop's to do.

    Args:
        num_tasks: the number of tasks T.
        lower: b, shape (T,), what each loss cannot fall below; all losses must stay above it. Where None, zero.
        lr: the learning rate of ξ.
        decay: γ ≥ 0, how strongly ξ is drawn to zero, which is equal z. The paper's value; released code has .01
            and 1e-5, too.

    Raises:
        ValueError: num_tasks < 1, there is not one lower bound a task, lr is not positive, or decay is negative,
            or one of them is not finite.
    """

    exact = ("logits", "steps", "m", "v", "lower")
    per_task = ("logits", "m", "v", "lower")
    logits: Tensor
    lower: Tensor
    steps: Tensor
    m: Tensor
    v: Tensor

    def __init__(
        self,
        num_tasks: int,
        lower: Tensor | Sequence[float] | None = None,
        lr: float = 0.025,
        decay: float = 1e-3,
    ) -> None:
        super().__init__()
        zeros = torch.zeros(check_num_tasks(num_tasks), dtype=torch.float64)
        b = as_vector(zeros if lower is None else lower, "the lower bound")
        check_losses(b, num_tasks)
        self.lr = check_positive(lr, "lr")
        self.decay = check_positive(decay, "decay", zero=True)
        self.register_buffer("logits", zeros)  # ξ
        self.register_buffer("lower", b.double())
        self.register_buffer("steps", zeros.new_zeros(()))  # Adam's,
        self.register_buffer("m", zeros.clone())  # and its two moments
        self.register_buffer("v", zeros.clone())
        self.register_buffer("before", zeros * torch.nan)

    def forward(self, losses: Tensor) -> Tensor:
        above = self.above(losses)  # (T,)
        self.before = as_memory(losses, self.before)
        z = torch.softmax(self.logits, 0)  # (FA.1)
        c = 1 / (z / above.detach()).sum()  # (FA.2)
        total: Tensor = c * (z * above.log()).sum()  # (FA.3)
        return total.to(losses)

    def above(self, losses: Tensor) -> Tensor:
        """L − b, shape (T,), float64, or a ValueError if one is ≤ 0."""
        check_losses(losses, len(self.lower))
        above = in_float64(losses).to(self.lower.device) - self.lower
        check_losses(above.to(losses.dtype), positive=True)
        return above

    def learn(self, before: Tensor, after: Tensor) -> None:
        z = torch.softmax(self.logits, 0)
        fall = (before - self.lower).log() - self.above(after).log()  # (FA.4)
        slope = z * (fall - (z * fall).sum())  # (FA.5)
        self.adam(slope + self.decay * self.logits)  # (FA.6)

    def adam(self, slope: Tensor) -> None:
        """A step of ξ against the slope, shape (T,)."""
        self.steps = self.steps + 1
        self.m = 0.9 * self.m + 0.1 * slope  # (FA.7)
        self.v = 0.999 * self.v + 0.001 * slope**2  # (FA.8)
        m = self.m / (1 - 0.9**self.steps)
        v = self.v / (1 - 0.999**self.steps)
        self.logits = self.logits - self.lr * m / (v.sqrt() + 1e-8)  # (FA.9)

    def extra_repr(self) -> str:
        return f"num_tasks={len(self.logits)}, lr={self.lr}, decay={self.decay}"
