"""One step of each method: its time beside equal weights, T bare backward passes and TorchJD, and its memory.

    python tests/benchmarks/step_cost.py [REPETITIONS] [KEY ...] [--memory] [--multimnist-only | --celeba]

Of the catalogue: equal weights, and every title that needs gradients of its own (or those whose keys are named).
On MultiMNIST's network (batch 256, 2 tasks) and on ResNet-18 (64×64, batch 16, 40 heads of 2 logits, P = 11.2
million shared parameters) in two forms: torchvision's, made for larger images, where a pass is so short here that
moving gradients counts; and CelebA's with its 3×3 stride-1 stem, measured once, for its steps take minutes. A step
is forward and backward, without an optimiser. Repetitions are interleaved and medians compared, so that a slow
spell of the machine meets every method alike. Exact min-norm problems of 40 tasks come between. A quiet machine is
needed: with other work on its cores, threads wait for each other. `--memory` traces one step of each, which takes
minutes at 40 tasks.
"""

import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler says nothing

import torch
import torchjd.aggregation
import torchjd.autojac
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

import mtl_ref as mtl
from mtl_ref.catalogue import METHODS, ROWS, Method
from mtl_ref.problems import celeba
from mtl_ref.problems.base import HardSharing

EQUAL, BARE = METHODS["equal"].title, "T bare backward passes"
TORCHJD = {"PCGrad": torchjd.aggregation.PCGrad, "MGDA": torchjd.aggregation.MGDA}

Forward = Callable[[], tuple[list[Tensor], Tensor]]  # to the T losses and the representation
Backward = Callable[[list[Tensor], Tensor], object]


def multimnist() -> tuple[HardSharing, Forward]:
    """The network of the chapters on its first batch."""
    problem = mtl.problems.MultiMNIST()
    model = problem.model()
    x, targets = next(problem.batches("train"))

    def forward() -> tuple[list[Tensor], Tensor]:
        z = model.encoder(x)
        return [F.cross_entropy(output, targets[task]) for task, output in model.decode(z).items()], z

    return model, forward


def large_image_encoder() -> nn.Module:
    """torchvision's ResNet-18, without its last layer."""
    encoder = torchvision.models.resnet18()
    encoder.fc = nn.Identity()
    return encoder


def resnet(
    encoder: nn.Module, features: int, tasks: int = 40, batch: int = 16, size: int = 64
) -> tuple[HardSharing, Forward]:
    """An encoder with one linear layer of 2 logits for each task, on noise."""
    model = HardSharing(encoder, {str(t): nn.Linear(features, 2) for t in range(tasks)})
    x, y = torch.randn(batch, 3, size, size), torch.randint(2, (tasks, batch))

    def forward() -> tuple[list[Tensor], Tensor]:
        z = model.encoder(x)
        return [F.cross_entropy(output, y[int(task)]) for task, output in model.decode(z).items()], z

    return model, forward


def chosen(keys: list[str]) -> list[Method]:
    """Equal weights, and the rows of these keys; of none, the first form of each title that needs gradients."""
    first = {row.title: row for row in reversed(ROWS) if row.passes != "1"}
    rows = [METHODS[key] for key in keys] or [row for row in ROWS if row is first.get(row.title)]
    return [METHODS["equal"], *rows]


def backwards(model: HardSharing, keys: list[str]) -> dict[str, Backward]:
    """For each row of the table, what comes after the forward pass."""
    shared = list(model.encoder.parameters())
    tasks = list(model.heads)
    problem = SimpleNamespace(
        tasks=tasks, kinds=dict.fromkeys(tasks, "classification"), prior_losses=lambda: [0.7] * len(tasks)
    )

    def ours(row: Method) -> Backward:
        balancer = row.make(problem)  # type: ignore[arg-type]
        layer = row.train.get("shared")
        inspected = list(layer(model)) if layer else shared
        return lambda losses, z: balancer.backward(torch.stack(losses), shared=inspected)

    def on_features(losses: list[Tensor], z: Tensor) -> None:
        mtl.MGDA().backward(torch.stack(losses), features=z)

    def bare(losses: list[Tensor], z: Tensor) -> None:
        for loss in losses:
            torch.autograd.grad(loss, shared, retain_graph=True)

    def theirs(name: str) -> Backward:
        aggregator = TORCHJD[name]()

        def backward(losses: list[Tensor], z: Tensor) -> None:
            torchjd.autojac.mtl_backward(losses, features=z)
            torchjd.autojac.jac_to_grad(shared, aggregator)

        return backward

    rows = {BARE: bare}
    rows |= {row.name: ours(row) for row in chosen(keys)}
    rows["MGDA-UB"] = on_features
    rows |= {f"TorchJD's {name}": theirs(name) for name in TORCHJD}
    return rows


