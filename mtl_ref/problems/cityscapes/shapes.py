"""The objects in the stand-in's streets: each is made of parts, measured in metres and seen from afar.

A shape maps coordinates u (metres to the right of its middle) and v (metres above the ground), (H, W) each, to its
parts: where a part is, its label id among Cityscapes', and its colour. Later parts are in front.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Part = tuple[Mask, int, Sequence[float] | Array]  # where, label id, colour
Shape = Callable[[Array, Array], list[Part]]


def box(u: Array, v: Array, left: float, right: float, low: float, high: float) -> Mask:
    """Where coordinates lie in a rectangle."""
    return (u > left) & (u < right) & (v > low) & (v < high)


def disc(u: Array, v: Array, x: float, y: float, a: float, b: float) -> Mask:
    """Where coordinates lie in an ellipse around (x, y)."""
    return ((u - x) / a) ** 2 + ((v - y) / b) ** 2 < 1


def paint_of(rng: np.random.Generator) -> list[float]:
    """A car's colour: mostly grey, black, white, else anything."""
    if rng.random() < 0.6:
        return [float(rng.choice([0.12, 0.3, 0.55, 0.85]))] * 3
    return list(rng.uniform(0.08, 0.75, 3))


def lamp(rng: np.random.Generator) -> Shape:
    """A lamp post, 4 to 7 m high (label 17, pole)."""
    top, grey = rng.uniform(4, 7), [rng.uniform(0.25, 0.5)] * 3
    return lambda u, v: [(box(u, v, -0.09, 0.09, 0, top) | box(u, v, -0.5, 0.09, top - 0.15, top), 17, grey)]


def light(rng: np.random.Generator) -> Shape:
    """A traffic light (19) on its pole."""
    lit = rng.integers(3)
    bulbs = [(0.9, 0.1, 0.1), (0.95, 0.7, 0.1), (0.1, 0.85, 0.3)]
    return lambda u, v: [
        (box(u, v, -0.08, 0.08, 0, 2.9), 17, [0.35] * 3),
        (box(u, v, -0.22, 0.22, 2.6, 3.7), 19, [0.1] * 3),
        (disc(u, v, 0, 3.5 - 0.35 * lit, 0.16, 0.16), 19, bulbs[lit]),
    ]


def sign(rng: np.random.Generator) -> Shape:
    """A round traffic sign (20) on its pole."""
    rim, plate = [
        ((0.8, 0.1, 0.1), (0.95, 0.95, 0.95)),
        ((0.1, 0.25, 0.7), (0.1, 0.3, 0.8)),
        ((0.9, 0.75, 0.1),) * 2,
    ][rng.integers(3)]
    return lambda u, v: [
        (box(u, v, -0.06, 0.06, 0, 2.4), 17, [0.45] * 3),
        (disc(u, v, 0, 2.5, 0.42, 0.42), 20, rim),
        (disc(u, v, 0, 2.5, 0.28, 0.28), 20, plate),
    ]


def tree(rng: np.random.Generator) -> Shape:
    """A trunk and a crown (21, vegetation)."""
    top, wide = rng.uniform(4, 8), rng.uniform(1.2, 2.4)
    leaves = np.array([0.22, 0.38, 0.14]) * rng.uniform(0.6, 1.3)
    return lambda u, v: [
        (box(u, v, -0.15, 0.15, 0, top * 0.6), 21, [0.3, 0.22, 0.15]),
        (disc(u, v, 0, top * 0.7, wide, top * 0.32), 21, leaves * 0.85),
        (disc(u, v, -wide * 0.3, top * 0.8, wide * 0.6, top * 0.2), 21, leaves * 1.1),
    ]


def car(rng: np.random.Generator) -> Shape:
    """A car (26) seen from behind or in front, 1.9 m wide."""
    body, oncoming, tall = paint_of(rng), rng.random() < 0.4, rng.uniform(1.35, 1.8)
    lights = [0.95, 0.95, 0.85] if oncoming else [0.75, 0.05, 0.05]
    return lambda u, v: [
        (box(u, v, -0.85, -0.6, 0, 0.5) | box(u, v, 0.6, 0.85, 0, 0.5), 26, [0.05] * 3),
        ((np.abs(u) < 0.95 - 0.25 * np.clip(v - 0.9, 0, 1)) & (v > 0.25) & (v < tall), 26, body),
        ((np.abs(u) < 0.75 - 0.25 * (v - 0.9)) & (v > 0.92) & (v < tall - 0.12), 26, [0.15, 0.18, 0.22]),
        (box(np.abs(u), v, 0.6, 0.88, 0.65, 0.85), 26, lights),
    ]


