"""Random loss weights: what any method must beat before its weights mean something (chapter 13).

Source: Lin, Ye, Zhang and Tsang, "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task
Learning", TMLR 2022, arXiv 2111.10603.
"""

import torch
from torch import Tensor

from mtl_ref.balancer import LossBalancer
from mtl_ref.checks import check_losses

DISTRIBUTIONS = "normal", "dirichlet"


class RLW(LossBalancer):
    """Σ wᵢ Lᵢ with weights drawn anew in every step, which sum to 1; on average each is 1/T.

    The expected gradient is that of the mean of the losses. What is random adds noise to it.

    Args:
        distribution: "normal" is the softmax of T normal numbers, "dirichlet" uniform over the simplex.
        generator: a CPU generator that draws; its state is the caller's to save. Where None, PyTorch's global
            one draws. On several processes the first one's weights count for all.

    Raises:
        ValueError: distribution is neither of the two.
    """

    sees_losses = False
    random = True

    def __init__(
        self,
        distribution: str = "normal",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if distribution not in DISTRIBUTIONS:
            raise ValueError(f"distribution is {distribution!r}, but must be one of {list(DISTRIBUTIONS)}.")
        self.distribution, self.generator = distribution, generator

    def forward(self, losses: Tensor) -> Tensor:
        check_losses(losses)
        T = len(losses)
        if self.distribution == "normal":
            w = torch.randn(T, generator=self.generator).softmax(0)  # (RL.1)
        else:
            e = -torch.rand(T, generator=self.generator).log()
            w = e / e.sum()  # (RL.2)
        return (w.to(losses) * losses).sum()  # (RL.3)

    def extra_repr(self) -> str:
        return f"distribution={self.distribution}"