def seconds(model: HardSharing, forward: Forward, backward: Backward) -> float:
    """The time of one step."""
    model.zero_grad()
    gc.collect()
    started = time.perf_counter()
    backward(*forward())
    return time.perf_counter() - started


def peak_memory(action: Callable[[], object]) -> int:
    """How many bytes PyTorch holds on the CPU during an action, at most, beyond what it held before."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        action()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = [event for event in events if event.get("name") == "[memory]" and event["args"]["Device Type"] == 0]
    in_use = peak = 0
    for event in sorted(changes, key=lambda event: event["ts"]):
        in_use += event["args"]["Bytes"]
        peak = max(peak, in_use)
    return peak


def backward_memory(model: HardSharing, forward: Forward, backward: Backward) -> float:
    """The most memory that a backward pass needs beyond the model and its activations, in units of P floats."""
    model.zero_grad()
    losses, z = forward()
    peak = peak_memory(lambda: backward(losses, z))
    return peak / sum(4 * p.numel() for p in model.encoder.parameters())


def table(
    title: str, model: HardSharing, forward: Forward, repetitions: int, keys: list[str], trace: bool
) -> None:
    """Measure all rows and print them."""
    num_tasks = len(model.heads)
    rows = backwards(model, keys)
    seconds(model, forward, rows[EQUAL])  # warms up
    traced = {name: f"{backward_memory(model, forward, rows[name]):.1f}" for name in rows if trace}
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(repetitions):
        for name, backward in rows.items():
            times[name].append(seconds(model, forward, backward))
    median = {name: statistics.median(values) for name, values in times.items()}
    P = sum(p.numel() for p in model.encoder.parameters())
    print(f"\n{title}: T = {num_tasks}, P = {P:,}, {repetitions} repetitions, {torch.get_num_threads()} threads")
    print("times as ratios; memory beyond the model and its activations, in units of P floats\n")
    print("| step | ÷ equal weights | ÷ T bare backward passes | ÷ TorchJD | memory / P |\n|---|---|---|---|---|")
    for name in rows:
        other = median.get(f"TorchJD's {name}")
        ratio = "" if other is None else f"{median[name] / other:.2f}"
        against = f"{median[name] / median[EQUAL]:.2f} | {median[name] / median[BARE]:.2f}"
        print(f"| {name} | {against} | {ratio} | {traced.get(name, '')} |", flush=True)


def solver(repetitions: int = 100, tasks: int = 40) -> None:
    """The time of the exact solver, and its gap."""
    generator = torch.Generator().manual_seed(0)
    times, gaps = [], []
    for repetition in range(repetitions):
        common = torch.randn(1000, generator=generator, dtype=torch.float64) * (repetition % 5) / 10
        J = common + torch.randn(tasks, 1000, generator=generator, dtype=torch.float64)
        J *= torch.randn(tasks, 1, generator=generator, dtype=torch.float64).exp()
        M = J @ J.T
        started = time.perf_counter()
        alpha = mtl.min_norm(M)
        times.append(time.perf_counter() - started)
        gaps.append((mtl.duality_gap(M, alpha) / torch.linalg.matrix_norm(M, 2)).item())
    median = 1e3 * statistics.median(times)
    print(f"\nexact min-norm, T = {tasks}: median {median:.2f} ms, largest gap {max(gaps):.1e}‖M‖")


def main(arguments: list[str]) -> None:
    numbers = [int(a) for a in arguments if a.isdigit()]
    keys = [a for a in arguments if not a.isdigit() and not a.startswith("--")]
    repetitions = numbers[0] if numbers else 7
    trace = "--memory" in arguments
    torch.manual_seed(0)
    table("MultiMNIST", *multimnist(), 10 * repetitions, keys, trace)
    solver()
    if "--multimnist-only" not in arguments:
        table("ResNet-18", *resnet(large_image_encoder(), 512), repetitions, keys, trace)
    if "--celeba" in arguments:
        build, features = celeba.ENCODERS["resnet18"]
        table("CelebA's ResNet-18", *resnet(build(), features), 1, keys, trace)


if __name__ == "__main__":
    main(sys.argv[1:])
