"""MGDA: step along the shortest vector in the convex hull of the gradients (chapters 7 and 8).

Sources: Désidéri, Comptes Rendus Mathématique 350, 2012; Sener and Koltun, NeurIPS 2018, and their released
code for the normalisers.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mtl_ref.balancer import GradientBalancer
from mtl_ref.checks import check_losses
from mtl_ref.solvers.min_norm import min_norm

NORMALIZERS = ("none", "l2", "loss", "loss+")


class MGDA(GradientBalancer):
    """d = Σ αᵢ sᵢ gᵢ, the min-norm point of the scaled gradients: no task's loss rises along −d, to first order.

    With `backward(losses, features=z)` it is MGDA-UB. A zero gradient makes d zero: one task cannot be
    improved, so the point is Pareto stationary.

    Args:
        solver: from the Gram matrix (T, T) to the weights (T,): `min_norm`, exact and the one to take at any T, a
            thousand included; `frank_wolfe`, the paper's, which is not exact; or `min_norm_two`.
            One that takes a single T, like the last, says so in an attribute `num_tasks`.
        normalize: the scale sᵢ: "none" is 1, "l2" is 1/‖gᵢ‖, "loss" is 1/Lᵢ, "loss+" is 1/(Lᵢ ‖gᵢ‖). Sener and
            Koltun's code finds α from the scaled gradients but applies it to the losses as they are; here it
            applies to the gradients that it was found for, so that d is a common descent direction. Except
            with "none", d stays as it is when all losses are multiplied by one factor; "loss+" divides it by
            the factor. A GradScaler multiplies the losses and divides the gradients: it fits "none" only.

    Raises:
        ValueError: normalize is none of the four. In use: a loss is not positive with "loss" or "loss+", or
            there are not two tasks with `min_norm_two`.
    """

    def __init__(
        self,
        solver: Callable[[Tensor], Tensor] = min_norm,
        normalize: str = "none",
    ) -> None:
        super().__init__()
        if normalize not in NORMALIZERS:
            raise ValueError(f"normalize is {normalize!r}, but must be one of {list(NORMALIZERS)}.")
        self.solver = solver
        self.normalize = normalize

    def check(self, losses: Tensor) -> None:
        num_tasks = getattr(self.solver, "num_tasks", None)
        check_losses(losses, num_tasks, positive="loss" in self.normalize)

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        s = self.scale(M, losses)  # (T,)
        alpha = self.solver(s[:, None] * M * s)  # (MG.1)
        return alpha * s  # (MG.2)

    def scale(self, M: Tensor, losses: Tensor | None) -> Tensor:
        """The factor of each gradient, shape (T,)."""
        s = torch.ones_like(M[0])
        if self.normalize in ("l2", "loss+"):
            norms = M.diag().sqrt()
            s = s / torch.where(norms > 0, norms, 1.0)  # (MG.3)
        if self.normalize in ("loss", "loss+"):
            if losses is None:
                raise ValueError(f"normalize={self.normalize!r} needs the losses: call with (gradients, losses).")
            check_losses(losses, num_tasks=len(M), positive=True)
            s = s / losses  # (MG.4)
        return s

    def extra_repr(self) -> str:
        return f"solver={getattr(self.solver, '__name__', self.solver)}, normalize={self.normalize}"
