"""One run: it trains, resumes where it was stopped, and leaves one result file."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mtl_ref import results
from mtl_ref.benchmark.settings import Setting, setting_of
from mtl_ref.catalogue import CONTESTANTS
from mtl_ref.training import train


@dataclass(frozen=True)
class Run:
    """One training run, and so one file.

    Attributes:
        problem: a key of `PROBLEMS`.
        method: a key of `CONTESTANTS`.
        lr, seed, profile, epochs: as in `plan`.
        member: which of the runs of "fixed" (the number of its weights) or of "single" (a task).
    """

    problem: str
    method: str
    lr: float
    seed: int
    profile: str
    epochs: int
    member: str = ""

    @property
    def label(self) -> str:
        """The method with its member, such as "fixed:3": as the command line and the results name it."""
        return f"{self.method}:{self.member}" if self.member else self.method

    @property
    def name(self) -> str:
        """The stem of its files."""
        return results.run_name(self.problem, self.profile, self.label, self.lr, self.seed)


def execute(run: Run, folder: Path, device: str | None = None) -> str:
    """Do one run, or finish it, and write its result file whole.

    A file in its place that is not the result of this run is set aside as FILE.rejected, with a warning.

    Returns:
        "done", "finished before", "held by another process", or "diverged": a loss was no longer finite, which is
        a result as well.
    """
    from filelock import FileLock, Timeout

    setting = setting_of(run.problem, run.profile)
    problem, options = setting.problem, options_of(setting, run)
    description = {
        "problem": run.problem,
        "data": repr(problem),
        "profile": run.profile,
        "method": run.label,
        "balancer": repr(setting.balancer(run.method, run.member)),
        "options": {name: getattr(value, "__name__", value) for name, value in options.items()},
        "judged_by": problem.judged_by(run.member) if run.method == "single" else list(problem.metrics),
        "lr": run.lr,
        "seed": run.seed,
        "epochs": run.epochs,
    }
    path, lock = folder / f"{run.name}.json", folder / f"{run.name}.lock"
    try:
        with FileLock(lock, timeout=0):
            if path.exists():
                mismatch = results.mismatch(path, description)
                if mismatch is None:
                    lock.unlink(missing_ok=True)
                    return "finished before"
                print(f"{path} is done again: {mismatch}. It is kept as {path.name}.rejected.", file=sys.stderr)
                os.replace(path, path.with_name(f"{path.name}.rejected"))
            result = description | outcome(setting, run, folder, device)
            results.write(path, result)
            (folder / f"{run.name}.checkpoint").unlink(missing_ok=True)
            lock.unlink(missing_ok=True)  # another process waiting for the lock will find the result
            return "diverged" if "diverged" in result else "done"
    except Timeout:
        return "held by another process"


def options_of(setting: Setting, run: Run) -> dict[str, Any]:
    """The keywords of `mtl_ref.train` that setting and method ask for."""
    return {"optimizer": torch.optim.Adam, "decay": 1.0, **setting.options, **CONTESTANTS[run.method].train}


def outcome(setting: Setting, run: Run, folder: Path, device: str | None) -> dict[str, Any]:
    """What happened in one run, ready to be written."""
    record: dict[str, Any] = {
        "passes": CONTESTANTS[run.method].passes,
        "tasks": list(setting.problem.tasks),
        "metrics": setting.problem.metrics,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "mtl_ref": version("mtl_ref"),
        },
        "commit": commit(),
        "hardware": hardware(device),
    }
    started = time.perf_counter()
    try:
        history = train(
            setting.problem,
            setting.balancer(run.method, run.member),
            epochs=run.epochs,
            seed=run.seed,
            lr=run.lr,
            device=device,
            checkpoint=resumable(folder / f"{run.name}.checkpoint"),
            **options_of(setting, run),
        )
    except ValueError as error:
        if "finite" not in str(error):
            raise
        return record | {"diverged": str(error)}
    weights = [w for w in history.weights if w is not None]
    return record | {
        "losses": columns(history.tasks, history.losses),
        "weights": columns(history.tasks, weights) if weights else None,
        "validation": columns(history.metrics, [list(epoch.values()) for epoch in history.validation]),
        "test": columns(history.metrics, [list(epoch.values()) for epoch in history.test]),
        "mean_step": rounded(history.mean_step),
        "seconds": [round(s, 3) for s in history.seconds],
        "wall_seconds": round(time.perf_counter() - started, 1),  # of the last session
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


def hardware(device: str | None) -> str:
    """The processor in plain words, without the machine's name."""
    if torch.cuda.is_available() and device != "cpu":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU ({platform.machine()}), {threads} thread{'s' if threads > 1 else ''}"


@cache
def commit() -> str | None:
    """The commit of the package's code, with "-dirty" if files differ from it; None if it is not a git clone."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"], check=True, capture_output=True)
        described = subprocess.run([*git, "describe", "--always", "--dirty", "--exclude=*"], capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.decode().strip() or None
