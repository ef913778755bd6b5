"""Methods that need more than the Gram matrix of one batch: the gradients themselves, or a second batch."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_ref.balancer import GradientBalancer, Remembers
from mtl_ref.checks import check_losses, check_on_graph, check_rows, in_float64
from mtl_ref.distributed import Group, Part, Present, WholeBatch
from mtl_ref.gradients import gram, weighted_sum


class MatrixBalancer(GradientBalancer):
    """A method that needs the gradients themselves: their Gram matrix is not enough.

    It works in one process, and for micro-batches with `shared`.

    Attributes:
        sizes: how many entries each of the shared tensors, or of the features, has in the last `backward`.
    """

    sizes: Sequence[int] = ()

    def direction(self, part: Part, J: Tensor, losses: Tensor) -> tuple[Tensor, Tensor | None]:
        self.sizes = [x.numel() for x in part.inputs]
        return super().direction(part, J, losses)

    def mix(self, J: Tensor, losses: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The direction, shape (P,), from finite gradients, shape (T, P), in float32 at least.

        With it the task weights, shape (T,), or None if it is no weighted sum of the gradients.

        Args:
            J: the gradients.
            losses: the task losses, shape (T,), float64, for the methods that use them.
        """
        raise NotImplementedError

    def combine(self, gradients: Tensor, losses: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        check_rows(gradients)
        J = gradients.detach()  # (T, P)
        J = J.to(torch.promote_types(J.dtype, torch.float32))
        exact = None if losses is None else in_float64(losses.detach())
        self.check(torch.ones(len(J)))  # their number
        if not (J.isfinite().all() and (exact is None or exact.isfinite().all())):
            return torch.full_like(gradients[0], torch.nan), None
        with torch.autocast(J.device.type, enabled=False):
            d, weights = self.mix(J, exact)
        return d.to(gradients.dtype), None if weights is None else weights.to(d)


class RemembersGradients(Remembers, MatrixBalancer):
    """A method whose state is of the size of the gradients: a number for each entry.

    Attributes:
        kept: what is remembered, shape (T, P).
    """

    by_parameter = True
    kept: Tensor
    memory = "kept"
    per_task: tuple[str, ...] = ("kept",)

    def __init__(self) -> None:
        super().__init__()
        self.kept = torch.empty(0)

    def last(self, J: Tensor) -> Tensor:
        """What is remembered, shape (T, P), where and as the gradients J are; 0 of a task that is new."""
        if len(self.kept) == 0:
            return torch.zeros_like(J)
        return self.kept.to(J).nan_to_num(nan=0.0)

    def check(self, losses: Tensor) -> None:
        check_losses(losses, len(self.kept) or None)

    def check_part(self, part: Part) -> None:
        super().check_part(part)
        size = sum(x.numel() for x in part.inputs)
        if len(self.kept) and self.kept.shape[1] != size:
            raise ValueError(
                f"{type(self).__name__} remembers gradients of {self.kept.shape[1]} entries, but these have "
                f"{size}. Give the same shared parameters in every step."
            )


class TwoSamples(GradientBalancer):
    """A method that estimates M without bias, as J₁ J₂ᵀ of two independent batches, for `task_weights`.

    The Gram matrix of one batch is too large by the noise in it: the mean of ‖g‖² is ‖ḡ‖² plus the variance. Where
    no second batch is given, the one that is stands for both, with that bias.
    """

    takes_second = True
    by_parameter = True

    def backward(
        self,
        losses: Tensor,
        *,
        second: Tensor | None = None,
        shared: Iterable[Tensor] | None = None,
        features: Tensor | Sequence[Tensor] | None = None,
        present: Present = None,
        group: Group = None,
        retain_graph: bool = False,
    ) -> Tensor | None:
        """As that of every method of the gradients, with one more argument.

        Args:
            losses: the task losses of a batch, shape (T,), on the graph.
            second: those of another batch, drawn independently, shape (T,), on a graph of its own. Direction and
                gradients of the heads are then those of the mean of both losses.
            shared: the shared parameters.
            features: refused.
            present: which tasks have labels in both batches.
            group: as ever; with `second` there must be one process.
            retain_graph: as in PyTorch.

        Returns:
            The task weights α of the direction, shape (T,).

        Raises:
            ValueError: as ever, or `second` is not of the same tasks, or there are several processes beside it.
        """
        given: dict[str, Any] = {"present": present, "group": group}
        if second is None:
            given |= {"shared": shared, "features": features, "retain_graph": retain_graph}
            return super().backward(losses, **given)
        check_on_graph(losses)
        check_on_graph(second)
        if second.shape != losses.shape:
            raise ValueError(
                f"losses have shape {tuple(losses.shape)} and second {tuple(second.shape)}: they must be of the "
                "same tasks."
            )
        shared = None if shared is None else list(shared)
        batches = [WholeBatch(x, **given) for x in (losses, second)]
        parts: list[Part] = []
        for one in batches:
            part = one.part(shared, features)
            parts.append(part)
            self.check_part(part)
            if not part.whole:
                raise ValueError("a second batch works in one process only: leave it out, or say group='alone'.")
        batch, part = batches[0], parts[0]
        if not batch.tasks:
            return torch.zeros_like(losses)
        with self.only(batch.there):
            for one in batches:
                self.check(one.losses)
            for one in batches:
                one.multiply(torch.full_like(one.losses, 0.5))
            J, other = (one.gradients(retain_graph) for one in parts)  # halves of them, shape (T, P)
            mean = (batches[0].losses + batches[1].losses) / 2
            alpha = self.weights_at(4 * gram(J, other), mean)
            d = weighted_sum(alpha, J.add_(other))
            del J, other
        part.apply(d, retain_graph)
        return batch.spread(alpha.to(d))
