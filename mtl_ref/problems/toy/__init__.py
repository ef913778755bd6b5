"""Problems small enough to solve on paper, or to look at, in float64. The larger ones have files of their own."""

from mtl_ref.problems.toy.fonseca import fonseca, fonseca_front, fonseca_optima
from mtl_ref.problems.toy.gradnorm import GradNormToy
from mtl_ref.problems.toy.landscapes import cagrad_landscape, pcgrad_landscape, trajectories
from mtl_ref.problems.toy.lines import KENDALL_SIGMAS, kendall_lines

__all__ = [
    "KENDALL_SIGMAS",
    "GradNormToy",
    "cagrad_landscape",
    "fonseca",
    "fonseca_front",
    "fonseca_optima",
    "kendall_lines",
    "pcgrad_landscape",
    "trajectories",
]
