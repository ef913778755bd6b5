"""How methods are compared when tasks are judged on different scales, and what a step does to each task."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mtl_ref.checks import in_float64
from mtl_ref.gradients import gram

Numbers = Tensor | Sequence[float] | Sequence[Sequence[float]]


def delta_m(
    results: Numbers,
    baseline: Numbers,
    higher_is_better: Sequence[bool],
) -> float:
    """The mean relative loss against a baseline, in percent; negative is better than the baseline.

    Δm = 100/K Σₖ (−1)^δₖ (Mₖ − Bₖ)/abs(Bₖ), where δₖ = 1 if a higher Mₖ is better. Some papers print the opposite
    sign, so that positive is better.

    Args:
        results: the K metrics of a method, shape (K,).
        baseline: the K metrics of the baseline, often single-task networks, shape (K,), none zero.
        higher_is_better: for each metric, whether a higher value is better, shape (K,).
    """
    m, b = _floats(results, 1), _floats(baseline, 1)
    if not len(m) == len(b) == len(higher_is_better):
        raise ValueError(
            f"results, baseline and higher_is_better must be of one length, but have {len(m)}, {len(b)} and "
            f"{len(higher_is_better)}."
        )
    if (b == 0).any():
        raise ValueError(f"baseline {b.tolist()} has a zero, and a relative change from zero is not defined.")
    sign = torch.where(torch.tensor(higher_is_better), -1.0, 1.0)
    return 100 * (sign * (m - b) / b.abs()).mean().item()  # (DM.1)


def mean_rank(table: Numbers, higher_is_better: Sequence[bool]) -> Tensor:
    """The rank of each method, averaged over metrics; 1 is best, and ties share the mean of their ranks.

    A mean rank depends on which methods are in the table: adding one can change the order of the others.

    Args:
        table: K metrics of N methods, shape (N, K).
        higher_is_better: for each metric, whether a higher value is better, shape (K,).

    Returns:
        Mean ranks, shape (N,), float64.
    """
    m = _floats(table, 2)  # (N, K)
    if m.shape[1] != len(higher_is_better):
        raise ValueError(f"the table has {m.shape[1]} metrics, higher_is_better {len(higher_is_better)}.")
    cost = torch.where(torch.tensor(higher_is_better), -m, m)
    better = (cost.unsqueeze(0) < cost.unsqueeze(1)).sum(1)  # (N, K): how many methods beat this one
    equal = (cost.unsqueeze(0) == cost.unsqueeze(1)).sum(1)  # (N, K): itself among them
    return (better + (equal + 1) / 2).double().mean(1)


def first_best(table: Numbers, higher_is_better: Sequence[bool]) -> int:
    """The row of a table with the best mean rank (see `mean_rank`), counted from 0; of a tie the first."""
    return int(mean_rank(table, higher_is_better).argmin())


def hypervolume(points: Numbers, reference: Numbers) -> float:
    """The volume between N points to be minimised and a reference point, exactly (by `moocore`).

    Args:
        points: K costs (lower is better) of N points, shape (N, K).
        reference: a point, shape (K,), worse than every point worth counting; report it with the volume.
    """
    import moocore

    p, r = _floats(points, 2), _floats(reference, 1)
    if p.shape[1] != len(r):
        raise ValueError(f"the points have {p.shape[1]} costs, the reference point {len(r)}.")
    return float(moocore.hypervolume(p.numpy(), ref=np.asarray(r)))


def confidence_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The mean of N ≥ 2 values, one per seed, and the half-width of its interval (Student's t, N − 1 degrees)."""
    from scipy import stats

    v = _floats(values, 1)
    if len(v) < 2:
        raise ValueError("an interval needs at least 2 values, one per seed, but got 1.")
    quantile = stats.t.ppf((1 + confidence) / 2, len(v) - 1)
    return v.mean().item(), float(quantile * v.std() / len(v) ** 0.5)


