"""Balancing many losses in multi-task learning: the methods of the book, line for line from their formulas.

import mtl_ref as mtl

balancer = mtl.UncertaintyWeighting(["regression", "classification"])
losses = torch.stack([loss_1, loss_2])
optimizer.zero_grad()
weights = balancer.backward(losses)
optimizer.step()

This imports torch and numpy only. The other modules are imported when they are first used, such as `mtl.metrics`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mtl_ref import methods
from mtl_ref.accumulation import Accumulation
from mtl_ref.balancer import GradientBalancer, LossBalancer
from mtl_ref.methods import *  # noqa: F403
from mtl_ref.solvers.min_norm import duality_gap, frank_wolfe, min_norm, min_norm_two

if TYPE_CHECKING:
    from mtl_ref import catalogue, metrics, page, plotting, problems, results
    from mtl_ref.training import History, train

__version__ = "0.1.0"

__all__ = [
    # what every method is
    "LossBalancer",
    "GradientBalancer",
    "Accumulation",
    # the methods
    *methods.__all__,
    # solvers
    "min_norm_two",
    "duality_gap",
    "frank_wolfe",
    "min_norm",
    # learning, judging and showing
    "train",
    "History",
    "catalogue",
    "problems",
    "metrics",
    "results",
    "plotting",
    "page",
]

LATER = {"train": "mtl_ref.training", "History": "mtl_ref.training"}  # then the modules of these names
LATER |= dict.fromkeys(
    ("benchmark", "catalogue", "metrics", "page", "plotting", "problems", "results", "training"), ""
)


def __getattr__(name: str) -> Any:
    """Import what is not needed to balance losses when it is first asked for (PEP 562)."""
    if name not in LATER:
        raise AttributeError(f"module 'mtl_ref' has no attribute {name!r}")
    module = LATER[name]
    return getattr(import_module(module), name) if module else import_module(f"mtl_ref.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *LATER})
