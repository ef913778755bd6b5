"""From T losses to the matrix J of their gradients, and from J to the Gram matrix M = J Jᵀ."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from mtl_ref.checks import NO_FLOAT64, in_float64

Edge = tuple[Node, int]  # where a gradient enters the graph: a node, and which of its outputs
Start = tuple[GradientEdge | None, Tensor]  # of a backward pass: None for a constant, and the first factor

# What T stacked losses may have gone through, each for itself
ELEMENTWISE = {f"{name}Backward0" for name in ("Mul", "Div", "Add", "Sub", "Neg", "ToCopy", "Clone", "Log", "Exp")}


def inputs_from(
    losses: Tensor,
    shared: Iterable[Tensor] | None,
    features: Tensor | Sequence[Tensor] | None,
    real: bool = True,
) -> list[Tensor]:
    """The tensors, of exactly one of the two arguments, whose T gradients are asked for; each once.

    Raises:
        ValueError: both or neither is given; what is given is no tensor, requires no gradient, or is reached by
            no loss; a shared parameter is no leaf, or stands where its gradient cannot be seen; one is complex
            where `real` gradients are needed.
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
    if real and any(x.is_complex() for x in inputs):
        raise ValueError(
            f"a tensor in {name} is complex, but gradients are combined as real vectors. Use parameters that hold "
            "real and imaginary parts, and torch.view_as_complex in the model."
        )
    if not any(hasattr(x, "placements") for x in inputs):  # of a sharded parameter the graph holds a whole copy
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
    if not missing:
        return
    nodes = {node for node, _ in reached}
    why = "It may belong to a copy of the model, or the losses to another forward pass."
    hidden = any(type(node).__name__ == "CheckpointFunctionBackward" for node in nodes)
    if hidden:
        why = "It may be used inside a reentrant checkpoint: call checkpoint(..., use_reentrant=False)."
    elif any(edge_of(x)[0] in nodes for x in missing):
        why = (
            "One node makes both of them, as in a compiled model: compile encoder and heads each for itself. Or "
            "DistributedDataParallel has copied them: leave out find_unused_parameters and static_graph."
        )
    if len(missing) == len(inputs) or hidden:
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


def add_to_grad(parameter: Tensor, gradient: Tensor) -> None:
    """Accumulate a copy of a gradient as PyTorch does: with the device, type and strides of the parameter."""
    if parameter.grad is None and gradient.is_sparse:
        parameter.grad = gradient.clone()
    elif parameter.grad is None or (parameter.grad.is_sparse and not gradient.is_sparse):
        new = torch.empty_like(parameter)
        if new.stride() != parameter.stride():  # it has holes or overlaps: PyTorch's gradients have not
            new = torch.empty_like(parameter, memory_format=torch.contiguous_format)
        new.copy_(gradient)
        parameter.grad = new if parameter.grad is None else new.add_(parameter.grad)
    else:
        parameter.grad.add_(gradient.to(parameter.grad.device))


def task_gradients(
    losses: Tensor | Sequence[Start],
    inputs: Sequence[Tensor],
    retain_graph: bool = False,
    own: Callable[[Tensor, Tensor], None] | None = add_to_grad,
) -> Tensor:
    """The T gradients with respect to the inputs, rows of one matrix J of shape (T, P).

    On the way, every parameter that a loss reaches without passing through the inputs receives its gradient.
    A task that does not use an input has a gradient of zero there. Like `Tensor.backward`, the last pass frees
    the graph that it goes through unless `retain_graph` is set. J is in float32 at least.

    Args:
        losses: T losses, shape (T,), or where their T backward passes start.
        inputs: tensors with P entries together.
        retain_graph: as in PyTorch.
        own: what is done with such a parameter and its gradient, or None if they are left out.
    """
    starts = losses
    if isinstance(losses, Tensor):
        starts = list(zip(*loss_edges(losses), strict=True))
    types = (x.dtype for x in inputs)
    dtype = reduce(torch.promote_types, types, torch.float32)
    P = sum(x.numel() for x in inputs)
    J = inputs[0].new_zeros(len(starts), P, dtype=dtype)  # (T, P)
    ends = {edge_of(x) for x in inputs}
    for task, (row, (loss, factor)) in enumerate(zip(J, starts, strict=True)):
        if loss is None:  # a constant: its row stays zero
            continue
        others = []
        if own is not None:
            others = leaves_behind([(loss.node, loss.output_nr)], ends)
        keep = retain_graph or task + 1 < len(starts)
        found = torch.autograd.grad(
            loss,
            [*inputs, *others],
            factor,
            retain_graph=keep,
            allow_unused=True,
        )
        pieces = split_like(row, inputs)
        for entries, gradient in zip(pieces, found, strict=False):
            if gradient is not None:
                entries.copy_(gradient.to_dense().reshape(-1))
        rest = found[len(inputs) :]
        for parameter, gradient in zip(others, rest, strict=True):
            if gradient is not None:
                own(parameter, gradient)  # type: ignore[misc]
        del found, rest, gradient  # before the next pass makes its own
    return J