def crossing(rng: np.random.Generator) -> Shape:
    """A car (26) seen from the side, 4.2 m long."""
    body = paint_of(rng)
    return lambda u, v: [
        (box(u, v, -2.1, 2.1, 0.3, 0.9), 26, body),
        ((np.abs(u) < 1.3 - 0.6 * (v - 0.9)) & (v >= 0.9) & (v < 1.45), 26, body),
        (
            (np.abs(u) < 1.1 - 0.6 * (v - 0.9)) & (np.abs(u) > 0.06) & (v > 0.95) & (v < 1.35),
            26,
            [0.15, 0.18, 0.22],
        ),
        (disc(np.abs(u), v, 1.35, 0.32, 0.32, 0.32), 26, [0.05] * 3),
    ]


def large(label: int, high: float, glass: tuple[float, float]) -> Callable[[np.random.Generator], Shape]:
    """Truck, bus or tram: a tall box with windows between two heights."""

    def shape(rng: np.random.Generator) -> Shape:
        body, top = rng.uniform(0.15, 0.9, 3), high * rng.uniform(0.92, 1.08)
        return lambda u, v: [
            (box(np.abs(u), v, 0.8, 1.15, 0, 0.6), label, [0.05] * 3),
            (box(u, v, -1.25, 1.25, 0.3, top), label, body),
            (box(u, v, -1.1, 1.1, *glass), label, [0.15, 0.18, 0.22]),
            (box(np.abs(u), v, 0.9, 1.15, 0.6, 0.85), label, [0.8, 0.1, 0.05]),
        ]

    return shape


def figure(rng: np.random.Generator, label: int, seat: float = 0.0) -> Shape:
    """Legs, trunk and head, raised by `seat` metres."""
    trousers, coat, skin = rng.uniform(0.05, 0.5, 3), rng.uniform(0.1, 0.9, 3), [0.75, 0.57, 0.45]
    tall = rng.uniform(0.85, 1.08)
    return lambda u, v: [
        (box(np.abs(u), (v - seat) / tall, 0.03, 0.2, 0, 0.85), label, trousers),
        (box(u, (v - seat) / tall, -0.27, 0.27, 0.8, 1.45), label, coat),
        (disc(u, (v - seat) / tall, 0, 1.62, 0.14, 0.17), label, skin),
    ]


def person(rng: np.random.Generator) -> Shape:
    """Someone on foot (24)."""
    return figure(rng, 24)


def bicycle(rng: np.random.Generator) -> Shape:
    """A bicycle (33) seen from the side."""
    colour = rng.uniform(0.1, 0.8, 3)
    return lambda u, v: [
        (disc(np.abs(u), v, 0.5, 0.35, 0.35, 0.35) & ~disc(np.abs(u), v, 0.5, 0.35, 0.22, 0.22), 33, [0.08] * 3),
        (box(u, v, -0.5, 0.5, 0.3, 0.75) & (np.abs(v - 0.35 - 0.5 * np.abs(u)) < 0.14), 33, colour),
        (box(u, v, 0.35, 0.5, 0.35, 1.0) | box(u, v, -0.4, -0.2, 0.75, 0.9), 33, colour),
    ]


def cyclist(rng: np.random.Generator) -> Shape:
    """A rider (25) on a bicycle (33)."""
    wheels, rider = bicycle(rng), figure(rng, 25, seat=0.35)
    return lambda u, v: [*wheels(u, v), *rider(u, v)]


def motorcyclist(rng: np.random.Generator) -> Shape:
    """A rider (25) on a motorcycle (32) seen from behind."""
    colour, rider = rng.uniform(0.05, 0.7, 3), figure(rng, 25, seat=0.25)
    return lambda u, v: [
        *rider(u, v),
        (disc(u, v, 0, 0.35, 0.16, 0.36), 32, [0.05] * 3),
        (box(u, v, -0.32, 0.32, 0.45, 0.95), 32, colour),
        (disc(u, v, 0, 0.85, 0.1, 0.08), 32, [0.85, 0.1, 0.05]),
    ]


SHAPES: dict[str, Callable[[np.random.Generator], Shape]] = {
    "lamp": lamp,
    "light": light,
    "sign": sign,
    "tree": tree,
    "car": car,
    "crossing": crossing,
    "truck": large(27, 3.3, (3.4, 3.5)),
    "bus": large(28, 3.0, (1.3, 2.5)),
    "train": large(31, 3.5, (1.2, 2.3)),
    "person": person,
    "cyclist": cyclist,
    "motorcyclist": motorcyclist,
    "parked bicycle": bicycle,
}
