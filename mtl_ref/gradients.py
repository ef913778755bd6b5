"""From T losses to the matrix J of their gradients, and from J to the Gram matrix M = J Jᵀ."""

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge


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


def gradient_norms(losses: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """‖∇_W Lᵢ‖ for each of T losses, shape (T,), float64; no `.grad` is touched and the graph stays."""
    norms = torch.zeros(len(losses), dtype=torch.float64, device=losses.device)
    one = torch.ones_like(losses[0])
    for task, loss in enumerate(loss_edges(losses)):
        if loss is None:  # a constant: its gradient is zero
            continue
        found = torch.autograd.grad(loss, inputs, one, retain_graph=True, allow_unused=True)
        norms[task] = sum(g.to_dense().double().square().sum() for g in found if g is not None) ** 0.5
    return norms
