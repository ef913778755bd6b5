"""Scalars whose minimum is one chosen point of the Pareto front: Chebyshev, STCH, PBI and COSMOS (chapter 13).

Sources: Lin, Zhang, Yang, Liu, Wang and Zhang, "Smooth Tchebycheff Scalarization for Multi-Objective
Optimization", ICML 2024, arXiv 2402.19078, equations 4 and 6; Zhang and Li, "MOEA/D: A Multiobjective
Evolutionary Algorithm Based on Decomposition", IEEE Transactions on Evolutionary Computation 11, 2007; Ruchte and
Grabocka, "Scalable Pareto Front Approximation for Deep Multi-Objective Learning", ICDM 2021, arXiv 2103.13392.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ref.balancer import LossBalancer
from mtl_ref.checks import as_vector, check_losses, check_positive, in_float64

Numbers = Tensor | Sequence[float] | None


class Scalarization(LossBalancer):
    """Part of a method: weights λ > 0, 1/T where None and an ideal point z*, 0 where None, shape (T,) each."""

    per_task: tuple[str, ...] = ("weights", "ideal")
    weights: Tensor
    ideal: Tensor

    def __init__(self, weights: Numbers = None, ideal: Numbers = None) -> None:
        super().__init__()
        w = torch.ones(()) if weights is None else as_vector(weights, "the weight", positive=True)
        z = torch.zeros(()) if ideal is None else as_vector(ideal, "the ideal loss")
        if w.ndim == z.ndim == 1 and len(w) != len(z):
            raise ValueError(f"there are {len(w)} weights, but {len(z)} ideal losses.")
        self.register_buffer("weights", w)
        self.register_buffer("ideal", z)

    def given(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        """λ and L − z*, shape (T,) each, float64."""
        for vector in (self.weights, self.ideal):
            check_losses(losses, len(vector) if vector.ndim else None)
        x = in_float64(losses)
        w = self.weights.to(x) if self.weights.ndim else torch.full_like(x.detach(), 1 / len(x))
        return w, x - self.ideal.to(x)


class Chebyshev(Scalarization):
    """max λᵢ (Lᵢ − zᵢ*): the worst loss alone, or the worst ones in equal shares.

    Args:
        weights: λ, shape (T,), all > 0. Where None, all are 1/T.
        ideal: z*, shape (T,), all ≥ 0. Where None, zero.

    Raises:
        ValueError: a number is not finite or negative, a weight is zero, or there are not as many of both.
    """

    def forward(self, losses: Tensor) -> Tensor:
        w, x = self.given(losses)
        return torch.amax(w * x, 0).to(losses)  # (CH.1)


class STCH(Scalarization):
    """μ log Σ exp(λᵢ (Lᵢ − zᵢ*)/μ): the maximum, smoothed; a large μ tends to the sum, a small one to the maximum.

    The paper's form. Its released code and LibMTL's take log(Lᵢ/nadirᵢ) in place of the loss, after a warm-up.

    Args:
        mu: μ > 0, in the unit of the weighted losses.
        weights, ideal: as in `Chebyshev`.

    Raises:
        ValueError: as in `Chebyshev`, or mu is not positive and finite.
    """

    def __init__(
        self,
        mu: float,
        weights: Numbers = None,
        ideal: Numbers = None,
    ) -> None:
        super().__init__(weights, ideal)
        self.mu = check_positive(mu, "mu")

    def forward(self, losses: Tensor) -> Tensor:
        w, x = self.given(losses)
        smooth = torch.logsumexp(w * x / self.mu, 0)
        total: Tensor = self.mu * smooth  # (ST.1)
        return total.to(losses)

    def extra_repr(self) -> str:
        return f"mu={self.mu}"


class PBI(Scalarization):
    """d₁ + θ d₂: how far the losses are along the ray λ, and how far from it.

    Args:
        theta: θ ≥ 0. The paper's experiments have 5.
        weights, ideal: as in `Chebyshev`; the length of λ does not count.

    Raises:
        ValueError: as in `Chebyshev`, or theta is negative or not finite.
    """

    def __init__(
        self,
        theta: float = 5.0,
        weights: Numbers = None,
        ideal: Numbers = None,
    ) -> None:
        super().__init__(weights, ideal)
        self.theta = check_positive(theta, "theta", zero=True)

    def forward(self, losses: Tensor) -> Tensor:
        w, x = self.given(losses)
        ray = w / w.norm()
        along = x @ ray  # (PB.1)
        away = torch.linalg.vector_norm(x - along * ray)  # (PB.2)
        total: Tensor = along + self.theta * away  # (PB.3)
        return total.to(losses)

    def extra_repr(self) -> str:
        return f"theta={self.theta}"


class COSMOS(Scalarization):
    """Σ λᵢ Lᵢ − κ cos(λ, L): the weighted sum, less a reward for losses in the ratio of the weights.

    The objective alone. The paper's method also draws λ for each batch, and tells the network.

    Args:
        penalty: κ ≥ 0, the paper's λ.
        weights: λ, shape (T,), all > 0. Where None, all are 1/T.

    Raises:
        ValueError: penalty is negative or not finite, or a weight is not positive and finite.
    """

    def __init__(self, penalty: float = 1.0, weights: Numbers = None) -> None:
        super().__init__(weights)
        self.penalty = check_positive(penalty, "penalty", zero=True)

    def forward(self, losses: Tensor) -> Tensor:
        w, x = self.given(losses)
        cosine = w @ x / (w.norm() * x.norm())  # (CM.1)
        total: Tensor = w @ x - self.penalty * cosine  # (CM.2)
        return total.to(losses)

    def extra_repr(self) -> str:
        return f"penalty={self.penalty}"
