"""CelebA's files: two lists and a folder of pictures, in the official layout; every error says what is wrong.

Smaller sets in the same layout are read too: what is checked is that the files agree with each other.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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
PARTITIONS = ("train", "validation", "test")  # 0, 1 and 2 in the list of partitions
PICTURES, ATTRIBUTE_LIST, PARTITION_LIST = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
OFFICIAL_MD5 = {
    ATTRIBUTE_LIST: "75e246fa4810816ffd6ee81facbd244c",
    PARTITION_LIST: "d32c9cbf5e040fd4025c592c306e6668",
}
THREADS = min(32, os.cpu_count() or 1)
HOW_TO_GET_IT = (
    "CelebA comes from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html under its own agreement: for "
    "non-commercial research only, and not to be passed on. Download it there and unpack it as torchvision does, "
    f"so that ROOT/celeba holds {ATTRIBUTE_LIST}, {PARTITION_LIST} and the folder {PICTURES}; or use the drawn "
    "stand-in, CelebA(celeba_standin.folder())."
)


class CelebAFiles:
    """The two lists of a folder in the official layout, read and checked; the pictures are read when asked for.

    Identities, boxes and landmarks are not read and may be missing. Nothing is ever written.

    Args:
        root: the folder that holds `celeba`.

    Attributes:
        names: of the N pictures.
        partition: 0, 1 or 2 for each picture, shape (N,).
        attributes: whether a picture has an attribute, shape (N, 40), bool.
        source: what the files are: "CelebA", a stand-in, or neither.

    Raises:
        FileNotFoundError, OSError: a file is missing or damaged; the message names it, its source and its licence.
    """

    def __init__(self, root: str | Path) -> None:
        self.folder = Path(root).expanduser() / "celeba"
        for name in (ATTRIBUTE_LIST, PARTITION_LIST, PICTURES):
            if not (self.folder / name).exists():
                packed = self.folder / f"{name}.zip"
                hint = f"{packed} is there, but has to be unpacked. " if packed.exists() else ""
                raise FileNotFoundError(f"{self.folder / name} is missing. {hint}{HOW_TO_GET_IT}")
        self.source = source(self.folder)
        self.names, self.partition = read_partitions(self.folder / PARTITION_LIST)
        self.attributes = read_attributes(self.folder / ATTRIBUTE_LIST, self.names)

    def pictures(self, size: int) -> Tensor:
        """All pictures, shrunk to size × size, decoded by several threads; shape (N, 3, S, S), uint8."""
        from PIL import Image
        from tqdm import tqdm

        present = set(os.listdir(self.folder / PICTURES))
        missing = [name for name in self.names if name not in present]
        if missing:
            raise FileNotFoundError(
                f"{self.folder / PICTURES / missing[0]} is missing, the first of {len(missing)} out of "
                f"{len(self.names)}: the download is not complete. {HOW_TO_GET_IT}"
            )
        pictures = torch.empty(len(self.names), 3, size, size, dtype=torch.uint8)

        def decode(row: int) -> None:
            path = self.folder / PICTURES / self.names[row]
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


def source(folder: Path) -> str:
    """Whether files are the official ones, by their MD5 sums, or a stand-in, by its marker, or neither."""
    if (folder / MARKER).exists():
        return (folder / MARKER).read_text(encoding="utf-8").splitlines()[0]
    official = all(check_md5(folder / name, md5) for name, md5 in OFFICIAL_MD5.items())
    return "CelebA" if official else "a set of unknown origin in CelebA's layout"


def read_partitions(path: Path) -> tuple[list[str], Tensor]:
    """The names of the N pictures, and the partition of each, shape (N,)."""
    names, values = read_rows(path, read_lines(path), 1, (0, 1, 2), first=1)
    partition = values.squeeze(1)
    for number, split in enumerate(PARTITIONS):
        if not (partition == number).any():
            raise damaged(path, f"it puts no image in partition {number} ({split}).")
    return names, partition


def read_attributes(path: Path, pictures: Sequence[str]) -> Tensor:
    """Whether each of N pictures has each attribute, shape (N, 40), bool."""
    lines = read_lines(path)
    if len(lines) < 2 or tuple(lines[1].split()) != ATTRIBUTES:
        raise damaged(path, "its second line must be the names of the 40 attributes.")
    names, values = read_rows(path, lines[2:], len(ATTRIBUTES), (-1, 1), first=3)
    if lines[0].strip() != str(len(names)):
        raise damaged(path, f"its first line promises {lines[0].strip()!r} rows, but it has {len(names)}.")
    if len(names) != len(pictures):
        raise damaged(path, f"it has {len(names)} rows, but {PARTITION_LIST} has {len(pictures)}.")
    for row, (name, other) in enumerate(zip(names, pictures, strict=True), 1):
        if name != other:
            raise damaged(path, f"row {row} is {name!r}, but in {PARTITION_LIST} it is {other!r}.")
    return values == 1


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


def damaged(path: Path, description: str) -> OSError:
    """The error for a file that is present but wrong."""
    return OSError(f"{path} is damaged or only partly downloaded: {description} {HOW_TO_GET_IT}")
