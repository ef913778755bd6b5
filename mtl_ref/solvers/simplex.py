"""The simplex {λ ≥ 0, Σ λ = 1}, and the closest point of it: what a gradient step on task weights is followed by.

Sources: Held, Wolfe and Crowder, "Validation of subgradient optimization", 1974; Duchi et al., ICML 2008.
"""

import torch
from torch import Tensor


def project(v: Tensor) -> Tensor:
    """The point of the simplex that is closest to v, shape (T,): max(v − θ, 0) with the θ that makes its sum 1.

    With the entries in descending order, the k largest stay positive for the last k at which the k-th of them is
    above the θ that it would have with them alone.
    """
    v = v - v.max()  # a common number does not count, but for rounding
    ordered = v.sort(descending=True).values
    k = torch.arange(1, len(v) + 1, dtype=v.dtype, device=v.device)
    theta = (ordered.cumsum(0) - 1) / k  # (SX.1)  (T,): if the k largest stay
    last = int((ordered > theta).nonzero()[-1])
    return (v - theta[last]).clamp(min=0)  # (SX.2)


def shares(weights: Tensor) -> Tensor:
    """Weights ≥ 0 of some tasks, shape (T,), divided by their sum; equal ones where that is zero."""
    total = weights.sum()
    if total > 0:
        return weights / total
    return torch.full_like(weights, 1 / len(weights))
