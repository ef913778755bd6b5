"""DWA: more weight for the losses that fell least over the last epochs (chapter 13).

Source: Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019, arXiv 1803.10704.
"""

import torch
from torch import Tensor

from mtl_ref.balancer import LossBalancer
from mtl_ref.checks import as_memory, check_losses, check_num_tasks, check_positive


class DWA(LossBalancer):
    """Σ wᵢ Lᵢ with wᵢ = T softmax(rᵢ/τ), where rᵢ is the mean loss of the last epoch over that of the one before.

    Call `end_epoch()` after each epoch; `mtl.train` does. In the first two epochs every weight is 1.

    Args:
        num_tasks: the number of tasks T.
        temperature: τ > 0; the larger, the more equal the weights.

    Raises:
        ValueError: num_tasks < 1, or the temperature is not positive and finite.
    """

    exact = per_task = ("total", "steps", "last", "earlier")
    total: Tensor  # of this epoch,
    steps: Tensor  # and how many
    last: Tensor  # mean of the last epoch,
    earlier: Tensor  # and of the one before; nan where there is none

    def __init__(self, num_tasks: int, temperature: float = 2.0) -> None:
        super().__init__()
        zeros = torch.zeros(check_num_tasks(num_tasks), dtype=torch.float64)
        self.temperature = check_positive(temperature, "temperature")
        for name in ("total", "steps"):
            self.register_buffer(name, zeros.clone())
        for name in ("last", "earlier"):
            self.register_buffer(name, zeros * torch.nan)

    @property
    def weights(self) -> Tensor:
        """The weights of this epoch, shape (T,), float64."""
        r = self.last / self.earlier  # (DW.1)
        r = torch.where(r.isfinite(), r, 1.0)  # until there are two epochs
        return len(r) * torch.softmax(r / self.temperature, 0)  # (DW.2)

    def forward(self, losses: Tensor) -> Tensor:
        check_losses(losses, len(self.total), positive=True)
        if losses.isfinite().all():
            self.total = self.total + as_memory(losses, self.total)
            self.steps = self.steps + 1
        return (self.weights.to(losses) * losses).sum()

    def end_epoch(self) -> None:
        """The mean losses of this epoch become those of the last one."""
        seen = self.steps > 0
        mean = self.total / self.steps
        self.earlier = torch.where(seen, self.last, self.earlier)
        self.last = torch.where(seen, mean, self.last)
        self.total = torch.zeros_like(mean)
        self.steps = torch.zeros_like(mean)

    def extra_repr(self) -> str:
        return f"num_tasks={len(self.total)}, temperature={self.temperature}"
