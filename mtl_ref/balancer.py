"""What every balancing method is: a module that turns T task losses into gradients.

A loss-level method defines `forward`, the scalar to differentiate. The weight it gives to task i is the
derivative of that scalar with respect to L_i, so `backward` can return the weights of any method.

A gradient method sees the T gradients as the rows of one matrix J, and mostly needs no more of them than the
Gram matrix M = J Jᵀ: it defines `task_weights`, the α of the direction d = Jᵀ α.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from mtl_ref.checks import NO_FLOAT64, as_vector, check_losses, check_on_graph, check_rows, in_float64
from mtl_ref.distributed import Features, Group, Part, Present, Processes, WholeBatch
from mtl_ref.gradients import edge_of, gram, leaves_behind, weighted_sum


class Balancer(nn.Module):
    """Common ground of all methods.

    Attributes:
        exact: names of buffers in float64. They keep that type when the module takes another, and stay on the
            CPU when it goes to a device without float64.
        per_task: names of tensors, shape (T,) or (T, ·), that hold a number, or a row, for each task. Those of
            base classes count too.
        per_pair: names of tensors, shape (T, T), that hold a number for each pair of tasks.
        random: whether it draws numbers. On several processes those of the first one count.
        takes_second: whether `backward` takes the losses of a second batch.
        there: within `only`, which tasks are there, shape (T,); else None, for all.
    """

    exact: tuple[str, ...] = ()
    per_task: tuple[str, ...] = ()
    per_pair: tuple[str, ...] = ()
    random = False
    takes_second = False
    there: Tensor | None = None
    steps_taken = 0

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        kept = {name: self._buffers[name] for name in self.named("exact")}
        self._buffers.update(dict.fromkeys(kept))  # passed over
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in kept.items():
            if buffer is not None:
                device = fn(buffer.new_empty(0, dtype=torch.float32)).device
                self._buffers[name] = buffer.to("cpu" if device.type in NO_FLOAT64 else device)
        return self

    @contextmanager
    def only(self, there: Tensor | None) -> Iterator[None]:
        """For a while this is the method of those tasks that are `there`, shape (T,); None stands for all.

        What it learns of them is kept, and what it holds of the others stays as it is.
        """
        methods = [module for module in self.modules() if isinstance(module, Balancer)]  # and those within it
        held = [] if there is None else [x for method in methods for x in method.numbers()]
        for _, place, name in held:
            if len(place[name]) not in (0, len(there)):  # type: ignore[arg-type]
                raise ValueError(
                    f"this method was built for {len(place[name])} tasks but was given {len(there)} losses."  # type: ignore[arg-type]
                )
        whole = [place[name] for _, place, name in held]
        parts = [module.of_tasks(name, place[name], there) for module, place, name in held]  # type: ignore[arg-type]
        for (_, place, name), part in zip(held, parts, strict=True):
            place[name] = part
        for method in methods:
            method.there = there
        try:
            yield
            for i, (module, place, name) in enumerate(held):
                if place[name] is not parts[i]:  # it has moved
                    whole[i] = with_part(whole[i], place[name], there, name in module.pairs())  # type: ignore[arg-type]
        finally:
            for method in methods:
                method.there = None
            for (_, place, name), value in zip(held, whole, strict=True):
                place[name] = value

    def numbers(self) -> Iterator[tuple["Balancer", MutableMapping[str, Any], str]]:
        """This module's own tensors that hold something for each task: where they are kept, and their names."""
        for name in sorted({*self.named("per_task"), *self.pairs()}):
            for place in (self._parameters, self._buffers, self.__dict__):
                if name in place and place[name].ndim > 0:  # type: ignore[union-attr]
                    yield self, place, name

    def named(self, attribute: str) -> set[str]:
        """The names that this class and those it derives from list in an attribute."""
        return {name for cls in type(self).__mro__ for name in vars(cls).get(attribute, ())}

    def pairs(self) -> set[str]:
        """The names of tensors that hold a number for each pair of tasks."""
        return self.named("per_pair")

    def of_tasks(self, name: str, whole: Tensor, there: Tensor) -> Tensor:
        """What is held of some of the tasks; nothing, where nothing is held yet."""
        there = there.to(whole.device)
        if len(whole) == 0:
            return whole
        return whole[there][:, there] if name in self.pairs() else whole[there]

    def agreed(self, weights: Tensor, processes: Processes) -> Tensor:
        """What the first process has drawn, and has learnt from it: the weights, and the numbers that are kept."""
        if not self.random:
            return weights
        for module in self.modules():
            for _, place, name in module.numbers() if isinstance(module, Balancer) else ():
                place[name] = processes.first(place[name])
        return processes.first(weights)

    def end_epoch(self) -> None:
        """To be called after each epoch. Most methods have nothing to do then."""

    def compare_replicas(self, batch: WholeBatch, leaves: Callable[[], Iterable[Tensor]]) -> None:
        """In steps 1, 2, 4, 8, …: raise a ValueError if the parameters are not the same on all processes."""
        self.steps_taken += 1
        if batch.processes.wrapped and self.steps_taken & (self.steps_taken - 1) == 0:
            batch.processes.check_replicas(leaves())


