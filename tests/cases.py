"""What the tests of a claim share: matrices, one small network, a tiny problem, and the rows of the catalogue.

A row that is added to the catalogue is run by every test of `contract` that concerns it, with no other edit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import mtl_ref as mtl
from mtl_ref.catalogue import ROWS, Method

# --- Matrices

SCALES = [1e-12, 1e-6, 1.0, 1e6, 1e12]
DEGENERATE = {
    "zeros": [[0.0, 0.0], [0.0, 0.0]],
    "one zero": [[0.0, 0.0], [1.0, -2.0], [-1.0, 1.0]],
    "duplicates": [[1.0, 2.0], [1.0, 2.0], [-1.0, 1.0]],
    "all the same": [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]],
    "opposite": [[1.0, 2.0], [-1.0, -2.0]],
    "opposite, of unequal length": [[1.0, 2.0], [-10.0, -20.0]],
    "colinear": [[1.0, 1.0], [3.0, 3.0], [-2.0, -2.0]],
    "stationary": [[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]],
    "stationary, of unequal length": [[1.0, 0.0], [-3.5, 7 * 0.75**0.5], [-5e-4, -1e-3 * 0.75**0.5]],
    "far apart": [[1e12, 1e12], [-1e-12, 0.0]],
    "one task": [[3.0, 4.0]],
    "one task, zero": [[0.0, 0.0]],
}


def matrix(rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def gram(J: Tensor) -> Tensor:
    return J @ J.T


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal to the last bit, nan where the other is."""
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())


def draw(T: int, P: int, seed: int = 0, rank: int | None = None, dtype: torch.dtype = torch.float64) -> Tensor:
    """T normal gradients of length P, of full rank or the rank that is given."""
    generator = torch.Generator().manual_seed(seed)
    J = torch.randn(T, P, generator=generator, dtype=torch.float64)
    if rank is not None:
        left = torch.randn(T, rank, generator=generator, dtype=torch.float64)
        J = left @ torch.randn(rank, P, generator=generator, dtype=torch.float64)
    return J.to(dtype)


@st.composite
def gradient_matrices(draw_: st.DrawFn) -> Tensor:
    """Up to 7 gradients of any rank and scale, some of them equal, opposite, colinear or zero."""
    T, P = draw_(st.integers(1, 6)), draw_(st.integers(1, 8))
    J = draw(T, P, draw_(st.integers(0, 10**6)), rank=draw_(st.integers(1, min(T, P))))
    exponents = draw_(st.sampled_from([[0], [-12], [12], [-12, 12, 0], [-3, 2]]))
    J = J * 10.0 ** vector(*(exponents[i % len(exponents)] for i in range(T)))[:, None]
    special = draw_(st.sampled_from(["none", "zero", "equal", "opposite", "colinear"]))
    if special == "none":
        return J
    factor = {"zero": 0.0, "equal": 1.0, "opposite": -1.0, "colinear": 3.0}[special]
    return torch.cat([J, factor * J[:1]])


# --- A network and a problem


