"""The command line of `mtl_ref.benchmark`."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mtl_ref import benchmark, results
from mtl_ref.benchmark.pack import pack
from mtl_ref.benchmark.schedule import device_of, plan, run_all, shard
from mtl_ref.benchmark.settings import PROBLEMS
from mtl_ref.catalogue import CONTESTANTS


def numbers(text: str) -> list[int]:
    """Whole numbers from "0,1,2" or "0-4"."""
    ranges = [part.partition("-") for part in text.split(",")]
    return [n for first, _, last in ranges for n in range(int(first), int(last or first) + 1)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 if all went well, 1 if a run failed, 2 if the arguments are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m mtl_ref.benchmark", description=(benchmark.__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--problem", help=", ".join(PROBLEMS))
    parser.add_argument("--methods", default="all", help=f"some of {', '.join(CONTESTANTS)}, or all")
    parser.add_argument("--seeds", default="0-4", help="such as 0,1,2 or 0-4 (default: 0-4)")
    parser.add_argument("--lrs", help="learning rates, such as 1e-3,3e-3 (default: the problem's)")
    parser.add_argument("--epochs", type=int, help="default: the problem's")
    parser.add_argument("--profile", default="quick", help="quick (default) or full")
    parser.add_argument("--out", type=Path, help="the folder of the result files")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, with one thread each")
    parser.add_argument(
        "--table",
        type=Path,
        metavar="FOLDER",
        help="only print the table of the results in FOLDER, or in a packed file",
    )
    parser.add_argument(
        "--pack",
        type=Path,
        nargs=2,
        metavar=("FOLDER", "FILE"),
        help="only add FOLDER's results to FILE, a line a run",
    )
    parser.add_argument("--allow-dirty", action="store_true", help="with --pack: also results of uncommitted code")
    given = parser.parse_args(arguments)
    try:
        if given.table is not None:
            print(results.table(results.load(given.table)))
            return 0
        if given.pack is not None:
            folder, file = given.pack
            print(f"runs in {file}: {pack(folder, file, given.allow_dirty)}")
            return 0
        if given.problem is None or given.out is None:
            raise ValueError("give --problem and --out, or --table, or --pack.")
        lrs = None if given.lrs is None else [float(lr) for lr in given.lrs.split(",")]
        runs = plan(
            given.problem, given.methods.split(","), numbers(given.seeds), lrs, given.profile, given.epochs
        )
        my_runs = shard(runs)
        outcomes = run_all(my_runs, given.out, max(1, given.jobs), device_of())
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = Counter(outcome.partition(":")[0] for outcome in outcomes.values())
    print(", ".join(f"{number} {outcome}" for outcome, number in counts.items()) or "no runs for this process")
    if my_runs == runs and not {"failed", "held by another process"} & counts.keys():
        kind = (given.problem, given.profile, runs[0].epochs)
        of_kind = [r for r in results.load(given.out) if (r["problem"], r["profile"], r["epochs"]) == kind]
        print(results.table(of_kind))
    return int("failed" in counts)


if __name__ == "__main__":
    sys.exit(main())