def with_part(whole: Tensor, part: Tensor, there: Tensor, pairs: bool) -> Tensor:
    """What is held of all tasks, shape (T, …), with that of S of them, shape (S, …), put in; nan where new."""
    there = there.to(part.device)
    if len(whole) == 0:
        shape = (len(there), len(there)) if pairs else (len(there), *part.shape[1:])
        whole = part.new_full(shape, torch.nan)
    index = there.nonzero()[:, 0]
    return whole.index_put((index[:, None], index) if pairs else (index,), part.to(whole))


class Remembers(Balancer):
    """Part of a method that keeps one tensor, of a shape that is not known before the first step; empty till then.

    A buffer that changes its shape breaks each copy of the model, as an EMA has one. So it is no buffer, but still
    in `state_dict`, and goes where the gradients or losses are when it is used. What is held of a task that has
    had no label yet is nan.

    Attributes:
        memory: the name of the tensor; `per_task` or `per_pair` lists it too, where it holds something of tasks.
    """

    memory: str

    def get_extra_state(self) -> Tensor:
        """What `state_dict` saves."""
        kept: Tensor = getattr(self, self.memory)
        return kept

    def set_extra_state(self, state: Tensor) -> None:
        """What `load_state_dict` restores."""
        setattr(self, self.memory, state.clone())


class KeepsInitial(Remembers):
    """Part of a method that keeps the first loss of each task, shape (T,)."""

    initial: Tensor
    memory = "initial"
    per_task: tuple[str, ...] = ("initial",)

    def check_initial(self, losses: Tensor, num_tasks: int | None = None, kept: bool = False) -> None:
        """Raise a ValueError for another number of tasks, or where the first loss of a task is not positive."""
        check_losses(losses, len(self.initial) or num_tasks)
        new = self.new(losses)
        if new.any():
            check_losses(torch.where(new, losses, 1.0), positive=True, kept=kept)

    def new(self, losses: Tensor) -> Tensor:
        """Which tasks have no first loss yet, shape (T,)."""
        return self.initial.isnan().to(losses.device) if len(self.initial) else torch.ones_like(losses).bool()

    def at_first(self, losses: Tensor) -> Tensor:
        """L(0), shape (T,), on the device of the losses: theirs, where a task is new."""
        new = self.new(losses)
        if new.any():
            old = self.initial.to(losses.device) if len(self.initial) else losses.detach()
            self.initial = torch.where(new, losses.detach(), old)
        return self.initial.to(losses.device)


