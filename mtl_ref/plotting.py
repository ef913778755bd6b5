"""The pictures that chapters share. Colours are Okabe and Ito's, which colour-blind readers can tell apart."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from mtl_ref.metrics import confidence_interval
from mtl_ref.training import History

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def learning_curves(histories: Mapping[str, History], metric: str, ax: Axes | None = None) -> Axes:
    """One line per method: a validation metric after each epoch."""
    ax = ax or plt.gca()
    for (name, history), style in zip(histories.items(), _styles(), strict=False):
        values = [epoch[metric] for epoch in history.validation]
        ax.plot(range(1, len(values) + 1), values, label=name, **style)
    ax.set(xlabel="epoch", ylabel=f"validation {metric}")
    ax.legend()
    return ax


def weights_over_time(history: History, ax: Axes | None = None) -> Axes:
    """One line per task: its mean weight in each epoch, on a logarithmic axis."""
    ax = ax or plt.gca()
    weights = np.array([w for w in history.weights if w is not None])  # (E, T)
    if len(weights) == 0:
        raise ValueError("this history has no weights: the direction was not a weighted sum of gradients.")
    for task, column, style in zip(history.tasks, weights.T, _styles(), strict=False):
        ax.plot(range(1, len(column) + 1), column, label=task, **style)
    ax.set(xlabel="epoch", ylabel="mean weight", yscale="log")
    ax.legend()
    return ax


def comparison(results: Mapping[str, Sequence[Mapping[str, float]]], metric: str, ax: Axes | None = None) -> Axes:
    """One row per method: a metric of each seed as a small dot, their mean with its 95 % interval as a large one.

    Args:
        results: for each method, the test metrics of its seeds, as `History.result` gives them.
        metric: which of the metrics to show.
        ax: where to draw.
    """
    ax = ax or plt.gca()
    for row, (name, seeds) in enumerate(results.items()):
        values = [seed[metric] for seed in seeds]
        mean, half = confidence_interval(values)
        ax.plot(values, [row] * len(values), "o", color=COLOURS[0], alpha=0.4, markersize=4)
        ax.errorbar(mean, row, xerr=half, fmt="D", color=COLOURS[1], capsize=4, label=name)
    ax.set(xlabel=f"test {metric}", yticks=range(len(results)), yticklabels=list(results))
    ax.set_ylim(len(results) - 0.5, -0.5)  # the first method on top, also on axes that share y
    return ax


def _styles() -> list[dict[str, Any]]:
    return [{"color": c, "marker": m} for c, m in zip(COLOURS, MARKERS, strict=True)]
