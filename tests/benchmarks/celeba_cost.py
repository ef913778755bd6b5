"""What a step with 40 tasks costs, part by part: equal weights, MGDA-UB and exact MGDA on CelebA's networks.

    python tests/benchmarks/celeba_cost.py [ENCODER:BATCH ...] [--out FILE]

ENCODER is "resnet18" (64×64, 3×3 stride-1 stem, P = 11.2 million shared parameters) or "small". Times are of the
processor with one thread, so that other work on the machine matters little. A pass through ResNet-18 takes a
second or two for a batch of 16, so exact MGDA, which makes 40 of them, is measured in one step; the others are
medians of three.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

import mtl_ref as mtl
from mtl_ref.gradients import gram, task_gradients
from mtl_ref.problems import celeba
from mtl_ref.problems.base import HardSharing

T = 40
Parts = dict[str, float]


@contextmanager
def timed(parts: Parts, name: str) -> Iterator[None]:
    """Add the processor time of what happens inside."""
    started = time.process_time()
    yield
    parts[name] = parts.get(name, 0.0) + time.process_time() - started


def network(encoder: str, batch: int) -> tuple[HardSharing, Callable[[], tuple[Tensor, Tensor]]]:
    """The network, and its forward pass on noise, to the representation and the losses."""
    torch.manual_seed(0)
    build, features = celeba.ENCODERS[encoder]
    model = HardSharing(build(), {"attributes": torch.nn.Linear(features, T)})
    x, y = torch.rand(batch, 3, 64, 64) * 2 - 1, torch.randint(2, (batch, T)).float()

    def forward() -> tuple[Tensor, Tensor]:
        z = model.encoder(x)
        logits = model.decode(z)["attributes"]
        return z, torch.nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="none").mean(0)

    return model, forward


def equal_weights(model: HardSharing, forward: Callable[[], tuple[Tensor, Tensor]]) -> Parts:
    parts: Parts = {}
    with timed(parts, "forward"):
        _, losses = forward()
    with timed(parts, "one pass back"):
        losses.mean().backward()
    return parts


def mgda(model: HardSharing, forward: Callable[[], tuple[Tensor, Tensor]], features: bool) -> Parts:
    """The parts of `mtl.MGDA().backward`, one after the other."""
    parts: Parts = {}
    with timed(parts, "forward"):
        z, losses = forward()
    inputs = [z] if features else list(model.encoder.parameters())
    with timed(parts, f"{T} passes back through the heads" if features else f"{T} passes back"):
        J = task_gradients(losses, inputs)
    with timed(parts, "Gram matrix"):
        M = gram(J)
    with timed(parts, "min-norm"):
        alpha = mtl.min_norm(M).to(J)
    with timed(parts, "weighted sum"):
        d = alpha @ J
    if features:
        with timed(parts, "one pass back"):
            z.backward(d.view_as(z))
    return parts


METHODS: dict[str, Callable[..., Parts]] = {
    "equal weights": equal_weights,
    "MGDA-UB": lambda model, forward: mgda(model, forward, features=True),
    "exact MGDA": lambda model, forward: mgda(model, forward, features=False),
}


def measure(encoder: str, batch: int) -> dict[str, Parts]:
    """For each method the time of each part of a step, in seconds."""
    model, forward = network(encoder, batch)
    found: dict[str, Parts] = {}
    for name, step in METHODS.items():
        repetitions = 1 if name == "exact MGDA" and encoder == "resnet18" else 3
        model.zero_grad()
        if name != "exact MGDA":
            step(model, forward)  # warms up
        runs = [step(model, forward) for _ in range(repetitions)]
        found[name] = {part: statistics.median(run[part] for run in runs) for part in runs[0]}
    return found


def main(arguments: list[str]) -> None:
    out = Path(arguments.pop(arguments.index("--out") + 1)) if "--out" in arguments else None
    torch.set_num_threads(1)
    stored = json.loads(out.read_text()) if out and out.exists() else {}
    for which in [a for a in arguments if ":" in a] or ["resnet18:16"]:
        encoder, batch = which.split(":")
        found = measure(encoder, int(batch))
        print(f"\n{encoder}, batch {batch}, T = {T}, torch {torch.__version__}, one thread; processor seconds")
        for name, parts in found.items():
            total = sum(parts.values())
            print(
                f"  {name}: {total:.3f}; " + ", ".join(f"{part} {s:.4f}" for part, s in parts.items()), flush=True
            )
        upper, exact = (sum(found[name].values()) for name in ("MGDA-UB", "exact MGDA"))
        print(f"  MGDA-UB ÷ exact MGDA = {100 * upper / exact:.2f} %")
        stored[which] = {name: {part: round(s, 5) for part, s in parts.items()} for name, parts in found.items()}
        if out:
            out.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