class TakesPriorities(Balancer):
    """Part of a method that takes a user's own weights v, which count after the method's scaling.

    They come from the constructor, as the other arguments do, and are no part of `state_dict`.

    Attributes:
        priorities: v, shape (T,), or the number 1, shape (), where none are given.
    """

    priorities: Tensor
    per_task: tuple[str, ...] = ("priorities",)

    def set_priorities(
        self, priorities: Tensor | Sequence[float] | None, num_tasks: int | None = None, mean_one: bool = False
    ) -> None:
        """Keep v, or raise a ValueError; with `mean_one` divided by its mean, so that a factor drops out."""
        v = torch.ones(()) if priorities is None else as_vector(priorities, "the priority", positive=True)
        if v.ndim == 1 and num_tasks not in (None, len(v)):
            raise ValueError(f"this method was built for {num_tasks} tasks but was given {len(v)} priorities.")
        self.mean_one = mean_one
        self.register_buffer("priorities", v / v.double().mean() if mean_one else v, persistent=False)

    def of_tasks(self, name: str, whole: Tensor, there: Tensor) -> Tensor:
        part = super().of_tasks(name, whole, there)
        return part / part.double().mean() if name == "priorities" and self.mean_one else part

    @property
    def tasks_with_priority(self) -> int | None:
        """How many tasks the priorities are for; None where none are given, which fit any number."""
        return len(self.priorities) if self.priorities.ndim else None

    def extra_repr(self) -> str:
        """The priorities, if some are given: what a checkpoint must agree on."""
        return f"priorities={self.priorities.tolist()}" if self.priorities.ndim else ""


class LooksAfter(Balancer):
    """Part of a method that learns from the losses before and after a step.

    After `optimizer.step()`, call `update` with the losses of the same batch, from a forward pass of their own.

    Attributes:
        before: the losses of the last `backward`, shape (T,), float64; nan before the first, and after `update`.
    """

    before: Tensor
    exact: tuple[str, ...] = ("before",)
    per_task: tuple[str, ...] = ("before",)

    def learn(self, before: Tensor, after: Tensor) -> None:
        """Learn from the losses before and after the step, shape (T,) each, float64."""
        raise NotImplementedError

    def update(self, losses: Tensor, *, present: Present = None, group: Group = None) -> None:
        """Learn from the losses after the step, shape (T,), on a graph or not; `present` and `group` as before it.

        Raises:
            ValueError: `backward` has not been called since the last `update`, or the losses are as in `backward`.
        """
        batch = WholeBatch(losses, present, group)
        if not batch.tasks:
            return
        with self.only(batch.there):
            check_losses(batch.losses, len(self.before))
            if self.before.isnan().any():
                raise ValueError(
                    "call backward with the losses before the step first, then update with those after."
                )
            if batch.losses.isfinite().all() and self.before.isfinite().all():
                self.learn(self.before, in_float64(batch.losses).to(self.before.device))
            self.before = torch.full_like(self.before, torch.nan)


