"""MetaBalance: in each tensor, gradients of auxiliary tasks as long as the main task's, or partly so (chapter 15).

Source: He, Feng, Cheng, Ji, Guo and Caverlee, "MetaBalance: Improving Multi-Task Recommendations via Adapting
Gradient Magnitudes of Auxiliary Tasks", WWW 2022, arXiv 2203.06801, Algorithm 1.
"""

import torch
from torch import Tensor

from mtl_ref.balancer import Remembers
from mtl_ref.beyond_gram import MatrixBalancer
from mtl_ref.checks import check_losses, check_num_tasks, in_float64


class MetaBalance(Remembers, MatrixBalancer):
    """The sum of the gradients, after those of auxiliary tasks are brought near the main task's length.

    That is done in each shared tensor for itself: one weight matrix, one bias. Lengths are averages over the
    steps, from zero as in the paper and its code; a task that comes later than the main one looks short at first.

    The paper's form, in which shorter gradients are made longer as well. `forward` takes the gradients as those
    of one tensor. d is no weighted sum of the gradients, as the weights differ from tensor to tensor. Without
    the main task among those present, d is the plain sum.

    Args:
        num_tasks: the number of tasks T.
        primary: the main task, counted from 0.
        relax: r, the part of the way to the main task's length, from 0 (the plain sum) to 1.
        beta: the share that the average length keeps of itself in a step, 0 ≤ β < 1.

    Attributes:
        norms: the average lengths, a row for each task and a column for each tensor.
        main: which task is the main one, shape (T,).

    Raises:
        ValueError: num_tasks < 1, there is no task `primary`, or relax or beta is out of its range.
    """

    norms: Tensor
    memory = "norms"
    per_task = ("norms", "main")

    def __init__(
        self,
        num_tasks: int,
        primary: int = 0,
        relax: float = 0.7,
        beta: float = 0.9,
    ) -> None:
        super().__init__()
        check_num_tasks(num_tasks)
        if primary not in range(num_tasks):
            raise ValueError(f"primary is {primary}, but there are the tasks 0 to {num_tasks - 1}.")
        if not 0 <= relax <= 1:
            raise ValueError(f"relax is {relax}, but must be between 0 and 1.")
        if not 0 <= beta < 1:
            raise ValueError(f"beta is {beta}, but must be at least 0 and below 1.")
        self.relax, self.beta = relax, beta
        self.norms = torch.empty(0)
        self.main = torch.arange(num_tasks) == primary

    def check(self, losses: Tensor) -> None:
        check_losses(losses, len(self.main))

    def mix(self, J: Tensor, losses: Tensor | None) -> tuple[Tensor, None]:
        whole = sum(self.sizes) != J.shape[1]
        tensors = (J,) if whole else torch.split(J, list(self.sizes), dim=1)
        norms = [in_float64(G).norm(dim=1) for G in tensors]
        lengths = torch.stack(norms, dim=1)  # a row for each task
        m = self.norms.to(lengths).nan_to_num(nan=0.0)
        m = m if len(m) else torch.zeros_like(lengths)
        m = self.beta * m + (1 - self.beta) * lengths  # (MB.1)
        main = m[self.main] if self.main.any() else m
        ratio = main / torch.where(m > 0, m, 1.0)  # (MB.2)
        factor = self.relax * ratio + (1 - self.relax)  # (MB.3)
        self.norms, pairs = m, zip(factor.to(J).T, tensors, strict=True)
        return torch.cat([c @ G for c, G in pairs]), None  # (MB.4)

    def extra_repr(self) -> str:
        primary = int(self.main.nonzero()[0])
        return f"num_tasks={len(self.main)}, primary={primary}, relax={self.relax}, beta={self.beta}"