def loss_edges(losses: Tensor, hooked: bool = False) -> tuple[list[GradientEdge | None], Tensor]:
    """Where each task's backward pass starts, None for a loss that depends on nothing, and its T first factors.

    That is behind `torch.stack` if it made the losses, even if they were multiplied by numbers since: from
    `losses[t]` itself, a pass would carry zeros through the heads of all the other tasks. But where the losses
    are `hooked`, all passes must go through them.
    """
    ones = torch.ones_like(losses)
    node = losses.grad_fn
    while node is not None and type(node).__name__ in ELEMENTWISE and len(parents(node)) == 1:
        ((node, _),) = parents(node)
    stacked = type(node).__name__ == "StackBackward0"
    if hooked or node is None or not stacked or len(node.next_functions) != len(losses):
        return [get_gradient_edge(loss) for loss in losses], ones
    edges = [None if head is None else GradientEdge(head, number) for head, number in node.next_functions]
    if node is losses.grad_fn:
        return edges, ones
    return edges, torch.autograd.grad(losses, GradientEdge(node, 0), ones, retain_graph=True)[0]


def leaves_behind(start: Iterable[Edge], ends: Iterable[Edge] = ()) -> list[Tensor]:
    """The leaves of a graph that are reached without passing through the ends."""
    behind = edges_behind(start, ends)
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


def weighted_sum(alpha: Tensor, J: Tensor) -> Tensor:
    """d = Jᵀ α, shape (P,), in float32 or better, whatever autocast says; α of shape (T,), J of shape (T, P)."""
    dtype = torch.promote_types(J.dtype, torch.float32)
    with torch.autocast(J.device.type, enabled=False):
        return alpha.to(dtype).to(J.device) @ J.to(dtype)


def gram(J: Tensor, other: Tensor | None = None, columns: int = 2**14) -> Tensor:
    """The Gram matrix J Jᵀ of T gradients, shape (T, T), in float64, a block of columns at a time.

    With T `other` ones, all products of the one with the other.

    In float32, M of dependent gradients would have negative eigenvalues, and solvers would not settle.
    """
    M = zeros_in_float64((len(J), len(J)), J.device)
    others = torch.split(J if other is None else other, columns, dim=1)
    for block, beside in zip(torch.split(J, columns, dim=1), others, strict=True):
        block = in_float64(block)  # (T, columns)
        M += block @ (block if other is None else in_float64(beside)).T
    return M


def gradient_norms(
    losses: Tensor | Sequence[Start],
    inputs: Sequence[Tensor],
    mean: Callable[[Sequence[Tensor | None]], Sequence[Tensor | None]] | None = None,
) -> Tensor:
    """‖∇_W Lᵢ‖ for each of T losses, shape (T,), float64; no `.grad` is touched and the graph stays.

    `mean` averages a task's gradients over processes, where there are several. The rest as in `task_gradients`.
    """
    starts = list(zip(*loss_edges(losses), strict=True)) if isinstance(losses, Tensor) else losses
    norms = zeros_in_float64((len(starts),), inputs[0].device)
    for task, (loss, factor) in enumerate(starts):
        if loss is None:  # a constant: its gradient is zero
            continue
        found = torch.autograd.grad(loss, inputs, factor, retain_graph=True, allow_unused=True)
        norms[task] = (
            sum(squared_norm(g).to(norms.device) for g in (mean(found) if mean else found) if g is not None) ** 0.5
        )
    return norms


def squared_norm(gradient: Tensor) -> Tensor:
    """‖g‖² in float64, of a real or complex, dense or sparse gradient."""
    g = gradient.to_dense()
    return in_float64(torch.view_as_real(g) if g.is_complex() else g).square().sum()


def zeros_in_float64(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Zeros on the device, or on the CPU if that has no float64."""
    return torch.zeros(shape, dtype=torch.float64, device="cpu" if device.type in NO_FLOAT64 else device)
