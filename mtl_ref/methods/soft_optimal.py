"""UW-SO: uncertainty weighting at its optimum, softened by a softmax (chapter 13).

Source: Kirchdorfer, Elich, Kutsche, Stuckenschmidt, Schott and Köhler, "Analytical Uncertainty-Based Loss
Weighting in Multi-Task Learning", GCPR 2024, arXiv 2408.07985.
"""

import torch
from torch import Tensor

from mtl_ref.balancer import LossBalancer
from mtl_ref.checks import check_losses, check_positive, in_float64


class UWSO(LossBalancer):
    """Σ wᵢ Lᵢ with w = softmax(1/(τ sg(Lᵢ))), which sum to 1.

    Args:
        temperature: τ > 0, in the unit of 1/L: it has to be searched, and depends on the scale of the losses.

    Raises:
        ValueError: the temperature is not positive and finite.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = check_positive(temperature, "temperature")

    def forward(self, losses: Tensor) -> Tensor:
        check_losses(losses, positive=True)
        best = 1 / in_float64(losses.detach())  # (SO.1)
        w = torch.softmax(best / self.temperature, 0)  # (SO.2)
        return (w.to(losses) * losses).sum()  # (SO.3)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"
