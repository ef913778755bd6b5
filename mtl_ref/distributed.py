"""The whole batch of a step, of which each process holds a part, and a task perhaps no label.

Process r has n_{t,r} labels of task t in its batch, and their mean loss L_{t,r}. The loss of the whole batch is

    L_t = Σ_r n_{t,r} L_{t,r} / Σ_r n_{t,r}.

Gradients are averaged over the W processes, by DistributedDataParallel and `fully_shard` or here, so each process
multiplies its losses by its share W n_{t,r} / Σ_r n_{t,r}. Of the gradients J, shape (T, ·), each has some
columns: those of its own examples (`Features`), an equal part of all (`Parameters`), or its shards (`Shards`).
Their Gram matrices add up to that of the whole batch, so all processes find the same weights.
"""

import gc
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import GradientEdge

from mtl_ref.checks import check_present, check_vector, in_float64
from mtl_ref.gradients import (
    add_to_grad,
    check_separates,
    edge_of,
    gradient_norms,
    inputs_from,
    leaves_behind,
    loss_edges,
    split_like,
    task_gradients,
)

# PyTorch 2.14 has given two collectives other names
reduce_scatter: Any = getattr(dist, "reduce_scatter_single", None) or getattr(dist, "reduce_scatter_tensor", None)
all_gather: Any = getattr(dist, "all_gather_single", None) or getattr(dist, "all_gather_into_tensor", None)

Present = Tensor | Sequence[bool] | Sequence[float] | None
Group: TypeAlias = "dist.ProcessGroup | str | None"


class Processes:
    """The processes whose batches make up the whole batch; the reductions are PyTorch's own.

    Args:
        group: a process group; None is the world where `torch.distributed` is initialised, and this process
            elsewhere; "alone" is this process.

    Attributes:
        size: their number W.
        wrapped: whether a wrapper may stand around the model, DistributedDataParallel or `fully_shard`.
    """

    def __init__(self, group: Group = None) -> None:
        if isinstance(group, str) and group != "alone":
            raise ValueError(f"group is {group!r}, but must be a process group, None, or 'alone'.")
        self.group = None if isinstance(group, str) else group
        self.wrapped = dist.is_available() and dist.is_initialized()
        self.size = dist.get_world_size(self.group) if self.wrapped and group != "alone" else 1

    def sum(self, x: Tensor) -> Tensor:
        """The sum over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(x, group=self.group)
        return x

    def first(self, x: Tensor) -> Tensor:
        """What the first process has, in place: what is drawn, or rounded, must not differ."""
        if self.size > 1:
            dist.broadcast(x, group=self.group, group_src=0)
        return x

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The mean of each tensor over the processes, all sent together."""
        if self.size == 1 or not tensors:
            return list(tensors)
        flat = self.sum(torch.cat([x.reshape(-1) for x in tensors])) / self.size
        return [piece.view_as(x) for piece, x in zip(split_like(flat, tensors), tensors, strict=True)]

    def check_replicas(self, leaves: Iterable[Tensor]) -> None:
        """Raise a ValueError, on all processes, if the parameters differ between them.

        What a wrapper has sharded, and a graph that differs from process to process, is passed over.
        """
        whole = [p.detach() for p in leaves if not is_sharded(p) and p.untyped_storage().size() > 0]
        if self.size == 1 or not whole:
            return
        parts = [(torch.view_as_real(p) if p.is_complex() else p).double() for p in whole]
        device = whole[0].device
        size = torch.tensor(sum(p.numel() for p in parts), dtype=torch.float64, device=device)
        total, norm = (torch.stack([f(p).to(device) for p in parts]).sum() for f in (torch.sum, torch.norm))
        sums = [size, total, norm]
        ends = torch.stack([*sums, *(-x for x in sums)])
        dist.all_reduce(ends, op=dist.ReduceOp.MAX, group=self.group)
        spread = ends[:3] + ends[3:]  # largest less smallest: of how many, their sum, their norm
        if spread[0] == 0 and (spread > 1e-12 * ends[2]).any():
            raise ValueError(
                "the parameters differ between processes, so nothing averages their gradients. Start all from "
                "the same ones, and wrap the model in DistributedDataParallel or fully_shard, or give a gradient "
                "method shared=parameters. Where each process is to train for itself, say group='alone'."
            )


