"""MultiMNIST: two overlapping digits in one image, one task for each.

Sources: Sabour, Frosst and Hinton, NeurIPS 2017; Sener and Koltun, NeurIPS 2018, §4.1 and their released code.
Differences from that code, which has no seed, masks without dropout's 1/p and tests on its validation set:
everything is drawn from a seed, dropout is PyTorch's, and the three splits share no digit.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_ref.problems.base import HardSharing, Problem, batch_indices, check_tasks, data_folder, evaluating

if TYPE_CHECKING:
    from torchvision.datasets import MNIST

SUBSET = Path(__file__).parent.parent / "assets" / "mnist_subset.npz"
SUBSET_SHA256 = "9b41d5cb60992b4f6904931f2c390ee58e4b2a2e3a8a75b4055bde5a9309dbe5"
WHOLE_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FASHION_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
TASKS = {"left": "left accuracy", "right": "right accuracy", "sum": "sum error"}
VALIDATION = 10_000  # of the whole set's training digits, the last ones
MEAN, STD = 0.1307, 0.3081  # of MNIST's pixels

Digits = dict[str, tuple[Tensor, Tensor]]  # for each split, images (N, 28, 28) uint8 and labels (N,)


class MultiMNIST(Problem):
    """Two digits overlap in a 28×28 image; read the left one, the right one, or their sum.

    Tasks "left" and "right" are classifications into 10 classes (cross-entropy, judged by accuracy). Task
    "sum" is a regression on the sum of the two digits (squared error, judged by the mean absolute error
    "sum error"); its loss starts near E[y²] ≈ 97, that of a classification near log 10 ≈ 2.3.

    Args:
        tasks: any of "left", "right" and "sum", in the order wanted.
        root: a folder in torchvision's layout with the whole of MNIST, downloaded into it where it is missing:
            50,000 / 10,000 / 10,000 digits. Where None, the folder named by the environment variable
            MTL_REF_DATA, and where that is not set the embedded subset: 10,000 / 2,000 / 2,000 digits.
        seed: decides which right digit goes with which left digit.
        batch_size: of the batches, of every split.
        dropout: the probability in the trunk (whole channels) and in the heads. It harms
            squared-error heads: evaluation without noise shifts what they see, so use 0 with task "sum".
        fashion: whether the right digits are replaced by Fashion-MNIST's pieces of clothing, which are harder
            (Lin et al. 2019). They are not embedded: root or MTL_REF_DATA must be given.

    Attributes:
        images: for each split ("train", "validation", "test"), shape (N, 1, 28, 28), normalised.
        targets: for each split and task, shape (N,).

    Raises:
        ValueError: a task is unknown or given twice; or clothing is to be added to digits, or has no folder.
        FileNotFoundError, OSError: a data file is missing or damaged; the message names it and the remedy.
    """

    def __init__(
        self,
        tasks: Sequence[str] = ("left", "right"),
        *,
        root: str | Path | None = None,
        seed: int = 0,
        batch_size: int = 256,
        dropout: float = 0.5,
        fashion: bool = False,
    ) -> None:
        check_tasks(tasks, TASKS)
        self.tasks = tuple(tasks)
        self.kinds = {task: "regression" if task == "sum" else "classification" for task in tasks}
        self.metrics = {TASKS[task]: task != "sum" for task in tasks}
        self.batch_size = batch_size
        self.dropout = dropout
        self.seed = seed
        self.device = torch.device("cpu")
        folder = data_folder(root)
        digits = read_whole(folder) if folder else read_subset()
        self.source = "whole MNIST" if folder else "embedded subset of MNIST"
        partners = digits
        if fashion:
            if not folder or "sum" in tasks:
                raise ValueError(
                    "fashion=True has no embedded subset and no sum: give root, or set MTL_REF_DATA, and leave "
                    "out the task 'sum'."
                )
            partners = read_whole(folder, "FashionMNIST")
            self.source = "whole MNIST and Fashion-MNIST"
        generator = torch.Generator().manual_seed(seed)
        self.images: dict[str, Tensor] = {}
        self.targets: dict[str, dict[str, Tensor]] = {}
        for split, (images, labels) in digits.items():
            right = torch.randint(len(images), (len(images),), generator=generator)
            right_images, right_labels = (x[right] for x in partners[split])
            canvas = overlay(images, right_images)  # (N, 28, 28)
            self.images[split] = ((canvas / 255 - MEAN) / STD).unsqueeze(1)
            all_targets = {"left": labels, "right": right_labels}
            all_targets["sum"] = (labels + right_labels).float()
            self.targets[split] = {task: all_targets[task] for task in tasks}

    def __repr__(self) -> str:
        sizes = "/".join(str(len(images)) for images in self.images.values())
        return (
            f"MultiMNIST({', '.join(self.tasks)}; {self.source}, {sizes}, seed={self.seed}, "
            f"batch_size={self.batch_size}, dropout={self.dropout})"
        )

    def keep(self, sizes: Mapping[str, int]) -> Self:
        """Keep only the first images of each split, and return the problem."""
        self.source = self.source.replace("whole", "part of")
        for split, size in sizes.items():
            self.images[split] = self.images[split][:size]
            self.targets[split] = {task: y[:size] for task, y in self.targets[split].items()}
        return self

    def prior_losses(self) -> list[float]:
        """The entropy of a digit's labels; for the sum, the variance."""
        priors = []
        for task, labels in self.targets["train"].items():
            p = labels.long().bincount().double() / len(labels)
            entropy, variance = -torch.xlogy(p, p).sum(), labels.double().var(correction=0)
            priors.append((variance if task == "sum" else entropy).item())
        return priors

    def to(self, device: torch.device | str) -> Self:
        self.device = torch.device(device)
        self.images = {split: x.to(device) for split, x in self.images.items()}
        self.targets = {
            split: {task: y.to(device) for task, y in targets.items()} for split, targets in self.targets.items()
        }
        return self

    def model(self) -> HardSharing:
        """Sener and Koltun's LeNet: a convolutional trunk to 50 features, two linear layers per task."""
        heads = {t: lenet_head(1 if t == "sum" else 10, self.dropout) for t in self.tasks}
        network = HardSharing(lenet_encoder(self.dropout), heads)
        return network.to(memory_format=torch.channels_last)  # on a CPU pooling is then three times as fast

    def batches(
        self, split: str, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        images, targets = self.images[split], self.targets[split]
        for index in batch_indices(len(images), self.batch_size, generator, self.device):
            yield images[index], {task: y[index] for task, y in targets.items()}

    def losses(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        return torch.stack(
            [
                F.mse_loss(outputs[task].squeeze(1), targets[task])
                if task == "sum"
                else F.cross_entropy(outputs[task], targets[task])
                for task in self.tasks
            ]
        )

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        totals = torch.zeros(len(self.tasks), device=self.device)
        with evaluating(model):
            for x, targets in self.batches(split):
                outputs = model(x)
                totals += torch.stack(
                    [
                        (outputs[task].squeeze(1) - targets[task]).abs().sum()
                        if task == "sum"
                        else (outputs[task].argmax(1) == targets[task]).sum()
                        for task in self.tasks
                    ]
                )
        return dict(zip(self.metrics, (totals / len(self.images[split])).tolist(), strict=True))


def overlay(left: Tensor, right: Tensor) -> Tensor:
    """Lay digits over each other on a 36×36 canvas, left at the top left, and shrink it to 28×28.

    Args:
        left, right: images of shape (N, 28, 28).

    Returns:
        The pixelwise maximum of the two, shrunk by nearest-neighbour resampling, shape (N, 28, 28), float.
    """
    canvas = torch.zeros(2, len(left), 36, 36)
    canvas[0, :, :28, :28] = left
    canvas[1, :, 8:, 8:] = right
    return F.interpolate(canvas.amax(0).unsqueeze(1), size=28, mode="nearest").squeeze(1)


def lenet_encoder(dropout: float) -> nn.Module:
    """The shared trunk: (N, 1, 28, 28) to (N, 50)."""
    return nn.Sequential(
        nn.Conv2d(1, 10, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(10, 20, 5),
        nn.Dropout2d(dropout),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(320, 50),
        nn.ReLU(),
    )


def lenet_head(outputs: int, dropout: float) -> nn.Module:
    """One task's head: (N, 50) to (N, outputs)."""
    return nn.Sequential(nn.Linear(50, 50), nn.ReLU(), nn.Dropout(dropout), nn.Linear(50, outputs))


def read_subset() -> Digits:
    """The embedded digits, checked against their SHA-256."""
    if not SUBSET.exists():
        raise FileNotFoundError(f"{SUBSET} is missing: reinstall mtl_ref, which ships with it.")
    check_digest(SUBSET, SUBSET_SHA256, "reinstall mtl_ref, which ships with it")
    with np.load(SUBSET, allow_pickle=False) as arrays:
        return {
            split: (
                torch.from_numpy(arrays[f"{split}_images"]),
                torch.from_numpy(arrays[f"{split}_labels"]).long(),
            )
            for split in ("train", "validation", "test")
        }


def read_whole(root: str | Path, name: str = "MNIST") -> Digits:
    """The whole of a set in torchvision's layout: its last 10,000 training images become the validation split."""
    from torchvision import datasets

    dataset: type[MNIST] = getattr(datasets, name)
    digests = FASHION_SHA256 if name == "FashionMNIST" else WHOLE_SHA256
    raw = Path(root) / name / "raw"
    missing = [file for file in digests if not (raw / file).exists()]
    if missing:
        try:
            dataset(root, download=True)
        except Exception as error:
            raise FileNotFoundError(
                f"{raw / missing[0]} is missing and could not be downloaded ({error}). Copy {name}'s four files "
                f"into {raw}, or leave root and MTL_REF_DATA unset to use the embedded subset of MNIST."
            ) from error
    for file, digest in digests.items():
        check_digest(raw / file, digest, "delete it, so that it is downloaded again, or copy it anew")
    train, test = dataset(root, train=True), dataset(root, train=False)
    return {
        "train": (train.data[:-VALIDATION], train.targets[:-VALIDATION]),
        "validation": (train.data[-VALIDATION:], train.targets[-VALIDATION:]),
        "test": (test.data, test.targets),
    }


def check_digest(path: Path, sha256: str, remedy: str) -> None:
    """Raise an OSError that names a file whose content is not the expected one."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise OSError(
            f"{path} is damaged or only partly downloaded: its SHA-256 is {found}, but should be {sha256}. "
            f"Remedy: {remedy}."
        )
