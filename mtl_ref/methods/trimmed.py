"""The trimmed mean: in each entry, the largest and the smallest gradients do not count (chapter 15).

Source: Yin, Chen, Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
Rates", ICML 2018, arXiv 1803.01498.
"""

from torch import Tensor

from mtl_ref.beyond_gram import MatrixBalancer


class TrimmedMean(MatrixBalancer):
    """In each entry, the mean of what is left of the T gradients without the k largest and the k smallest.

    Made for many workers that send gradients of *one* loss, some of which are wrong. The paper leaves out a share
    β of them, k = βT. With many tasks it is the choice to follow none that stands alone in an entry.

    With fewer than 2k + 1 tasks k is as large as it can be: the median, of two tasks the mean.

    Args:
        k: how many are left out at either end; 0 is the mean.

    Raises:
        ValueError: k is negative or no whole number.
    """

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        if not (isinstance(k, int) and k >= 0):
            raise ValueError(f"k is {k}, but must be a whole number that is not negative.")
        self.k = k

    def mix(self, J: Tensor, losses: Tensor | None) -> tuple[Tensor, None]:
        T = len(J)
        k = min(self.k, (T - 1) // 2)
        ordered = J.sort(0).values  # (TM.1)  (T, P), each column upwards
        return ordered[k : T - k].mean(0), None  # (TM.2)

    def extra_repr(self) -> str:
        return f"k={self.k}"
