"""A stand-in for Cityscapes: drawn streets in the official folder layout.

Cityscapes may not be redistributed. These streets may, because they exist nowhere. They are no substitute for
photographs, and no number that is measured on them is a result on Cityscapes.

A pinhole camera drives along a street with a flat ground and façades on both sides. Everything has a depth in
metres, nearer things hide farther ones, and class, instance and disparity of each pixel follow from one depth
buffer. Focal length ÷ width, camera height and stereo baseline are those of Cityscapes, roughly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtl_ref.problems.cityscapes.shapes import SHAPES, Array, Mask, Shape
from mtl_ref.problems.standin import MARKER, cached, written_whole

DRAWING = 1  # raised whenever a change moves a pixel: another drawing is another data set
CITIES = {
    "train": ("drawn-a", "drawn-b", "drawn-c", "drawn-d", "drawn-e", "drawn-f"),
    "val": ("drawn-y", "drawn-z"),
}
FOCAL, CAMERA, BASELINE = 1.105, 1.22, 0.209  # focal length ÷ image width; metres above the road; metres
FAR = 160.0  # metres: the last façade and the backdrop
HAS_INSTANCES = range(24, 34)  # label ids, from "person" to "bicycle"
SMALLEST = 12  # visible pixels of an instance; what shows less is marked as a group

Window = tuple[slice, slice]  # rows and columns
WHOLE = (slice(None), slice(None))


def write(
    root: str | Path, *, train: int = 288, val: int = 80, seed: int = 0, size: tuple[int, int] = (128, 256)
) -> Path:
    """Draw streets and write them in the layout of Cityscapes, whole or not at all.

    They are drawn into a temporary folder beside `root`, which is renamed at the end. Anyone may copy them.

    Args:
        root: the folder to make, for `Cityscapes(root)`.
        train, val: the numbers of images, spread over six and two cities that differ in their colours.
        seed: decides everything.
        size: height and width of the images in pixels.

    Returns:
        `root`.

    Raises:
        FileExistsError: there is something at `root`. It is left as it is.
        ValueError: fewer images than cities, or a size below 16×32.
    """
    if train < len(CITIES["train"]) or val < len(CITIES["val"]) or min(size[0], size[1] / 2) < 16:
        raise ValueError(
            f"train={train}, val={val}, size={size}: there must be at least one image for each of "
            f"{len(CITIES['train'])} and {len(CITIES['val'])} cities, of at least 16×32 pixels."
        )
    with written_whole(Path(root)) as part:
        for number, (split, count) in enumerate({"train": train, "val": val}.items()):
            for index in range(count):
                city = index % len(CITIES[split])
                street = draw(np.random.default_rng([seed, number, index]), city + 6 * number, size)
                name = f"{CITIES[split][city]}_{index:06d}_000000"
                save(part, split, CITIES[split][city], name, street)
        (part / MARKER).write_text(
            f"stand-in for Cityscapes: drawn streets, seed {seed}, drawing {DRAWING}\n"
            "The streets exist nowhere. They were drawn by mtl_ref, mtl_ref/problems/cityscapes/standin.py, and "
            "anyone may copy them.\n",
            encoding="utf-8",
        )
    return Path(root)


def folder(*, train: int = 288, val: int = 80, seed: int = 0, size: tuple[int, int] = (128, 256)) -> Path:
    """A root with the stand-in of these settings, written on first use to the user's cache (`standin.cached`)."""
    name = f"cityscapes-stand-in-{train}-{val}-seed{seed}-{size[0]}x{size[1]}-drawing{DRAWING}"
    return cached(name, lambda root: write(root, train=train, val=val, seed=seed, size=size))


