"""The engine of the single files that readers may copy: one process, and every task in every batch.

That of the package (`mtl_ref.balancer`) also takes several processes, missing labels, micro-batches and mixed
precision, and looks at what it is given.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class TakesPriorities(nn.Module):
    """Part of a method that takes a user's own weights v, shape (T,)."""

    def set_priorities(
        self,
        priorities: Tensor | Sequence[float] | None,
        num_tasks: int | None = None,
        mean_one: bool = False,
    ) -> None:
        """Keep v; with `mean_one` divided by its mean."""
        v = torch.as_tensor(1.0 if priorities is None else priorities)
        self.register_buffer("priorities", v / v.mean() if mean_one else v)


class KeepsInitial(nn.Module):
    """Part of a method that keeps the first losses, shape (T,). Save and restore `initial` yourself."""

    def at_first(self, losses: Tensor) -> Tensor:
        """L(0), shape (T,)."""
        if len(self.initial) == 0:
            self.initial = losses.detach().clone()
        return self.initial.to(losses.device)


class LooksAfter(nn.Module):
    """Part of a method that learns from the losses before and after a step."""

    def update(self, losses: Tensor) -> None:
        """Learn from the losses after the step, shape (T,)."""
        self.learn(self.before, losses.detach().double())


class Remembers(nn.Module):
    """Part of a method that keeps a tensor from step to step. Save and restore it yourself."""


class LossBalancer(nn.Module):
    """A method that combines the losses, shape (T,), into one scalar."""

    sees_norms = False

    def backward(
        self,
        losses: Tensor,
        *,
        shared: Iterable[nn.Parameter] | None = None,
        features: Tensor | None = None,
    ) -> Tensor:
        """Leave the gradients of `forward(losses)`; returns the task weights, shape (T,)."""
        if self.sees_norms:
            inputs = list(shared) if features is None else [features]
            weights = self.weights_at(losses.detach(), task_gradients(losses, inputs).norm(dim=1))
            (weights * losses).sum().backward()
            return weights
        losses.retain_grad()
        self(losses).backward()
        return losses.grad


class GradientBalancer(nn.Module):
    """A method that combines the gradients of the tasks into one direction to subtract."""

    there = None

    def factors(self, losses: Tensor) -> Tensor | float:
        """What each loss is multiplied by first, shape (T,)."""
        return 1.0

    def combine(self, J: Tensor, losses: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """d = Jᵀ α, shape (P,), with the weights α, shape (T,), from the Gram matrix M = J Jᵀ in float64."""
        alpha = self.task_weights(gram(J), losses).to(J)
        return alpha @ J, alpha

    def forward(self, gradients: Tensor, losses: Tensor | None = None) -> Tensor:
        """The direction d, shape (P,), from J, shape (T, P)."""
        losses = None if losses is None else losses.detach().double()
        return self.combine(gradients.detach(), losses)[0]

    def backward(
        self,
        losses: Tensor,
        *,
        shared: Iterable[nn.Parameter] | None = None,
        features: Tensor | None = None,
    ) -> Tensor | None:
        """Leave d on the shared parameters, or send it back through the features, and return α, shape (T,).

        All other parameters receive the gradients of the losses that depend on them, unscaled.
        """
        inputs = list(shared) if features is None else [features]
        multiplied = losses * self.factors(losses.detach())
        J = task_gradients(multiplied, inputs)  # (T, P)
        self.sizes = [x.numel() for x in inputs]
        d, alpha = self.combine(J, losses.detach().double())
        pieces = d.split([x.numel() for x in inputs])
        directions = [piece.view_as(x) for piece, x in zip(pieces, inputs, strict=True)]
        hooks = [x.register_hook(lambda _, d=d: d) for x, d in zip(inputs, directions, strict=True)]
        multiplied.sum().backward()  # where a hook is, its d goes on in place of the sum of the gradients
        for hook in hooks:
            hook.remove()
        return alpha


class Wraps(GradientBalancer):
    """A method around another."""

    def __init__(self, inner: GradientBalancer) -> None:
        super().__init__()
        self.inner = inner


class MatrixBalancer(GradientBalancer):
    """A method that needs the gradients themselves."""

    def combine(self, J: Tensor, losses: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The direction, shape (P,), from J, shape (T, P), and its weights, if it is a weighted sum."""
        return self.mix(J, losses)


class RemembersGradients(MatrixBalancer):
    """A method that keeps a number for each entry, shape (T, P). Save and restore `kept` yourself."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = torch.empty(0)

    def last(self, J: Tensor) -> Tensor:
        """What is kept, shape (T, P)."""
        return self.kept.to(J) if len(self.kept) else torch.zeros_like(J)


def gram(J: Tensor) -> Tensor:
    """The Gram matrix J Jᵀ, shape (T, T), in float64."""
    exact = J.double()
    return exact @ exact.T


def task_gradients(losses: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """The T gradients with respect to the inputs, the rows of J, shape (T, P)."""
    rows = []
    for loss in losses:
        found = torch.autograd.grad(loss, inputs, retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([gradient.flatten() for gradient in found]))
    return torch.stack(rows)
