"""Fixed weights: the plain sum that every other method is compared with (chapter 1)."""

from collections.abc import Sequence

from torch import Tensor

from mtl_ref.balancer import LossBalancer
from mtl_ref.checks import as_vector, check_losses


class FixedWeighting(LossBalancer):
    """The weighted sum Σ wᵢ Lᵢ with weights chosen beforehand, also called linear scalarisation.

    Args:
        weights: T numbers ≥ 0, shape (T,). They are used as they are, not normalised.

    Raises:
        ValueError: a weight is negative or not finite.
    """

    weights: Tensor
    sees_losses = False
    per_task = ("weights",)

    def __init__(self, weights: Tensor | Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("weights", as_vector(weights, "the weight"))

    def forward(self, losses: Tensor) -> Tensor:
        check_losses(losses, num_tasks=len(self.weights))
        return (self.weights * losses).sum()  # (WS.1)

    def extra_repr(self) -> str:
        return f"weights={self.weights.tolist()}"


class EqualWeighting(LossBalancer):
    """The mean of the losses, wᵢ = 1/T.

    Papers differ in what they call equal weights: many sum (wᵢ = 1). The two have the same minima and
    differ by a factor T in the learning rate, which is why comparisons must state which one they use.
    """

    sees_losses = False

    def forward(self, losses: Tensor) -> Tensor:
        check_losses(losses)
        return losses.sum() / len(losses)  # (WS.2)