def paired_difference(
    values: Sequence[float],
    baseline: Sequence[float],
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """The mean of values minus baseline, paired seed by seed, the half-width of its interval, and the p-value.

    The p-value is that of the two-sided t-test for a mean difference of 0. Where all N ≥ 2 differences are equal
    it is 1 if they are 0, and 0 otherwise.
    """
    from scipy import stats

    v, b = _floats(values, 1), _floats(baseline, 1)
    if len(v) != len(b):
        raise ValueError(f"{len(v)} values cannot be paired with {len(b)}.")
    d = v - b  # (N,)
    mean, half = confidence_interval(d.tolist(), confidence)
    if half == 0:
        return mean, half, float(mean == 0)
    t = mean / (d.std() / len(d) ** 0.5)  # (PT.1)
    p = 2 * stats.t.sf(abs(t), len(d) - 1)  # (PT.2)
    return mean, half, float(p)


def holm(p: Sequence[float]) -> list[float]:
    """The p-values of n comparisons, corrected by Holm's method, in the order given.

    The smallest is multiplied by n, the next by n − 1, and so on; none becomes smaller than the one before it, or
    larger than 1. If all those below 0.05 are called real, the probability that any of these calls is wrong is at
    most 0.05.
    """
    values = _floats(p, 1)
    if (values < 0).any() or (values > 1).any():
        raise ValueError(f"p-values lie between 0 and 1, but these are {values.tolist()}.")
    smallest_first = values.argsort()
    factors = torch.arange(len(values), 0, -1)  # n, n − 1, …, 1
    corrected = (factors * values[smallest_first]).cummax(0).values
    corrected = corrected.clamp(max=1)  # (HO.1)
    in_order: list[float] = corrected[smallest_first.argsort()].tolist()
    return in_order


def conflict(gradients: Tensor) -> tuple[Tensor, Tensor]:
    """How the gradients of T tasks disagree: their cosines and their magnitude similarities (Yu et al. 2020).

    Tasks i and j conflict where cos φᵢⱼ < 0. The magnitude similarity is 1 for gradients of one length and near 0
    where one dwarfs the other. A gradient of zero has no direction, and its cosines are 0.

    Args:
        gradients: one row a task, shape (T, P).

    Returns:
        cos φ and Φ, both of shape (T, T), float64.
    """
    if gradients.ndim != 2 or gradients.numel() == 0 or not gradients.is_floating_point():
        raise ValueError(
            "gradients must be a floating-point tensor of shape (T, P), one row per task, but has shape "
            f"{tuple(gradients.shape)} and type {gradients.dtype}."
        )
    M = gram(gradients.detach())  # (T, T)
    squares = M.diagonal()
    products = torch.outer(squares.sqrt(), squares.sqrt())  # ‖gᵢ‖ ‖gⱼ‖
    cosine = torch.where(products > 0, M / products, 0.0)  # (CF.1)
    sums = squares + squares.unsqueeze(1)
    similarity = torch.where(sums > 0, 2 * products / sums, 1.0)  # (CF.2)
    return cosine.clamp(-1, 1), similarity


def first_order_changes(gradients: Tensor, step: Tensor) -> Tensor:
    """What a step θ → θ + Δθ does to each of T losses, to first order: ⟨gᵢ, Δθ⟩.

    Where it is positive, the step raises that loss. Methods promise about the direction d that they find, and keep
    it where Δθ = −η d: MGDA's raises no loss (Désidéri 2012). An optimiser that divides each entry by its own
    scale, as Adam does (Kingma and Ba 2015), or that remembers earlier steps, takes another step.

    Args:
        gradients: those at θ, one row a task, shape (T, P).
        step: Δθ, the parameters after the optimiser's step less those before it, shape (P,), in the same order.

    Returns:
        The changes, shape (T,), float64.

    Raises:
        ValueError: the shapes do not fit, or an entry is not finite.
    """
    fits = gradients.ndim == 2 and gradients.numel() > 0 and step.shape == gradients.shape[1:]
    if not (fits and gradients.is_floating_point() and step.is_floating_point()):
        raise ValueError(
            "gradients must be a floating-point tensor of shape (T, P), one row per task, and step one of shape "
            f"(P,), but they have shapes {tuple(gradients.shape)} and {tuple(step.shape)} and types "
            f"{gradients.dtype} and {step.dtype}."
        )
    J = in_float64(gradients.detach())
    changes = J @ in_float64(step.detach()).to(J.device)
    if not changes.isfinite().all():
        raise ValueError(f"the gradients or the step are not finite: the changes would be {changes.tolist()}.")
    return changes


def _floats(values: Numbers, ndim: int) -> Tensor:
    tensor = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    if tensor.ndim != ndim or tensor.numel() == 0:
        raise ValueError(f"expected numbers with {ndim} axes, but got shape {tuple(tensor.shape)}.")
    if tensor.isnan().any():
        raise ValueError("a metric is nan, so nothing can be compared with it.")
    return tensor
