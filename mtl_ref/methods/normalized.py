"""Any method of the gradients, on gradients of one length (chapter 12)."""

from torch import Tensor

from mtl_ref.balancer import Wraps
from mtl_ref.solvers.unit import per_length, unit_gram


class Normalized(Wraps):
    """The direction that another method takes when every gradient is first divided by its length.

    The direction no longer depends on the units of the losses, and neither does its length. A gradient of zero
    stays zero; what that means is the other method's to say.

    Args:
        inner: the other method; its weights must follow from the Gram matrix of one batch.

    Raises:
        ValueError: inner is no method of the gradients, or needs more of them.
    """

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        norms, C = unit_gram(M)
        alpha = self.inner.task_weights(C, losses)  # (NO.1)
        return per_length(alpha, norms)  # (NO.2)