@dataclass
class Street:
    """One image: everything the camera sees of what has been painted so far.

    Attributes:
        colour: (H, W, 3) in [0, 1].
        depth: (H, W), metres; infinite for the sky.
        label: (H, W), Cityscapes' label ids.
        instance: (H, W): label id × 1000 + a running number for the things that are counted, else the label id.
    """

    rng: np.random.Generator
    size: tuple[int, int]
    horizon: float
    colour: Array = field(init=False)
    depth: Array = field(init=False)
    label: NDArray[np.uint8] = field(init=False)
    instance: NDArray[np.int32] = field(init=False)
    counted: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.colour = np.zeros((*self.size, 3))
        self.depth = np.full(self.size, np.inf)
        self.label = np.full(self.size, 23, dtype=np.uint8)
        self.instance = np.full(self.size, 23, dtype=np.int32)
        self.y, self.x = np.mgrid[: self.size[0], : self.size[1]] + 0.5
        self.y, self.x = self.y - self.horizon, self.x - self.size[1] / 2  # seen from the vanishing point
        self.focal = FOCAL * self.size[1]

    def paint(
        self, mask: Mask, depth: Array | float, label: int, colour: Array | Sequence[float], at: Window = WHOLE
    ) -> Mask:
        """Put a surface at a depth wherever nothing nearer is. All arrays are of the window `at`.

        Returns:
            Where it is seen.
        """
        seen = mask & (depth < self.depth[at])
        self.depth[at][seen] = np.broadcast_to(depth, seen.shape)[seen]
        self.colour[at][seen] = np.broadcast_to(colour, (*seen.shape, 3))[seen]
        self.label[at][seen] = self.instance[at][seen] = label
        return seen

    def window(self, left: float, right: float, top: float = -np.inf, bottom: float = np.inf) -> Window:
        """The window between four lines, in pixels from the vanishing point."""
        rows, middle = self.size[0], self.size[1] / 2
        y, x = (
            np.clip([top + self.horizon, bottom + self.horizon], 0, rows),
            np.clip([left, right], -middle, middle),
        )
        return slice(int(y[0]), int(np.ceil(y[1]))), slice(int(x[0] + middle), int(np.ceil(x[1] + middle)))

    def stand(self, shape: Shape, x: float, z: float) -> None:
        """Put something upright on the ground, x metres to the right and z metres away."""
        scale = self.focal / z  # pixels a metre
        at = self.window((x - 3) * scale, (x + 3) * scale, (CAMERA - 9) * scale, (CAMERA + 0.1) * scale)
        u, v = self.x[at] / scale - x, CAMERA - self.y[at] / scale
        numbers: dict[int, int] = {}
        nearer = 0.0
        for mask, label, colour in shape(u, v):
            if label in HAS_INSTANCES and label not in numbers:
                numbers[label] = self.counted.get(label, 0)
                self.counted[label] = numbers[label] + 1
            nearer += 1e-6  # a later part hides an earlier one at the same depth
            seen = self.paint(mask, z - nearer, label, colour, at)
            if label in numbers:
                self.instance[at][seen] = label * 1000 + numbers[label]


def draw(rng: np.random.Generator, city: int, size: tuple[int, int]) -> dict[str, NDArray[np.generic]]:
    """One street: the arrays "image" (H, W, 3), "label" (H, W), "instance" (H, W) and "disparity" (H, W).

    They are what the four files hold: colours and label ids as uint8, instance ids and disparities as uint16.
    """
    street = Street(rng, size, size[0] * rng.uniform(0.42, 0.5))
    palette = np.random.default_rng([7, city])  # of the city's walls
    walls = palette.uniform(0.35, 0.85, (5, 1)) * (1 + palette.uniform(-0.25, 0.25, (5, 3)))
    edge = {side: side * rng.uniform(2.6, 6.5) for side in (-1, 1)}  # where the road ends, metres
    fronts = {side: edge[side] + side * rng.uniform(2.5, 8.0) for side in (-1, 1)}  # where the façades stand
    sky = draw_sky(street)
    draw_ground(street, edge, fronts)
    for side in (-1, 1):
        draw_front(street, side, fronts[side], walls)
    draw_furniture(street, edge, fronts)
    draw_traffic(street, edge, fronts)
    return expose(street, sky)


def draw_sky(street: Street) -> Array:
    """The sky, and trees or roofs at the end of the street. Returns the sky's colour."""
    rng = street.rng
    grey = rng.uniform(0.6, 0.95)
    blue = rng.uniform(0.0, 0.35)
    sky = np.array([grey - blue, grey - blue / 2, min(1.0, grey + blue / 3)])
    street.colour[:] = sky * (1 - 0.2 * np.clip(-street.y / street.size[0], 0, 1))[..., None]
    roofs = 6 + 4 * smooth(rng, street.size[1], 9)
    height = CAMERA - street.y * FAR / street.focal
    label, colour = (21, [0.25, 0.36, 0.22]) if rng.random() < 0.6 else (11, [0.5, 0.47, 0.45])
    street.paint((height < roofs) & (height > -1), FAR, label, colour)
    return sky


