"""Weights by multiplication, up with a loss or down with it: GroupDRO and GO4Align (chapter 13).

Sources: Sagawa, Koh, Hashimoto and Liang, "Distributionally Robust Neural Networks for Group Shifts", ICLR 2020,
arXiv 1911.08731, Algorithm 1; Shen, Wang, Xiao, Van Noord and Worring, "GO4Align: Group Optimization for
Multi-Task Alignment", NeurIPS 2024, arXiv 2404.06486.
"""

import torch
from torch import Tensor

from mtl_ref.balancer import LossBalancer
from mtl_ref.checks import as_memory, check_losses, check_num_tasks, check_positive

Grouping = tuple[float, list[Tensor]]


class Hedge(LossBalancer):
    """Part of a method that keeps log q of T weights q, shape (T,), which sum to 1, and equal at the start."""

    exact: tuple[str, ...] = ("log_q",)
    per_task: tuple[str, ...] = ("log_q",)
    log_q: Tensor

    def __init__(self, num_tasks: int, lr: float) -> None:
        super().__init__()
        self.lr = check_positive(lr, "lr")
        T = check_num_tasks(num_tasks)
        self.register_buffer("log_q", torch.zeros(T, dtype=torch.float64))

    def multiply(self, factor: Tensor) -> Tensor:
        """q times e^factor, shape (T,); kept if the factor is finite."""
        if factor.isfinite().all():
            self.log_q = torch.log_softmax(self.log_q + factor, 0)
        return self.log_q.exp()

    def extra_repr(self) -> str:
        return f"num_tasks={len(self.log_q)}, lr={self.lr}"


class GroupDRO(Hedge):
    """Σ qᵢ Lᵢ, where q moves towards the largest loss: q ← q e^{η L}, divided by its sum.

    The paper's tasks are groups of examples with one network and one loss; here a group is a task, so the losses
    must be in one unit.

    Args:
        num_tasks: the number of tasks T.
        lr: η > 0.

    Raises:
        ValueError: num_tasks < 1, or lr is not positive and finite.
    """

    def __init__(self, num_tasks: int, lr: float = 0.01) -> None:
        super().__init__(num_tasks, lr)

    def forward(self, losses: Tensor) -> Tensor:
        check_losses(losses, len(self.log_q))
        now = as_memory(losses, self.log_q)
        q = self.multiply(self.lr * now)  # (DR.1)
        return (q.to(losses) * losses).sum()  # (DR.2)


class GO4Align(Hedge):
    """Σ wᵢ Lᵢ, where tasks of similar ΣL/Lᵢ · qᵢ share one weight, their mean; q ← q e^{−η L}.

    Form and step size of the released code. It groups by k-means from a random start; in one dimension the best
    groups are found exactly, here.

    Args:
        num_tasks: the number of tasks T.
        groups: the number of groups, at least 1; at most T are made.
        lr: η > 0.

    Raises:
        ValueError: num_tasks < 1, groups < 1, or lr is not positive and finite.
    """

    def __init__(
        self,
        num_tasks: int,
        groups: int = 2,
        lr: float = 1e-4,
    ) -> None:
        super().__init__(num_tasks, lr)
        if groups < 1:
            raise ValueError(f"groups is {groups}, but must be at least 1.")
        self.groups = groups

    def forward(self, losses: Tensor) -> Tensor:
        check_losses(losses, len(self.log_q), positive=True)
        now = as_memory(losses, self.log_q)
        q = self.multiply(-self.lr * now)  # (GO.1)
        x = now.sum() / now * q  # (GO.2)
        w = group_means(x, min(self.groups, len(x)))  # (GO.3)
        return (w.to(losses) * losses).sum()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, groups={self.groups}"


def group_means(x: Tensor, groups: int) -> Tensor:
    """For each number, shape (T,), the mean of its group, where groups are such that Σ (x − mean)² is least.

    In one dimension the best groups follow one another in order, so the best first k numbers in g groups are
    found from those in g − 1.
    """
    ordered, order = x.sort()
    T = len(x)
    # of the first k numbers in g groups: their cost, and their means
    best: dict[tuple[int, int], Grouping] = {(0, 0): (0.0, [])}
    for g in range(1, groups + 1):
        for end in range(g, T + 1):
            options = []
            for start in range(g - 1, end):
                if (start, g - 1) in best:
                    group = ordered[start:end]
                    cost, means = best[start, g - 1]
                    mean = group.mean()
                    cost = cost + (group - mean).square().sum().item()
                    options.append((cost, [*means, mean.expand(end - start)]))
            best[end, g] = min(options, key=lambda option: option[0])
    return torch.cat(best[T, groups][1])[order.argsort()]
