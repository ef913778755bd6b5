"""Gradients of one length, by their Gram matrix: many methods do not change with the lengths, or change simply."""

import torch
from torch import Tensor

from mtl_ref.checks import check_gram

RANK = 1e-12  # an eigenvalue below this share of the largest one is rounding


def unit_gram(M: Tensor) -> tuple[Tensor, Tensor]:
    """The lengths ‖gᵢ‖, shape (T,), and the cosines ⟨uᵢ, uⱼ⟩ of the unit gradients uᵢ = gᵢ/‖gᵢ‖, shape (T, T).

    A gradient of zero has the length 0 and the cosine 0 with every gradient, itself included.

    Raises:
        ValueError: M is not a finite symmetric matrix, or no Gram matrix.
    """
    M = check_gram(M)
    norms = M.diag().clamp(min=0).sqrt()
    return norms, per_length(per_length(M, norms), norms[:, None])


def per_length(weights: Tensor, norms: Tensor) -> Tensor:
    """Weights of the unit gradients as weights of the gradients: divided by ‖gᵢ‖, where that is not zero."""
    return weights / torch.where(norms > 0, norms, 1.0)
