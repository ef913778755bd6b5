"""Run methods on problems over seeds and learning rates; each run leaves one result file::

    python -m mtl_ref.benchmark --problem multimnist --methods equal,pcgrad --seeds 0,1,2 --out FOLDER
    python -m mtl_ref.benchmark --problem multimnist --methods all --seeds 0-4 --jobs 8 --out FOLDER
    torchrun --nproc-per-node 4 -m mtl_ref.benchmark --problem multimnist --methods all --seeds 0-9 --out FOLDER
    python -m mtl_ref.benchmark --table FOLDER

One process prints the table when it is through; several leave that to `--table`.
The same command goes on where it was stopped: finished runs are skipped, an interrupted one resumes from the
checkpoint of its last epoch. Processes started by torchrun or a Slurm job array share the runs among them. What
the files say together is read by `mtl_ref.results`.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cache, cached_property
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn
from tqdm import tqdm

import mtl_ref as mtl
from mtl_ref import results
from mtl_ref.balancer import GradientBalancer, LossBalancer
from mtl_ref.problems import HardSharing, MultiMNIST, Problem

PROFILES = ("quick", "full")
MEASURED = 10  # the length of every tenth step is measured


@dataclass
class Setting:
    """A problem, and what the runs on it need to know.

    Attributes:
        build: makes the problem; called once a process, and only if there is something to run.
        kinds: for each task, in the order of the losses, "classification" or "regression".
        epochs: passes over the training split.
        lrs: the learning rates that are tried for every method.
        train: further keywords of `mtl_ref.train`, such as `decay` or `optimizer`.
        weights: the task weights of the method "fixed", a tuned-weights search; some drawn at random if left out.
        prior: the T losses of the best answers that ignore the input, for the method "prior".
        metrics: for each task, the metrics that judge it. Where left out, the problem has one for each task.
    """

    build: Callable[[], Problem]
    kinds: dict[str, str]
    epochs: int
    lrs: tuple[float, ...]
    train: dict[str, Any] = field(default_factory=dict)
    weights: Sequence[Sequence[float]] = ()
    prior: Callable[[Problem], Sequence[float]] | None = None
    metrics: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.weights = self.weights or random_weights(len(self.kinds))

    @cached_property
    def problem(self) -> Problem:
        """The problem, built when first asked for."""
        return self.build()


def random_weights(num_tasks: int, number: int = 8, seed: int = 0) -> list[list[float]]:
    """Weights that sum to one and differ by up to a factor of 100, log-uniform, shape (number, T)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = 100 ** torch.rand(number, num_tasks, generator=generator, dtype=torch.float64)
    return [[round(w, 4) for w in row] for row in (drawn / drawn.sum(1, keepdim=True)).tolist()]


@dataclass
class Method:
    """A contestant.

    Attributes:
        make: from the setting, and the member where there are several, to the balancer.
        passes: backward passes through the encoder in a step, in words.
        train: further keywords of `mtl_ref.train`.
        members: the names of the runs that make up this one method, as "single" has one for each task.
    """

    make: Callable[..., LossBalancer | GradientBalancer]
    passes: str = "1"
    train: dict[str, Any] = field(default_factory=dict)
    members: Callable[[Setting], Iterable[str]] | None = None


def last_layer(model: HardSharing) -> Iterable[nn.Parameter]:
    """The parameters of the encoder's last linear or convolutional layer, where GradNorm looks."""
    layers = [m for m in model.encoder.modules() if any(p.ndim > 1 for p in m.parameters(recurse=False))]
    return layers[-1].parameters(recurse=False)


def prior_losses(setting: Setting) -> mtl.PriorLossScaling:
    """Scaling by the setting's prior losses."""
    if setting.prior is None:
        raise ValueError("the method 'prior' needs prior losses, and this problem's setting has none.")
    return mtl.PriorLossScaling(list(setting.prior(setting.problem)))


def one_task(setting: Setting, task: str) -> mtl.FixedWeighting:
    """Weight 1 for one task and 0 for the others: what the encoder then learns is a single-task network."""
    return mtl.FixedWeighting([float(name == task) for name in setting.kinds])


