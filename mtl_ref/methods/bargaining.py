"""Nash-MTL and FairGrad: the direction that the tasks would agree on (chapter 12).

Sources: Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik and Fetaya, "Multi-Task Learning as a Bargaining
Game", ICML 2022, arXiv 2202.01017; Ban and Ji, "Fair Resource Allocation in Multi-Task Learning", ICML 2024,
arXiv 2402.15638.
"""

from torch import Tensor

from mtl_ref.balancer import GradientBalancer
from mtl_ref.checks import check_positive
from mtl_ref.solvers.bargaining import bargain


class NashMTL(GradientBalancer):
    """d = Σ αᵢ gᵢ with M α = 1/α: of all directions of one length, that with the largest product of gains.

    Its length is always √T, whatever the gradients'. Solved anew in every step, to rounding: the released code
    approximates by a sequence of convex problems, every few steps, and clips d.
    At a Pareto stationary point d = 0. A gradient of zero takes no part.
    """

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        return bargain(M)  # (NA.1)


class FairGrad(GradientBalancer):
    """d = Σ αᵢ gᵢ with M α = α^(−1/a): a = 1 is Nash-MTL, and the larger a, the more the least gain counts.

    Args:
        alpha: a > 0, the paper's α. Towards 0 the direction tends to that of the sum.

    Raises:
        ValueError: alpha is not positive and finite.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        check_positive(alpha, "alpha")
        self.alpha = alpha

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        return bargain(M, power=1 / self.alpha)  # (FG.1)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"
