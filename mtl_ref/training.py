"""Train one network on one problem with one balancing method, and record what happened."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtl_ref.balancer import GradientBalancer, LooksAfter, LossBalancer
from mtl_ref.files import written_whole
from mtl_ref.metrics import first_best
from mtl_ref.problems.base import HardSharing, Problem

CHECKPOINTED = ("losses", "weights", "validation", "test", "seconds", "mean_step")  # the fields of a history
MEASURE_EVERY = 10  # steps, of which one is measured


@dataclass
class History:
    """What happened in a training run; each list has one entry per epoch.

    Attributes:
        tasks: the T task names, in the order of losses and weights.
        metrics: for each metric's name, whether a higher value is better.
        losses: mean training losses, (T,) each.
        weights: mean task weights, (T,) each, or None where the method has none.
        validation, test: the problem's metrics.
        seconds: training time of the epoch, without evaluation.
        mean_step: how far a step moves the network, in Euclidean length: the mean of every tenth step.
        model: the trained network after the last epoch.
    """

    tasks: tuple[str, ...]
    metrics: dict[str, bool]
    losses: list[list[float]] = field(default_factory=list)
    weights: list[list[float] | None] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    test: list[dict[str, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    mean_step: float = 0.0
    model: nn.Module | None = field(default=None, repr=False, compare=False)

    @property
    def best_epoch(self) -> int:
        """The epoch (from 0) with the best mean rank over the validation metrics, the first of those that tie."""
        table = [list(epoch.values()) for epoch in self.validation]
        return first_best(table, list(self.metrics.values()))

    @property
    def result(self) -> dict[str, float]:
        """The test metrics of the epoch that validation chose."""
        return self.test[self.best_epoch]


def train(
    problem: Problem,
    balancer: LossBalancer | GradientBalancer,
    *,
    epochs: int,
    seed: int = 0,
    device: torch.device | str | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    lr: float = 3e-3,
    decay: float = 1.0,
    balancer_lr: float | None = None,
    shared: Callable[[HardSharing], Iterable[nn.Parameter]] | None = None,
    features: bool = False,
    checkpoint: str | Path | None = None,
) -> History:
    """Train a fresh network, evaluating on validation and test after each epoch.

    Learned weights of the balancer go to the optimiser in a group of their own without weight decay.
    PyTorch's global random state is left as it was.

    Args:
        problem: what is learnt.
        balancer: any method; it is trained in place.
        epochs: passes over the training split.
        seed: decides the initial network, the order of the batches and dropout.
        device: where to train; a GPU if there is one.
        optimizer: called as `optimizer(parameter_groups, lr=lr)`.
        lr: the learning rate.
        decay: the factor on the learning rates after each epoch.
        balancer_lr: the learning rate of the balancer's own parameters; `lr` if left out.
        shared: picks the parameters that gradient methods look at; the whole encoder's if left out.
        features: whether gradient methods look at the shared representation z instead ("upper bound").
        checkpoint: a file that is written whole after each epoch. Where it exists the run goes on from it, on
            CPU bit for bit as if it had never stopped; a finished run is only read.

    Returns:
        The history, with the trained model.

    Raises:
        ValueError: the checkpoint belongs to a run with other settings, or is not a checkpoint.
    """
    from tqdm import tqdm

    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    problem.to(device)
    settings = {
        "problem": repr(problem),
        "balancer": repr(balancer),
        "optimizer": f"{optimizer} lr={lr} decay={decay} balancer_lr={balancer_lr}",
        "seed": seed,
        "features": features,
    }
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        order = torch.Generator().manual_seed(seed)
        model = problem.model().to(device)
        balancer.to(device)
        groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
        if any(True for _ in balancer.parameters()):
            own = {"lr": lr if balancer_lr is None else balancer_lr, "weight_decay": 0.0}
            groups.append({"params": list(balancer.parameters()), **own})
        update = optimizer(groups, lr=lr)
        lengths = StepLengths(update)
        schedule = torch.optim.lr_scheduler.ExponentialLR(update, decay)
        inspected = None if features else list(model.encoder.parameters() if shared is None else shared(model))
        history = History(problem.tasks, problem.metrics, model=model)
        saved = Checkpoint(checkpoint, settings, history, order, [model, balancer, update, schedule, lengths])
        saved.load(device)
        for _ in tqdm(range(len(history.losses), epochs), desc="training", unit="epoch", leave=False):
            started = time.perf_counter()
            epoch = train_epoch_in_halves if balancer.takes_second else train_epoch
            losses, weights = epoch(problem, model, balancer, update, order, inspected)
            history.losses.append(losses)
            history.weights.append(weights)
            history.seconds.append(time.perf_counter() - started)
            history.mean_step = lengths.mean
            schedule.step()
            balancer.end_epoch()
            history.validation.append(problem.evaluate(model, "validation"))
            history.test.append(problem.evaluate(model, "test"))
            saved.save()
    return history


def train_epoch(
    problem: Problem,
    model: HardSharing,
    balancer: LossBalancer | GradientBalancer,
    optimizer: torch.optim.Optimizer,
    order: torch.Generator,
    shared: list[nn.Parameter] | None,
) -> tuple[list[float], list[float] | None]:
    """One pass over the training split; returns the mean losses and the mean weights, (T,) each.

    Gradient methods look at the parameters `shared`, or where that is None at the representation z.
    """
    all_losses: list[Tensor] = []
    all_weights: list[Tensor] = []
    for x, targets in problem.batches("train", order):
        z = model.encoder(x)
        losses = problem.losses(model.decode(z), targets)  # (T,)
        optimizer.zero_grad()
        features = z if shared is None else None
        weights = balancer.backward(losses, shared=shared, features=features)
        optimizer.step()
        if isinstance(balancer, LooksAfter):
            with torch.no_grad():
                balancer.update(problem.losses(model(x), targets))
        all_losses.append(losses.detach())
        if weights is not None:
            all_weights.append(weights)
    mean_weights = _mean_rows(all_weights) if all_weights else None
    return _mean_rows(all_losses), mean_weights


def train_epoch_in_halves(
    problem: Problem,
    model: HardSharing,
    balancer: LossBalancer | GradientBalancer,
    optimizer: torch.optim.Optimizer,
    order: torch.Generator,
    shared: list[nn.Parameter] | None,
) -> tuple[list[float], list[float] | None]:
    """As `train_epoch`, for a method that takes two batches: every other example of a batch, and the rest."""
    all_losses: list[Tensor] = []
    all_weights: list[Tensor] = []
    for x, targets in problem.batches("train", order):
        halves = []
        for part in (slice(0, None, 2), slice(1, None, 2))[: len(x)]:
            outputs = model(x[part])
            halves.append(problem.losses(outputs, {task: y[part] for task, y in targets.items()}))
        optimizer.zero_grad()
        second = halves[1] if len(halves) > 1 else None
        weights = balancer.backward(halves[0], second=second, shared=shared)  # type: ignore[call-arg]
        optimizer.step()
        all_losses.append(torch.stack(halves).detach().mean(0))
        all_weights.append(weights)  # type: ignore[arg-type]
    return _mean_rows(all_losses), _mean_rows(all_weights)


def _mean_rows(rows: list[Tensor]) -> list[float]:
    return torch.stack(rows).mean(0).tolist()


class StepLengths:
    """How far, in Euclidean length, every tenth step moves the network: the optimiser's first group of parameters.

    The sums belong to a run's state, so that a resumed run has the same mean.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.network = optimizer.param_groups[0]["params"]
        self.steps, self.measured, self.sum = 0, 0, 0.0
        optimizer.register_step_pre_hook(self.before)
        optimizer.register_step_post_hook(self.after)

    def before(self, *_: Any) -> None:
        """Keep the parameters, if this step is to be measured."""
        self.kept = [p.detach().clone() for p in self.network] if self.steps % MEASURE_EVERY == 0 else []

    def after(self, *_: Any) -> None:
        """Count the step, and add its length if it is measured."""
        self.steps += 1
        if self.kept:
            pairs = zip(self.network, self.kept, strict=True)
            self.sum += sum((p.detach() - k).double().square().sum().item() for p, k in pairs) ** 0.5
            self.measured += 1

    @property
    def mean(self) -> float:
        """The mean length of the measured steps."""
        return self.sum / self.measured

    def state_dict(self) -> dict[str, float]:
        return {"steps": self.steps, "measured": self.measured, "sum": self.sum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.measured, self.sum = state["steps"], state["measured"], state["sum"]


class Checkpoint:
    """The whole state of a run in one file, which is replaced in one step after each epoch.

    Args:
        path: the file, or None to keep nothing.
        settings: what must agree for a run to go on from the file.
        history: is extended by what the file holds.
        order: the generator that orders the batches.
        parts: everything with a `state_dict`.
    """

    def __init__(
        self,
        path: str | Path | None,
        settings: dict[str, Any],
        history: History,
        order: torch.Generator,
        parts: list[Any],
    ) -> None:
        self.path = None if path is None else Path(path)
        self.settings, self.history, self.order, self.parts = settings, history, order, parts

    def save(self) -> None:
        """Replace the file by the present state."""
        if self.path is None:
            return
        history = {name: getattr(self.history, name) for name in CHECKPOINTED}
        state = {
            "settings": self.settings,
            "history": history,
            "parts": [part.state_dict() for part in self.parts],
            "random": [torch.get_rng_state(), self.order.get_state()],
            "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
        }
        with written_whole(self.path, "wb") as file:
            torch.save(state, file)

    def load(self, device: torch.device) -> None:
        """Bring the run to the state in the file, if there is one."""
        if self.path is None or not self.path.exists():
            return
        try:
            state = torch.load(self.path, map_location=device, weights_only=True)
            saved = state["settings"]
        except Exception as error:
            raise ValueError(
                f"{self.path} is not a checkpoint of mtl_ref, or is damaged. Delete it or choose another file."
            ) from error
        for name, value in self.settings.items():
            other = saved.get(name)
            if other != value:
                raise ValueError(
                    f"{self.path} belongs to another run: its {name} is {other!r}, here it is {value!r}. "
                    "Delete it or choose another file."
                )
        for part, part_state in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(part_state)
        for name, values in state["history"].items():
            setattr(self.history, name, values)
        torch.set_rng_state(state["random"][0].cpu())
        self.order.set_state(state["random"][1].cpu())
        if torch.cuda.is_available() and state["cuda"]:
            torch.cuda.set_rng_state(state["cuda"][0].cpu())
