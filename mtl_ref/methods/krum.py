"""Krum: the gradient that lies closest to its neighbours (chapter 14).

Source: Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine Learning with Adversaries: Byzantine Tolerant
Gradient Descent", NeurIPS 2017.
"""

from torch import Tensor

from mtl_ref.balancer import GradientBalancer


class Krum(GradientBalancer):
    """The mean of those gradients whose sum of squared distances to their T − f − 2 nearest is least.

    It was made for T workers with one loss, up to f of them faulty; tasks are no workers. Equal scores share a
    place, where the paper takes the smaller index: the order of the tasks must not count, and with one neighbour
    two scores are always equal. TorchJD sums distances, the paper their squares. If T ≤ f + 2 no neighbour counts,
    all scores are equal, and the direction is the mean.

    Args:
        byzantine: the number f ≥ 0 of gradients that may be anything.
        selected: how many gradients are averaged ("multi-Krum"); no more than there are.

    Raises:
        ValueError: byzantine is negative, or selected less than 1.
    """

    def __init__(self, byzantine: int = 0, selected: int = 1) -> None:
        super().__init__()
        if byzantine < 0 or selected < 1:
            raise ValueError(
                f"byzantine is {byzantine} and selected {selected}, but they must be at least 0 and at least 1."
            )
        self.byzantine, self.selected = byzantine, selected

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        square, T = M.diagonal(), len(M)
        apart = square[:, None] + square - (M + M.T)  # (KR.1)  (T, T)
        near = max(T - self.byzantine - 2, 0)
        nearest = apart.sort(dim=1).values[:, 1:]  # itself comes first
        score = nearest[:, :near].sum(1)  # (KR.2)  (T,)
        places = min(self.selected, T)
        last = score.sort().values[places - 1]
        inside, tied = (score < last).to(M), (score == last).to(M)
        share = (places - inside.sum()) / tied.sum()
        return (inside + share * tied) / places  # (KR.3)

    def extra_repr(self) -> str:
        return f"byzantine={self.byzantine}, selected={self.selected}"
