"""One step from several micro-batches: what does not fit into memory at once is added up."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mtl_ref.balancer import GradientBalancer, LossBalancer
from mtl_ref.checks import check_losses, check_on_graph
from mtl_ref.distributed import Group, Parameters, Part, Present, Processes, WholeBatch, replaced
from mtl_ref.gradients import edge_of, gram, leaves_behind, weighted_sum


class Accumulation:
    """The step of the whole batch, from its micro-batches: gradients add up before they are combined.

    As in PyTorch, the loss of the whole batch is the sum of those given: divide each by the number of parts.
    A gradient method with `shared` adds up J and needs one pass through the data, with memory for T gradients::

        step = mtl.Accumulation(balancer)
        for x, y in micro_batches:
            step.add(losses(x, y) / len(micro_batches), shared=encoder.parameters())
        weights = step.finish()

    With `features` it adds up M, and the weights of the whole batch come too late for the first pass. So there
    is a second one, for which the same micro-batches go through the model again::

        for x, y in micro_batches:
            step.backward(losses(x, y) / len(micro_batches), features=z)

    Methods that combine the losses, and GradNorm, take the second pass too. State moves once, in `finish`. The two
    passes must see the same losses: with dropout, start both from the same random state.

    Args:
        balancer: any method.
        group: as in `backward`.
    """

    def __init__(self, balancer: LossBalancer | GradientBalancer, group: Group = None) -> None:
        self.balancer, self.group = balancer, group
        self.start()

    def start(self) -> None:
        """Forget what was added."""
        self.losses: Tensor | None = None  # (T,), summed
        self.there: Tensor | None = None  # (T,), which have labels in some micro-batch
        self.J: Tensor | None = None  # (T, ·), of shared parameters, summed
        self.M: Tensor | None = None  # (T, T), of features, summed
        self.part: Part | None = None
        self.weights: Tensor | None = None  # (T,), once they are known
        self.compared = False  # whether the second pass has compared the processes

    def add(
        self,
        losses: Tensor,
        *,
        shared: Iterable[Tensor] | None = None,
        features: Tensor | Sequence[Tensor] | None = None,
        present: Present = None,
    ) -> None:
        """Measure a micro-batch; arguments and errors as in `backward` of the method."""
        if self.weights is not None:
            self.start()
        batch = WholeBatch(losses, present, self.group)
        self.check_number(losses)
        if batch.tasks:
            check_losses(batch.losses)
        if isinstance(self.balancer, GradientBalancer) or self.balancer.sees_norms:
            self.measure(batch, shared, features)
        there = torch.ones_like(losses).bool() if batch.there is None else batch.there
        total = batch.spread(batch.losses)
        self.there = there if self.there is None else self.there | there
        self.losses = total.clone() if self.losses is None else self.losses + total

    def check_number(self, losses: Tensor) -> None:
        """Raise a ValueError unless all micro-batches have equally many losses."""
        if self.losses is not None and losses.shape != self.losses.shape:
            raise ValueError(
                f"this micro-batch has {len(losses)} losses, but those before have {len(self.losses)}. Give the "
                "loss of every task, and say in present which have labels."
            )

    def measure(
        self, batch: WholeBatch, shared: Iterable[Tensor] | None, features: Tensor | Sequence[Tensor] | None
    ) -> None:
        """Add to J or M what the gradients of a micro-batch bring."""
        check_on_graph(batch.here)
        combines = isinstance(self.balancer, GradientBalancer)
        part, before = batch.part(shared, features, real=combines), self.part
        part.whole = part.whole and shared is not None
        if isinstance(self.balancer, GradientBalancer):
            if self.balancer.factors_by_losses:
                raise ValueError(
                    f"{type(self.balancer).__name__} multiplies each loss by a number that depends on the loss of "
                    "the whole batch, which is not known before all micro-batches are. Use one batch."
                )
            self.balancer.check_part(part)
            with self.balancer.only(batch.there):
                self.balancer.check(torch.ones_like(batch.losses))  # their number; what they are, in finish
                batch.multiply(self.balancer.factors(batch.losses))
        if before is None:
            self.balancer.compare_replicas(batch, part.leaves)
        elif type(part) is not type(before) or (shared is not None and set(part.inputs) != set(before.inputs)):
            raise ValueError("all micro-batches must be given the same shared parameters, or features each.")
        elif isinstance(part, Parameters) and isinstance(before, Parameters):
            part.own = before.own
        self.part = part
        rows = part.gradients(False, own=combines and shared is not None)  # (S, ·)
        if shared is None:
            M = batch.spread(batch.spread(gram(rows)).T)  # (T, T)
            self.M = M if self.M is None else self.M + M
        else:
            J = batch.spread(rows)  # (T, ·)
            self.J = J if self.J is None else self.J.add_(J)

    def finish(self) -> Tensor | None:
        """Find the task weights of the whole batch, shape (T,); with `shared`, add the direction to `.grad`.

        Raises:
            ValueError: nothing was added since the last step, or the losses break a condition of the method. The
                tasks' own parameters may have gradients by then: with `shared`, they receive them in `add`.
        """
        if self.losses is None or self.there is None or self.weights is not None:
            raise ValueError("nothing was added: call add for each micro-batch first.")
        there = self.there
        losses = self.losses[there]
        with self.balancer.only(None if there.all() else there):
            weights = self.decide(losses, there) if len(losses) else losses
        if weights is None:
            self.weights = torch.full_like(self.losses, torch.nan)  # the direction is no weighted sum
            return None
        self.weights = torch.zeros_like(self.losses, dtype=weights.dtype).index_put((there,), weights)
        return self.weights

    def decide(self, losses: Tensor, there: Tensor) -> Tensor | None:
        """The weights of those tasks that have labels, shape (S,), and the step that needs no second pass."""
        if self.part is None:  # no gradient is looked at
            used: Tensor = self.balancer.weights_at(losses)  # type: ignore[call-arg]
            return self.balancer.agreed(used, Processes(self.group))
        J = None if self.J is None else self.J if there.all() else self.J[there]
        if isinstance(self.balancer, GradientBalancer):
            self.balancer.check(losses)
            if J is not None:
                d, weights = self.balancer.direction(self.part, J, losses)
                self.part.apply(d, False)
                return weights
        M = self.part.sum(gram(self.part.reduce(J)) if J is not None else self.M[there][:, there])  # type: ignore[index]
        if isinstance(self.balancer, LossBalancer):
            return self.balancer.weights_at(losses, M.diagonal().sqrt())
        alpha = self.balancer.agreed(self.balancer.weights_at(M, losses), self.part.processes)
        alpha = self.part.processes.first(alpha)
        return alpha.to(torch.promote_types(losses.dtype, torch.float32)).to(losses.device)

    def backward(
        self,
        losses: Tensor,
        *,
        features: Tensor | Sequence[Tensor] | None = None,
        present: Present = None,
        retain_graph: bool = False,
    ) -> None:
        """The second pass: add the gradients of a micro-batch to `.grad`, by the weights of the whole batch.

        Raises:
            ValueError: `finish` has not been called, or has left nothing to do; the losses are not as many.
        """
        combines = isinstance(self.balancer, GradientBalancer)
        if self.weights is None or (combines and self.J is not None):
            raise ValueError("call finish first." if self.weights is None else "with shared, finish was the step.")
        check_on_graph(losses)
        batch = WholeBatch(losses, present, self.group)
        self.check_number(losses)
        if self.part is None and not self.compared:  # the gradients were not looked at before
            self.compared = True
            self.balancer.compare_replicas(batch, lambda: leaves_behind([edge_of(losses)]))
        weights = self.weights if batch.there is None else self.weights[batch.there]
        if not combines:
            batch.differentiate(weights, retain_graph)
            return
        if isinstance(self.balancer, GradientBalancer):
            with self.balancer.only(batch.there):
                batch.multiply(self.balancer.factors(batch.losses))
        part = batch.part(None, features)
        d = weighted_sum(weights, part.gradients(True, own=False))
        with replaced(part.inputs, part.pieces(d)):
            batch.differentiate(torch.ones_like(batch.losses), retain_graph)