class WholeBatch:
    """The losses of a step, over all processes and without the tasks that have no labels.

    Args:
        losses: the losses of this process, shape (T,), on the graph.
        present: which tasks have labels, shape (T,), or how many labels each has; None where all have, and all
            processes equally many.
        group: as in `Processes`.

    Attributes:
        losses: of the S tasks that have labels on some process, shape (S,), detached.
        there: which these are, shape (T,), or None if all.
        share: W n_{t,r} / Σ_r n_{t,r}, shape (T,), times what a method multiplies a loss by; None if all are 1.

    Raises:
        ValueError: the losses are no floating-point vector, `present` does not fit them, or, on several
            processes, a loss with `present` is not finite on one of them.
    """

    def __init__(self, losses: Tensor, present: Present = None, group: Group = None) -> None:
        self.here = check_vector(losses)
        self.losses = losses.detach()
        self.there: Tensor | None = None
        self.share: Tensor | None = None
        self.processes = Processes(group)
        if present is None and self.processes.size == 1:
            return
        n = check_present(present, losses)
        if self.processes.size > 1:
            sums, counts = self.processes.sum(torch.stack([n * in_float64(self.losses), n]))
            if present is not None and sums.isnan().any():
                task = int(sums.isnan().nonzero()[0])
                raise ValueError(
                    f"the loss of task {task} (counting from 0) is not finite on some process. On several "
                    "processes each loss is differentiated, also where there are no labels, so make it zero "
                    "through the graph there: (errors * known).sum() / known.sum().clamp(min=1)."
                )
            self.share = torch.where(counts > 0, self.processes.size * n / counts, 0.0)
            self.losses, n = (sums / counts.clamp(min=1)).to(self.losses), counts
        if (n == 0).any():
            self.there = (n > 0).to(losses.device)
            self.losses = self.losses[self.there]

    @property
    def tasks(self) -> list[int]:
        """The S tasks that have labels."""
        return list(range(len(self.here))) if self.there is None else self.there.nonzero()[:, 0].tolist()

    def spread(self, weights: Tensor) -> Tensor:
        """What the S tasks have, shape (S, …), for all tasks, shape (T, …): 0 where there are no labels."""
        if self.there is None:
            return weights
        zeros = weights.new_zeros(len(self.there), *weights.shape[1:])
        return zeros.index_put((self.there.to(weights.device),), weights)

    def multiply(self, factors: Tensor | None) -> None:
        """From now on differentiate the losses times these factors, shape (S,), if there are some."""
        if factors is not None:
            more = self.spread(factors)
            self.share = more if self.share is None else self.share * more

    def starts(self) -> list[tuple[GradientEdge | None, Tensor]]:
        """Where the backward pass of each of the S tasks starts, and its first factor."""
        edges, factors = loss_edges(self.here, hooked=self.processes.wrapped and fully_shard_is_used())
        if self.share is not None:
            factors = factors * self.share.to(factors)
        return [(edges[task], factors[task]) for task in self.tasks]

    def differentiate(self, weights: Tensor, retain_graph: bool) -> None:
        """One plain backward pass of Σ wᵢ Lᵢ, weights of shape (S,): hooks run, and wrappers average."""
        if self.processes.size == 1 and self.there is not None:  # what has no label may be nan
            ways = [(w, *start) for w, start in zip(weights, self.starts(), strict=True)]
            ways = [(w, edge, factor) for w, edge, factor in ways if edge is not None]
            if ways:
                edges, factors = [edge for _, edge, _ in ways], [w * factor for w, _, factor in ways]
                torch.autograd.backward(edges, factors, retain_graph)  # type: ignore[arg-type]
            return
        w = self.spread(weights).to(self.here)
        torch.autograd.backward(self.here, w if self.share is None else w * self.share.to(w), retain_graph)

    def part(
        self, shared: Iterable[Tensor] | None, features: Tensor | Sequence[Tensor] | None, real: bool = True
    ) -> "Part":
        """What this process sees of the T gradients of exactly one of the two arguments."""
        inputs = inputs_from(self.here, shared, features, real)
        if shared is None:
            return Features(self, inputs)
        return Shards(self, inputs) if any(is_sharded(p) for p in inputs) else Parameters(self, inputs)


