"""What every balancing method is: a module that turns T task losses into gradients.

A loss-level method defines `forward`, the scalar to differentiate. The weight it gives to task i is the
derivative of that scalar with respect to L_i, so `backward` can return the weights of any method.

A gradient method sees the T gradients as the rows of one matrix J, and mostly needs no more of them than the
Gram matrix M = J Jᵀ: it defines `task_weights`, the α of the direction d = Jᵀ α.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from mtl_ref.checks import NO_FLOAT64, as_vector, check_losses, check_on_graph, in_float64
from mtl_ref.gradients import (
    add_to_grad,
    check_separates,
    gram,
    split_like,
    task_gradients,
    weighted_sum,
    what_to_combine,
)


class Balancer(nn.Module):
    """Common ground of all methods.

    Attributes:
        exact: names of buffers in float64. They keep that type when the module takes another, and stay on the
            CPU when it goes to a device without float64.
    """

    exact: tuple[str, ...] = ()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        kept = {name: self._buffers[name] for name in self.exact}
        self._buffers.update(dict.fromkeys(self.exact))  # passed over
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in kept.items():
            if buffer is not None:
                device = fn(buffer.new_empty(0, dtype=torch.float32)).device
                self._buffers[name] = buffer.to("cpu" if device.type in NO_FLOAT64 else device)
        return self


class KeepsInitial(nn.Module):
    """Part of a method that keeps the losses of its first call, shape (T,); empty before.

    T is not known beforehand, and a buffer that changes its shape breaks each copy of the model, as an EMA has
    one. So they are no buffer, but still in `state_dict`, and go where the losses are when they are used.
    """

    initial: Tensor

    def get_extra_state(self) -> Tensor:
        """What `state_dict` saves."""
        return self.initial

    def set_extra_state(self, state: Tensor) -> None:
        """What `load_state_dict` restores."""
        self.initial = state.clone()


class TakesPriorities(nn.Module):
    """Part of a method that takes a user's own weights v, which count after the method's scaling.

    They come from the constructor, as the other arguments do, and are no part of `state_dict`.

    Attributes:
        priorities: v, shape (T,), or the number 1, shape (), where none are given.
    """

    priorities: Tensor

    def set_priorities(
        self, priorities: Tensor | Sequence[float] | None, num_tasks: int | None = None, mean_one: bool = False
    ) -> None:
        """Keep v, or raise a ValueError; with `mean_one` divided by its mean, so that a factor drops out."""
        v = torch.ones(()) if priorities is None else as_vector(priorities, "the priority", positive=True)
        if v.ndim == 1 and num_tasks not in (None, len(v)):
            raise ValueError(f"this method was built for {num_tasks} tasks but was given {len(v)} priorities.")
        self.register_buffer("priorities", v / v.double().mean() if mean_one else v, persistent=False)

    @property
    def tasks_with_priority(self) -> int | None:
        """How many tasks the priorities are for; None where none are given, which fit any number."""
        return len(self.priorities) if self.priorities.ndim else None

    def extra_repr(self) -> str:
        """The priorities, if some are given: what a checkpoint must agree on."""
        return f"priorities={self.priorities.tolist()}" if self.priorities.ndim else ""


class LossBalancer(Balancer):
    """A method that combines the losses into one scalar, and differentiates that."""

    def forward(self, losses: Tensor) -> Tensor:
        """Combine losses of shape (T,) into the scalar, shape (), to differentiate."""
        raise NotImplementedError

    def backward(
        self,
        losses: Tensor,
        *,
        shared: Iterable[nn.Parameter] | None = None,
        features: Tensor | Sequence[Tensor] | None = None,
        retain_graph: bool = False,
    ) -> Tensor | None:
        """Add the gradients of `forward(losses)` to `.grad` of all that the losses depend on.

        Args:
            losses: the task losses, shape (T,), on the graph.
            shared: accepted and unused, so that loss-level and gradient methods swap freely.
            features: accepted and unused, likewise.
            retain_graph: whether the graph stays for another backward pass, as in PyTorch.

        Returns:
            The task weights that were used, ∂ forward / ∂ L_i, shape (T,).

        Raises:
            ValueError: the losses are not finite floating-point numbers of shape (T,) on a graph, or break
                a condition of the method. Nothing has been changed by then.
        """
        check_on_graph(losses)
        total = self(losses)
        weights: list[Tensor] = []
        hook = losses.register_hook(weights.append)  # type: ignore[no-untyped-call]
        try:
            total.backward(retain_graph=retain_graph)
        finally:
            hook.remove()
        return weights[0].clone()


class GradientBalancer(Balancer):
    """A method that combines the gradients of the tasks into one direction to subtract."""

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        """The weights α of the direction d = Jᵀ α.

        Args:
            M: the Gram matrix J Jᵀ of the gradients, shape (T, T), float64, finite.
            losses: the task losses, shape (T,), float64, for the methods that use them.

        Returns:
            α of shape (T,), float64.
        """
        raise NotImplementedError

    def combine(self, gradients: Tensor, losses: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The direction, shape (P,), and its task weights, shape (T,), or None if it is no weighted sum.

        The direction is rounded once, to the type of the gradients; the weights are in float32 at least. Gradients
        or losses that are not finite pass through: they give a direction of nan, so that a GradScaler sees them
        and skips the step.
        """
        if gradients.ndim != 2 or len(gradients) == 0 or not gradients.is_floating_point():
            raise ValueError(
                "gradients must be a floating-point tensor of shape (T, P), one row per task, but has shape "
                f"{tuple(gradients.shape)} and type {gradients.dtype}."
            )
        J = gradients.detach()  # (T, P)
        M = gram(J)  # (T, T)
        exact = None if losses is None else in_float64(losses.detach()).to(M.device)
        if M.isfinite().all() and (exact is None or exact.isfinite().all()):
            alpha = self.task_weights(M, exact)  # (T,)
        else:
            alpha = torch.full_like(M[0], torch.nan)
        d = weighted_sum(alpha, J)
        return d.to(J.dtype), alpha.to(d.dtype).to(d.device)

    def forward(self, gradients: Tensor, losses: Tensor | None = None) -> Tensor:
        """The direction d to subtract, shape (P,), from the T gradients, shape (T, P)."""
        return self.combine(gradients, losses)[0]

    def check(self, losses: Tensor) -> None:
        """Raise a ValueError for losses that the method cannot take; a method with conditions adds to it."""
        check_losses(losses)

    def backward(
        self,
        losses: Tensor,
        *,
        shared: Iterable[Tensor] | None = None,
        features: Tensor | Sequence[Tensor] | None = None,
        retain_graph: bool = False,
    ) -> Tensor | None:
        """Add the direction to `.grad` of what the tasks share, and each task's own gradient to the rest.

        Exactly one of the two is given. All other parameters receive the unscaled gradients of the losses that
        depend on them (Sener and Koltun 2018, Algorithm 2, line 2).

        Args:
            losses: the task losses, shape (T,), on the graph.
            shared: the shared parameters. Their T gradients are found by T backward passes and combined.
            features: the shared representation Z: all that the heads take from the encoder, one tensor or
                several, none computed from another. The gradients with respect to Z are combined instead, and
                the result goes back through the encoder once.
            retain_graph: whether the graph stays for another backward pass, as in PyTorch.

        Returns:
            The task weights α of the direction, shape (T,), or None if it is no weighted sum.

        Raises:
            ValueError: the losses are not finite floating-point numbers of shape (T,) on a graph, or break a
                condition of the method; both or neither of `shared` and `features` are given; no tensor in them
                requires a gradient or is reached by a loss; a shared parameter is no leaf; the features do not
                separate the heads from the encoder. Nothing has been changed by then.
        """
        self.check(losses)
        check_on_graph(losses)
        inputs = what_to_combine(losses, shared, features)
        if shared is None:
            check_separates(inputs, losses)
        d, weights = self.combine(task_gradients(losses, inputs, retain_graph), losses)  # J of shape (T, P)
        pieces = [piece.view_as(x).to(x) for piece, x in zip(split_like(d, inputs), inputs, strict=True)]
        if shared is not None:
            for parameter, piece in zip(inputs, pieces, strict=True):
                add_to_grad(parameter, piece)
        else:
            torch.autograd.backward(inputs, pieces, retain_graph=retain_graph)
        return weights
