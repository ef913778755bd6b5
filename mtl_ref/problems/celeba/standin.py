"""A stand-in for CelebA: drawn faces with the 40 attributes, in the official folder layout.

CelebA may not be redistributed. These pictures may, because they show nobody: every face is put together from
soft ellipses and strokes, drawn from a seed (`faces.py`). They are no substitute for photographs, and no number
that is measured on them is a result on CelebA.

Every attribute can be seen: glasses are drawn glasses, a pointed nose is a narrower nose. The
frequencies are those of the official list, rounded; the correlations follow its strongest ones (see
`CORRELATIONS`) in sign and rough size.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from mtl_ref.problems.celeba.faces import DEGREES, HAIR, draw_faces
from mtl_ref.problems.celeba.files import ATTRIBUTES, THREADS
from mtl_ref.problems.standin import MARKER, cached, written_whole

__all__ = [
    "CORRELATIONS",
    "DEGREES",
    "DRAWING",
    "HAIR",
    "RECIPE",
    "draw_attributes",
    "draw_faces",
    "folder",
    "write",
]

# For each attribute, in the order they are drawn: how many per cent have it, how much the attributes before it
# add to its score, and what it cannot go with ("-A") or cannot be without ("A").
RECIPE: dict[str, tuple[float, dict[str, float], str]] = {
    "Male": (42, {}, ""),
    "Young": (77, {"Male": -0.8}, ""),
    "Smiling": (48, {"Male": -0.3}, ""),
    "Blurry": (5, {}, ""),
    "Pale_Skin": (4, {"Male": -0.5}, ""),
    "Oval_Face": (28, {"Male": -0.3, "Smiling": 0.3}, ""),
    "Chubby": (6, {"Male": 0.8, "Young": -1.0}, ""),
    "Double_Chin": (5, {"Chubby": 1.6, "Male": 0.5, "Young": -0.7}, ""),
    "Wearing_Hat": (5, {"Male": 0.7}, ""),
    "Bald": (2, {"Young": -1.0}, "Male"),
    "Receding_Hairline": (8, {"Male": 0.5, "Young": -0.9}, ""),
    "Gray_Hair": (4, {"Male": 0.5, "Young": -3.0}, "-Bald"),
    "Blond_Hair": (15, {"Male": -1.3}, "-Bald -Gray_Hair"),
    "Black_Hair": (24, {"Male": 0.3, "Young": 0.3}, "-Bald -Gray_Hair -Blond_Hair"),
    "Brown_Hair": (21, {"Male": -0.2, "Young": 0.3}, "-Bald -Gray_Hair -Blond_Hair -Black_Hair"),
    "Wavy_Hair": (32, {"Male": -1.0}, "-Bald"),
    "Straight_Hair": (21, {}, "-Bald -Wavy_Hair"),
    "Bangs": (15, {"Male": -0.6}, "-Bald -Receding_Hairline"),
    "No_Beard": (83, {"Male": -9.0}, ""),
    "5_o_Clock_Shadow": (11, {"No_Beard": -0.6}, "Male"),
    "Goatee": (6, {}, "-No_Beard"),
    "Mustache": (4, {"Goatee": 0.8}, "-No_Beard"),
    "Sideburns": (6, {"Goatee": 0.5}, "-No_Beard"),
    "Wearing_Lipstick": (47, {"Male": -2.9, "Young": 0.2}, ""),
    "Heavy_Makeup": (39, {"Wearing_Lipstick": 3.6, "Young": 0.5}, ""),
    "Rosy_Cheeks": (7, {"Heavy_Makeup": 1.4}, ""),
    "Arched_Eyebrows": (27, {"Male": -0.7, "Heavy_Makeup": 0.8}, ""),
    "Bushy_Eyebrows": (14, {"Male": 0.9, "Arched_Eyebrows": -0.6}, ""),
    "Attractive": (51, {"Young": 1.2, "Heavy_Makeup": 1.0, "Male": -0.3, "Chubby": -1.0}, ""),
    "High_Cheekbones": (45, {"Smiling": 2.1, "Heavy_Makeup": 0.4}, ""),
    "Mouth_Slightly_Open": (48, {"Smiling": 1.3, "High_Cheekbones": 0.3}, ""),
    "Bags_Under_Eyes": (20, {"Male": 0.6, "Young": -0.6}, ""),
    "Big_Lips": (24, {"Male": -0.4}, ""),
    "Big_Nose": (23, {"Male": 0.9, "Young": -0.7}, ""),
    "Pointy_Nose": (28, {"Male": -0.5, "Big_Nose": -0.5}, ""),
    "Narrow_Eyes": (12, {"Smiling": 0.3}, ""),
    "Eyeglasses": (7, {"Male": 0.6, "Young": -0.9}, ""),
    "Wearing_Earrings": (19, {"Male": -1.8}, ""),
    "Wearing_Necklace": (12, {"Male": -1.3, "Wearing_Earrings": 0.5}, ""),
    "Wearing_Necktie": (7, {"Young": -0.8}, "Male"),
}

# What the recipe aims at: some of the strongest correlations of the official list, roughly.
CORRELATIONS = {
    ("Heavy_Makeup", "Wearing_Lipstick"): 0.80,
    ("Male", "Wearing_Lipstick"): -0.79,
    ("High_Cheekbones", "Smiling"): 0.68,
    ("Male", "Heavy_Makeup"): -0.67,
    ("Goatee", "No_Beard"): -0.57,
    ("Mouth_Slightly_Open", "Smiling"): 0.53,
    ("Chubby", "Double_Chin"): 0.53,
    ("Male", "No_Beard"): -0.52,
    ("Attractive", "Heavy_Makeup"): 0.48,
    ("5_o_Clock_Shadow", "Male"): 0.42,
    ("Attractive", "Young"): 0.39,
    ("Gray_Hair", "Young"): -0.38,
    ("Male", "Wearing_Earrings"): -0.37,
    ("Big_Nose", "Male"): 0.37,
    ("Male", "Wearing_Necktie"): 0.33,
    ("Male", "Wavy_Hair"): -0.32,
    ("Blond_Hair", "Male"): -0.31,
}

BATCH = 256  # pictures drawn at a time
DRAWING = 1  # raise it with every change of the pictures: another drawing is another data set


def write(
    root: str | Path, images: tuple[int, int, int] = (4000, 1000, 1000), *, seed: int = 0, size: int = 64
) -> Path:
    """Write a stand-in into `root/celeba`, in CelebA's official layout: whole, or not at all.

    Args:
        root: the folder to make `celeba` in.
        images: how many pictures of the three partitions, training, validation and test.
        seed: decides the attributes and the pictures.
        size: the width and height of a picture in pixels.

    Returns:
        `root`, for `CelebA(root)`.

    Raises:
        FileExistsError: there is something at `root/celeba`. It is left as it is.
        ValueError: a partition is empty, or the pictures are smaller than 16 pixels.
    """
    if len(images) != 3 or min(images) < 1 or size < 16:
        raise ValueError(f"images must be three numbers ≥ 1 and size ≥ 16, but they are {images} and {size}.")
    with written_whole(Path(root) / "celeba") as unfinished:
        _write_files(unfinished, images, seed, size)
    return Path(root)


def folder(images: tuple[int, int, int] = (4000, 1000, 1000), *, seed: int = 0, size: int = 64) -> Path:
    """A root with the stand-in of these settings, written on first use to the user's cache (`standin.cached`)."""
    name = f"celeba-stand-in-{'-'.join(map(str, images))}-seed{seed}-{size}px-drawing{DRAWING}"
    return cached(name, lambda root: write(root, images, seed=seed, size=size), "celeba")