LEARNED = {"balancer_lr": 0.025}  # of weights that the network's optimiser learns; GradNorm's own rate is the same
METHODS: dict[str, Method] = {
    "equal": Method(lambda s: mtl.EqualWeighting()),
    "fixed": Method(
        lambda s, member: mtl.FixedWeighting(s.weights[int(member)]),
        members=lambda s: map(str, range(len(s.weights))),
    ),
    "single": Method(one_task, members=lambda s: s.kinds),
    "initial": Method(lambda s: mtl.InitialLossScaling()),
    "prior": Method(prior_losses),
    "realtime": Method(lambda s: mtl.RealTimeLossScaling()),
    "geometric": Method(lambda s: mtl.GeometricMean()),
    "uncertainty": Method(lambda s: mtl.UncertaintyWeighting(list(s.kinds.values())), train=LEARNED),
    "awl": Method(lambda s: mtl.AutomaticWeightedLoss(len(s.kinds)), train=LEARNED),
    "normalized": Method(lambda s: mtl.GradientNormalization(), "T"),
    "normalized-rate": Method(lambda s: mtl.GradientNormalization(alpha=1.5), "T"),
    "gradnorm": Method(lambda s: mtl.GradNorm(len(s.kinds)), "1, and T of one layer", {"shared": last_layer}),
    "pcgrad": Method(lambda s: mtl.PCGrad(), "T"),
    "mgda": Method(lambda s: mtl.MGDA(), "T"),
    "mgda-l2": Method(lambda s: mtl.MGDA(normalize="l2"), "T"),
    "mgda-loss": Method(lambda s: mtl.MGDA(normalize="loss"), "T"),
    "mgda-loss+": Method(lambda s: mtl.MGDA(normalize="loss+"), "T"),
    "mgda-ub": Method(lambda s: mtl.MGDA(), "1", {"features": True}),
    "mgda-ub-l2": Method(lambda s: mtl.MGDA(normalize="l2"), "1", {"features": True}),
    "mgda-ub-loss": Method(lambda s: mtl.MGDA(normalize="loss"), "1", {"features": True}),
    "mgda-ub-loss+": Method(lambda s: mtl.MGDA(normalize="loss+"), "1", {"features": True}),
    "normalized-ub": Method(lambda s: mtl.GradientNormalization(), "1", {"features": True}),
    "pcgrad-ub": Method(lambda s: mtl.PCGrad(), "1", {"features": True}),
}


TWO_WEIGHTS = ((0.1, 0.9), (0.25, 0.75), (0.4, 0.6), (0.6, 0.4), (0.75, 0.25), (0.9, 0.1))


def multimnist(profile: str) -> Setting:
    """Two digits. Quick: the embedded subset, 6 epochs. Full: the whole of MNIST by Kurin et al.'s protocol."""
    return Setting(
        lambda: digits(profile, ("left", "right")),
        kinds={"left": "classification", "right": "classification"},
        weights=TWO_WEIGHTS,
        prior=digit_priors,
        **of_multimnist(profile),
    )


def multimnist_sum(profile: str) -> Setting:
    """Two digits and, as a regression with a loss forty times as large, their sum."""
    return Setting(
        lambda: digits(profile, ("left", "right", "sum"), dropout=0.0),
        kinds={"left": "classification", "right": "classification", "sum": "regression"},
        weights=[(1.0, 1.0, w) for w in (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)],
        prior=digit_priors,
        **of_multimnist(profile),
    )


def fashion_mnist_mix(profile: str) -> Setting:
    """A digit and a piece of clothing: two tasks of unequal difficulty. Needs MTL_REF_DATA in both profiles."""
    return Setting(
        lambda: digits(profile, ("left", "right"), fashion=True),
        kinds={"left": "classification", "right": "classification"},
        weights=TWO_WEIGHTS,
        prior=digit_priors,
        **of_multimnist(profile),
    )


def of_multimnist(profile: str) -> dict[str, Any]:
    """What the three MultiMNIST settings have in common."""
    if profile == "quick":
        return {"epochs": 6, "lrs": (1e-3, 3e-3, 1e-2), "train": {"decay": 0.8}}
    return {"epochs": 100, "lrs": (1e-3, 3e-3, 1e-2), "train": {"decay": 0.95}}


def digits(profile: str, tasks: Sequence[str], **options: Any) -> MultiMNIST:
    """MultiMNIST in the size of a profile: the quick one has 10,000 / 2,000 / 2,000 digits."""
    whole = profile == "full" or "fashion" in options
    if whole and "MTL_REF_DATA" not in os.environ:
        raise ValueError(
            "this problem in this profile reads whole data sets: set the environment variable MTL_REF_DATA to a "
            "folder in torchvision's layout, which is filled where the network allows."
        )
    problem = MultiMNIST(tasks, **options)
    if profile == "quick":
        problem.keep({"train": 10_000, "validation": 2_000, "test": 2_000})
    return problem


