"""CelebA: forty yes-or-no questions about one face, one task for each.

Sources: Liu, Luo, Wang and Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015 (the data); Sener and
Koltun, NeurIPS 2018, §4.2 and their released code (the protocol).
Differences from that code: one logit a task instead of two, which can express the same; images keep their own
brightness (there, each is stretched to its own darkest and brightest value); the heads are one layer, see
`CelebA`.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_ref.problems.base import HardSharing, Problem, batch_indices, check_tasks, data_folder, evaluating
from mtl_ref.problems.celeba.files import ATTRIBUTES, HOW_TO_GET_IT, PARTITIONS, CelebAFiles

__all__ = ["ATTRIBUTES", "ENCODERS", "CelebA", "resnet18_encoder", "small_encoder"]


class CelebA(Problem):
    """Forty attributes of a face, each present or absent (binary cross-entropy, judged by the share of errors).

    The shared encoder turns an image into one vector, and every attribute has a linear head of one logit. The
    heads are evaluated together: they are the rows of one linear layer, the model's only head, so that
    `model.decode(z)` is `{"attributes": logits of shape (N, T)}`. Row i is task i's own: no other loss depends on
    it.

    Metrics are "average error", and for each attribute "A error".

    Args:
        root: the folder that holds `celeba`, with the real set or a stand-in (`celeba_standin.folder()`). Where
            None, the folder named by the environment variable MTL_REF_DATA.
        tasks: the attributes to learn, all by default.
        encoder: "resnet18", torchvision's with a 3×3 stride-1 stem and no max-pool, averaged to 2048 features; or
            "small", four strided convolutions and a linear layer to 128 features, for a CPU.
        size: images are shrunk to size × size pixels, without cropping.
        batch_size: of the batches, of every split.

    Attributes:
        images: for each split ("train", "validation", "test", the official partitions), shape (N, 3, S, S), uint8.
        targets: for each split, shape (N, T), uint8.
        source: what the files are: "CelebA", a stand-in, or neither.

    Raises:
        ValueError: a task or encoder is unknown, or a task is given twice.
        FileNotFoundError, OSError: a data file is missing or damaged; the message names it, its source and its
            licence.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        tasks: Sequence[str] = ATTRIBUTES,
        encoder: str = "resnet18",
        size: int = 64,
        batch_size: int = 256,
    ) -> None:
        check_tasks(tasks, ATTRIBUTES, "the 40 attributes")
        if encoder not in ENCODERS:
            raise ValueError(f"encoder is {encoder!r}, but must be one of {list(ENCODERS)}.")
        folder = data_folder(root)
        if folder is None:
            raise FileNotFoundError(f"No root is given, and MTL_REF_DATA is not set. {HOW_TO_GET_IT}")
        self.tasks = tuple(tasks)
        self.kinds = dict.fromkeys(tasks, "classification")
        self.metrics = {"average error": False} | {f"{task} error": False for task in tasks}
        self.encoder, self.size, self.batch_size = encoder, size, batch_size
        self.device = torch.device("cpu")
        files = CelebAFiles(folder)
        self.source = files.source
        pictures = files.pictures(size)  # (N, 3, S, S)
        answers = files.attributes[:, [ATTRIBUTES.index(task) for task in tasks]].to(torch.uint8)  # (N, T)
        part = {split: files.partition == number for number, split in enumerate(PARTITIONS)}
        self.images = {split: pictures[chosen] for split, chosen in part.items()}
        self.targets = {split: answers[chosen] for split, chosen in part.items()}

    def __repr__(self) -> str:
        sizes = "/".join(str(len(images)) for images in self.images.values())
        which = "40 attributes" if self.tasks == ATTRIBUTES else ", ".join(self.tasks)
        return (
            f"CelebA({which}; {self.source}, {sizes}, size={self.size}, encoder={self.encoder}, "
            f"batch_size={self.batch_size})"
        )

    def prior_losses(self) -> list[float]:
        """The entropy of each attribute's answers."""
        p = self.targets["train"].double().mean(0)
        return (-torch.xlogy(p, p) - torch.xlogy(1 - p, 1 - p)).tolist()

    def judged_by(self, task: str) -> list[str]:
        """The error of the attribute itself: the average belongs to none."""
        return [f"{task} error"]

    def to(self, device: torch.device | str) -> Self:
        self.device = torch.device(device)
        self.images = {split: x.to(device) for split, x in self.images.items()}
        self.targets = {split: y.to(device) for split, y in self.targets.items()}
        return self

    def model(self) -> HardSharing:
        """The encoder, and one linear layer whose T rows are the heads."""
        build, features = ENCODERS[self.encoder]
        heads = nn.Linear(features, len(self.tasks))
        network = HardSharing(build(), {"attributes": heads})
        return network.to(memory_format=torch.channels_last)  # faster on a CPU

    def batches(
        self, split: str, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        images, targets = self.images[split], self.targets[split]
        for index in batch_indices(len(images), self.batch_size, generator, self.device):
            yield images[index] / 127.5 - 1, {"attributes": targets[index].float()}

    def losses(
        self,
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
    ) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(
            outputs["attributes"],
            targets["attributes"],
            reduction="none",
        )  # (N, T)
        return losses.mean(0)  # (CB.1)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        wrong = torch.zeros(len(self.tasks), device=self.device)
        with evaluating(model):
            for x, targets in self.batches(split):
                answers = model(x)["attributes"] > 0  # (N, T)
                wrong += (answers != targets["attributes"].bool()).sum(0)
        errors = wrong / len(self.images[split])
        return dict(zip(self.metrics, [errors.mean().item(), *errors.tolist()], strict=True))

    def most_frequent(self, split: str) -> Tensor:
        """The error of each task if one always gives the answer most frequent in training, shape (T,)."""
        answer = self.targets["train"].float().mean(0) > 0.5
        errors: Tensor = (self.targets[split].bool() != answer).float().mean(0)
        return errors


def resnet18_encoder() -> nn.Module:
    """ResNet-18 for small images: (N, 3, 64, 64) to (N, 2048). P = 11,168,832."""
    import torchvision

    encoder: nn.Module = torchvision.models.resnet18()
    encoder.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    encoder.maxpool = nn.Identity()
    # of 8×8 places with 512 channels
    encoder.avgpool = nn.AdaptiveAvgPool2d(2)
    encoder.fc = nn.Identity()
    return encoder


def small_encoder() -> nn.Module:
    """Four strided convolutions and a linear layer, all with batch normalisation: (N, 3, 64, 64) to (N, 128)."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise((3, 8, 16, 32, 64)):
        layers += [
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(True),
        ]
    return nn.Sequential(  # of 4×4 places with 64 channels
        *layers, nn.Flatten(), nn.Linear(1024, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU(True)
    )


ENCODERS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (resnet18_encoder, 2048),
    "small": (small_encoder, 128),
}