def fully_shard_is_used() -> bool:
    """Whether this process has sharded a module.

    Then parameters are gathered in hooks of what modules return, which may be the losses. They are freed after
    each backward pass, so every pass must go through all that was returned.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return bool(fsdp and fsdp.FSDPModule.__subclasses__())


class Part:
    """Some columns of J, the gradients with respect to the inputs, rows for the S tasks that have labels."""

    def __init__(self, batch: WholeBatch, inputs: list[Tensor]) -> None:
        self.batch, self.inputs, self.processes = batch, inputs, batch.processes
        self.whole = batch.processes.size == 1  # whether this process sees all columns

    def gradients(self, retain_graph: bool, own: bool = True) -> Tensor:
        """The gradients of this process, shape (S, ·); with `own` also those of each task's own parameters."""
        raise NotImplementedError

    def reduce(self, J: Tensor) -> Tensor:
        """This process's columns of the whole rows, shape (S, ·), from its gradients."""
        return J

    def norms(self) -> Tensor:
        """The lengths of the S whole rows, shape (S,), float64; no `.grad` is touched and the graph stays."""
        raise NotImplementedError

    def sum(self, M: Tensor) -> Tensor:
        """The Gram matrix of the whole rows from that of the columns, shape (S, S) each."""
        return self.processes.sum(M)

    def apply(self, d: Tensor, retain_graph: bool) -> None:
        """Add the direction to `.grad`, from its entries at these columns, and to the rest what is its own."""
        raise NotImplementedError

    def leaves(self) -> Iterable[Tensor]:
        """The parameters behind, which must be the same on all processes."""
        return self.inputs

    def pieces(self, d: Tensor) -> list[Tensor]:
        """d, shape (P,), as tensors with the shapes and types of the inputs."""
        return [piece.view_as(x).to(x) for piece, x in zip(split_like(d, self.inputs), self.inputs, strict=True)]


class Features(Part):
    """The columns of this process's own examples: the gradients with respect to its part of Z, times W."""

    def __init__(self, batch: WholeBatch, inputs: list[Tensor]) -> None:
        super().__init__(batch, inputs)
        check_separates(inputs, batch.here)

    def gradients(self, retain_graph: bool, own: bool = True) -> Tensor:
        later = self.processes.wrapped or not own  # there is another pass
        keep = None if later else add_to_grad
        return task_gradients(self.batch.starts(), self.inputs, retain_graph or later, keep)

    def norms(self) -> Tensor:
        norms = gradient_norms(self.batch.starts(), self.inputs)
        return norms if self.processes.size == 1 else self.sum(norms.square()).sqrt()

    def sum(self, M: Tensor) -> Tensor:
        return self.processes.sum(M) / self.processes.size**2

    def apply(self, d: Tensor, retain_graph: bool) -> None:
        if not self.processes.wrapped:
            pieces = self.pieces(d)
            backward = torch.autograd.backward
            backward(self.inputs, pieces, retain_graph=retain_graph)
            return
        # the hooks of the wrappers must run, once
        with replaced(self.inputs, self.pieces(d)):
            ones = torch.ones_like(self.batch.losses)
            self.batch.differentiate(ones, retain_graph)

    def leaves(self) -> Iterable[Tensor]:
        return leaves_behind([edge_of(z) for z in self.inputs])


