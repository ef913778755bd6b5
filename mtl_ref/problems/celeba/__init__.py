"""CelebA: forty yes-or-no questions about one face, one task for each.

Sources: Liu, Luo, Wang and Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015 (the data); Sener and
Koltun, NeurIPS 2018, §4.2 and their released code (the protocol).
Differences from that code: one logit a task instead of two, which can express the same; images keep their own
brightness (there, each is stretched to its own darkest and brightest value); the heads are one layer, see
`CelebA`.
"""

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.datasets.celeba import CSV
from tqdm import tqdm

from mtl_ref.problems.base import HardSharing, Problem, batch_indices
from mtl_ref.problems.standin import MARKER

ATTRIBUTES = (  # in the order of the official list
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald",
    "Bangs", "Big_Lips", "Big_Nose", "Black_Hair", "Blond_Hair",
    "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin",
    "Eyeglasses", "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones",
    "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard",
    "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks",
    "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings",
    "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young",
)  # fmt: skip
PARTITIONS = ("train", "validation", "test")  # 0, 1 and 2 in list_eval_partition.txt
PICTURES, LABELS, PARTS = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
THREADS = min(32, os.cpu_count() or 1)
WHERE = (
    "CelebA comes from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html under its own agreement: for "
    "non-commercial research only, and not to be passed on. Download it there and unpack it as torchvision does, "
    f"so that ROOT/celeba holds {LABELS}, {PARTS} and the folder {PICTURES}; or use the drawn stand-in, "
    "CelebA(celeba_standin.folder())."
)


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
        unknown = [task for task in tasks if task not in ATTRIBUTES]
        if unknown or len(set(tasks)) != len(tasks) or len(tasks) == 0:
            raise ValueError(
                f"tasks must be some of the 40 attributes, each once, but there is {unknown or tasks}."
            )
        if encoder not in ENCODERS:
            raise ValueError(f"encoder is {encoder!r}, but must be one of {list(ENCODERS)}.")
        root = root or os.environ.get("MTL_REF_DATA")
        if root is None:
            raise FileNotFoundError(f"No root is given, and MTL_REF_DATA is not set. {WHERE}")
        self.tasks = tuple(tasks)
        self.kinds = dict.fromkeys(tasks, "classification")
        self.metrics = {"average error": False} | {f"{task} error": False for task in tasks}
        self.encoder, self.size, self.batch_size = encoder, size, batch_size
        self.device = torch.device("cpu")
        files = CelebAFiles(root)
        self.source = files.source
        pictures = files.pictures(size)  # (N, 3, S, S)
        answers = files.attr[:, [ATTRIBUTES.index(task) for task in tasks]].to(torch.uint8)  # (N, T)
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
        return HardSharing(build(), {"attributes": nn.Linear(features, len(self.tasks))})

    def batches(
        self, split: str, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        images, targets = self.images[split], self.targets[split]
        for index in batch_indices(len(images), self.batch_size, generator, self.device):
            yield images[index] / 127.5 - 1, {"attributes": targets[index].float()}

    def losses(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        logits, answers = outputs["attributes"], targets["attributes"]  # (N, T)
        return F.binary_cross_entropy_with_logits(logits, answers, reduction="none").mean(0)  # (CB.1)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        was_training = model.training
        model.eval()
        wrong = torch.zeros(len(self.tasks), device=self.device)
        for x, targets in self.batches(split):
            said = model(x)["attributes"] > 0  # (N, T)
            wrong += (said != targets["attributes"].bool()).sum(0)
        model.train(was_training)
        errors = wrong / len(self.images[split])
        return dict(zip(self.metrics, [errors.mean().item(), *errors.tolist()], strict=True))

    def most_frequent(self, split: str) -> Tensor:
        """The error of each task if one always gives the answer most frequent in training, shape (T,)."""
        answer = self.targets["train"].float().mean(0) > 0.5
        errors: Tensor = (self.targets[split].bool() != answer).float().mean(0)
        return errors


def resnet18_encoder() -> nn.Module:
    """ResNet-18 for small images: (N, 3, 64, 64) to (N, 2048). P = 11,168,832."""
    encoder: nn.Module = torchvision.models.resnet18()
    encoder.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    encoder.maxpool = nn.Identity()
    encoder.avgpool = nn.AdaptiveAvgPool2d(2)  # of 8×8 places with 512 channels
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


class CelebAFiles(torchvision.datasets.CelebA):  # type: ignore[misc]
    """torchvision's reader, for any folder in the official layout and with errors that say what is wrong.

    torchvision accepts only the official files, by their MD5. This reader takes smaller sets in the same layout
    too, and checks instead that the files agree with each other; `source` says whether they are the official
    ones. Identities, boxes and landmarks are not read and may be missing. Nothing is ever written.

    Args:
        root: the folder that holds `celeba`.

    Raises:
        FileNotFoundError, OSError: a file is missing or damaged; the message names it, its source and its licence.
    """

    def __init__(self, root: str | Path) -> None:
        super().__init__(root, split="all")

    def _check_integrity(self) -> bool:
        self.folder = Path(self.root) / self.base_folder
        for name in (LABELS, PARTS, PICTURES):
            if not (self.folder / name).exists():
                packed = self.folder / f"{name}.zip"
                hint = f"{packed} is there, but has to be unpacked. " if packed.exists() else ""
                raise FileNotFoundError(f"{self.folder / name} is missing. {hint}{WHERE}")
        md5 = {name: md5 for _, md5, name in self.file_list}
        official = all(check_md5(self.folder / name, md5[name]) for name in (LABELS, PARTS))
        marker = self.folder / MARKER
        self.source = "CelebA" if official else "a set of unknown origin in CelebA's layout"
        if marker.exists():
            self.source = marker.read_text(encoding="utf-8").splitlines()[0]
        return True

    def _load_csv(self, filename: str, header: int | None = None) -> CSV:
        """Called by torchvision for each list, the partitions first."""
        path = self.folder / filename
        if filename == PARTS:
            names, values = read_rows(path, read_lines(path), 1, (0, 1, 2), first=1)
            self.listed, self.partition = names, values.squeeze(1)  # (N,)
            for number, split in enumerate(PARTITIONS):
                if not (self.partition == number).any():
                    raise damaged(path, f"it puts no image in partition {number} ({split}).")
            return CSV([], names, values)
        if filename == LABELS:
            lines = read_lines(path)
            if len(lines) < 2 or tuple(lines[1].split()) != ATTRIBUTES:
                raise damaged(path, "its second line must be the names of the 40 attributes.")
            names, values = read_rows(path, lines[2:], len(ATTRIBUTES), (-1, 1), first=3)
            if lines[0].strip() != str(len(names)):
                raise damaged(path, f"its first line promises {lines[0].strip()!r} rows, but it has {len(names)}.")
            if len(names) != len(self.partition):
                raise damaged(path, f"it has {len(names)} rows, but {PARTS} has {len(self.partition)}.")
            for row, (name, other) in enumerate(zip(names, self.listed, strict=True), 1):
                if name != other:
                    raise damaged(path, f"row {row} is {name!r}, but in {PARTS} it is {other!r}.")
            return CSV(list(ATTRIBUTES), names, values)
        return CSV([], [], torch.empty(0))  # identities, boxes and landmarks

    def pictures(self, size: int) -> Tensor:
        """All pictures, shrunk to size × size, decoded by several threads; shape (N, 3, S, S), uint8."""
        there = set(os.listdir(self.folder / PICTURES))
        missing = [name for name in self.filename if name not in there]
        if missing:
            raise FileNotFoundError(
                f"{self.folder / PICTURES / missing[0]} is missing, the first of {len(missing)} out of "
                f"{len(self.filename)}: the download is not complete. {WHERE}"
            )
        pictures = torch.empty(len(self.filename), 3, size, size, dtype=torch.uint8)

        def decode(row: int) -> None:
            path = self.folder / PICTURES / self.filename[row]
            try:
                with Image.open(path) as file:
                    file.draft("RGB", (size, size))  # a JPEG is decoded at a half or a quarter where that suffices
                    image = file.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            except (OSError, SyntaxError) as error:
                raise damaged(path, f"it cannot be decoded ({error}).") from error
            pictures[row] = torch.from_numpy(np.array(image)).permute(2, 0, 1)

        chunks = torch.split(torch.arange(len(pictures)), 1024)
        with ThreadPoolExecutor(THREADS) as pool:
            for rows in tqdm(chunks, desc="decoding", unit="chunk", leave=False):
                list(pool.map(decode, rows.tolist()))
        return pictures


def read_rows(
    path: Path, lines: Sequence[str], width: int, allowed: Sequence[int], first: int
) -> tuple[list[str], Tensor]:
    """The first word of each line, and the `width` numbers after it, shape (N, width), int8."""
    number = {str(n): n for n in allowed}
    names, rows = [], []
    for count, line in enumerate(lines, first):
        name, *words = line.split() or [""]
        if len(words) != width or not number.keys() >= set(words):
            raise damaged(
                path,
                f"line {count} must be a file name and {width} numbers out of {list(allowed)}, but has "
                f"{len(words)} and begins {line[:40]!r}.",
            )
        names.append(name)
        rows.append([number[word] for word in words])
    if not rows:
        raise damaged(path, "it lists no images.")
    return names, torch.from_numpy(np.array(rows, dtype=np.int8))


def read_lines(path: Path) -> list[str]:
    """The lines of a text file."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise damaged(path, "it is no text file.") from error


def check_md5(path: Path, md5: str) -> bool:
    """Whether a file has an MD5 sum."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == md5


def damaged(path: Path, what: str) -> OSError:
    """The error for a file that is there, but wrong."""
    return OSError(f"{path} is damaged or only partly downloaded: {what} {WHERE}")
