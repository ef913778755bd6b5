"""Drawn faces: each of the 40 attributes can be seen, and all are made of soft ellipses and strokes.

Most attributes come in degrees, and for the subjective ones the degrees of "yes" and "no" overlap, so that no
network can be right about all of them. Hats cover hairlines, long hair covers earrings, a hand may cover a mouth.
Any change of a picture makes another data set: raise `DRAWING` in `standin.py` with it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mtl_ref.problems.celeba.files import ATTRIBUTES

# How clearly an attribute shows, from 0 to 1: at least, where it is present, and at most, where it is absent.
# All others show with 0.7 to 1 where they are present and not at all where they are absent.
DEGREES = {
    "5_o_Clock_Shadow": (0.4, 0.1),
    "Arched_Eyebrows": (0.5, 0.35),
    "Attractive": (0.45, 0.55),
    "Bags_Under_Eyes": (0.4, 0.3),
    "Big_Lips": (0.35, 0.5),
    "Big_Nose": (0.4, 0.5),
    "Blurry": (0.4, 0.1),
    "Bushy_Eyebrows": (0.5, 0.4),
    "Chubby": (0.5, 0.3),
    "Double_Chin": (0.5, 0.1),
    "Heavy_Makeup": (0.4, 0.2),
    "High_Cheekbones": (0.4, 0.5),
    "Male": (0.5, 0.3),
    "Mouth_Slightly_Open": (0.4, 0.15),
    "Narrow_Eyes": (0.5, 0.4),
    "Oval_Face": (0.4, 0.6),
    "Pale_Skin": (0.6, 0.3),
    "Pointy_Nose": (0.4, 0.6),
    "Receding_Hairline": (0.6, 0.3),
    "Rosy_Cheeks": (0.5, 0.2),
    "Smiling": (0.45, 0.2),
    "Straight_Hair": (0.5, 0.2),
    "Wavy_Hair": (0.5, 0.2),
    "Young": (0.5, 0.4),
}

HAIR = {
    "Bald": (0.25, 0.17, 0.12),
    "Black_Hair": (0.07, 0.06, 0.07),
    "Blond_Hair": (0.87, 0.70, 0.36),
    "Brown_Hair": (0.40, 0.23, 0.11),
    "Gray_Hair": (0.72, 0.72, 0.74),
}
OTHER_HAIR = ((0.60, 0.27, 0.12), (0.24, 0.14, 0.09), (0.62, 0.47, 0.27))  # red, dark brown, dark blond
SKIN_LIGHT, SKIN_DARK, SKIN_PALE = (0.93, 0.76, 0.65), (0.42, 0.27, 0.19), (0.97, 0.91, 0.88)


class Canvas:
    """N pictures to draw on, with x from −1 (left) to 1 and y from −1 (top) to 1.

    Attributes:
        pixels: red, green, blue (each times the coverage) and coverage, shape (N, 4, S, S).
    """

    def __init__(self, number: int, size: int) -> None:
        self.pixels = torch.zeros(number, 4, size, size)
        self.size = size
        self.grid = (torch.arange(size) + 0.5) * (2 / size) - 1  # (S,)

    def draw(
        self,
        shape: Callable[..., Tensor],
        box: tuple[float, float, float, float],
        colour: Tensor | Sequence[float],
        amount: Tensor | float = 1.0,
        soft: float = 1.0,
        **parameters: Tensor | float,
    ) -> None:
        """Paint a shape over what is there, on the pictures where there is anything to paint.

        Args:
            shape: from x, y and the parameters to a signed distance, negative inside.
            box: left, top, right and bottom, outside which nothing is drawn.
            colour: shape (3,), (N, 3) or (N, 3, S, S).
            amount: how much the paint covers, from 0 to 1, shape () or (N,).
            soft: the width of the edge in pixels of a picture of 64 pixels.
            parameters: of the shape; a tensor has one entry a picture, (N,).
        """
        number = len(self.pixels)
        amount = torch.as_tensor(amount, dtype=torch.float32).expand(number)
        index = (amount > 0.01).nonzero().squeeze(1)
        if len(index) == 0:
            return
        left, top, right, bottom = (round((edge + 1) / 2 * self.size) for edge in box)
        rows, columns = slice(max(top, 0), bottom), slice(max(left, 0), right)
        x, y = self.grid[columns].view(1, 1, -1), self.grid[rows].view(1, -1, 1)
        chosen = {k: v[index].view(-1, 1, 1) if isinstance(v, Tensor) else v for k, v in parameters.items()}
        mask = torch.sigmoid(shape(x, y, **chosen) * (-64 / soft)) * amount[index].view(-1, 1, 1)  # (k, h, w)
        mask = mask.unsqueeze(1)
        paint = torch.as_tensor(colour, dtype=torch.float32)
        if paint.ndim == 4:
            paint = paint[index][:, :, rows, columns]
        else:
            paint = paint.expand(number, 3)[index].view(-1, 3, 1, 1)
        part = self.pixels[index, :, rows, columns] if len(index) < number else self.pixels[:, :, rows, columns]
        covered = part[:, 3:] * (1 - mask) + mask
        self.pixels[index, :, rows, columns] = torch.cat([part[:, :3] * (1 - mask) + paint * mask, covered], dim=1)


Part = Tensor | float


def ellipse(x: Tensor, y: Tensor, cx: Part, cy: Part, a: Part, b: Part) -> Tensor:
    """A filled ellipse with half-axes a and b."""
    radius = (((x - cx) / a).square() + ((y - cy) / b).square()).sqrt()
    return (radius - 1) * torch.minimum(torch.as_tensor(a), torch.as_tensor(b))


def ring(x: Tensor, y: Tensor, cx: Part, cy: Part, a: Part, b: Part, width: Part) -> Tensor:
    """The outline of an ellipse."""
    return ellipse(x, y, cx, cy, a, b).abs() - width


def arc(x: Tensor, y: Tensor, cx: Part, cy: Part, half: Part, bend: Part, width: Part) -> Tensor:
    """A stroke from cx − half to cx + half, whose ends lie `bend` below its middle; thinner at the ends."""
    along = ((x - cx) / half).square()
    return torch.maximum((y - cy - bend * along).abs() - width * (1 - 0.6 * along), (along - 1) * half)


def bar(x: Tensor, y: Tensor, cx: Part, cy: Part, a: Part, b: Part, slope: Part = 0.0) -> Tensor:
    """An upright rectangle with half-sides a and b; its sides part by the slope on the way down."""
    return torch.maximum((x - cx).abs() - a - slope * (y - cy), (y - cy).abs() - b)


def head(x: Tensor, y: Tensor, cx: Part, cy: Part, a: Part, b: Part, jaw: Part) -> Tensor:
    """An egg: an ellipse whose lower half is wider by the jaw."""
    lower = ((y - cy) / b).clamp(min=0)
    return ellipse(x, y, cx, cy, a * (1 + jaw * lower * (1.6 - lower)), b)


def cap(x: Tensor, y: Tensor, a: Part, b: Part, line: Part, curve: Part, temples: Part) -> Tensor:
    """Hair on the head: within an ellipse and above the hairline, which may be higher at the temples."""
    side = (x / a).square()
    hairline = line + curve * side - temples * torch.exp(-((side - 0.28) / 0.12).square())
    return torch.maximum(ellipse(x, y, 0.0, -0.10, a, b), y - hairline)


def draw_faces(attributes: Tensor, generator: torch.Generator, size: int = 64) -> Tensor:
    """Pictures of faces with the given attributes.

    Args:
        attributes: shape (N, 40), bool, in the order of `ATTRIBUTES`.
        generator: a CPU generator that draws everything the attributes leave open.
        size: of the pictures, S.

    Returns:
        Shape (N, 3, S, S), uint8.
    """
    number = len(attributes)
    has = dict(zip(ATTRIBUTES, attributes.float().T, strict=True))

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(number, *shape, generator=generator)

    show = {}  # how clearly each attribute shows, (N,)
    for name in ATTRIBUTES:
        low, high = DEGREES.get(name, (0.7, 0.0))
        show[name] = has[name] * between(low, 1) + (1 - has[name]) * between(0, high)
    canvas = Canvas(number, size)
    look = appearance(has, show, between, canvas.grid)
    draw_body(canvas, has, show, look, between)
    draw_head(canvas, show, look, between)
    draw_beard(canvas, show, look)
    draw_nose_and_mouth(canvas, show, look)
    draw_eyes(canvas, show, look)
    draw_hair(canvas, has, show, look)
    draw_accessories(canvas, show, look, between)
    return photograph(canvas, show, between)


Look = dict[str, Tensor]
Between = Callable[..., Tensor]


def appearance(has: Look, show: Look, between: Between, grid: Tensor) -> Look:
    """Colours (N, 3), measures (N,) and the painted texture of the hair (N, 3, S, S)."""

    def mix(first: Any, second: Any, share: Tensor) -> Tensor:
        share = share.unsqueeze(1)
        return torch.as_tensor(first) * (1 - share) + torch.as_tensor(second) * share

    skin = mix(SKIN_LIGHT, SKIN_DARK, between(0, 1).square() * (1 - has["Pale_Skin"]))
    skin = mix(skin, SKIN_PALE, show["Pale_Skin"]) * between(0.94, 1.04, 1)
    other = torch.tensor(OTHER_HAIR)[(between(0, 3)).long().clamp(max=2)]
    hair = other
    for name, colour in HAIR.items():
        hair = torch.where(has[name].bool().unsqueeze(1), torch.tensor(colour), hair)
    hair = (hair * between(0.85, 1.15, 1) + between(-0.03, 0.03, 3)).clamp(0.02, 0.98)
    x, y = grid.view(1, 1, -1), grid.view(1, -1, 1)
    phase = between(0, 6.28, 1, 1)
    column = [show[name].view(-1, 1, 1) for name in ("Straight_Hair", "Wavy_Hair")]
    strands = torch.sin(38 * x + 3 * x * y + phase)  # straight: fine lines
    curls = torch.sin(16 * x + 2.6 * torch.sin(11 * y + phase) + phase) * torch.sin(13 * y + 2 * phase)
    texture = 1 + 0.33 * column[0] * strands + 0.7 * column[1] * curls  # (N, S, S)
    return {
        "skin": skin,
        "shade": skin * torch.tensor([0.72, 0.66, 0.64]),
        "dark": skin * torch.tensor([0.45, 0.36, 0.34]),
        "hair": hair,
        "brow": hair * 0.45 + 0.05,
        "locks": (hair.view(-1, 3, 1, 1) * texture.unsqueeze(1)).clamp(0, 1),
        "long": (1 - show["Male"]) * between(0.55, 1),  # how far hair falls
        "a": 0.40 + 0.085 * show["Chubby"] - 0.055 * show["Oval_Face"] + between(-0.02, 0.02),
        "b": 0.52 + 0.075 * show["Oval_Face"] - 0.02 * show["Chubby"] + between(-0.02, 0.02),
        "jaw": 0.20 * show["Male"] + 0.22 * show["Chubby"] - 0.10 * show["Oval_Face"],
        "turn": between(-0.09, 0.09),  # of the head: where its middle line lies
    }


def draw_body(canvas: Canvas, has: Look, show: Look, look: Look, between: Between) -> None:
    """Long hair behind, neck, clothes, necklace and tie."""
    draw = canvas.draw
    hairy = 1 - has["Bald"]
    fall = look["long"]
    draw(ellipse, (-1, -1, 1, 1), look["locks"], hairy, cx=0.0, cy=-0.10, a=look["a"] + 0.12, b=0.60)
    box = (-1.0, -0.1, 1.0, 1.0)
    amount, cy = hairy * (fall > 0.4), -0.1 + 0.45 * fall
    draw(bar, box, look["locks"], amount, cx=0.0, cy=cy, a=look["a"] + 0.10, b=0.1 + 0.45 * fall, slope=0.12)
    width = 0.17 + 0.09 * show["Male"] + 0.05 * show["Chubby"]
    draw(bar, (-1, 0.2, 1, 1), look["shade"], cx=0.0, cy=0.6, a=width, b=0.35, slope=0.1)
    clothes = between(0.05, 0.9, 3)
    clothes = clothes * (1 - has["Wearing_Necktie"].unsqueeze(1)) + 0.9 * has["Wearing_Necktie"].unsqueeze(1)
    shoulders = 0.72 + 0.25 * show["Male"]
    draw(ellipse, (-1, 0.55, 1, 1), clothes, cx=0.0, cy=1.15, a=shoulders, b=0.45)
    draw(ellipse, (-1, 0.55, 1, 1), look["shade"], 1 - has["Wearing_Necktie"], cx=0.0, cy=0.68, a=0.22, b=0.17)
    for side in (-0.16, 0.16):  # lapels
        draw(bar, (-1, 0.6, 1, 1), clothes * 0.35, has["Wearing_Necktie"], cx=1.9 * side, cy=0.95, a=0.17, b=0.2)
    tie = between(0.1, 0.75, 3)
    box = (-0.3, 0.6, 0.3, 1.0)
    draw(bar, box, tie, show["Wearing_Necktie"].sqrt(), cx=0.0, cy=0.86, a=0.07, b=0.16, slope=0.15)
    gold = torch.tensor([0.95, 0.83, 0.45]) * between(0.8, 1.05, 1)
    necklace = show["Wearing_Necklace"]
    box = (-0.5, 0.5, 0.5, 1.0)
    draw(arc, box, gold, necklace.sqrt(), cx=0.0, cy=between(0.76, 0.82), half=0.27, bend=-0.16, width=0.022)
    draw(ellipse, (-0.3, 0.6, 0.3, 1), gold, necklace, cx=0.0, cy=0.83, a=0.045, b=between(0.03, 0.06))


def draw_head(canvas: Canvas, show: Look, look: Look, between: Between) -> None:
    """Ears, face, its light, chin, cheeks, wrinkles and blemishes."""
    draw = canvas.draw
    a, b, skin, shade = look["a"], look["b"], look["skin"], look["shade"]
    for side in (-1, 1):
        draw(ellipse, (-1, -0.3, 1, 0.3), shade, cx=side * (a + 0.03), cy=-0.04, a=0.06, b=0.11)
    double = show["Double_Chin"]
    draw(ellipse, (-1, 0, 1, 0.8), skin * 0.9, double, cx=0.0, cy=0.33, a=a * 0.82, b=0.30)
    draw(arc, (-1, 0.3, 1, 0.8), look["dark"], 0.8 * double, cx=0.0, cy=0.625, half=0.27, bend=-0.13, width=0.02)
    draw(head, (-1, -1, 1, 0.8), skin, cx=0.0, cy=-0.06, a=a, b=b, jaw=look["jaw"])
    draw(arc, (-1, 0.2, 1, 0.7), shade, 0.9 * double, cx=0.0, cy=0.47, half=0.3, bend=-0.16, width=0.022)
    light = between(-1, 1)
    # the side in shadow
    box, amount, cx = (-1.0, -1.0, 1.0, 0.8), 0.35 * light.abs(), 0.33 * light.sign()
    draw(head, box, shade, amount, 14.0, cx=cx, cy=-0.06, a=a * 0.5, b=b * 0.9, jaw=0.0)
    turn, cheek = look["turn"], show["High_Cheekbones"]
    for side in (-1, 1):
        cx = turn + side * 0.24
        box = (-0.6, -0.1, 0.6, 0.4)
        draw(ellipse, box, skin * 0.45 + 0.55, 0.95 * cheek, 4.0, cx=cx, cy=0.055, a=0.10, b=0.045)
        box = (-0.6, 0.0, 0.6, 0.5)
        draw(bar, box, shade * 0.8, 0.85 * cheek, 5.0, cx=turn + side * 0.27, cy=0.2, a=0.055, b=0.07)
        rosy = torch.tensor([0.93, 0.32, 0.35])
        box = (-0.7, -0.1, 0.7, 0.4)
        draw(ellipse, box, rosy, 0.65 * show["Rosy_Cheeks"], 6.0, cx=cx, cy=0.12, a=0.13, b=0.09)
        old = 1 - show["Young"]
        # from the nose to the corners of the mouth
        box = (-0.5, 0.0, 0.5, 0.5)
        draw(bar, box, shade * 0.8, 0.75 * old, 1.5, cx=turn + side * 0.2, cy=0.2, a=0.012, b=0.1, slope=0.05)
    for height in (-0.40, -0.33):
        box = (-0.5, -0.6, 0.5, -0.1)
        amount = 0.75 * (1 - show["Young"])
        draw(arc, box, shade * 0.8, amount, cx=turn, cy=height, half=0.24, bend=0.03, width=0.016)
    for _ in range(9):
        box = (-0.6, -0.5, 0.6, 0.5)
        amount = 0.85 * (1 - show["Attractive"]) * (between(0, 1) < 0.7)
        cx, cy = between(-0.32, 0.32), between(-0.35, 0.35)
        draw(ellipse, box, look["dark"], amount, cx=cx, cy=cy, a=0.034, b=0.034)


def draw_beard(canvas: Canvas, show: Look, look: Look) -> None:
    """Stubble, and the four kinds of beard; a beard that is none of the named ones follows the jaw."""
    draw = canvas.draw
    a, turn, colour = look["a"], look["turn"], look["hair"] * 0.8
    stubble = show["5_o_Clock_Shadow"]
    draw(ellipse, (-1, 0, 1, 0.6), look["dark"], 0.5 * stubble, 7.0, cx=turn, cy=0.30, a=a * 0.75, b=0.17)
    bearded = 1 - show["No_Beard"]
    bearded = torch.where(bearded > 0.95, 0.8, 0.0)
    for side in (-1, 1):
        box = (-1.0, -0.1, 1.0, 0.8)
        draw(bar, box, colour, bearded, 4.0, cx=side * (a * 0.93), cy=0.24, a=0.05, b=0.10, slope=-0.2)
        box = (-1.0, -0.3, 1.0, 0.3)
        draw(bar, box, colour, show["Sideburns"], 2.0, cx=side * (a * 0.92), cy=0.0, a=0.055, b=0.19)
    draw(ellipse, (-0.6, 0.2, 0.6, 0.6), colour, bearded * 0.8, 4.0, cx=0.0, cy=0.45, a=a * 0.7, b=0.055)
    draw(ellipse, (-0.5, 0.2, 0.5, 0.7), colour, show["Goatee"], 2.0, cx=turn * 0.7, cy=0.415, a=0.11, b=0.10)
    box = (-0.5, 0.05, 0.5, 0.4)
    draw(arc, box, colour, show["Mustache"], 1.5, cx=turn, cy=0.185, half=0.19, bend=0.05, width=0.04)


def draw_nose_and_mouth(canvas: Canvas, show: Look, look: Look) -> None:
    """Nose and mouth."""
    draw = canvas.draw
    turn, shade = look["turn"], look["shade"]
    big, pointy = show["Big_Nose"], show["Pointy_Nose"]
    wing = 0.055 + 0.095 * big - 0.028 * pointy
    tip = turn * 1.35
    draw(bar, (-0.4, -0.25, 0.4, 0.2), shade, 0.55, 2.0, cx=tip, cy=-0.03, a=wing * 0.35, b=0.12, slope=0.16)
    draw(ellipse, (-0.4, -0.1, 0.4, 0.3), shade, 0.75, 2.0, cx=tip, cy=0.085, a=wing, b=0.038 + 0.02 * big)
    # a pointed tip casts a pointed light
    box = (-0.3, -0.25, 0.3, 0.25)
    draw(bar, box, look["skin"] * 0.4 + 0.6, 0.85 * pointy, 1.5, cx=tip, cy=0.0, a=0.012, b=0.12)
    box = (-0.3, 0.05, 0.3, 0.25)
    draw(bar, box, look["dark"], 0.85 * pointy, 1.5, cx=tip, cy=0.125, a=0.035, b=0.022, slope=-0.8)
    for side in (-1, 1):
        box = (-0.4, 0.0, 0.4, 0.25)
        draw(ellipse, box, look["dark"], 0.8, cx=tip + side * wing * 0.55, cy=0.108, a=0.020, b=0.014)
    smile, gap, lips = show["Smiling"], show["Mouth_Slightly_Open"], show["Big_Lips"]
    bare = look["skin"] * torch.tensor([0.74, 0.46, 0.46])
    red = torch.tensor([0.78, 0.07, 0.18])
    share = (0.9 * show["Wearing_Lipstick"]).unsqueeze(1)
    colour = bare * (1 - share) + red * share
    half, bend = 0.15 + 0.05 * smile, -0.09 * smile + 0.012
    thick, open_ = 0.020 + 0.050 * lips, 0.048 * gap
    mouth: dict[str, Any] = {"cx": turn * 1.15, "half": half, "bend": bend}
    box, cy = (-0.5, 0.1, 0.5, 0.5), 0.285 + 0.03 * smile
    draw(arc, box, colour, 1.0, cy=cy, width=thick + open_ + 0.012, **mouth)
    draw(arc, box, look["dark"] * 0.5, 0.85, cy=cy, width=0.007 + open_ * 1.05, **mouth)
    draw(arc, box, (0.96, 0.95, 0.92), (gap - 0.3).clamp(0, 1), cy=cy - open_ * 0.35, width=open_ * 0.55, **mouth)


def draw_eyes(canvas: Canvas, show: Look, look: Look) -> None:
    """Eyes, make-up, bags and eyebrows."""
    draw = canvas.draw
    turn = look["turn"]
    narrow, makeup, bags = show["Narrow_Eyes"], show["Heavy_Makeup"], show["Bags_Under_Eyes"]
    height = 0.056 * (1 - 0.72 * narrow)
    bushy, arched = show["Bushy_Eyebrows"], show["Arched_Eyebrows"]
    eye = (-0.6, -0.3, 0.6, 0.1)
    shadow = torch.tensor([0.38, 0.22, 0.48])
    for side in (-1, 1):
        cx = turn + side * 0.19
        draw(ellipse, (-0.6, -0.4, 0.6, 0.1), shadow, 0.8 * makeup, 2.5, cx=cx, cy=-0.165, a=0.115, b=0.055)
        draw(ellipse, eye, (0.04, 0.03, 0.05), makeup, cx=cx, cy=-0.115, a=0.115, b=height + 0.022)
        draw(ellipse, eye, look["dark"], 0.7, cx=cx, cy=-0.115, a=0.105, b=height + 0.012)
        draw(ellipse, eye, (0.95, 0.95, 0.95), cx=cx, cy=-0.115, a=0.095, b=height)
        draw(ellipse, eye, (0.10, 0.08, 0.08), cx=cx + 0.2 * turn, cy=-0.115, a=0.042, b=height.clamp(max=0.044))
        box = (-0.6, -0.2, 0.6, 0.2)
        draw(arc, box, look["shade"] * 0.75, bags, 1.3, cx=cx, cy=-0.012, half=0.11, bend=-0.035, width=0.024)
        box = (-0.7, -0.6, 0.7, 0.0)
        cy, bend, width = -0.25 - 0.055 * arched, 0.015 + 0.085 * arched, 0.015 + 0.033 * bushy
        draw(arc, box, look["brow"], 0.9, cx=cx + side * 0.01, cy=cy, half=0.135, bend=bend, width=width)


def draw_hair(canvas: Canvas, has: Look, show: Look, look: Look) -> None:
    """Hair in front: the cap with its hairline, bangs, and long hair beside the face."""
    draw = canvas.draw
    hairy, receding = 1 - has["Bald"], show["Receding_Hairline"]
    a = look["a"]
    box = (-1.0, -1.0, 1.0, 0.2)
    line, curve = -0.47 - 0.05 * receding, 0.32 * (1 - has["Receding_Hairline"])
    draw(cap, box, look["locks"], hairy, a=a + 0.10, b=0.60, line=line, curve=curve, temples=0.20 * receding)
    amount = show["Bangs"].sqrt() * hairy
    draw(cap, box, look["locks"], amount, a=a + 0.08, b=0.58, line=-0.27, curve=0.0, temples=0.0)
    box = (-0.4, -0.8, 0.4, -0.2)
    draw(ellipse, box, (1.0, 1.0, 1.0), 0.45 * has["Bald"], 6.0, cx=-0.08, cy=-0.46, a=0.12, b=0.06)
    for side in (-1, 1):
        box = (-1.0, -0.4, 1.0, 1.0)
        amount = hairy * ((look["long"] - 0.45) / 0.1).clamp(0, 1)
        draw(bar, box, look["locks"], amount, cx=side * (a + 0.06), cy=0.15, a=0.075, b=0.45)


def draw_accessories(canvas: Canvas, show: Look, look: Look, between: Between) -> None:
    """Earrings, glasses, a hat, and now and then a hand or a microphone before the face."""
    draw = canvas.draw
    turn = look["turn"]
    uncovered = (look["long"] < 0.4) | (between(0, 1) < 0.7)  # otherwise hair hides the earrings
    for side in (-1, 1):
        box = (-1.0, 0.0, 1.0, 0.5)
        amount, colour = show["Wearing_Earrings"] * uncovered, (0.98, 0.94, 0.62)
        draw(ellipse, box, colour, amount, cx=side * (look["a"] + 0.05), cy=0.17, a=0.05, b=between(0.05, 0.12))
    glasses = show["Eyeglasses"].sqrt()
    frame = between(0.02, 0.35, 3)
    tinted = 0.75 * (between(0, 1) < 0.3)
    for side in (-1, 1):
        lens: dict[str, Any] = {"cx": turn + side * 0.20, "cy": -0.11, "a": 0.155, "b": between(0.10, 0.135)}
        draw(ellipse, (-0.7, -0.4, 0.7, 0.2), frame * 0.5, glasses * tinted, **lens)
        draw(ring, (-0.7, -0.4, 0.7, 0.2), frame, glasses, width=0.018, **lens)
        draw(bar, (-0.7, -0.3, 0.7, 0.1), frame, glasses, cx=side * 0.42, cy=-0.13, a=0.08, b=0.014)
    draw(bar, (-0.3, -0.3, 0.3, 0.1), frame, glasses, cx=turn, cy=-0.12, a=0.05, b=0.014)
    hat, felt = show["Wearing_Hat"].sqrt(), between(0.05, 0.9, 3)
    box = (-1.0, -1.0, 1.0, 0.0)
    draw(cap, box, felt, hat, a=look["a"] + 0.13, b=between(0.66, 0.8), line=-0.40, curve=0.0, temples=0.0)
    draw(ellipse, (-1, -0.6, 1, -0.2), felt * 0.7, hat, cx=0.0, cy=-0.40, a=between(0.5, 0.75), b=0.055)
    hidden = 0.95 * (between(0, 1) < 0.08)
    grey = between(0.1, 0.5, 1).expand(-1, 3)
    x, y = between(-0.4, 0.4), between(0.25, 0.6)
    draw(bar, (-1, 0, 1, 1), grey * 0.6, hidden, cx=x, cy=y + 0.4, a=0.045, b=0.4)
    draw(ellipse, (-1, 0, 1, 1), grey, hidden, cx=x, cy=y, a=0.12, b=0.13)
    hand = 0.95 * (between(0, 1) < 0.05)
    cheek = 0.36 * between(-1, 1).sign()
    for finger in range(4):
        box = (-1.0, -0.4, 1.0, 0.8)
        cy = -0.05 + 0.09 * finger
        draw(ellipse, box, look["skin"] * (0.82 + 0.05 * (finger % 2)), hand, cx=cheek, cy=cy, a=0.19, b=0.055)


def photograph(canvas: Canvas, show: Look, between: Between) -> Tensor:
    """Put the drawn heads before backgrounds: turned, moved, lit, blurred; shape (N, 3, S, S), uint8."""
    size, pixels = canvas.size, canvas.pixels
    angle, scale = between(-0.22, 0.22), between(0.80, 0.98)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    move = torch.stack([cos, -sin, between(-0.1, 0.1), sin, cos, between(0.0, 0.12)], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(move, [len(pixels), 4, size, size], align_corners=False)
    pixels = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    corners = between(0.05, 0.95, 3, 1, 1) + between(-0.3, 0.3, 3, 2, 2)
    blobs = between(-0.25, 0.25, 3, 5, 5)
    background = torch.zeros(())
    for spots in (corners, blobs):
        background = background + F.interpolate(spots, size=size, mode="bilinear", align_corners=False)
    picture = pixels[:, :3] + (1 - pixels[:, 3:]) * background.clamp(0, 1)
    blurred = F.interpolate(F.avg_pool2d(picture, size // 16), size=size, mode="bilinear", align_corners=False)
    picture = torch.lerp(picture, blurred, show["Blurry"].view(-1, 1, 1, 1))
    contrast, brightness = between(0.75, 1.15, 1, 1, 1), between(-0.08, 0.08, 1, 1, 1)
    picture = (picture - 0.5) * contrast + 0.5 + brightness + between(-0.04, 0.04, 3, 1, 1)
    noise = (between(-1, 1, 1, size, size) + between(-1, 1, 1, size, size)) * between(0, 0.03, 1, 1, 1)
    return (picture + noise).mul(255).round().clamp(0, 255).to(torch.uint8)