class LossBalancer(Balancer):
    """A method that combines the losses into one scalar, and differentiates that.

    Attributes:
        sees_losses: whether the weights depend on the losses.
        sees_norms: whether the weights depend on the norms of the tasks' gradients, too.
    """

    sees_losses = True
    sees_norms = False

    def __call__(self, losses: Tensor) -> Tensor:
        if self.sees_losses and getattr(losses, "grad_fn", None) is not None and Processes().size > 1:
            warnings.warn(
                "on several processes, balancer(losses) weighs by the losses of this process alone. Call "
                "balancer.backward(losses), which weighs by those of the whole batch.",
                stacklevel=2,
            )
        return super().__call__(losses)  # type: ignore[no-any-return]

    def forward(self, losses: Tensor) -> Tensor:
        """Combine losses of shape (T,) into the scalar, shape (), to differentiate."""
        raise NotImplementedError

    def weights_at(self, losses: Tensor, norms: Tensor | None = None) -> Tensor:
        """The task weights ∂ forward / ∂ L_i, shape (T,); the method's own parameters receive gradients."""
        at = losses.detach().requires_grad_()
        torch.autograd.backward(self(at))
        return torch.zeros_like(at) if at.grad is None else at.grad

    def backward(
        self,
        losses: Tensor,
        *,
        shared: Iterable[nn.Parameter] | None = None,
        features: Tensor | Sequence[Tensor] | None = None,
        present: Present = None,
        group: Group = None,
        retain_graph: bool = False,
    ) -> Tensor | None:
        """Add the gradients of `forward(losses)` to `.grad` of all that the losses depend on.

        Args:
            losses: the task losses, shape (T,), on the graph.
            shared: accepted and unused, so that loss-level and gradient methods swap freely; GradNorm measures
                the norms of the gradients on these parameters,
            features: or on this representation. Exactly one of the two is given to it.
            present: which tasks have labels in this batch, shape (T,), or how many labels each has; None where
                all have. The others have no weight, no part in the weights of the rest, and their state stays.
            group: the processes whose batches make up the whole batch; None is all where `torch.distributed` is
                initialised, "alone" is this one. DistributedDataParallel or `fully_shard` averages the gradients.
            retain_graph: whether the graph stays for another backward pass, as in PyTorch.

        Returns:
            The task weights that were used, ∂ forward / ∂ L_i, shape (T,).

        Raises:
            ValueError: the losses are not finite floating-point numbers of shape (T,) on a graph, or break
                a condition of the method; `present` or `group` is none; the parameters differ between processes.
                Nothing has been changed by then.
        """
        check_on_graph(losses)
        batch = WholeBatch(losses, present, group)
        part = batch.part(shared, features, real=False) if self.sees_norms else None
        self.compare_replicas(batch, lambda: leaves_behind([edge_of(losses)]))
        if not batch.tasks:
            return torch.zeros_like(losses)
        with self.only(batch.there):
            weights = self.weights_at(batch.losses, None if part is None else part.norms())
            weights = self.agreed(weights, batch.processes)
        batch.differentiate(weights, retain_graph)
        return batch.spread(weights)