def digit_priors(problem: Problem) -> list[float]:
    """The prior losses of MultiMNIST's tasks, from the labels of the training split."""
    assert isinstance(problem, MultiMNIST)
    targets = problem.targets["train"]
    return [
        mtl.prior_mse(targets[task]) if task == "sum" else mtl.prior_cross_entropy(targets[task].bincount())
        for task in problem.tasks
    ]


def cityscapes(profile: str) -> Setting:
    """Three dense tasks. Quick: the stand-in, 10 epochs. Full: the real set by Sener and Koltun's protocol."""
    from mtl_ref.problems import Cityscapes, cityscapes_standin

    quick = profile == "quick"
    size = (64, 128) if quick else (256, 512)
    network = "small" if quick else "resnet50-imagenet"
    return Setting(
        lambda: Cityscapes(cityscapes_standin.folder() if quick else None, size=size, network=network),
        kinds={"semantic": "classification", "instance": "regression", "disparity": "regression"},
        epochs=10 if quick else 250,
        lrs=(3e-3, 1e-2) if quick else (1e-4, 5e-4),
        train={"decay": 0.8 if quick else 0.5 ** (1 / 30)},
        weights=[(1.0, instance, disparity) for instance in (0.03, 0.1, 0.3) for disparity in (1.0, 3.0)],
        prior=lambda problem: problem.prior_losses() if isinstance(problem, Cityscapes) else [],
    )


def celeba(profile: str) -> Setting:
    """Forty attributes. Quick: the drawn stand-in, a small encoder. Full: CelebA in MTL_REF_DATA, ResNet-18."""
    from mtl_ref.problems import CelebA, celeba, celeba_standin

    tasks, percent = celeba.ATTRIBUTES, celeba_standin.RECIPE
    entropy = [mtl.prior_cross_entropy([percent[task][0], 100 - percent[task][0]]) for task in tasks]

    def powers(gamma: float) -> list[float]:
        """Weights ∝ Hᵢ^γ for the entropies Hᵢ of the answers; they sum to one."""
        total = sum(h**gamma for h in entropy)
        return [round(h**gamma / total, 5) for h in entropy]

    def prior(problem: Problem) -> list[float]:
        assert isinstance(problem, CelebA)
        share = problem.targets["train"].double().mean(0)
        return [mtl.prior_cross_entropy([p, 1 - p]) for p in share.tolist()]

    common: dict[str, Any] = {
        "kinds": dict.fromkeys(tasks, "classification"),
        "weights": [powers(gamma) for gamma in (-1.0, -0.5, 0.5, 1.0)],
        "prior": prior,
        "metrics": {task: [f"{task} error"] for task in tasks},
    }
    if profile == "quick":
        build = lambda: CelebA(celeba_standin.folder(), encoder="small", batch_size=128)
        return Setting(build, epochs=6, lrs=(3e-3, 1e-2, 3e-2), train={"decay": 0.8}, **common)
    halved = 0.5 ** (1 / 30)  # every 30 epochs
    return Setting(CelebA, epochs=100, lrs=(1e-4, 5e-4, 1e-3), train={"decay": halved}, **common)


PROBLEMS: dict[str, Callable[[str], Setting]] = {
    "celeba": celeba,
    "cityscapes": cityscapes,
    "multimnist": multimnist,
    "multimnist-sum": multimnist_sum,
    "fashion-mnist-mix": fashion_mnist_mix,
}


@cache
def setting_of(problem: str, profile: str) -> Setting:
    """The setting of a problem, made once a process."""
    return PROBLEMS[problem](profile)


@dataclass(frozen=True)
class Run:
    """One training run, and so one file. A `method` that has members names one: "fixed:3", "single:left"."""

    problem: str
    method: str
    lr: float
    seed: int
    profile: str
    epochs: int

    @property
    def name(self) -> str:
        """The stem of its files."""
        method = self.method.replace(":", "-")
        return f"{self.problem}_{self.profile}_{method}_lr{self.lr:g}_seed{self.seed}"