def draw_ground(street: Street, edge: dict[int, float], fronts: dict[int, float]) -> None:
    """Road with lane markings, pavements with kerbs, and grass or parking places behind them."""
    rng = street.rng
    z = street.focal * CAMERA / np.maximum(street.y, 1e-3)
    x = street.x * z / street.focal
    below = (street.y > 0) & (z < FAR)
    asphalt = rng.uniform(0.25, 0.45) * np.array([1, 1, rng.uniform(1, 1.08)])
    paving = np.clip(asphalt * rng.uniform(1.15, 1.6) * np.array([rng.uniform(1, 1.15), 1, 0.95]), 0, 0.9)
    beyond = 22 if rng.random() < 0.8 else 9
    grass = np.array([0.3, 0.42, 0.2]) * rng.uniform(0.7, 1.2)
    street.paint(below, z, beyond, grass if beyond == 22 else asphalt * 1.1)
    pavement = (x > fronts[-1]) & (x < fronts[1])
    tiles = 1 - 0.12 * ((z % 1.5 < 0.15) | (x % 1.0 < 0.1))
    street.paint(below & pavement, z - 1e-6, 8, paving * tiles[..., None])
    road = (x > edge[-1]) & (x < edge[1])
    street.paint(below & road, z - 2e-6, 7, asphalt)
    middle = (edge[-1] + edge[1]) / 2 + rng.uniform(-0.5, 0.5)
    dash = (np.abs(x - middle) < 0.09) & (z % 9 < 5)
    kerb = (np.abs(x - edge[-1]) < 0.12) | (np.abs(x - edge[1]) < 0.12)
    street.colour[below & road & dash & (z < 90)] = 0.8
    street.colour[below & kerb & (z < 90)] *= 1.35


def draw_front(street: Street, side: int, front: float, walls: Array) -> None:
    """One side of the street: houses, garden walls, fences and hedges in a plane along the road."""
    rng = street.rng
    start = rng.uniform(1, 4)
    while start < FAR:
        kind = rng.choice(["house", "hedge", "wall", "fence", "gap"], p=[0.5, 0.14, 0.11, 0.11, 0.14])
        length = rng.uniform(6, 22)
        near, far = (front * street.focal / d for d in (start, start + length))
        at = street.window(min(near, far), max(near, far))
        z = front * street.focal / street.x[at]
        height = CAMERA - street.y[at] * z / street.focal
        here = (z >= start) & (z < start + length) & (height > 0)
        if kind == "house":
            top, storey, bay = rng.uniform(5, 17), rng.uniform(2.7, 3.5), rng.uniform(1.8, 3.2)
            colour = walls[rng.integers(len(walls))] * rng.uniform(0.85, 1.15)
            window = (
                (height % storey > 0.9) & (height % storey < 2.2) & (z % bay < 0.55 * bay) & (height < top - 0.4)
            )
            pane = np.array([0.25, 0.29, 0.35]) * rng.uniform(0.7, 1.3)
            street.paint(here & (height < top), z, 11, np.where(window[..., None], pane, colour), at)
        elif kind == "hedge":
            top = rng.uniform(2, 8) + 1.2 * np.sin(z * rng.uniform(0.8, 1.6)) + 0.5 * np.sin(z * 4.1)
            leaves = np.array([0.2, 0.33, 0.14]) * rng.uniform(0.7, 1.3)
            shade = 0.75 + 0.25 * np.sin(7 * z) * np.sin(9 * height) + 0.03 * height
            street.paint(here & (height < top), z, 21, leaves * shade[..., None], at)
        elif kind == "wall":
            bricks = 1 - 0.25 * ((height % 0.5 < 0.1) | (z % 1.0 < 0.08))
            colour = np.array([0.55, 0.42, 0.36]) * rng.uniform(0.8, 1.2)
            street.paint(here & (height < rng.uniform(1.6, 2.8)), z, 12, colour * bricks[..., None], at)
        elif kind == "fence":
            bars = 0.55 + 0.45 * (z % 0.5 < 0.25)
            colour = np.array([0.5, 0.44, 0.38]) * rng.uniform(0.8, 1.3)
            street.paint(here & (height < rng.uniform(1.1, 1.9)), z, 13, colour * bars[..., None], at)
        start += length


def draw_furniture(street: Street, edge: dict[int, float], fronts: dict[int, float]) -> None:
    """Lamps, traffic lights, signs and trees on the pavements."""
    rng = street.rng
    for side in (-1, 1):
        z = rng.uniform(6, 14)
        while z < 80:
            x = edge[side] + side * rng.uniform(0.3, 1.0)
            kind = rng.choice(["lamp", "light", "sign", "tree"], p=[0.25, 0.2, 0.25, 0.3])
            if kind == "tree":
                x = (edge[side] + fronts[side]) / 2 + side * rng.uniform(0, 0.8)
            street.stand(SHAPES[kind](rng), x, z)
            z += rng.uniform(5, 20)


