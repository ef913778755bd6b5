"""Cityscapes: what is where in a street, which pixels belong together, and how far away they are.

Sources: Cordts et al., CVPR 2016 (the data, its label ids and mIoU); Kendall, Gal and Cipolla, CVPR 2018 (the
three tasks); Sener and Koltun, NeurIPS 2018, §4.3 and their released code (the protocol).
Differences from that code: a disparity counts wherever it is valid, not only above the mean; errors are measured
as real numbers, not cut to integers; a loss without any valid pixel is zero, not None; ignored pixels do not
dilute the cross-entropy; outputs and targets have the resolution of the input, not an eighth of it; an instance is
what has a number of its own, not a group; part of the training cities is held out for choosing the epoch; images
are neither rotated nor flipped.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_ref.problems.base import HardSharing, Problem, batch_indices, check_tasks, data_folder, evaluating
from mtl_ref.problems.cityscapes.files import (
    CLASSES,
    HOW_TO_GET_IT,
    IGNORE,
    find_images,
    read_split,
    source_pixels,
)
from mtl_ref.problems.cityscapes.network import NETWORKS, pyramid_head
from mtl_ref.problems.standin import MARKER

__all__ = [
    "CLASSES",
    "IGNORE",
    "Cityscapes",
    "confusion",
    "masked_cross_entropy",
    "masked_l1",
    "mean_iou",
    "offsets",
    "picture",
]

TASKS = {
    "semantic": ("mIoU", True),
    "instance": ("instance error", False),
    "disparity": ("disparity error", False),
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels
OUTPUTS = {"semantic": len(CLASSES), "instance": 2, "disparity": 1}


class Cityscapes(Problem):
    """Three dense tasks on streets; every pixel has a class, and many a disparity and an instance.

    Task "semantic" is a classification of each pixel into 19 classes (cross-entropy, judged by "mIoU", the mean
    over classes of intersection ÷ union). Task "instance" is a regression on the offset (Δx, Δy) from a pixel to
    the centroid of its instance (L1, judged by the mean absolute error of a component). Task "disparity" is a
    regression on the disparity less its mean, over its standard deviation (L1, judged by the mean absolute error).
    Offsets, disparities and their errors are in pixels of the original image, whatever the size that is read, and
    so is the instance loss; errors are means over all judged pixels of a split.

    A pixel counts for "semantic" where its label has a class, for "instance" where it belongs to an instance with
    a number and a class, for "disparity" where the file does not hold 0. A loss without such a pixel is zero.

    The official test labels are not public. The split "test" is therefore the official val, and "validation" is a
    part of the official train, whole cities, which leave "train".

    Args:
        root: a folder with leftImg8bit/, gtFine/ and disparity/ as they are unpacked, of the real set or of a
            stand-in (`cityscapes_standin.folder()`). Where None, the folder "cityscapes" in the one that the
            environment variable MTL_REF_DATA names.
        tasks: any of "semantic", "instance" and "disparity", in the order wanted.
        size: height and width that images are shrunk to, multiples of 8.
        network: "resnet50-imagenet", dilated, with torchvision's ImageNet weights, as in the paper; "resnet50",
            the same with random weights; or "small", for a CPU.
        validation: the training cities to hold out. Where None, the last sixth of them by name, at least one.
        batch_size: of the batches, of every split.

    Attributes:
        source: what the files are: "Cityscapes", or which stand-in.
        original: height and width of the images in the files.
        mean, std: of the valid disparities of the split "train", pixels.

    All splits are held in memory: about 4 GiB for the whole of Cityscapes at (256, 512).

    Raises:
        ValueError: a task, size, network or city is unknown, or a file holds what cannot be in it.
        FileNotFoundError, OSError: a file is missing or damaged; the message names it, its source and its licence.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        tasks: Sequence[str] = ("semantic", "instance", "disparity"),
        *,
        size: tuple[int, int] = (256, 512),
        network: str = "resnet50-imagenet",
        validation: Sequence[str] | None = None,
        batch_size: int = 8,
    ) -> None:
        check_tasks(tasks, TASKS)
        if network not in NETWORKS:
            raise ValueError(f"network is {network!r}, but must be one of {list(NETWORKS)}.")
        if len(size) != 2 or min(size) < 8 or size[0] % 8 or size[1] % 8:
            raise ValueError(f"size is {size}, but must be a height and a width that are multiples of 8.")
        if root is None:
            folder = data_folder(root)
            if folder is None:
                raise FileNotFoundError(f"No root is given, and MTL_REF_DATA is not set. {HOW_TO_GET_IT}")
            root = folder / "cityscapes"
        self.tasks = tuple(tasks)
        self.kinds = {task: "classification" if task == "semantic" else "regression" for task in tasks}
        self.metrics = dict(TASKS[task] for task in tasks)
        self.size, self.network, self.batch_size = tuple(size), network, batch_size
        self.device = torch.device("cpu")
        self._read(Path(root), validation)

    def _read(self, root: Path, validation: Sequence[str] | None) -> None:
        marker = root / MARKER
        self.source = marker.read_text(encoding="utf-8").splitlines()[0] if marker.exists() else "Cityscapes"
        train, test = find_images(root, "train"), find_images(root, "val")
        cities = sorted({path.parent.name for path in train})
        self.held_out = tuple(cities[-max(1, len(cities) // 6) :] if validation is None else validation)
        if not set(self.held_out) < set(cities) or not self.held_out:
            raise ValueError(f"validation is {self.held_out}, but must be some, not all, of the cities {cities}.")
        files = {
            "train": [path for path in train if path.parent.name not in self.held_out],
            "validation": [path for path in train if path.parent.name in self.held_out],
            "test": test,
        }
        self.data = {split: read_split(paths, root, self.size) for split, paths in files.items()}
        self.original = self.data["train"].pop("original")[0].tolist()
        for split, data in self.data.items():
            if split != "train" and (other := data.pop("original")[0].tolist()) != self.original:
                raise ValueError(f"images of {split} have size {other}, those of train {self.original}.")
        known = self.data["train"]["disparity"].double()
        known = known[known.isfinite()]
        if len(known) == 0 or known.std(correction=0) == 0:
            raise ValueError(f"the disparities below {root / 'disparity' / 'train'} are all invalid or all equal.")
        self.mean, self.std = known.mean().item(), known.std(correction=0).item()

    def __repr__(self) -> str:
        sizes = "/".join(str(len(data["image"])) for data in self.data.values())
        return (
            f"Cityscapes({', '.join(self.tasks)}; {self.source}, {sizes}, held out {' '.join(self.held_out)}, "
            f"{self.size[0]}×{self.size[1]} of {self.original[0]}×{self.original[1]}, network={self.network}, "
            f"batch_size={self.batch_size})"
        )

    def to(self, device: torch.device | str) -> Self:
        self.device = torch.device(device)
        self.data = {
            split: {name: x.to(self.device) for name, x in data.items()} for split, data in self.data.items()
        }
        return self

    def model(self) -> HardSharing:
        """The encoder, of stride 8, and a pyramid-pooling head for each task."""
        encoder, channels, inner = NETWORKS[self.network]()
        return HardSharing(encoder, {task: pyramid_head(channels, inner, OUTPUTS[task]) for task in self.tasks})

    def batches(
        self, split: str, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """The batches (x, targets) of a split; in a random order if a CPU generator is given.

        Where nothing is to be predicted, targets hold IGNORE ("semantic", (N, H, W)) or nan ("instance",
        (N, 2, H, W), and "disparity", (N, 1, H, W)). In a random order, an incomplete last batch is left out
        unless it is the only one: batch normalisation needs more than one image.
        """
        data = self.data[split]
        count = len(data["image"])
        indices = batch_indices(count, self.batch_size, generator, self.device)
        if generator is not None and len(indices) > 1 and count % self.batch_size:
            indices = indices[:-1]
        mean, std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (MEAN, STD))
        for index in indices:
            yield (data["image"][index] / 255 - mean) / std, {t: self.target(data, t, index) for t in self.tasks}

    def target(self, data: Mapping[str, Tensor], task: str, index: Tensor) -> Tensor:
        """What a task's head should answer for some images."""
        if task == "semantic":
            return data["semantic"][index].long()
        if task == "disparity":
            return (data["disparity"][index].unsqueeze(1) - self.mean) / self.std  # (CS.3)
        return offsets(data["instance"][index], data["centroids"][index], self.original)

    def prior_losses(self) -> list[float]:
        """The mean losses on "train" of the best answers that ignore the image: frequencies, and medians."""
        batches = [targets for _, targets in self.batches("train")]
        priors = []
        for task in self.tasks:
            targets = torch.cat([batch[task].cpu() for batch in batches])
            if task == "semantic":
                p = targets[targets != IGNORE].bincount().double()
                p = p[p > 0] / p.sum()
                priors.append(-(p * p.log()).sum().item())
            else:
                columns = [column[~column.isnan()].double() for column in targets.unbind(1)]
                priors.append(torch.stack([(c - c.median()).abs().mean() for c in columns]).mean().item())
        return priors

    def losses(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        return torch.stack(
            [
                (masked_cross_entropy if task == "semantic" else masked_l1)(outputs[task], targets[task])
                for task in self.tasks
            ]
        )

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Every metric of `metrics`; nan where the split has no pixel to judge."""
        matrix = torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.long, device=self.device)
        errors = {task: torch.zeros(2, dtype=torch.float64, device=self.device) for task in self.tasks}
        unit = {"instance": 1.0, "disparity": self.std}
        with evaluating(model):
            for x, targets in self.batches(split):
                outputs = model(x)
                for task in self.tasks:
                    if task == "semantic":
                        matrix += confusion(outputs[task].argmax(1), targets[task])
                    else:
                        valid = ~targets[task].isnan()
                        wrong = (outputs[task] - targets[task])[valid].double().abs().sum() * unit[task]
                        errors[task] += torch.stack([wrong, valid.sum()])
        return {
            TASKS[task][0]: mean_iou(matrix) if task == "semantic" else (errors[task][0] / errors[task][1]).item()
            for task in self.tasks
        }


def masked_cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """The mean cross-entropy over the pixels whose target is not IGNORE; zero, on the graph, if there is none.

    Args:
        output: logits, shape (N, K, H, W).
        target: classes, shape (N, H, W).
    """
    total = F.cross_entropy(output, target, ignore_index=IGNORE, reduction="sum")
    return total / (target != IGNORE).sum().clamp(min=1)  # (CS.1)


def masked_l1(output: Tensor, target: Tensor) -> Tensor:
    """The mean of abs(output − target) where the target is not nan; zero, on the graph, if it always is."""
    valid = ~target.isnan()
    difference = torch.where(valid, output - target.nan_to_num(), 0.0)
    return difference.abs().sum() / valid.sum().clamp(min=1)  # (CS.4)


def confusion(predicted: Tensor, target: Tensor) -> Tensor:
    """How often each class (row) is taken for each class (column), shape (19, 19), without ignored pixels."""
    valid = target != IGNORE
    pairs = len(CLASSES) * target[valid] + predicted[valid]
    return torch.bincount(pairs, minlength=len(CLASSES) ** 2).view(len(CLASSES), len(CLASSES))


def mean_iou(matrix: Tensor) -> float:
    """The mean of hits ÷ (pixels of the class or taken for it), over the classes that occur on either side."""
    hits = matrix.diagonal().double()
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    return (hits / union)[union > 0].mean().item()  # (CS.5)


def offsets(instance: Tensor, centroids: Tensor, original: Sequence[int]) -> Tensor:
    """From each pixel to the centroid of its instance, in pixels of the original image.

    Args:
        instance: the number of each pixel's instance in its image, 0 for none, shape (N, H, W).
        centroids: (x, y) of each instance in the original image, nan for number 0, shape (N, K, 2).
        original: height and width of the original image.

    Returns:
        (Δx, Δy), nan where there is no instance, shape (N, 2, H, W).
    """
    n, h, w = instance.shape
    goal = torch.gather(centroids, 1, instance.long().view(n, h * w, 1).expand(-1, -1, 2)).view(n, h, w, 2)
    y = torch.as_tensor(source_pixels(original[0], h), dtype=goal.dtype, device=goal.device)
    x = torch.as_tensor(source_pixels(original[1], w), dtype=goal.dtype, device=goal.device)
    return torch.stack([goal[..., 0] - x, goal[..., 1] - y.unsqueeze(1)], dim=1)  # (CS.2)


def picture(classes: Tensor) -> NDArray[np.uint8]:
    """Classes, shape (H, W), in the official colours, black where ignored, shape (H, W, 3)."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[: len(CLASSES)] = [colour for _, colour in CLASSES.values()]
    chosen: NDArray[np.uint8] = colours[classes.cpu().numpy()]
    return chosen
