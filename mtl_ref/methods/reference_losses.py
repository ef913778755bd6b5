"""What a loss is worth at the start, and to the best answer that ignores the input (chapter 2)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ref.checks import as_vector


def uniform_cross_entropy(num_classes: int) -> float:
    """The cross-entropy of the uniform guess over K classes, log K: where a fresh network starts."""
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}, but a classification has at least 2 classes.")
    return math.log(num_classes)  # (TL.1)


def prior_cross_entropy(frequencies: Tensor | Sequence[float]) -> float:
    """The cross-entropy of always answering with the class frequencies: their entropy −Σ pₖ log pₖ.

    Args:
        frequencies: counts or frequencies of the K classes, shape (K,), all ≥ 0, not all zero.
    """
    counts = torch.as_tensor(frequencies, dtype=torch.float64)
    counts = as_vector(counts, "the class frequency")
    if counts.sum() == 0:
        raise ValueError("the class frequencies are all zero.")
    p = counts / counts.sum()
    return -torch.xlogy(p, p).sum().item()  # (TL.2)


def zero_mse(targets: Tensor) -> float:
    """The squared error of answering zero, E‖y‖²: where a fresh regression starts.

    Args:
        targets: N targets, shape (N,) or (N, D). The error is summed over D, averaged over N; divide by D
            to compare with a loss that averages over D as well, as `torch.nn.MSELoss` does.
    """
    y = _targets(targets)  # (N, D)
    return y.square().sum(1).mean().item()  # (TL.3)


def prior_mse(targets: Tensor) -> float:
    """The squared error of always answering with the mean target, E‖y − μ‖²; shapes as in `zero_mse`."""
    y = _targets(targets)  # (N, D)
    return (y - y.mean(0)).square().sum(1).mean().item()  # (TL.4)


def _targets(targets: Tensor) -> Tensor:
    if targets.ndim not in (1, 2) or len(targets) == 0:
        raise ValueError(f"targets must have shape (N,) or (N, D), but have {tuple(targets.shape)}.")
    return targets.double().reshape(len(targets), -1)