def draw_traffic(street: Street, edge: dict[int, float], fronts: dict[int, float]) -> None:
    """Parked and moving vehicles, people on foot and on two wheels; none inside another."""
    rng = street.rng
    taken: list[tuple[float, float, float]] = []

    def place(kind: str, x: float, z: float, width: float) -> None:
        if all(abs(x - a) > (width + w) / 2 or abs(z - b) > 2.5 for a, b, w in taken):
            taken.append((x, z, width))
            street.stand(SHAPES[kind](rng), x, z)

    for side in (-1, 1):
        z = rng.uniform(5, 20)
        while rng.random() < 0.75 and z < 80:  # parked at the kerb
            place("car", edge[side] - side * 1.1, z, 1.8)
            z += rng.uniform(5.5, 16)
    for _ in range(rng.integers(1, 5)):  # on the road
        kind = rng.choice(["car", "crossing", "truck", "bus", "train"], p=[0.5, 0.08, 0.15, 0.15, 0.12])
        width = 4.4 if kind == "crossing" else 2.6
        lane = rng.choice([edge[-1], edge[1]]) * rng.uniform(0.2, 0.5)
        place(str(kind), lane, rng.uniform(8, 60), width)
    for _ in range(rng.integers(1, 7)):  # on two wheels
        side = rng.choice([-1, 1])
        kind = rng.choice(["cyclist", "motorcyclist", "parked bicycle"], p=[0.45, 0.35, 0.2])
        x = edge[side] - side * rng.uniform(0.3, 2.2) if kind != "parked bicycle" else edge[side] + side * 0.9
        place(str(kind), x, rng.uniform(5, 25), 0.9)
    for _ in range(rng.integers(2, 12)):  # on foot
        side = rng.choice([-1, 1])
        x = rng.uniform(*sorted((edge[side] + side * 0.4, fronts[side] - side * 0.3)))
        if rng.random() < 0.15:
            x = rng.uniform(edge[-1], edge[1])
        place("person", x, rng.uniform(5, 30), 0.6)


def expose(street: Street, sky: Array) -> dict[str, NDArray[np.generic]]:
    """The four images: haze, light and noise on the colours; groups and holes in the rest, as in Cityscapes."""
    rng, (height, width) = street.rng, street.size
    haze = np.exp(-street.depth / rng.uniform(70, 500))[..., None]
    colour = street.colour * haze + sky * (1 - haze)
    texture = 1 + 0.06 * rng.standard_normal((height, width, 1)) * np.isfinite(street.depth)[..., None]
    light = (
        rng.uniform(0.55, 1.1) * (1 + rng.uniform(-0.08, 0.08, 3)) * (1 + 0.25 * smooth(rng, width, 3))[:, None]
    )
    colour = colour * texture * light + rng.uniform(0.005, 0.03) * rng.standard_normal(colour.shape)
    bonnet = (street.y + street.horizon) / height > 0.93 + 0.06 * (2 * street.x / width) ** 2
    colour[bonnet] = np.array([0.12, 0.13, 0.15]) + 0.1 * light.mean()

    label, instance = street.label.copy(), street.instance.copy()
    ids, counts = np.unique(instance, return_counts=True)
    for group in ids[(ids >= 1000) & (counts < SMALLEST)]:
        instance[instance == group] = group // 1000
    label[bonnet] = instance[bonnet] = 1  # ego vehicle
    label[:1] = instance[:1] = 3  # out of the region of interest

    d = FOCAL * width * BASELINE / street.depth  # (H, W), pixels
    d = d * (1 + 0.01 * rng.standard_normal(d.shape)) + 0.02 * rng.standard_normal(d.shape)
    unmatched = bonnet | ~np.isfinite(street.depth) | (rng.random(d.shape) < 0.03) | (d <= 0)
    unmatched |= street.x + width / 2 < d  # the right camera does not see it
    disparity = np.where(unmatched, 0, np.round(np.clip(d, 0, 127) * 256) + 1)
    return {
        "image": np.round(np.clip(colour, 0, 1) * 255).astype(np.uint8),
        "label": label,
        "instance": instance.astype(np.uint16),
        "disparity": disparity.astype(np.uint16),
    }


def smooth(rng: np.random.Generator, length: int, knots: int) -> Array:
    """A random curve in [-1, 1] through a few knots, shape (length,)."""
    return np.interp(np.linspace(0, knots - 1, length), np.arange(knots), rng.uniform(-1, 1, knots))


def save(root: Path, split: str, city: str, name: str, street: dict[str, NDArray[np.generic]]) -> None:
    """Write the four files of one image below `root`, in the layout of Cityscapes."""
    from PIL import Image

    files = {
        "image": ("leftImg8bit", "leftImg8bit"),
        "label": ("gtFine", "gtFine_labelIds"),
        "instance": ("gtFine", "gtFine_instanceIds"),
        "disparity": ("disparity", "disparity"),
    }
    for kind, (folder, ending) in files.items():
        path = root / folder / split / city / f"{name}_{ending}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(street[kind]).save(path, compress_level=1)
