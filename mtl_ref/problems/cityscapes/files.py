"""Cityscapes' files: images, class labels, instances and disparities, checked and shrunk."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

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
LABEL_IDS = 34  # label ids are 0 to 33
COUNTED = range(24, 34)  # label ids of the things that have instances
IGNORE = 255  # the train id of everything that is in no class
HOW_TO_GET_IT = (
    "Cityscapes comes from https://www.cityscapes-dataset.com after registration, under its own licence: for "
    "non-commercial use only, and not to be passed on. Unpack leftImg8bit_trainvaltest.zip, "
    "gtFine_trainvaltest.zip and disparity_trainvaltest.zip from there into one folder; or use the drawn "
    "stand-in, Cityscapes(cityscapes_standin.folder())."
)


def find_images(root: Path, split: str) -> list[Path]:
    """The images of an official split, by name; an error if one, or one of its partners, is missing."""
    images = sorted((root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
    if not images:
        raise FileNotFoundError(f"{root / 'leftImg8bit' / split} holds no CITY/*_leftImg8bit.png. {HOW_TO_GET_IT}")
    expected = {path for image in images for path in partners(image, root)}
    labels = (root / "gtFine" / split).glob("*/*_gtFine_labelIds.png")
    expected |= {image_of(label, root) for label in labels}
    missing = sorted(path for path in expected if not path.exists())
    if missing:
        others = f" and {len(missing) - 1} others are" if len(missing) > 1 else " is"
        raise FileNotFoundError(f"{missing[0]}{others} missing. {HOW_TO_GET_IT}")
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
    from tqdm import tqdm

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        work = pool.map(lambda image: read_street(image, root, size), images)
        streets = list(tqdm(work, total=len(images), desc="reading", unit="image", leave=False))
    sizes = [street["original"].tolist() for street in streets]
    for image, found in zip(images, sizes, strict=True):
        if found != sizes[0]:
            raise ValueError(f"{image} has size {found}, but {images[0]} has {sizes[0]}. {HOW_TO_GET_IT}")
    most = max(len(street["centroids"]) for street in streets)
    for street in streets:
        table = street["centroids"]
        street["centroids"] = np.pad(table, ((0, most - len(table)), (0, 0)), constant_values=np.nan)
    return {name: torch.from_numpy(np.stack([street[name] for street in streets])) for name in streets[0]}


def read_street(path: Path, root: Path, size: tuple[int, ...]) -> dict[str, NDArray[np.generic]]:
    """One image and its partners, checked and shrunk; the arrays of `read_split` for one image."""
    from PIL import Image

    label_path, instance_path, disparity_path = partners(path, root)
    image = read_png(path, ("RGB",))
    full = (image.height, image.width)
    label = read_numbers(label_path, ("L", "P"), full)
    instance = read_numbers(instance_path, ("I;16", "I"), full)
    disparity = read_numbers(disparity_path, ("I;16", "I"), full)
    if label.max() >= LABEL_IDS:
        raise ValueError(
            f"{label_path} holds {label.max()}, but label ids are 0 to {LABEL_IDS - 1}. {HOW_TO_GET_IT}"
        )
    ids = np.unique(instance)
    known = np.isin(np.where(ids < 1000, ids, ids // 1000), np.arange(LABEL_IDS))
    known &= (ids < 1000) | np.isin(ids // 1000, COUNTED)
    if not known.all():
        raise ValueError(
            f"{instance_path} holds {ids[~known][0]}, but an instance id is a label id (0 to {LABEL_IDS - 1}), or "
            f"one from {COUNTED[0]} to {COUNTED[-1]} times 1000, plus a number. {HOW_TO_GET_IT}"
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
    counts = (ids >= 1000) & (train_ids()[np.minimum(ids // 1000, LABEL_IDS - 1)] != IGNORE)
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
    table = np.full(LABEL_IDS, IGNORE, dtype=np.uint8)
    table[[label for label, _ in CLASSES.values()]] = np.arange(len(CLASSES))
    return table


def read_numbers(path: Path, modes: tuple[str, ...], size: tuple[int, int]) -> NDArray[np.int64]:
    """A PNG file of whole numbers, which must be as large as its image, shape (H, W)."""
    numbers = np.asarray(read_png(path, modes)).astype(np.int64)
    if numbers.shape != size:
        raise ValueError(
            f"{path} has {numbers.shape[0]}×{numbers.shape[1]} pixels, but its image {size[0]}×{size[1]}. "
            f"{HOW_TO_GET_IT}"
        )
    return numbers


def read_png(path: Path, modes: tuple[str, ...]) -> "Image.Image":
    """Read a PNG file whole, or raise an error that names it."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise OSError(f"{path} is damaged or only partly copied ({error}). {HOW_TO_GET_IT}") from error
    if image.mode not in modes:
        raise ValueError(
            f"{path} has pixels of kind {image.mode}, but should have {' or '.join(modes)}. {HOW_TO_GET_IT}"
        )
    return image


def source_pixels(full: int, small: int) -> NDArray[np.int64]:
    """Which of `full` pixels in a row stand for each of `small`: those nearest to their middles."""
    return ((np.arange(small) + 0.5) * full / small).astype(np.int64)
