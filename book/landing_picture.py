"""The picture of the landing page: two gradients that disagree, and what four methods make of them.

    python book/landing_picture.py FILE.svg

`publish.py` has it drawn when the book is built, by the package's own methods.
"""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import mtl_ref as mtl

J = torch.tensor([[3.0, 0.3], [-0.7, 0.7]], dtype=torch.float64)  # (T, P): g₁ and g₂, at an obtuse angle
METHODS = {  # the name at the tip of the arrow, and where it stands
    "plain sum": (mtl.MGDA(solver=lambda M: torch.ones_like(M[0])), "#D55E00", (0.07, -0.05)),
    "PCGrad": (mtl.PCGrad(), "#009E73", (0.07, 0.0)),
    "normalised gradients": (mtl.GradientNormalization(), "#AA4499", (-1.36, 0.08)),
    "MGDA": (mtl.MGDA(), "#0072B2", (-0.42, -0.03)),
}
ALT = (
    "Two gradients at an obtuse angle and the directions of four methods. The plain sum lies in the shaded half "
    "where the second loss rises. PCGrad, normalised gradients and MGDA lie in the wedge where both losses fall."
)


def draw(path: Path) -> None:
    """Draw the picture as an SVG or a PNG file, the same bytes each time."""
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    x, y = np.meshgrid(np.linspace(-1.3, 4.1, 300), np.linspace(-0.3, 2.6, 300))
    for (gx, gy), colour in zip(J.tolist(), ("#0072B2", "#D55E00"), strict=True):
        axes.contourf(x, y, gx * x + gy * y, levels=[-99, 0], colors=[colour], alpha=0.12)
    axes.text(2.5, 1.45, "a step this way\nraises the second loss", color="#A84300", fontsize=10)
    axes.text(0.52, 1.95, "lowers both", color="#444444", fontsize=10, ha="center")
    axes.text(-0.75, 1.95, "raises the\nfirst loss", color="#00568A", fontsize=10, ha="center")
    for row, name, place in ((J[0], "$g_1$", (0.06, -0.02)), (J[1], "$g_2$", (-0.2, 0.06))):
        arrow(axes, row.tolist(), name, "#000000", place)
    for name, (method, colour, place) in METHODS.items():
        arrow(axes, method(J).tolist(), name, colour, place)
    axes.set(xlim=(-1.3, 4.1), ylim=(-0.3, 2.6), aspect="equal")
    axes.set_axis_off()
    with mpl.rc_context({"svg.hashsalt": "mtl_ref"}):
        svg = path.suffix == ".svg"
        figure.savefig(path, transparent=svg, dpi=170, metadata={"Date" if svg else "Software": None})


def arrow(axes: Axes, tip: list[float], name: str, colour: str, place: tuple[float, float]) -> None:
    """An arrow from the origin with its name at the tip."""
    style = {"arrowstyle": "-|>", "color": colour, "lw": 2.2, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", tip, (0, 0), arrowprops=style)
    axes.text(tip[0] + place[0], tip[1] + place[1], name, color=colour, fontsize=10.5)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
