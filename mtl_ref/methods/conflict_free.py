"""ConFIG: the direction with one cosine to every gradient (chapter 12).

Source: Liu, Chu and Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks",
ICLR 2025, arXiv 2408.11104.
"""

import torch
from torch import Tensor

from mtl_ref.balancer import GradientBalancer
from mtl_ref.solvers.unit import RANK, per_length, unit_gram


class ConFIG(GradientBalancer):
    """d with the same cosine to every gradient, as long as the sum of what the gradients have along it.

    If the gradients are linearly independent that cosine is positive, and no loss rises; with dependent ones the
    cosines are as equal as they can be, in the sense of least squares. A gradient of zero takes no part.
    """

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        norms, C = unit_gram(M)
        inverse: Tensor = torch.linalg.pinv(C, rtol=RANK, hermitian=True)
        y = inverse @ torch.ones_like(norms)  # (CN.1)
        cosine = C @ y  # 1 for all tasks, if the gradients are independent
        square = y @ cosine
        if square <= RANK:
            return torch.zeros_like(y)
        length = (norms @ cosine) / square  # (CN.2)
        return per_length(length * y, norms)  # (CN.3)
