"""The shortest vector in the convex hull of T gradients, from their Gram matrix M = J Jᵀ (chapters 6 and 7).

All solvers take M of shape (T, T) and return the weights α of shape (T,), float64, α ≥ 0 and Σ α = 1, of the
min-norm point ĝ = Jᵀ α. They need only inner products: (M α)ᵢ = ⟨gᵢ, ĝ⟩ and αᵀ M α = ‖ĝ‖².

Sources: Désidéri, Comptes Rendus Mathématique 350, 2012; Sener and Koltun, NeurIPS 2018, Algorithms 1 and 2;
Wolfe, Mathematical Programming 11, 1976 (min-norm point by an active set).
"""

import numpy as np
import torch
from torch import Tensor

from mtl_ref.checks import check_gram


def min_norm_two(M: Tensor) -> Tensor:
    """The exact solution for two gradients; its first weight belongs to the first gradient.

    The two numerators of (MN.1) add up to its denominator ‖g₁ − g₂‖², so they are clipped instead of the quotient:
    the weights sum to 1 whatever rounding does, and each of them is precise, however small. Equal gradients share
    the weight.

    Raises:
        ValueError: M is not the Gram matrix of two gradients.
    """
    M = check_gram(M, 2)
    # ⟨g₂ − g₁, g₂⟩ and ⟨g₁ − g₂, g₁⟩
    toward = torch.stack([M[1, 1] - M[0, 1], M[0, 0] - M[0, 1]])
    toward = toward.clamp(min=0)
    distance = toward.sum()  # ‖g₁ − g₂‖², or less where one end takes all
    if distance == 0:
        return torch.full_like(toward, 0.5)
    return toward / distance  # (MN.1)


min_norm_two.num_tasks = 2  # type: ignore[attr-defined]


def frank_wolfe(
    M: Tensor,
    iterations: int = 250,
    tolerance: float = 1e-8,
) -> Tensor:
    """Sener and Koltun's Algorithm 2, with argmin where slides print argmax.

    Args:
        M: the Gram matrix, shape (T, T).
        iterations: how many steps at most.
        tolerance: it ends when the duality gap is at most this share of the largest ‖gᵢ‖².

    Raises:
        ValueError: M is not a finite square matrix.
    """
    M = check_gram(M)
    alpha = torch.full_like(M[0], 1 / len(M))  # (FW.1)
    for _ in range(iterations):
        if duality_gap(M, alpha) <= tolerance * M.diag().max():
            break
        inner = M @ alpha  # ⟨gᵢ, ĝ⟩
        t = inner.argmin()  # (FW.2)
        between = inner @ alpha - inner[t]  # ⟨ĝ − g_t, ĝ⟩
        distance = inner @ alpha + M[t, t] - 2 * inner[t]  # ‖ĝ − g_t‖²
        gamma = (between / distance).clamp(0, 1)  # (FW.3)
        alpha = (1 - gamma) * alpha  # (FW.4)
        alpha[t] += gamma
    return alpha


def duality_gap(M: Tensor, alpha: Tensor) -> Tensor:
    """‖ĝ‖² − minᵢ ⟨gᵢ, ĝ⟩, shape (): never negative, and zero only at the min-norm point."""
    inner = M @ alpha  # ⟨gᵢ, ĝ⟩
    return inner @ alpha - inner.min()  # (MN.2)


def min_norm(M: Tensor) -> Tensor:
    """The exact solution for T gradients, by an active set: solve on a support, correct the support, repeat.

    It works on unit gradients uᵢ = gᵢ/‖gᵢ‖ and y with yᵢ ∝ αᵢ ‖gᵢ‖, so that gradients of very different length
    are treated with the same relative precision. Where the weights are not unique, as for equal gradients, one
    solution of many comes back; where some gradient is zero, the zero gradients share all the weight. Zero is
    what is shorter than 7e-161: float64 does not hold three digits of its square.

    The answer is as good as M is. Formed in float32, M may have eigenvalues below zero, as no J Jᵀ has: then the
    answer is that of M with twice the lowest of them taken off its diagonal, in units of ‖gᵢ‖².

    Raises:
        ValueError: M is not a finite symmetric matrix, or has eigenvalues too far below zero for a J Jᵀ.
    """
    M = check_gram(M)
    square = M.diag().cpu().numpy()  # ‖gᵢ‖²
    zero = square < 1000 * np.finfo(square.dtype).smallest_subnormal
    if zero.any():
        return torch.from_numpy(zero / zero.sum()).to(M)
    norms = np.sqrt(square)
    C = M.cpu().numpy() / norms / norms[:, None]  # ⟨uᵢ, uⱼ⟩
    b = norms.min() / norms  # Σ α = 1 reads b·y = constant
    alpha = torch.from_numpy(active_set(C, b) * b).to(M)
    return alpha / alpha.sum()


def active_set(C: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The minimiser of yᵀ C y over y ≥ 0, b·y = 1, starting with every task in the support.

    It ends. Between two visits to (MN.4) the support only shrinks. There, y is the minimiser on the support, and
    lower than at the visit before, so in exact arithmetic no support comes twice; when rounding brings one back,
    what is left to gain is of its size too, and that visit is the last. Over 40,000 hard draws of up to 40
    gradients there were 3 solves in the median, 22 in one of a hundred, and 66 at most.
    """
    ridge = rounding(C)
    # strictly convex: equal and opposite gradients can be solved
    C = C + ridge * np.eye(len(b))
    y = np.full(len(b), 1 / b.sum())
    support, visited = np.full(len(b), True), set()
    while True:
        target = np.zeros_like(y)
        within = C[np.ix_(support, support)]
        target[support] = np.linalg.solve(within, b[support])
        # yᵀ C y at the target: as a product, it would drown in rounding
        least = 1 / (b @ target)
        target *= least  # (MN.3)
        clipped = np.maximum(target, 0) / (b @ np.maximum(target, 0))
        if (target >= 0).all():
            y = target
            lower = C @ y - least * b < -ridge * y.sum()  # (MN.4)
            newcomers = ~support & lower
            if not newcomers.any() or support.tobytes() in visited:
                return y
            visited.add(support.tobytes())
            support = support | newcomers
        elif clipped @ C @ clipped < y @ C @ y:
            # all that is negative leaves at once
            y = clipped
            support = y > 0
        else:
            left = np.flatnonzero(target < 0)
            steps = y[left] / (y[left] - target[left])
            y = np.maximum(y + steps.min() * (target - y), 0)  # (MN.5)
            support[left[steps == steps.min()]] = False


def rounding(C: np.ndarray) -> float:
    """How far rounding may have moved the eigenvalues of M, in units of ‖gᵢ‖²; if too far for a J Jᵀ, an error."""
    lowest = np.linalg.eigvalsh(C)[0]
    if lowest < -0.01:
        raise ValueError(
            f"M, divided by ‖gᵢ‖ ‖gⱼ‖, has an eigenvalue of {lowest:.2g}, but no J Jᵀ has one below zero. What is "
            "needed is the Gram matrix M = J @ J.T of the gradients, formed in float32 or better."
        )
    return float(max(len(C) * np.finfo(C.dtype).eps, -2 * lowest))