@contextmanager
def replaced(inputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> Iterator[None]:
    """In a backward pass, these gradients go on behind the inputs, in place of those that arrive there."""
    hooks = [x.register_hook(lambda _, g=g: g) for x, g in zip(inputs, gradients, strict=True)]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class Parameters(Part):
    """An equal part of the columns for each process: the gradients with respect to plain parameters, averaged."""

    def __init__(self, batch: WholeBatch, inputs: list[Tensor]) -> None:
        super().__init__(batch, inputs)
        self.own: dict[Tensor, Tensor] = {}

    def gradients(self, retain_graph: bool, own: bool = True) -> Tensor:
        keep = self.keep if self.processes.size > 1 else add_to_grad
        return task_gradients(self.batch.starts(), self.inputs, retain_graph or not own, keep if own else None)

    def keep(self, parameter: Tensor, gradient: Tensor) -> None:
        """Add up a task's own gradient, until all are averaged together."""
        gradient = gradient.to_dense()
        self.own[parameter] = self.own[parameter] + gradient if parameter in self.own else gradient

    def reduce(self, J: Tensor) -> Tensor:
        """The mean over the processes, of this one's columns only, shape (S, ⌈P/W⌉), zeros at the end."""
        W = self.processes.size
        if W == 1:
            return J
        rest = -J.shape[1] % W
        columns = J.new_empty(len(J), (J.shape[1] + rest) // W)
        for row, mine in zip(J, columns, strict=True):
            reduce_scatter(mine, F.pad(row, (0, rest)), group=self.processes.group)
        return columns.div_(W)

    def norms(self) -> Tensor:
        def mean(found: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
            dense = [torch.zeros_like(x) if g is None else g for g, x in zip(found, self.inputs, strict=True)]
            return self.processes.mean([g.to_dense() for g in dense])

        return gradient_norms(self.batch.starts(), self.inputs, mean if self.processes.size > 1 else None)

    def apply(self, d: Tensor, retain_graph: bool) -> None:
        if self.processes.size > 1:
            whole = d.new_empty(len(d) * self.processes.size)
            all_gather(whole, d, group=self.processes.group)
            d = whole[: sum(x.numel() for x in self.inputs)]
        for parameter, piece in zip(self.inputs, self.pieces(d), strict=True):
            add_to_grad(parameter, piece)
        for parameter, gradient in zip(self.own, self.processes.mean(list(self.own.values())), strict=True):
            add_to_grad(parameter, gradient)

    def leaves(self) -> Iterable[Tensor]:
        if any(is_copy(p) for p in self.inputs[:1]):
            raise ValueError(
                "a parameter in shared is the copy that fully_shard gathers for a pass, and its gradient would be "
                "lost. List the parameters after fully_shard and before the first forward pass."
            )
        return self.inputs


def is_sharded(p: Tensor) -> bool:
    """Whether this process holds a part of the parameter only, as `fully_shard` leaves it (a DTensor)."""
    return hasattr(p, "placements")


def is_copy(p: Tensor) -> bool:
    """Whether `fully_shard` has made a parameter from its shards: then only its own object knows."""
    owners = (
        owner if isinstance(owner, dict) else getattr(owner, "__dict__", {}) for owner in gc.get_referrers(p)
    )
    return any("_unsharded_param" in owner for owner in owners)


class Shards(Part):
    """The columns of this process's shards: `fully_shard` averages each task's gradients in a backward pass."""

    def __init__(self, batch: WholeBatch, inputs: list[Tensor]) -> None:
        super().__init__(batch, inputs)
        self.whole = False
        self.sharded: list[Any] = [p for p in inputs if is_sharded(p)]
        if len(self.sharded) < len(inputs) or len({(p.device_mesh, p.placements) for p in self.sharded}) > 1:
            raise ValueError(
                "some parameters in shared are sharded over processes in one way and some in another, or not at "
                "all. Give only those that one mesh of fully_shard holds, or features=representation."
            )
        if self.sharded[0].device_mesh.size() != self.processes.size:
            raise ValueError(
                f"the parameters in shared are sharded over {self.sharded[0].device_mesh.size()} processes, but "
                f"the losses are those of {self.processes.size}. Give the group of the same processes."
            )

    def gradients(self, retain_graph: bool, own: bool = True) -> Tensor:
        before = [p.grad for p in self.sharded]
        local = [p.to_local() for p in self.sharded]
        dtype = torch.promote_types(local[0].dtype, torch.float32)
        J: Tensor = local[0].new_zeros(len(self.batch.tasks), sum(x.numel() for x in local), dtype=dtype)  # (S, ·)
        starts = self.batch.starts()
        reached = False
        for task, (row, (loss, factor)) in enumerate(zip(J, starts, strict=True)):
            for p in self.sharded:
                p.grad = None
            if loss is not None:
                torch.autograd.backward([loss], [factor], retain_graph or task + 1 < len(starts))
            for entries, p in zip(split_like(row, local), self.sharded, strict=True):
                if p.grad is not None:
                    reached = True
                    entries.copy_(p.grad.to_local().reshape(-1))
        for p, grad in zip(self.sharded, before, strict=True):
            p.grad = grad
        if not reached:
            raise ValueError("no loss depends on any tensor in shared.")
        return J

    def norms(self) -> Tensor:
        raise ValueError(
            "the parameters in shared are sharded, and the norms of their gradients cannot be seen without "
            "writing gradients. Give features=representation instead."
        )

    def sum(self, M: Tensor) -> Tensor:
        mesh, placements = self.sharded[0].device_mesh, self.sharded[0].placements
        for dimension, placement in enumerate(placements):  # a replicated dimension counts once
            if placement.is_shard():
                dist.all_reduce(M, group=mesh.get_group(dimension))
        return M

    def apply(self, d: Tensor, retain_graph: bool) -> None:
        from torch.distributed.tensor import DTensor  # half a second, needed here alone

        local = [p.to_local() for p in self.sharded]
        for p, x, piece in zip(self.sharded, local, split_like(d, local), strict=True):
            step = piece.view_as(x).to(x)
            if p.grad is None:
                p.grad = DTensor.from_local(step, p.device_mesh, p.placements, shape=p.shape, stride=p.stride())
            else:
                p.grad.to_local().add_(step)

    def leaves(self) -> Iterable[Tensor]:
        return ()
