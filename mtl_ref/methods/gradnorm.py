"""GradNorm: weights that are learned until the gradients have the lengths that they should (chapter 4).

Source: Chen, Badrinarayanan, Lee and Rabinovich, "GradNorm", ICML 2018, arXiv 1711.02257.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ref.balancer import LossBalancer, TakesPriorities
from mtl_ref.checks import check_losses, check_num_tasks, check_positive, in_float64
from mtl_ref.rate import RateTerm

UPDATES = ("adam", "sgd", "relative")
FLOOR = 1e-6  # the least weight that a step of Adam or of plain descent leaves


class GradNorm(TakesPriorities, LossBalancer):
    """Σ wᵢ Lᵢ with weights that are learned until ‖∇_W wᵢ Lᵢ‖ = Ḡ vᵢ rᵢ^α (Chen et al. 2018, Algorithm 1).

    Each call of `backward` measures the T norms on the parameters given as `shared` (the paper: W, the last
    shared layer) or, if `features` are given instead, on the representation. It leaves the gradients of Σ wᵢ Lᵢ
    on the model, and then updates w by itself: w is no parameter for the optimiser.

    The paper updates w by Adam at a learning rate of .025, reports that any optimiser does, and does not say
    what keeps w positive: nothing in Adam or in plain descent does. Here a weight that such a step takes below
    1e-6 is set to 1e-6, before the weights are brought back to the sum T. The update "relative" needs no floor:
    each step is a factor e^±lr, by the sign of the derivative. That is Adam without its memory, and relative to
    w: neither the scale of the losses nor their norms of long ago matter.

    A task with zero gradient has no norm to balance: it does not enter the mean Ḡ, and its weight changes only
    with the common factor that restores Σ wᵢ = T. Where a norm is not finite, w stays as it is.

    Args:
        num_tasks: the number of tasks T.
        alpha: the exponent α ≥ 0 of the rate term: how strongly tasks are held to one rate of training. With
            α > 0 all losses must start positive and stay ≥ 0.
        lr: the learning rate η > 0 of w; with "relative" the step of log w.
        update: "adam" is the paper's, Adam on w with β = (.9, .999) and ε = 1e-8; "sgd" is the plain step
            w − η ∂L_grad/∂w, which has the size of a gradient norm; "relative" is the factor e^±η.
        priorities: your own weights v of the tasks, shape (T,), all > 0; they are divided by their mean.
            Where None, all are 1.

    Attributes:
        weights: w, shape (T,), float64; they start at 1 and sum to T.

    Raises:
        ValueError: num_tasks < 1, alpha is negative, lr is not positive, one of them is not finite, update is
            none of the three, a priority is not positive and finite, or there is not one a task.
    """

    sees_norms = True
    weights: Tensor
    steps: Tensor
    m: Tensor
    v: Tensor
    exact = ("weights", "steps", "m", "v", "priorities")
    per_task = ("weights", "m", "v")

    def __init__(
        self,
        num_tasks: int,
        alpha: float = 1.5,
        lr: float = 0.025,
        update: str = "adam",
        *,
        priorities: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_num_tasks(num_tasks)
        check_positive(lr, "lr")
        if update not in UPDATES:
            raise ValueError(f"update is {update!r}, but must be one of {list(UPDATES)}.")
        self.lr, self.rule = lr, update
        self.rate = RateTerm(alpha)
        zeros = torch.zeros(num_tasks, dtype=torch.float64)
        self.register_buffer("weights", zeros + 1)
        self.register_buffer("steps", zeros.new_zeros(()))  # Adam's,
        self.register_buffer("m", zeros.clone())  # and its two moments
        self.register_buffer("v", zeros.clone())
        self.set_priorities(priorities, num_tasks, mean_one=True)
        self.priorities = self.priorities.double()
        self.passed = 0  # how often w could have learned, but did not

    def forward(self, losses: Tensor) -> Tensor:
        total = self.weighted(losses)
        if total.requires_grad:
            total.register_hook(self.warn)  # type: ignore[no-untyped-call]
        return total

    def weighted(self, losses: Tensor) -> Tensor:
        """Σ wᵢ Lᵢ, shape ()."""
        check_losses(losses, num_tasks=len(self.weights))
        return (self.weights.to(losses) * losses).sum()  # (GN.5)

    def warn(self, gradient: Tensor) -> None:
        """Say once that w learns in `backward` alone, when a loop goes back through `forward` instead."""
        self.passed += 1
        if self.passed == 10:
            warnings.warn(
                "GradNorm's weights do not learn from loss.backward(): the norms are measured in "
                "GradNorm.backward(losses, shared=... or features=...). Call that instead.",
                stacklevel=2,
            )

    def weights_at(self, losses: Tensor, norms: Tensor | None = None) -> Tensor:
        """The present w, (T,); then w learns, if norms and losses are finite."""
        check_losses(losses, num_tasks=len(self.weights))
        self.rate.check(losses)
        self.passed = 0
        used = self.weights.to(losses)
        if norms is None or not norms.isfinite().all():
            return used
        if losses.isfinite().all():
            norms = norms.to(self.weights.device)
            self.update(norms, in_float64(losses).to(self.weights.device))
        return used

    def update(self, norms: Tensor, losses: Tensor) -> None:
        """One step of w from the norms ‖∇_W Lᵢ‖ and the losses, (T,) each."""
        G = self.weights * norms  # (GN.6)  (T,)
        G_bar = G.sum() / norms.count_nonzero().clamp(min=1)  # (GN.7)
        target = G_bar * self.priorities * self.rate(losses)  # (GN.8)  (T,)
        slope = norms * torch.sign(G - target)  # (GN.9)  (T,)
        w = self.stepped(slope)  # (T,)
        self.weights = w * self.weights.sum() / w.sum()  # (GN.11)

    def stepped(self, slope: Tensor) -> Tensor:
        """w > 0 after a step of the rule, from ∂L_grad/∂w, (T,) each."""
        if self.rule == "relative":
            step = self.lr * torch.sign(slope)
            return self.weights * torch.exp(-step)  # (GN.10)
        if self.rule == "adam":
            self.steps = self.steps + 1
            self.m = 0.9 * self.m + 0.1 * slope  # (GN.12)
            self.v = 0.999 * self.v + 0.001 * slope**2  # (GN.13)
            m = self.m / (1 - 0.9**self.steps)
            v = self.v / (1 - 0.999**self.steps)
            slope = m / (v.sqrt() + 1e-8)  # (GN.14)
        return (self.weights - self.lr * slope).clamp(min=FLOOR)  # (GN.15)

    def extra_repr(self) -> str:
        parts = f"num_tasks={len(self.weights)}", f"lr={self.lr}", f"update={self.rule}", super().extra_repr()
        return ", ".join(filter(None, parts))
