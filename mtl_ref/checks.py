"""What bad input is, and how it is said: the task, the value, and what was expected."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

NO_FLOAT64 = ("mps",)  # devices, Apple's, on which float64 does not exist


def in_float64(x: Tensor) -> Tensor:
    """A tensor in float64, on its own device, or on the CPU if that has no float64."""
    return (x.cpu() if x.device.type in NO_FLOAT64 else x).double()


def check_losses(losses: object, num_tasks: int | None = None, positive: bool = False, kept: bool = False) -> None:
    """Raise a ValueError that names the task, the value and what was expected.

    An infinite loss in float16 is no error: with a GradScaler it says that the scale is too large. Its gradients
    are inf or nan, so that the scaler sees them, skips the step and goes on with a smaller scale. In all other
    types no scale is that large: there inf, and everywhere nan, is an error of the model.

    Args:
        losses: what should be T finite floating-point losses, shape (T,).
        num_tasks: the T that the method was built for, if it was built for one.
        positive: whether the method divides by the losses or takes their logarithm.
        kept: whether the method keeps these losses as state: then they must be finite in float16 too.
    """
    losses = check_vector(losses)
    if num_tasks is not None and len(losses) != num_tasks:
        raise ValueError(f"this method was built for {num_tasks} tasks but was given {len(losses)} losses.")
    bad = losses.isnan() if losses.dtype == torch.float16 and not kept else ~losses.isfinite()
    if positive:
        bad = bad | (losses <= 0)
    if bad.any():
        task = int(bad.nonzero()[0])
        raise ValueError(
            f"the loss of task {task} (counting from 0) is {losses[task].item()}, but every loss must be "
            + ("positive and finite: this method divides by it." if positive else "finite.")
        )


def check_tensor(losses: object) -> Tensor:
    """The losses as they are, or a ValueError if they are a list, a dict or a number."""
    if not isinstance(losses, Tensor):
        raise ValueError(
            f"losses must be one tensor of shape (T,), one loss per task, but is a {type(losses).__name__}. "
            "Use torch.stack([loss_1, loss_2, ...]), of a dict torch.stack(list(losses.values()))."
        )
    return losses


def check_vector(losses: object) -> Tensor:
    """The losses as they are, or a ValueError if they are no floating-point tensor of shape (T,), T ≥ 1."""
    losses = check_tensor(losses)
    if losses.ndim != 1 or len(losses) == 0 or not losses.is_floating_point():
        raise ValueError(
            f"losses must be a floating-point tensor of shape (T,), one loss per task, but has shape "
            f"{tuple(losses.shape)} and type {losses.dtype}. Use torch.stack([loss_1, loss_2, ...])."
        )
    return losses


def check_present(present: Tensor | Sequence[float] | None, losses: Tensor) -> Tensor:
    """The numbers of labels, shape (T,), float64, from them or from truth values; all 1 where None is given."""
    n = torch.ones_like(losses) if present is None else torch.as_tensor(present, device=losses.device).detach()
    n = in_float64(n)
    if n.shape != losses.shape or not n.isfinite().all() or (n < 0).any():
        raise ValueError(
            f"present must hold True or False for each of {len(losses)} tasks, or its number of labels in this "
            f"batch, but is {n.tolist()}."
        )
    return n


def check_rows(gradients: Tensor) -> None:
    """Raise a ValueError if gradients are no floating-point matrix of shape (T, P), T ≥ 1."""
    if gradients.ndim != 2 or len(gradients) == 0 or not gradients.is_floating_point():
        raise ValueError(
            "gradients must be a floating-point tensor of shape (T, P), one row per task, but has shape "
            f"{tuple(gradients.shape)} and type {gradients.dtype}."
        )


def check_on_graph(losses: object) -> None:
    """Raise a ValueError if no gradient can flow back from the losses; `check_losses` says what else is wrong."""
    losses = check_tensor(losses)
    if losses.is_floating_point() and not losses.requires_grad:
        raise ValueError(
            "losses are not on a graph, so there is nothing to differentiate. They may have been detached, "
            "turned into numbers, or computed under torch.no_grad()."
        )


def as_memory(losses: Tensor, like: Tensor) -> Tensor:
    """The losses as a method may keep them: off the graph, a copy, with the device and type of another tensor."""
    return in_float64(losses.detach()).to(like.device, like.dtype, copy=True)


def check_num_tasks(num_tasks: int) -> int:
    """The number of tasks as it is, or a ValueError if it is less than one."""
    if num_tasks < 1:
        raise ValueError(f"num_tasks is {num_tasks}, but must be at least 1.")
    return num_tasks


def check_positive(value: float, name: str, zero: bool = False) -> float:
    """A number as it is, or a ValueError if it is not finite, negative, or zero unless that is allowed."""
    if not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
        expected = "a finite number that is not negative" if zero else "a finite positive number"
        raise ValueError(f"{name} is {value}, but must be {expected}.")
    return value


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


def check_gram(M: Tensor, size: int | None = None) -> Tensor:
    """Return M in float64, its two halves made equal, or raise a ValueError that says what is wrong with it.

    What rounding does to J Jᵀ, in float32 or bfloat16, passes; what no gradients can have does not.
    """
    expected = "(T, T)" if size is None else f"({size}, {size})"
    if M.ndim != 2 or M.shape[0] != M.shape[1] or len(M) == 0 or size not in (None, len(M)):
        raise ValueError(f"a Gram matrix of shape {expected} is needed, but M has shape {tuple(M.shape)}.")
    M = in_float64(M.detach())
    if not M.isfinite().all():
        raise ValueError("M has entries that are not finite.")
    A = M.cpu().numpy()
    norms = np.sqrt(np.maximum(A.diagonal(), 0) + np.finfo(np.float32).tiny)  # ‖gᵢ‖, or 1e-19 if that is more
    C = A / norms / norms[:, None]
    for excess, what in ((C - C.T, "M[i, j] = M[j, i]"), (abs(C) - 1, "|M[i, j]| ≤ ‖gᵢ‖ ‖gⱼ‖")):
        if excess.max() > 0.01:
            i, j = sorted(divmod(int(excess.argmax()), len(A)))
            raise ValueError(
                f"M is no Gram matrix J Jᵀ of gradients, for which {what}: M[{i}, {j}] is {A[i, j]:.6g}, "
                f"M[{j}, {i}] is {A[j, i]:.6g}, and M[{i}, {i}] is {A[i, i]:.6g}."
            )
    return M + (M.T - M) / 2