class GradientBalancer(Balancer):
    """A method that combines the gradients of the tasks into one direction to subtract.

    Attributes:
        factors_by_losses: whether its `factors` depend on the losses.
        by_parameter: whether it holds gradients of one batch against those of another, so that it cannot work on
            features.
    """

    factors_by_losses = False
    by_parameter = False

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        """The weights α of the direction d = Jᵀ α.

        Args:
            M: the Gram matrix J Jᵀ of the gradients, shape (T, T), float64, finite.
            losses: the task losses, shape (T,), float64, for the methods that use them.

        Returns:
            α of shape (T,), float64.
        """
        raise NotImplementedError

    def factors(self, losses: Tensor) -> Tensor | None:
        """What each loss is multiplied by before it is differentiated, shape (T,); None for 1.

        Args:
            losses: those of the whole batch, shape (T,), detached.
        """
        return None

    def weights_at(self, M: Tensor, losses: Tensor | None) -> Tensor:
        """`task_weights`, or nan, shape (T,), where gradients or losses are not finite.

        Those pass through: they give a direction of nan, so that a GradScaler sees them and skips the step.
        """
        exact = None if losses is None else in_float64(losses.detach()).to(M.device)
        if M.isfinite().all() and (exact is None or exact.isfinite().all()):
            return self.task_weights(M, exact)
        return torch.full_like(M[0], torch.nan)

    def combine(
        self,
        gradients: Tensor,
        losses: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The direction, shape (P,), and its task weights, shape (T,), or None if it is no weighted sum.

        The direction is rounded once, to the type of the gradients; the weights are in float32 at least.
        """
        check_rows(gradients)
        J = gradients.detach()  # (T, P)
        alpha = self.weights_at(gram(J), losses)  # (T,)
        d = weighted_sum(alpha, J)
        return d.to(J.dtype), alpha.to(d.dtype).to(d.device)

    def check_part(self, part: Part) -> None:
        """Raise a ValueError where the method cannot do with what is seen of the gradients."""
        if self.by_parameter and isinstance(part, Features):
            raise ValueError(
                f"{type(self).__name__} holds the gradients of one batch against those of another, and features "
                "are those of other examples in each. Give shared=parameters."
            )
        if not part.whole and type(self).combine is not GradientBalancer.combine:
            raise ValueError(
                f"{type(self).__name__} has a combine of its own, which needs the gradients themselves: on "
                "several processes, and for micro-batches by features, only a part of them is seen here. Use one "
                "process or group='alone', and shared=parameters for micro-batches. Of your own method, define "
                "task_weights instead, if their Gram matrix is enough."
            )

    def direction(self, part: Part, J: Tensor, losses: Tensor) -> tuple[Tensor, Tensor | None]:
        """`combine`, of gradients that may be a process's part of those of the whole batch, shape (T, ·)."""
        if part.whole:
            return self.combine(J, losses)
        J = part.reduce(J)  # this process's columns
        M = part.sum(gram(J))  # (T, T)
        weights = self.agreed(self.weights_at(M, losses), part.processes)
        alpha = part.processes.first(weights).to(J)  # (T,)
        return weighted_sum(alpha, J), alpha

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
        present: Present = None,
        group: Group = None,
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
            present: which tasks have labels in this batch, shape (T,), or how many labels each has; None where
                all have. The others have no weight, no part in the weights of the rest, and their state stays.
            group: the processes whose batches make up the whole batch; None is all where `torch.distributed` is
                initialised, "alone" is this one. With `features`, DistributedDataParallel or `fully_shard`
                averages the gradients; of `shared` parameters, and of the rest, they are averaged here.
            retain_graph: whether the graph stays for another backward pass, as in PyTorch.

        Returns:
            The task weights α of the direction, shape (T,), or None if it is no weighted sum.

        Raises:
            ValueError: the losses are not finite floating-point numbers of shape (T,) on a graph, or break a
                condition of the method; both or neither of `shared` and `features` are given; no tensor in them
                requires a gradient or is reached by a loss; a shared parameter is no leaf; the features do not
                separate the heads from the encoder; `present` or `group` is none; the parameters differ between
                processes. Nothing has been changed by then.
        """
        check_on_graph(losses)
        batch = WholeBatch(losses, present, group)
        part = batch.part(shared, features)
        self.compare_replicas(batch, part.leaves)
        if not batch.tasks:
            return torch.zeros_like(losses)
        self.check_part(part)
        with self.only(batch.there):
            self.check(batch.losses)
            batch.multiply(self.factors(batch.losses))
            J = part.gradients(retain_graph)  # (T, P)
            d, weights = self.direction(part, J, batch.losses)
            del J  # before d is handed out
        part.apply(d, retain_graph)
        return None if weights is None else batch.spread(weights)


class Wraps(GradientBalancer):
    """A method around another, which is asked as it would be asked by itself.

    Args:
        inner: the other method; its weights must follow from the Gram matrix of one batch.

    Raises:
        ValueError: inner is no method of the gradients, or needs more of them.
    """

    def __init__(self, inner: GradientBalancer) -> None:
        super().__init__()
        if not isinstance(inner, GradientBalancer):
            raise ValueError(f"inner is {inner!r}, but must be a method of the gradients, as mtl.MGDA() is.")
        if type(inner).combine is not GradientBalancer.combine or inner.by_parameter:
            raise ValueError(f"{type(inner).__name__} needs more of the gradients than their Gram matrix.")
        self.inner = inner
        self.random, self.factors_by_losses = inner.random, inner.factors_by_losses

    def check(self, losses: Tensor) -> None:
        self.inner.check(losses)

    def factors(self, losses: Tensor) -> Tensor | None:
        return self.inner.factors(losses)
