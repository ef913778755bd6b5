"""What solvers and the weights of methods cost on one Gram matrix: milliseconds, linear solves, and the gap.

    python tests/benchmarks/solver_cost.py [T ...]      (2, 10, 40 and 1000 if none is given)

Each is given independent gradients, gradients with a part in common, as those of tasks of one network have, and
gradients of which each comes twice. The time is this process's own, so that other work on the machine counts less.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
from collections.abc import Callable, Iterator
from unittest import mock

import numpy as np
import torch
from torch import Tensor

import mtl_ref as mtl
from mtl_ref.catalogue import METHODS

SOLVERS: dict[str, Callable[[Tensor], Tensor]] = {
    "min_norm_two": mtl.min_norm_two,
    "min_norm": mtl.min_norm,
    "frank_wolfe": mtl.frank_wolfe,
}
SLOWEST = ("pcgrad", "nash", "upgrad", "cagrad")  # each in its way more than one problem
WEIGHTS = {METHODS[key].title: METHODS[key].make(None).task_weights for key in SLOWEST}


def matrices(T: int, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Named Gram matrices of T gradients, shape (T, T)."""
    generator = torch.Generator().manual_seed(seed)
    J = torch.randn(T, 2 * T, generator=generator, dtype=torch.float64)
    common = torch.randn(2 * T, generator=generator, dtype=torch.float64)
    kinds = {"independent": J, "common part": J + common, "each twice": torch.cat([J[: T // 2]] * 2)}
    for name, rows in kinds.items():
        yield name, rows @ rows.T


def measure(solver: Callable[[Tensor], Tensor], M: Tensor) -> tuple[float, int, float]:
    """Milliseconds a call, the linear solves of one, and the gap of its weights ÷ ‖M‖."""
    with mock.patch.object(np.linalg, "solve", wraps=np.linalg.solve) as solve:
        alpha = solver(M)
    calls = max(1, 400 // len(M))
    start = time.process_time()
    for _ in range(calls):
        solver(M)
    milliseconds = 1000 * (time.process_time() - start) / calls
    return milliseconds, solve.call_count, (mtl.duality_gap(M, alpha) / torch.linalg.matrix_norm(M, 2)).item()


def main(sizes: list[int]) -> None:
    print(f"{'T':>4}  {'gradients':12}  {'solver':12}  {'ms, median of 5':>15}  {'solves':>6}  {'gap ÷ ‖M‖':>9}")
    for T in sizes:
        for kind in ("independent", "common part", "each twice"):
            problems = [dict(matrices(T, seed))[kind] for seed in range(5 if T < 1000 else 1)]
            for name, solver in (SOLVERS | WEIGHTS).items():
                if (name == "min_norm_two" and T != 2) or (name == "UPGrad" and T >= 1000):
                    continue
                costs, solves, gaps = zip(*(measure(solver, M) for M in problems), strict=True)
                most = str(max(solves)) if name == "min_norm" else ""
                gap = "" if name in WEIGHTS else f"{max(gaps):9.1e}"
                print(f"{T:4}  {kind:12}  {name:12}  {np.median(costs):15.3f}  {most:>6}  {gap:>9}", flush=True)


if __name__ == "__main__":
    main([int(T) for T in sys.argv[1:]] or [2, 10, 40, 1000])
