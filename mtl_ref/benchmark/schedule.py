"""Many runs: the plan, this process's share of it, and several runs side by side."""

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

import torch

from mtl_ref.benchmark.runs import Run, execute
from mtl_ref.benchmark.settings import PROBLEMS, PROFILES, setting_of
from mtl_ref.catalogue import CONTESTANTS


def plan(
    problem: str,
    methods: Sequence[str],
    seeds: Sequence[int],
    lrs: Sequence[float] | None = None,
    profile: str = "quick",
    epochs: int | None = None,
) -> list[Run]:
    """All runs of a benchmark, one seed after the other, so that early results can be compared already.

    Args:
        problem: a key of `PROBLEMS`.
        methods: keys of `CONTESTANTS`, or a member such as "fixed:3", or "all".
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
    names: list[tuple[str, str]] = []
    for name in CONTESTANTS if list(methods) == ["all"] else methods:
        method, _, member = name.partition(":")
        if method not in CONTESTANTS:
            raise ValueError(f"there is no method {name!r}; there are all, {', '.join(CONTESTANTS)}.")
        members = setting.members(method)
        if member and member not in members:
            known = ", ".join(f"{method}:{m}" for m in members if m) or "no members"
            raise ValueError(f"there is no method {name!r}; of {method!r} there are {known}.")
        names += [(method, m) for m in ([member] if member else members)]
    if not names or not seeds:
        raise ValueError("there is nothing to run: name at least one method and one seed.")
    if any(lr <= 0 for lr in lrs or ()) or (epochs is not None and epochs < 1):
        raise ValueError("learning rates and epochs must be positive.")
    return [
        Run(problem, method, lr, seed, profile, epochs or setting.epochs, member)
        for seed in dict.fromkeys(seeds)
        for method, member in dict.fromkeys(names)
        for lr in dict.fromkeys(lrs or setting.lrs)
    ]


def shard(runs: Sequence[Run], environment: Mapping[str, str] = os.environ) -> list[Run]:
    """This process's share of the runs, by the variables of torchrun, of a Slurm job array, or of both."""
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
    """This process's GPU where torchrun has started several processes; None leaves the choice to `train`."""
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
    """Give a worker one thread, and end it as soon as the process that started it has ended."""
    torch.set_num_threads(1)

    def follow() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)  # results and checkpoints are written whole, so nothing is lost but the present epoch

    Thread(target=follow, daemon=True).start()


def run_all(runs: Sequence[Run], folder: str | Path, jobs: int = 1, device: str | None = None) -> dict[str, str]:
    """Do runs; where several are done side by side, each has one thread.

    Returns:
        For each run's name its outcome: what `execute` returns, or "failed: ...".
    """
    from tqdm import tqdm

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
