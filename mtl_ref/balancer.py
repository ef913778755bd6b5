"""What every balancing method is: a module that turns T task losses into gradients.

A loss-level method defines `forward`, the scalar to differentiate. The weight it gives to task i is the
derivative of that scalar with respect to L_i, so `backward` can return the weights of any method.

A gradient method sees the T gradients as the rows of one matrix J, and mostly needs no more of them than the
Gram matrix M = J Jᵀ: it defines `task_weights`, the α of the direction d = Jᵀ α.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge


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

        Gradients that are not finite pass through: they give a direction of nan, so that a GradScaler sees
        them and skips the step.
        """
        if gradients.ndim != 2 or len(gradients) == 0 or not gradients.is_floating_point():
            raise ValueError(
                "gradients must be a floating-point tensor of shape (T, P), one row per task, but has shape "
                f"{tuple(gradients.shape)} and type {gradients.dtype}."
            )
        J = gradients.detach()  # (T, P)
        M = gram(J)  # (T, T)
        if M.isfinite().all():
            alpha = self.task_weights(M, None if losses is None else losses.detach().double())  # (T,)
        else:
            alpha = torch.full_like(M[0], torch.nan)
        alpha = alpha.to(J)
        return alpha @ J, alpha

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

        Returns:
            The task weights α of the direction, shape (T,), or None if it is no weighted sum.

        Raises:
            ValueError: the losses are not finite floating-point numbers of shape (T,) on a graph, or break a
                condition of the method; both or neither of `shared` and `features` are given; none of the shared
                parameters requires a gradient; the features do not separate the heads from the encoder.
                Nothing has been changed by then.
        """
        self.check(losses)
        check_on_graph(losses)
        inputs = what_to_combine(shared, features)
        if shared is None:
            check_separates(inputs, losses)
        J = task_gradients(losses, inputs)  # (T, P)
        d, weights = self.combine(J, losses)
        pieces = [piece.view_as(x).to(x.dtype) for piece, x in zip(split_like(d, inputs), inputs, strict=True)]
        if shared is not None:
            for parameter, piece in zip(inputs, pieces, strict=True):
                add_to_grad(parameter, piece)
        else:
            torch.autograd.backward(inputs, pieces)
        return weights


def what_to_combine(shared: Iterable[Tensor] | None, features: Tensor | Sequence[Tensor] | None) -> list[Tensor]:
    """The tensors, of exactly one of the two arguments, whose T gradients are combined; each once."""
    if (shared is None) == (features is None):
        given = "neither" if shared is None else "both"
        raise ValueError(f"give exactly one of shared=parameters and features=representation, not {given}.")
    name, tensors = ("features", features) if shared is None else ("shared", shared)
    inputs = [tensors] if isinstance(tensors, Tensor) else list(dict.fromkeys(tensors or []))
    inputs = [x for x in inputs if x.requires_grad]
    if not inputs:
        raise ValueError(
            f"no tensor in {name} requires a gradient, so there is nothing to combine. It may be empty, frozen, "
            "already used up (an iterator), or detached."
        )
    return inputs


def check_separates(features: Sequence[Tensor], losses: Tensor) -> None:
    """Raise a ValueError if a gradient would reach the encoder twice: through a feature, and past it."""
    ends = {z.grad_fn for z in features if z.grad_fn is not None}
    encoder = set(nodes_behind(parent for end in ends for parent in parents(end)))
    heads = set(nodes_behind([losses.grad_fn] if losses.grad_fn is not None else [], ends))
    if encoder & (ends | heads):
        raise ValueError(
            "the features do not separate the heads from the encoder: a head, or another feature, uses it "
            "past them, so that gradients would count twice. Use shared=parameters instead."
        )


def task_gradients(losses: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """The T gradients with respect to the inputs, rows of one matrix J of shape (T, P).

    On the way, every parameter that a loss reaches without passing through the inputs receives its gradient.
    A task that does not use an input has a gradient of zero there. Like `Tensor.backward`, the last pass frees
    the graph that it goes through.
    """
    dtype = reduce(torch.promote_types, (x.dtype for x in inputs))
    J = inputs[0].new_zeros(len(losses), sum(x.numel() for x in inputs), dtype=dtype)  # (T, P)
    one = torch.ones_like(losses[0])
    edges = loss_edges(losses)
    for task, (row, loss) in enumerate(zip(J, edges, strict=True)):
        if loss is None:  # a constant: its row stays zero
            continue
        own = own_parameters(loss.node, inputs)
        keep = task + 1 < len(edges)
        found = torch.autograd.grad(loss, [*inputs, *own], one, retain_graph=keep, allow_unused=True)
        for entries, gradient in zip(split_like(row, inputs), found, strict=False):
            if gradient is not None:
                entries.copy_(gradient.to_dense().reshape(-1))
        for parameter, gradient in zip(own, found[len(inputs) :], strict=True):
            if gradient is not None:
                add_to_grad(parameter, gradient.clone())  # autograd may give one tensor to two parameters
        del found, gradient  # before the next pass makes its own
    return J


def loss_edges(losses: Tensor) -> list[GradientEdge | None]:
    """Where each task's backward pass starts; None for a loss that depends on nothing.

    Behind `torch.stack` if that made the losses: from `losses[t]` itself, a pass would carry zeros through the
    heads of all the other tasks.
    """
    stack = losses.grad_fn
    if stack is not None and type(stack).__name__ == "StackBackward0":
        return [None if node is None else GradientEdge(node, number) for node, number in stack.next_functions]
    return [get_gradient_edge(loss) for loss in losses]


def own_parameters(loss: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The leaves of a loss's graph that are reached without passing through the inputs."""
    shared = {id(x) for x in inputs}
    stop = {x.grad_fn for x in inputs if x.grad_fn is not None}
    leaves = [node for node in nodes_behind([loss], stop) if type(node).__name__ == "AccumulateGrad"]
    return [leaf.variable for leaf in leaves if id(leaf.variable) not in shared]  # type: ignore[attr-defined]


def nodes_behind(start: Iterable[Node], stop: Iterable[Node] = ()) -> Iterator[Node]:
    """Each node of the graph from `start` back to the leaves, once; without those of `stop` and behind them."""
    seen = set(stop)
    nodes = list(start)
    while nodes:
        node = nodes.pop()
        if node not in seen:
            seen.add(node)
            yield node
            nodes.extend(parents(node))


def parents(node: Node) -> list[Node]:
    """The nodes that a node of the graph passes its gradients on to."""
    return [parent for parent, _ in node.next_functions if parent is not None]


def split_like(vector: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The consecutive pieces of a vector that have the sizes of the tensors."""
    return torch.split(vector, [x.numel() for x in tensors])


def add_to_grad(parameter: Tensor, gradient: Tensor) -> None:
    """Accumulate a gradient as PyTorch does."""
    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


def gram(J: Tensor, columns: int = 2**14) -> Tensor:
    """The Gram matrix J Jᵀ of T gradients, shape (T, T), in float64, a block of columns at a time.

    In float32, M of dependent gradients would have negative eigenvalues, and solvers would not settle.
    """
    M = torch.zeros(len(J), len(J), dtype=torch.float64, device=J.device)
    for block in torch.split(J, columns, dim=1):
        block = block.double()  # (T, columns)
        M += block @ block.T
    return M


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
    """Raise a ValueError if no gradient can flow back from the losses; `check_losses` says what else is wrong."""
    if losses.is_floating_point() and not losses.requires_grad:
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
