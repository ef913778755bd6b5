"""An epoch of MultiMNIST with `mtl.train` and equal weights against a bare PyTorch loop on the same tensors.

    python tests/benchmarks/epoch_cost.py [REPETITIONS]

Prints the ratio of the median times; the two are interleaved. Evaluation is not counted: the bare loop has none.
"""

import statistics
import sys
import time

import torch
from torch.nn import functional as F

import mtl_ref as mtl
from mtl_ref.problems import MultiMNIST


def with_train(problem: MultiMNIST, seed: int) -> float:
    """The seconds that `train` reports for an epoch."""
    return mtl.train(problem, mtl.EqualWeighting(), epochs=1, seed=seed, device="cpu").seconds[0]


def bare_loop(problem: MultiMNIST, seed: int) -> float:
    """The same network, data, order, losses and optimiser, with nothing of ours in the loop."""
    torch.manual_seed(seed)
    model = problem.model()
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    images, left, right = (
        problem.images["train"],
        problem.targets["train"]["left"],
        problem.targets["train"]["right"],
    )
    started = time.perf_counter()
    for index in torch.randperm(len(images)).split(problem.batch_size):
        z = model.encoder(images[index])
        loss = F.cross_entropy(model.heads["left"](z), left[index])
        loss = 0.5 * (loss + F.cross_entropy(model.heads["right"](z), right[index]))
        adam.zero_grad()
        loss.backward()
        adam.step()
    return time.perf_counter() - started


def main(repetitions: int) -> None:
    problem = MultiMNIST()
    ours, bare = [], []
    with_train(problem, 0), bare_loop(problem, 0)  # warm up
    for seed in range(repetitions):
        pair = [(with_train, ours), (bare_loop, bare)]
        for run, times in pair if seed % 2 else reversed(pair):
            times.append(run(problem, seed))
    ratio = statistics.median(ours) / statistics.median(bare)
    pairs = sorted(a / b for a, b in zip(ours, bare, strict=True))
    print(f"{problem}, {repetitions} repetitions, {torch.get_num_threads()} threads")
    print(f"train ÷ bare loop: {ratio:.3f} (single pairs {pairs[0]:.3f} to {pairs[-1]:.3f})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
