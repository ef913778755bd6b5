"""Projections on the dual cone, where no loss rises: UPGrad, and the projection of the mean (chapter 12).

Sources: Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", 2024, arXiv 2406.16232; Lopez-Paz
and Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017, arXiv 1706.08840.
"""

import torch
from torch import Tensor

from mtl_ref.balancer import GradientBalancer
from mtl_ref.solvers.dual_cone import onto_dual_cone
from mtl_ref.solvers.unit import per_length, unit_gram


class UPGrad(GradientBalancer):
    """The mean of the projections π(gᵢ) of the gradients on the dual cone {d : ⟨gⱼ, d⟩ ≥ 0 for every j}.

    Found exactly. TorchJD adds 10⁻⁴ to the diagonal of the scaled Gram matrix, with which a loss may rise
    where the gradients differ in length.
    """

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        norms, C = unit_gram(M)
        each = torch.eye(len(C)).to(C)
        projected = onto_dual_cone(C, each)  # (DC.1)  π(uᵢ), a row each
        alpha = norms @ projected / len(C)  # (UP.1)  π(gᵢ) = ‖gᵢ‖ π(uᵢ)
        return per_length(alpha, norms)


class DualProj(GradientBalancer):
    """The projection of the mean gradient on the dual cone: the closest direction in which no loss rises."""

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        norms, C = unit_gram(M)
        scale = norms.max().clamp(min=torch.finfo(norms.dtype).tiny)
        e = norms / scale / len(C)  # the mean, in units of the longest
        alpha = scale * onto_dual_cone(C, e[None])[0]  # (DP.1)
        return per_length(alpha, norms)