def _write_files(path: Path, images: tuple[int, int, int], seed: int, size: int) -> None:
    from PIL import Image

    total = sum(images)
    names = [f"{number:06d}.jpg" for number in range(1, total + 1)]
    attributes = draw_attributes(total, seed)  # (N, 40)
    partition = torch.repeat_interleave(torch.arange(3), torch.tensor(images)).tolist()
    (path / "img_align_celeba").mkdir()

    def save(name: str, picture: Tensor) -> None:
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(path / "img_align_celeba" / name, quality=95)

    with ThreadPoolExecutor(THREADS) as pool:
        for number, rows in enumerate(torch.split(torch.arange(total), BATCH)):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + number + 1)
            pictures = draw_faces(attributes[rows], generator, size)
            list(pool.map(save, [names[row] for row in rows.tolist()], pictures))
    signs = (2 * attributes.long() - 1).tolist()
    lines = [f"{name} {' '.join(f'{s:2d}' for s in row)}\n" for name, row in zip(names, signs, strict=True)]
    (path / "list_attr_celeba.txt").write_text("".join([f"{total}\n", " ".join(ATTRIBUTES) + " \n", *lines]))
    lines = [f"{name} {part}\n" for name, part in zip(names, partition, strict=True)]
    (path / "list_eval_partition.txt").write_text("".join(lines))
    (path / MARKER).write_text(
        f"stand-in for CelebA: drawn faces, seed {seed}, drawing {DRAWING}\n"
        "The pictures show nobody. They were drawn by mtl_ref, mtl_ref/problems/celeba/standin.py, and anyone may "
        "copy them.\n",
        encoding="utf-8",
    )


def draw_attributes(number: int, seed: int = 0) -> Tensor:
    """The 40 attributes of some faces, shape (N, 40), bool, in the order of `ATTRIBUTES`.

    Each attribute has a score, a weighted sum of the attributes before it and noise. Those who may have it and
    score highest have it, as many as its frequency says.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[str, Tensor] = {}
    for name, (percent, reasons, rule) in RECIPE.items():
        score = torch.randn(number, generator=generator, dtype=torch.float64)
        for other, weight in reasons.items():
            score = score + weight * drawn[other]
        for other in rule.split():
            barred = drawn[other[1:]] if other.startswith("-") else ~drawn[other]
            score = score.masked_fill(barred, -torch.inf)
        count = min(round(number * percent / 100), int(score.isfinite().sum()))
        drawn[name] = torch.zeros(number, dtype=torch.bool).index_fill_(0, score.topk(count).indices, True)
    return torch.stack([drawn[name] for name in ATTRIBUTES], dim=1)
