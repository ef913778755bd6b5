"""Cityscapes: what is where in a street, which pixels belong together, and how far away they are.

Sources: Cordts et al., CVPR 2016 (the data, its label ids and mIoU); Kendall, Gal and Cipolla, CVPR 2018 (the
three tasks); Sener and Koltun, NeurIPS 2018, §4.3 and their released code (the protocol).
Differences from that code: a disparity counts wherever it is valid, not only above the mean; errors are measured
as real numbers, not cut to integers; a loss without any valid pixel is zero, not None; ignored pixels do not
dilute the cross-entropy; outputs and targets have the resolution of the input, not an eighth of it; an instance is
what has a number of its own, not a group; part of the training cities is held out for choosing the epoch; images
are neither rotated nor flipped.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from mtl_ref.problems.base import HardSharing, Problem, batch_indices
from mtl_ref.problems.cityscapes.network import NETWORKS, pyramid_head
from mtl_ref.problems.standin import MARKER

TASKS = {
    "semantic": ("mIoU", True),
    "instance": ("instance error", False),
    "disparity": ("disparity error", False),
}
CLASSES = {  # name: (label id in the files, colour in pictures); the place in this list is the train id
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
LABELS = 34  # label ids are 0 to 33
COUNTED = range(24, 34)  # label ids of the things that have instances
IGNORE = 255  # the train id of everything that is in no class
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels
OUTPUTS = {"semantic": len(CLASSES), "instance": 2, "disparity": 1}
WHERE = (
    "Cityscapes comes from https://www.cityscapes-dataset.com after registration, under its own licence: for "
    "non-commercial use only, and not to be passed on. Unpack leftImg8bit_trainvaltest.zip, "
    "gtFine_trainvaltest.zip and disparity_trainvaltest.zip from there into one folder; or use the drawn "
    "stand-in, Cityscapes(cityscapes_standin.folder())."
)


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
        unknown = [task for task in tasks if task not in TASKS]
        if unknown or len(set(tasks)) != len(tasks) or len(tasks) == 0:
            raise ValueError(f"tasks must be some of {list(TASKS)}, each once, but are {list(tasks)}.")
        if network not in NETWORKS:
            raise ValueError(f"network is {network!r}, but must be one of {list(NETWORKS)}.")
        if len(size) != 2 or min(size) < 8 or size[0] % 8 or size[1] % 8:
            raise ValueError(f"size is {size}, but must be a height and a width that are multiples of 8.")
        if root is None:
            if "MTL_REF_DATA" not in os.environ:
                raise FileNotFoundError(f"No root is given, and MTL_REF_DATA is not set. {WHERE}")
            root = Path(os.environ["MTL_REF_DATA"]) / "cityscapes"
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
        was_training = model.training
        model.eval()
        matrix = torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.long, device=self.device)
        errors = {task: torch.zeros(2, dtype=torch.float64, device=self.device) for task in self.tasks}
        unit = {"instance": 1.0, "disparity": self.std}
        for x, targets in self.batches(split):
            outputs = model(x)
            for task in self.tasks:
                if task == "semantic":
                    matrix += confusion(outputs[task].argmax(1), targets[task])
                else:
                    valid = ~targets[task].isnan()
                    wrong = (outputs[task] - targets[task])[valid].double().abs().sum() * unit[task]
                    errors[task] += torch.stack([wrong, valid.sum()])
        model.train(was_training)
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


def source_pixels(full: int, small: int) -> NDArray[np.int64]:
    """Which of `full` pixels in a row stand for each of `small`: those nearest to their middles."""
    return ((np.arange(small) + 0.5) * full / small).astype(np.int64)


def find_images(root: Path, split: str) -> list[Path]:
    """The images of an official split, by name; an error if one, or one of its partners, is missing."""
    images = sorted((root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
    if not images:
        raise FileNotFoundError(f"{root / 'leftImg8bit' / split} holds no CITY/*_leftImg8bit.png. {WHERE}")
    wanted = {path for image in images for path in partners(image, root)}
    labels = (root / "gtFine" / split).glob("*/*_gtFine_labelIds.png")
    wanted |= {image_of(label, root) for label in labels}
    missing = sorted(path for path in wanted if not path.exists())
    if missing:
        others = f" and {len(missing) - 1} others are" if len(missing) > 1 else " is"
        raise FileNotFoundError(f"{missing[0]}{others} missing. {WHERE}")
    return images


def partners(image: Path, root: Path) -> tuple[Path, Path, Path]:
    """The files of class labels, instances and disparities that belong to an image."""
    city, split = image.parent.name, image.parent.parent.name
    stem = image.name.removesuffix("_leftImg8bit.png")
    fine = root / "gtFine" / split / city
    return (
        fine / f"{stem}_gtFine_labelIds.png",
        fine / f"{stem}_gtFine_instanceIds.png",
        root / "disparity" / split / city / f"{stem}_disparity.png",
    )


def image_of(label: Path, root: Path) -> Path:
    """The image that a file of class labels belongs to."""
    city, split = label.parent.name, label.parent.parent.name
    stem = label.name.removesuffix("_gtFine_labelIds.png")
    return root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"


def read_split(images: Sequence[Path], root: Path, size: tuple[int, ...]) -> dict[str, Tensor]:
    """Read images and their partners, several at a time, and shrink them.

    Returns:
        "image" (N, 3, H, W) uint8, "semantic" (N, H, W) uint8, "instance" (N, H, W) int16, "centroids" (N, K, 2),
        "disparity" (N, H, W) in pixels, nan where invalid, and "original" (N, 2).
    """
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        work = pool.map(lambda image: read_street(image, root, size), images)
        streets = list(tqdm(work, total=len(images), desc="reading", unit="image", leave=False))
    sizes = [street["original"].tolist() for street in streets]
    for image, found in zip(images, sizes, strict=True):
        if found != sizes[0]:
            raise ValueError(f"{image} has size {found}, but {images[0]} has {sizes[0]}. {WHERE}")
    most = max(len(street["centroids"]) for street in streets)
    for street in streets:
        table = street["centroids"]
        street["centroids"] = np.pad(table, ((0, most - len(table)), (0, 0)), constant_values=np.nan)
    return {name: torch.from_numpy(np.stack([street[name] for street in streets])) for name in streets[0]}


def read_street(path: Path, root: Path, size: tuple[int, ...]) -> dict[str, NDArray[np.generic]]:
    """One image and its partners, checked and shrunk; the arrays of `read_split` for one image."""
    label_path, instance_path, disparity_path = partners(path, root)
    image = read_png(path, ("RGB",))
    full = (image.height, image.width)
    label = read_numbers(label_path, ("L", "P"), full)
    instance = read_numbers(instance_path, ("I;16", "I"), full)
    disparity = read_numbers(disparity_path, ("I;16", "I"), full)
    if label.max() >= LABELS:
        raise ValueError(f"{label_path} holds {label.max()}, but label ids are 0 to {LABELS - 1}. {WHERE}")
    ids = np.unique(instance)
    known = np.isin(np.where(ids < 1000, ids, ids // 1000), np.arange(LABELS))
    known &= (ids < 1000) | np.isin(ids // 1000, COUNTED)
    if not known.all():
        raise ValueError(
            f"{instance_path} holds {ids[~known][0]}, but an instance id is a label id (0 to {LABELS - 1}), or "
            f"one from {COUNTED[0]} to {COUNTED[-1]} times 1000, plus a number. {WHERE}"
        )
    numbers, centroids = number_instances(instance)
    rows, columns = source_pixels(full[0], size[0]), source_pixels(full[1], size[1])
    at = np.ix_(rows, columns)  # the same pixels of all three, and no value between two of them
    shrunk = image.resize((size[1], size[0]), Image.Resampling.BILINEAR, reducing_gap=None)
    raw = disparity[at].astype(np.float32)
    return {
        "image": np.asarray(shrunk).transpose(2, 0, 1).copy(),
        "semantic": train_ids()[label[at]],
        "instance": numbers[at],
        "centroids": centroids,
        "disparity": np.where(raw > 0, (raw - 1) / 256, np.nan).astype(np.float32),
        "original": np.array(full),
    }


def number_instances(instance: NDArray[np.int64]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Number the instances of an image that have a class, and find their centroids.

    Args:
        instance: instance ids, shape (H, W).

    Returns:
        Each pixel's number, from 1, or 0 for none, shape (H, W), and the centroids (x, y) in pixels of this image,
        row 0 nan, shape (K, 2).
    """
    ids, index = np.unique(instance, return_inverse=True)
    counts = (ids >= 1000) & (train_ids()[np.minimum(ids // 1000, LABELS - 1)] != IGNORE)
    number = np.where(counts, counts.cumsum(), 0)[index].reshape(instance.shape)
    y, x = np.indices(instance.shape)
    pixels = np.bincount(number.ravel()).astype(float)
    centroids = np.stack(
        [np.bincount(number.ravel(), weights=c.ravel()) / np.maximum(pixels, 1) for c in (x, y)], 1
    )
    centroids[0] = np.nan
    return number.astype(np.int16), centroids.astype(np.float32)


def train_ids() -> NDArray[np.uint8]:
    """The official map from label ids to the 19 classes, IGNORE for what is in none, shape (34,)."""
    table = np.full(LABELS, IGNORE, dtype=np.uint8)
    table[[label for label, _ in CLASSES.values()]] = np.arange(len(CLASSES))
    return table


def read_numbers(path: Path, modes: tuple[str, ...], size: tuple[int, int]) -> NDArray[np.int64]:
    """A PNG file of whole numbers, which must be as large as its image, shape (H, W)."""
    numbers = np.asarray(read_png(path, modes)).astype(np.int64)
    if numbers.shape != size:
        raise ValueError(
            f"{path} has {numbers.shape[0]}×{numbers.shape[1]} pixels, but its image {size[0]}×{size[1]}. {WHERE}"
        )
    return numbers


def read_png(path: Path, modes: tuple[str, ...]) -> Image.Image:
    """Read a PNG file whole, or raise an error that names it."""
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise OSError(f"{path} is damaged or only partly copied ({error}). {WHERE}") from error
    if image.mode not in modes:
        raise ValueError(f"{path} has pixels of kind {image.mode}, but should have {' or '.join(modes)}. {WHERE}")
    return image


def picture(classes: Tensor) -> NDArray[np.uint8]:
    """Classes, shape (H, W), in the official colours, black where ignored, shape (H, W, 3)."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[: len(CLASSES)] = [colour for _, colour in CLASSES.values()]
    chosen: NDArray[np.uint8] = colours[classes.cpu().numpy()]
    return chosen
