"""From T losses to the matrix J of their gradients, and from J to the Gram matrix M = J Jᵀ."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

Edge = tuple[Node, int]  # where a gradient enters the graph: a node, and which of its outputs


def what_to_combine(
    losses: Tensor, shared: Iterable[Tensor] | None, features: Tensor | Sequence[Tensor] | None
) -> list[Tensor]:
    """The tensors, of exactly one of the two arguments, whose T gradients are asked for; each once.

    Raises:
        ValueError: both or neither is given; what is given is no tensor, requires no gradient, or is reached by
            no loss; a shared parameter is no leaf, or stands where its gradient cannot be seen.
    """
    if (shared is None) == (features is None):
        given = "neither" if shared is None else "both"
        raise ValueError(f"give exactly one of shared=parameters and features=representation, not {given}.")
    inputs = tensors_in(features, "features") if shared is None else tensors_in(shared, "shared")
    name = "features" if shared is None else "shared"
    inputs = [x for x in inputs if x.requires_grad]
    if not inputs:
        raise ValueError(
            f"no tensor in {name} requires a gradient, so there is nothing to combine. It may be empty, frozen, "
            "already used up (an iterator), or detached."
        )
    if shared is not None and not all(x.is_leaf for x in inputs):
        raise ValueError(
            "a tensor in shared is not a parameter but computed from others, which would not learn. Give such "
            "a tensor as features, or the parameters that it is computed from as shared."
        )
    check_reached(losses, inputs, name)
    return inputs


def tensors_in(given: object, name: str) -> list[Tensor]:
    """The tensors in an argument, each once, or a ValueError that says what to give instead."""
    if isinstance(given, Tensor):
        return [given]
    listed = list(given) if isinstance(given, Iterable) and not isinstance(given, Mapping) else [given]
    found = [x for x in listed if isinstance(x, Tensor)]
    for x in listed:
        if not isinstance(x, Tensor):
            expected = "one tensor or a list of tensors" if name == "features" else "parameters"
            raise ValueError(
                f"{name} must be {expected}, but there is a {type(x).__name__}. Of a module give "
                "module.parameters(), of a dict list(d.values()), of named_parameters() the second of each pair."
            )
    return list(dict.fromkeys(found))


def check_reached(losses: Tensor, inputs: Sequence[Tensor], name: str) -> None:
    """Raise a ValueError if no loss depends on any input, or if what depends on them cannot be seen."""
    reached = set(edges_behind([edge_of(losses)]))
    missing = [x for x in inputs if edge_of(x) not in reached]
    nodes = {node for node, _ in reached}
    why = "It may belong to a copy of the model, or the losses to another forward pass."
    hidden = any(type(node).__name__ == "CheckpointFunctionBackward" for node in nodes)
    if hidden:
        why = "It may be used inside a reentrant checkpoint: call checkpoint(..., use_reentrant=False)."
    elif any(edge_of(x)[0] in nodes for x in missing):
        why = "One node makes both of them, as in a compiled model: compile encoder and heads each for itself."
    if len(missing) == len(inputs) or (missing and hidden):
        which = "any tensor" if len(missing) == len(inputs) else "a tensor"
        raise ValueError(f"no loss depends on {which} in {name}. {why}")


def check_separates(features: Sequence[Tensor], losses: Tensor) -> None:
    """Raise a ValueError if a gradient would reach the encoder twice: through a feature, and past it."""
    ends = {edge_of(z) for z in features}
    encoder = set(edges_behind(parent for node, _ in ends for parent in parents(node)))
    heads = set(edges_behind([edge_of(losses)], ends))
    if encoder & ends or {node for node, _ in encoder} & {node for node, _ in heads}:
        raise ValueError(
            "the features do not separate the heads from the encoder: a head, or another feature, uses it "
            "past them, so that gradients would count twice. Give all that the heads take from the encoder as "
            "features, compile encoder and heads each for itself, or use shared=parameters instead."
        )


def task_gradients(losses: Tensor, inputs: Sequence[Tensor], retain_graph: bool = False) -> Tensor:
    """The T gradients with respect to the inputs, rows of one matrix J of shape (T, P).

    On the way, every parameter that a loss reaches without passing through the inputs receives its gradient.
    A task that does not use an input has a gradient of zero there. Like `Tensor.backward`, the last pass frees
    the graph that it goes through unless `retain_graph` is set.
    """
    dtype = reduce(torch.promote_types, (x.dtype for x in inputs))
    J = inputs[0].new_zeros(len(losses), sum(x.numel() for x in inputs), dtype=dtype)  # (T, P)
    one = torch.ones_like(losses[0])
    edges = loss_edges(losses)
    for task, (row, loss) in enumerate(zip(J, edges, strict=True)):
        if loss is None:  # a constant: its row stays zero
            continue
        own = own_parameters(loss, inputs)
        keep = retain_graph or task + 1 < len(edges)
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


def own_parameters(loss: GradientEdge, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The leaves of a loss's graph that are reached without passing through the inputs."""
    behind = edges_behind([(loss.node, loss.output_nr)], map(edge_of, inputs))
    return [node.variable for node, _ in behind if type(node).__name__ == "AccumulateGrad"]  # type: ignore[attr-defined]


def edge_of(x: Tensor) -> Edge:
    """Where the gradient of a tensor enters the graph. A node can have several outputs, so it does not say."""
    edge = get_gradient_edge(x)
    return edge.node, edge.output_nr


def edges_behind(start: Iterable[Edge], stop: Iterable[Edge] = ()) -> Iterator[Edge]:
    """Each edge of the graph from `start` back to the leaves, once; without those of `stop` and behind them."""
    seen, passed = set(stop), set()
    edges = list(start)
    while edges:
        edge = edges.pop()
        if edge not in seen:
            seen.add(edge)
            yield edge
            if edge[0] not in passed:
                passed.add(edge[0])
                edges.extend(parents(edge[0]))


def parents(node: Node) -> list[Edge]:
    """Where a node of the graph passes its gradients on to."""
    return [(parent, number) for parent, number in node.next_functions if parent is not None]


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
