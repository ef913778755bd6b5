"""What `mtl_ref.train` needs of a benchmark, and the network that most of them share."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn


def check_tasks(tasks: Sequence[str], known: Collection[str], known_as: str = "") -> None:
    """Raise a ValueError unless tasks are some of the known ones, each once; `known_as` says which in words."""
    unknown = [task for task in tasks if task not in known]
    if unknown or len(set(tasks)) != len(tasks) or len(tasks) == 0:
        raise ValueError(
            f"tasks must be some of {known_as or list(known)}, each once, but there is {unknown or list(tasks)}."
        )


def data_folder(root: str | Path | None) -> Path | None:
    """The folder that is given, or else the one that the environment variable MTL_REF_DATA names, if any."""
    folder = root or os.environ.get("MTL_REF_DATA")
    return Path(folder) if folder else None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A network in evaluation mode, and afterwards in the mode it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def batch_indices(
    count: int, batch_size: int, generator: torch.Generator | None, device: torch.device
) -> Sequence[Tensor]:
    """Which of `count` examples make up each batch; in a random order if a CPU generator is given."""
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    return torch.split(order.to(device), batch_size)


class HardSharing(nn.Module):
    """One encoder for all tasks and one head per task: hard parameter sharing.

    Args:
        encoder: maps a batch x to the shared representation z.
        heads: for each task, a module that maps z to the task's output.
    """

    def __init__(self, encoder: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict(dict(heads))

    def decode(self, z: Tensor) -> dict[str, Tensor]:
        """The output of every head for the shared representation z."""
        return {task: head(z) for task, head in self.heads.items()}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.decode(self.encoder(x))


class Problem:
    """A multi-task benchmark: its data in three splits, and what it is judged by.

    Attributes:
        tasks: the T task names, in the order of the losses.
        kinds: for each task, "classification" or "regression".
        metrics: for each metric's name, whether a higher value is better.
        device: where the batches lie.
    """

    tasks: tuple[str, ...]
    kinds: dict[str, str]
    metrics: dict[str, bool]
    device: torch.device

    def prior_losses(self) -> list[float]:
        """For each task the loss of the best answer that ignores the input, on the training split."""
        raise NotImplementedError

    def judged_by(self, task: str) -> list[str]:
        """The metrics that judge one task; unless a problem says otherwise, it has one for each."""
        return [list(self.metrics)[self.tasks.index(task)]]

    def to(self, device: torch.device | str) -> Self:
        """Move the data, and return the problem."""
        raise NotImplementedError

    def model(self) -> HardSharing:
        """A fresh network, drawn from PyTorch's global random state."""
        raise NotImplementedError

    def batches(
        self, split: str, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """The batches (x, targets) of a split; in a random order if a CPU generator is given."""
        raise NotImplementedError

    def losses(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """The T losses of a batch, shape (T,)."""
        raise NotImplementedError

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Every metric of `metrics` on a whole split, "validation" or "test"."""
        raise NotImplementedError