class Net(nn.Module):
    """An encoder of two layers and T heads with positive losses; `losses()` leaves the features in `z`."""

    def __init__(self, tasks: int = 3, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.encoder = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
            self.heads = nn.ModuleList(nn.Linear(3, 1) for _ in range(tasks))
            self.register_buffer("x", torch.randn(6, 4))
        self.to(dtype)

    def losses(self) -> Tensor:
        self.z = self.encoder(self.x)
        return torch.stack([(t + 1) * (head(self.z) - t).square().mean() for t, head in enumerate(self.heads)])

    def given(self, by: str) -> dict[str, object]:
        """The keyword of `backward` that says what the tasks share; `losses()` comes first."""
        return {"features": self.z} if by == "features" else {"shared": self.encoder.parameters()}

    def grads(self, part: str = "") -> Tensor:
        """All that lies in `.grad`, in one vector."""
        found = [p.grad for name, p in self.named_parameters() if name.startswith(part)]
        return torch.cat([g.flatten() for g in found if g is not None])


def jacobian(losses: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """J, shape (T, P), by autograd, a task at a time; the graph stays."""
    rows = [torch.autograd.grad(loss, inputs, retain_graph=True, materialize_grads=True) for loss in losses]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


class Tiny(mtl.problems.Problem):
    """A problem of one batch. `order` says which tasks it has: those of another order are the same tasks."""

    metrics = {"loss": False}  # noqa: RUF012
    device = torch.device("cpu")

    def __init__(self, order: Sequence[int] = (0, 1, 2)) -> None:
        self.tasks = tuple(f"task {i}" for i in order)
        self.kinds = {f"task {i}": ("regression", "classification")[i % 2] for i in order}
        self.prior = [1.0 + i for i in order]
        self.x = draw(32, 3, dtype=torch.float32)

    def __repr__(self) -> str:
        return f"Tiny({self.tasks})"

    def prior_losses(self) -> list[float]:
        return self.prior

    def to(self, device: torch.device | str) -> "Tiny":
        return self

    def model(self) -> mtl.problems.HardSharing:
        return mtl.problems.HardSharing(nn.Linear(3, 4), {task: nn.Linear(4, 1) for task in self.tasks})

    def batches(
        self, split: str, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        yield self.x, {task: (i + 1) * self.x[:, i % 3] for i, task in enumerate(self.tasks)}

    def losses(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([(outputs[task][:, 0] - targets[task]).square().mean() for task in self.tasks])

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        with torch.no_grad():
            x, targets = next(self.batches(split))
            return {"loss": self.losses(model(x), targets).sum().item()}


# --- The rows of the catalogue


def build(
    row: Method, order: Sequence[int] = (0, 1, 2), **given: object
) -> mtl.LossBalancer | mtl.GradientBalancer:
    """The row's balancer, fresh, for the tasks of `Tiny`; PyTorch's random state is the same for each."""
    torch.manual_seed(0)
    return row.make(Tiny(order), **given)


def looks_at_gradients(row: Method) -> bool:
    """Whether `backward` must be told what the tasks share."""
    balancer = build(row)
    return isinstance(balancer, mtl.GradientBalancer) or balancer.sees_norms


def ways(row: Method) -> list[str]:
    """How the tasks' gradients can be given to it."""
    return ["shared"] if getattr(build(row), "by_parameter", False) else ["shared", "features"]


def rows(chosen: Sequence[Method]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test with each row; above `both_ways`, with each way in which the row's method works."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        marks = getattr(test, "pytestmark", [])
        if both_ways.mark not in marks:
            return pytest.mark.parametrize("row", chosen, ids=[row.key for row in chosen])(test)
        test.pytestmark = [mark for mark in marks if mark != both_ways.mark]  # type: ignore[attr-defined]
        pairs = [(row, by) for row in chosen for by in ways(row)]
        ids = [f"{row.key}-{by}" for row, by in pairs]
        return pytest.mark.parametrize(("row", "by"), pairs, ids=ids)(test)

    return decorate


both_ways = pytest.mark.parametrize("by", ["shared", "features"])


LOSS = [row for row in ROWS if isinstance(build(row), mtl.LossBalancer)]
GRADIENT = [row for row in ROWS if isinstance(build(row), mtl.GradientBalancer)]
SHARING = [row for row in ROWS if looks_at_gradients(row)]
every_row, loss_rows, gradient_rows = rows(ROWS), rows(LOSS), rows(GRADIENT)
sharing_rows = rows(SHARING)
gram_rows = rows([row for row in GRADIENT if row.gram])
MATRIX = [  # these need the gradients themselves
    row
    for row in GRADIENT
    if ways(row) == ["shared"] or type(build(row)).combine is not mtl.GradientBalancer.combine
]
BY_PARAMETER = [row for row in GRADIENT if ways(row) == ["shared"]]
matrix_rows, by_parameter_rows = rows(MATRIX), rows(BY_PARAMETER)
ordered_rows = rows(  # a draw has no order to compare with, and the first task may be another kind of task
    [row for row in ROWS if "random" not in row.state and "primary" not in row.sees]
)
