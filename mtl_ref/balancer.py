"""What every balancing method is: a module that turns T task losses into gradients.

A loss-level method defines `forward`, the scalar to differentiate. The weight it gives to task i is the
derivative of that scalar with respect to L_i, so `backward` can return the weights of any method.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Balancer(nn.Module):
    """Common ground of all methods: state that starts empty takes its shape when it is loaded."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, buffer in self._buffers.items():
            saved = state_dict.get(prefix + name)
            if buffer is not None and saved is not None and buffer.numel() == 0:
                setattr(self, name, buffer.new_empty(saved.shape, dtype=saved.dtype))
        super()._load_from_state_dict(state_dict, prefix, *args)


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
    ) -> Tensor | None:
        """Add the gradients of `forward(losses)` to `.grad` of all that the losses depend on.

        Args:
            losses: the task losses, shape (T,), on the graph.
            shared: accepted and unused, so that loss-level and gradient methods swap freely.
            features: accepted and unused, likewise.

        Returns:
            The task weights that were used, ∂ forward / ∂ L_i, shape (T,).

        Raises:
            ValueError: the losses are not finite floating-point numbers of shape (T,) on a graph, or break
                a condition of the method. Nothing has been changed by then.
        """
        check_on_graph(losses)
        total = self(losses)
        (weights,) = torch.autograd.grad(total, losses, retain_graph=True)
        total.backward()
        return weights


def check_losses(losses: Tensor, num_tasks: int | None = None, positive: bool = False) -> None:
    """Raise a ValueError that names the task, the value and what was expected.

    Args:
        losses: what should be T finite floating-point losses, shape (T,).
        num_tasks: the T that the method was built for, if it was built for one.
        positive: whether the method divides by the losses or takes their logarithm.
    """
    if losses.ndim != 1 or len(losses) == 0 or not losses.is_floating_point():
        raise ValueError(
            f"losses must be a floating-point tensor of shape (T,), one loss per task, but has shape "
            f"{tuple(losses.shape)} and type {losses.dtype}. Use torch.stack([loss_1, loss_2, ...])."
        )
    if num_tasks is not None and len(losses) != num_tasks:
        raise ValueError(f"this method was built for {num_tasks} tasks but was given {len(losses)} losses.")
    bad = ~torch.isfinite(losses)
    if positive:
        bad = bad | (losses <= 0)
    if bad.any():
        task = int(bad.nonzero()[0])
        raise ValueError(
            f"the loss of task {task} (counting from 0) is {losses[task].item()}, but every loss must be "
            + ("positive and finite: this method divides by it." if positive else "finite.")
        )


def check_on_graph(losses: Tensor) -> None:
    """Raise a ValueError if no gradient can flow back from the losses."""
    if not losses.requires_grad:
        raise ValueError(
            "losses are not on a graph, so there is nothing to differentiate. They may have been detached, "
            "turned into numbers, or computed under torch.no_grad()."
        )


def as_vector(values: Tensor | Sequence[float], name: str, positive: bool = False) -> Tensor:
    """Return T numbers as a floating-point tensor of shape (T,); they must be finite, and ≥ 0 or > 0."""
    vector = torch.as_tensor(values).detach().clone()
    if not vector.is_floating_point():
        vector = vector.to(torch.get_default_dtype())
    if vector.ndim != 1 or len(vector) == 0:
        raise ValueError(f"{name} must hold one number per task, but has shape {tuple(vector.shape)}.")
    bad = ~torch.isfinite(vector) | (vector <= 0 if positive else vector < 0)
    if bad.any():
        task = int(bad.nonzero()[0])
        raise ValueError(
            f"{name} of task {task} (counting from 0) is {vector[task].item()}, but must be finite and "
            + ("positive." if positive else "not negative.")
        )
    return vector
