"""The closest point of the dual cone {d : ⟨gᵢ, d⟩ ≥ 0 for every i}, where no loss rises (chapter 12).

With the unit gradients uᵢ as rows of U and C = U Uᵀ, the closest point to Uᵀ e is Uᵀ (e + z), where z ≥ 0 is the
solution of a non-negative least-squares problem. The cone does not change with the lengths of the gradients.

Source: Lawson and Hanson, Solving Least Squares Problems, 1974 (chapter 23), in the variant that takes in all
newcomers at once.
"""

import numpy as np
import torch
from torch import Tensor

from mtl_ref.solvers.min_norm import rounding


def onto_dual_cone(C: Tensor, e: Tensor) -> Tensor:
    """The projection of each of K vectors Uᵀ e on the dual cone.

    Args:
        C: the cosines ⟨uᵢ, uⱼ⟩, shape (T, T), float64.
        e: the coordinates of the K vectors, a row each, shape (K, T).

    Returns:
        The coordinates e + z of the projections, shape (K, T).
    """
    cosines = C.cpu().numpy()
    ridge = rounding(cosines)
    strictly_convex = cosines + ridge * np.eye(len(cosines))
    z = [least_push(strictly_convex, strictly_convex @ row, ridge) for row in e.cpu().numpy()]
    return e + torch.from_numpy(np.array(z)).to(e)


def above_margins(C: Tensor, first: int, margins: Tensor) -> Tensor:
    """The closest point to one unit gradient u₁ at which ⟨uⱼ, d⟩ ≥ mⱼ for every other.

    Args:
        C: the cosines ⟨uᵢ, uⱼ⟩, shape (T, T), float64.
        first: the index of u₁.
        margins: m, shape (T,), all ≥ 0; that of u₁ is not used.

    Returns:
        The coordinates of the point, shape (T,): 1 for u₁. Where no point meets all conditions, u₁ itself: then z
        has grown until rounding stopped it, and what is left of the largest margin is missing.
    """
    cosines, m = C.cpu().numpy(), margins.cpu().numpy()
    others = np.arange(len(m)) != first
    ridge = rounding(cosines)
    within, m = cosines[np.ix_(others, others)], m[others]
    inner = cosines[others, first] - m  # (PD.6)
    z = least_push(within + ridge * np.eye(len(m)), inner, ridge)
    slack = inner + within @ z
    met = not m.any() or bool((slack >= -1e-6 * m.max()).all())
    e = np.eye(len(cosines))[first]
    e[others] = z if met else 0.0
    return torch.from_numpy(e).to(C)


def least_push(C: np.ndarray, inner: np.ndarray, ridge: float) -> np.ndarray:
    """The z ≥ 0 that is least in ½ zᵀ C z + innerᵀ z: what must be added until no loss rises.

    Args:
        C: a positive definite matrix, shape (T, T).
        inner: the inner products ⟨uᵢ, Uᵀ e⟩ before, shape (T,).
        ridge: what rounding may do to C.

    It ends for the reason that `active_set` does: each time that all of the target is non-negative, the minimum is
    lower than the time before, so no support comes twice; where rounding brings one back, nothing is left to gain.
    """
    z, support = np.zeros_like(inner), np.full(len(inner), False)
    visited = set()
    while True:
        slack = inner + C @ z  # (DC.2)  ⟨uᵢ, d⟩
        newcomers = ~support & (slack < -ridge * (1 + z.sum()))
        if not newcomers.any() or support.tobytes() in visited:
            return z
        visited.add(support.tobytes())
        support = support | newcomers
        while True:
            target = np.zeros_like(z)
            within = C[np.ix_(support, support)]
            aim = np.linalg.solve(within, -inner[support])  # (DC.3)
            target[support] = aim
            if (target >= 0).all():
                z = target
                break
            left = np.flatnonzero(target < 0)
            steps = z[left] / (z[left] - target[left])
            z = np.maximum(z + steps.min() * (target - z), 0)  # (DC.4)
            support[left[steps == steps.min()]] = False