class Measured:
    """An optimiser that measures its steps: how far, in Euclidean length, every tenth one moves the network.

    The sums lie in the optimiser's first parameter group, and so in the checkpoints.
    """

    def __init__(self, optimizer: Callable[..., torch.optim.Optimizer]) -> None:
        self.optimizer = optimizer

    def __repr__(self) -> str:
        return f"Measured({getattr(self.optimizer, '__name__', self.optimizer)})"

    def __call__(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        self.steps = self.optimizer(groups, lr=lr)
        self.steps.param_groups[0].update(count=0, moved=0.0)
        self.steps.register_step_pre_hook(self.before)
        self.steps.register_step_post_hook(self.after)
        return self.steps

    def before(self, steps: torch.optim.Optimizer, *_: Any) -> None:
        """Keep the parameters, if this step is to be measured."""
        network = steps.param_groups[0]
        self.kept = [p.detach().clone() for p in network["params"]] if network["count"] % MEASURED == 0 else []
        network["count"] += 1

    def after(self, steps: torch.optim.Optimizer, *_: Any) -> None:
        """Add the length of the step, if it was measured."""
        network = steps.param_groups[0]
        pairs = zip(network["params"], self.kept, strict=False)
        network["moved"] += sum((p.detach() - k).double().square().sum().item() for p, k in pairs) ** 0.5

    @property
    def mean_step(self) -> float:
        """The mean length of the measured steps."""
        network = self.steps.param_groups[0]
        return float(network["moved"] / -(-network["count"] // MEASURED))


def execute(run: Run, folder: Path, device: str | None = None) -> str:
    """Do one run, or finish it, and write its result file whole.

    A file in its place that is not the result of this run is set aside as FILE.rejected, with a warning.

    Returns:
        "done", "finished before", "held by another process", or "diverged": a loss was no longer finite, which is
        a result as well.
    """
    setting, (family, _, member) = setting_of(run.problem, run.profile), run.method.partition(":")
    method = METHODS[family]
    balancer = method.make(setting, member) if member else method.make(setting)
    options = {"optimizer": torch.optim.Adam, "decay": 1.0, **setting.train, **method.train}
    judged = [m for m in metrics_of(setting, member)] if family == "single" else list(setting.problem.metrics)
    description = {
        "problem": run.problem,
        "data": repr(setting.problem),
        "profile": run.profile,
        "method": run.method,
        "balancer": repr(balancer),
        "options": {name: getattr(value, "__name__", value) for name, value in options.items()},
        "judged by": judged,
        "lr": run.lr,
        "seed": run.seed,
        "epochs": run.epochs,
    }
    path = folder / f"{run.name}.json"
    try:
        with FileLock(folder / f"{run.name}.lock", timeout=0):
            if path.exists():
                fault = results.fault(path, description)
                if fault is None:
                    (folder / f"{run.name}.lock").unlink(missing_ok=True)
                    return "finished before"
                print(f"{path} is done again: {fault}. It is kept as {path.name}.rejected.", file=sys.stderr)
                os.replace(path, path.with_name(f"{path.name}.rejected"))
            result = description | train(setting, run, balancer, options, folder, device)
            results.write(path, result)
            for left_over in ("checkpoint", "lock"):  # whoever waits for this lock finds the result
                (folder / f"{run.name}.{left_over}").unlink(missing_ok=True)
            return "diverged" if "diverged" in result else "done"
    except Timeout:
        return "held by another process"


def train(
    setting: Setting,
    run: Run,
    balancer: LossBalancer | GradientBalancer,
    options: Mapping[str, Any],
    folder: Path,
    device: str | None,
) -> dict[str, Any]:
    """What happened in one run, ready to be written."""
    optimizer = Measured(options["optimizer"])
    what: dict[str, Any] = {
        "passes": METHODS[run.method.partition(":")[0]].passes,
        "tasks": list(setting.problem.tasks),
        "metrics": setting.problem.metrics,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "mtl_ref": mtl.__version__},
        "commit": commit(),
        "hardware": hardware(device),
    }
    started = time.perf_counter()
    try:
        history = mtl.train(
            setting.problem,
            balancer,
            epochs=run.epochs,
            seed=run.seed,
            lr=run.lr,
            device=device,
            checkpoint=resumable(folder / f"{run.name}.checkpoint"),
            **{**options, "optimizer": optimizer},
        )
    except ValueError as error:
        if "finite" not in str(error):
            raise
        return what | {"diverged": str(error)}
    weights = [w for w in history.weights if w is not None]
    return what | {
        "losses": columns(history.tasks, history.losses),
        "weights": columns(history.tasks, weights) if weights else None,
        "validation": columns(history.metrics, [list(epoch.values()) for epoch in history.validation]),
        "test": columns(history.metrics, [list(epoch.values()) for epoch in history.test]),
        "mean step": rounded(optimizer.mean_step),
        "seconds": [round(s, 3) for s in history.seconds],
        "wall seconds of the last session": round(time.perf_counter() - started, 1),
    }


def resumable(checkpoint: Path) -> Path:
    """The same path; a damaged file there is deleted, so that the run starts again."""
    if checkpoint.exists():
        try:
            torch.load(checkpoint, weights_only=True, map_location="cpu")
        except Exception:
            print(f"{checkpoint} is damaged: the run starts again.", file=sys.stderr)
            checkpoint.unlink()
    return checkpoint


def columns(names: Iterable[str], rows: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """For each name its values, one an epoch, to six significant digits."""
    return {
        name: [rounded(v) for v in values] for name, values in zip(names, zip(*rows, strict=True), strict=True)
    }


def rounded(value: float) -> float:
    """A number to six significant digits."""
    return float(f"{value:.6g}")


def metrics_of(setting: Setting, task: str) -> Sequence[str]:
    """The metrics that judge one task."""
    if task in setting.metrics:
        return setting.metrics[task]
    problem = setting.problem
    if len(problem.metrics) != len(problem.tasks):
        raise ValueError(f"the setting must say which metrics judge the task {task!r}, in its field `metrics`.")
    return [list(problem.metrics)[problem.tasks.index(task)]]


def hardware(device: str | None) -> str:
    """In plain words, without the machine's name."""
    if torch.cuda.is_available() and device != "cpu":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU ({platform.machine()}), {threads} thread{'s' if threads > 1 else ''}"


@cache
def commit() -> str | None:
    """The commit that the package's code is at, or None where it was not cloned."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"], check=True, capture_output=True)
        described = subprocess.run([*git, "describe", "--always", "--dirty", "--exclude=*"], capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.decode().strip() or None


def plan(
    problem: str,
    methods: Sequence[str],
    seeds: Sequence[int],
    lrs: Sequence[float] | None = None,
    profile: str = "quick",
    epochs: int | None = None,
) -> list[Run]:
    """All runs of a benchmark, one seed after the other, so that what is there early can be compared.

    Args:
        problem: a key of `PROBLEMS`.
        methods: keys of `METHODS`, or a member such as "fixed:3", or "all".
        seeds: of the runs.
        lrs, epochs: the setting's, where left out.
        profile: "quick" or "full".

    Raises:
        ValueError: a name is not known; the message lists those that are.
    """
    if problem not in PROBLEMS:
        raise ValueError(f"there is no problem {problem!r}; there are {', '.join(PROBLEMS)}.")
    if profile not in PROFILES:
        raise ValueError(f"there is no profile {profile!r}; there are {', '.join(PROFILES)}.")
    setting = setting_of(problem, profile)
    names: list[str] = []
    for name in METHODS if list(methods) == ["all"] else methods:
        family, _, member = name.partition(":")
        if family not in METHODS:
            raise ValueError(f"there is no method {name!r}; there are all, {', '.join(METHODS)}.")
        members = METHODS[family].members
        known = [] if members is None else [f"{family}:{m}" for m in members(setting)]
        if member and name not in known:
            raise ValueError(
                f"there is no method {name!r}; of {family!r} there are {', '.join(known) or 'no members'}."
            )
        names += [name] if member or not known else known
    if not names or not seeds:
        raise ValueError("there is nothing to run: name at least one method and one seed.")
    if any(lr <= 0 for lr in lrs or ()) or (epochs is not None and epochs < 1):
        raise ValueError("learning rates and epochs must be positive.")
    return [
        Run(problem, name, lr, seed, profile, epochs or setting.epochs)
        for seed in dict.fromkeys(seeds)
        for name in dict.fromkeys(names)
        for lr in dict.fromkeys(lrs or setting.lrs)
    ]


def shard(runs: Sequence[Run], environment: Mapping[str, str] = os.environ) -> list[Run]:
    """This process's runs: torchrun and Slurm's job arrays, also together, say which of how many it is."""
    rank, size = 0, 1
    if "SLURM_ARRAY_TASK_COUNT" in environment:
        first, step = (int(environment.get(f"SLURM_ARRAY_TASK_{name}", "1")) for name in ("MIN", "STEP"))
        rank = (int(environment["SLURM_ARRAY_TASK_ID"]) - first) // step
        size = int(environment["SLURM_ARRAY_TASK_COUNT"])
    if "RANK" in environment and "WORLD_SIZE" in environment:
        world = int(environment["WORLD_SIZE"])
        rank, size = rank * world + int(environment["RANK"]), size * world
    return list(runs[rank::size])


def device_of(environment: Mapping[str, str] = os.environ) -> str | None:
    """The GPU that is this process's where torchrun has started several; None leaves the choice to `train`."""
    if torch.cuda.is_available() and "LOCAL_RANK" in environment:
        return f"cuda:{int(environment['LOCAL_RANK']) % torch.cuda.device_count()}"
    return None


def attempt(run: Run, folder: Path, device: str | None = None) -> str:
    """Do one run; an error in it is reported, and leaves the other runs alone."""
    try:
        return execute(run, folder, device)
    except Exception:
        return f"failed: {traceback.format_exc()}"


def start_worker() -> None:
    """One thread for a worker, and no life of its own: it ends when the process that started it has ended."""
    torch.set_num_threads(1)

    def follow() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)  # results and checkpoints are written whole, so nothing is lost but the present epoch

    Thread(target=follow, daemon=True).start()


def run_all(runs: Sequence[Run], folder: str | Path, jobs: int = 1, device: str | None = None) -> dict[str, str]:
    """Do runs, several side by side if wanted, each then with one thread.

    Returns:
        For each run's name how it went, as `execute` says, or "failed: ...".
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, str] = {}
    with tqdm(total=len(runs), desc="runs", unit="run", smoothing=0) as bar:

        def note(run: Run, outcome: str) -> None:
            outcomes[run.name] = outcome
            bar.update()
            if outcome.startswith("failed"):
                bar.write(f"{run.name} {outcome}", file=sys.stderr)

        if jobs == 1:
            for run in runs:
                note(run, attempt(run, folder, device))
            return outcomes
        os.environ["TQDM_DISABLE"] = "1"  # of the workers, whose bars would mix
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=start_worker) as pool:
            futures = {pool.submit(attempt, run, folder, device): run for run in runs}
            for future in as_completed(futures):
                note(futures[future], future.result())
    return outcomes


def numbers(text: str) -> list[int]:
    """Whole numbers from "0,1,2" or "0-4"."""
    ranges = [part.partition("-") for part in text.split(",")]
    return [n for first, _, last in ranges for n in range(int(first), int(last or first) + 1)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 if all went well, 1 if a run failed, 2 if the arguments are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m mtl_ref.benchmark", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--problem", help=", ".join(PROBLEMS))
    parser.add_argument("--methods", default="all", help=f"some of {', '.join(METHODS)}, or all")
    parser.add_argument("--seeds", default="0-4", help="such as 0,1,2 or 0-4 (default: 0-4)")
    parser.add_argument("--lrs", help="learning rates, such as 1e-3,3e-3 (default: the problem's)")
    parser.add_argument("--epochs", type=int, help="default: the problem's")
    parser.add_argument("--profile", default="quick", help="quick (default) or full")
    parser.add_argument("--out", type=Path, help="the folder of the result files")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, with one thread each")
    parser.add_argument(
        "--table", type=Path, metavar="FOLDER", help="only print the table of the results in FOLDER"
    )
    given = parser.parse_args(arguments)
    try:
        if given.table is not None:
            print(results.table(results.load(given.table)))
            return 0
        if given.problem is None or given.out is None:
            raise ValueError("give --problem and --out, or --table.")
        lrs = None if given.lrs is None else [float(lr) for lr in given.lrs.split(",")]
        runs = plan(
            given.problem, given.methods.split(","), numbers(given.seeds), lrs, given.profile, given.epochs
        )
        mine = shard(runs)
        outcomes = run_all(mine, given.out, max(1, given.jobs), device_of())
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = Counter(outcome.partition(":")[0] for outcome in outcomes.values())
    print(", ".join(f"{number} {outcome}" for outcome, number in counts.items()) or "no runs for this process")
    if mine == runs and not {"failed", "held by another process"} & counts.keys():
        kind = (given.problem, given.profile, runs[0].epochs)
        of_kind = [r for r in results.load(given.out) if (r["problem"], r["profile"], r["epochs"]) == kind]
        print(results.table(of_kind))
    return int("failed" in counts)


if __name__ == "__main__":
    sys.exit(main())
