"""A step of MGDA on two processes beside a plain one: what it sends, and its time, as ratios.

    python tests/benchmarks/distributed_cost.py [REPETITIONS] [--tasks T ...]      (20; T = 4 and 10)

P = 1.05 million shared parameters, T small heads, batch 64 in each process, float32, gloo. The plain step is the
sum of the losses and one backward pass, in DistributedDataParallel or in `fully_shard` of each layer and of the
whole. A step is forward and backward, without an optimiser. Repetitions are interleaved, and medians of the first
process compared. The processes share one machine, so memory is their network: times say little about another one.

All collectives are counted, PyTorch's own too, on the first process in the third step. *Given* is the number of
entries of the tensors that it hands to them: to an all-gather, its own part. *Sent* is their bytes times what the
ring form sends of each: 2 (W − 1) / W of an all-reduce, (W − 1) / W of a reduce-scatter, W − 1 of an all-gather,
and 1 of a broadcast. Of the T² + 3T numbers, in float64, 2T are sums over labels, T² are M and T are α; in steps
1, 2, 4, 8, … another 6 compare the replicas. In `fully_shard` PyTorch 2.14 adds to them: it gathers the heads for
each of T passes, and fetches the encoder's last layer once too early.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mtl_ref as mtl

W, BATCH = 2, 64
SHARE = {
    "allreduce_": 2 * (W - 1) / W,
    "_reduce_scatter_base_": (W - 1) / W,
    "_allgather_base_": W - 1,
    "broadcast_": 1,
}
HEADER = "| step | sent, MB | sent ÷ plain | given beyond plain, numbers | time ÷ plain |\n|---|---|---|---|---|"
FORMS = [  # the first of each is what the others are compared with
    [("DDP", "plain"), ("DDP", "features"), ("no wrapper", "shared")],
    [("fully_shard", by) for by in ("plain", "features", "shared")],
]


class Network(nn.Module):
    """An encoder of two layers and T heads; `forward` gives the losses and the features."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 768), nn.ReLU())
        self.heads = nn.ModuleList(nn.Linear(768, 1) for _ in range(tasks))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        return torch.stack([(h(z) - t[:, None]).square().mean() for h, t in zip(self.heads, y, strict=True)]), z


class Collectives(TorchDispatchMode):
    """What this process gives to collectives, in numbers, and what it sends of it, in bytes."""

    given = sent = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.name().removeprefix("c10d::").split(".")[0]
        if func.namespace == "c10d" and name != "barrier":
            _, source = args[:2] if name.endswith("_base_") else (None, args[0])
            tensors = [x for x in tree_leaves(source) if isinstance(x, Tensor)]
            self.given += sum(x.numel() for x in tensors)
            self.sent += SHARE[name] * sum(x.nbytes for x in tensors)
        return func(*args, **(kwargs or {}))


def step_of(wrapper: str, by: str, tasks: int) -> Callable[[Tensor, Tensor], None]:
    """Forward and backward of a network of its own."""
    net, balancer = Network(tasks), mtl.MGDA()
    model: nn.Module = DistributedDataParallel(net) if wrapper == "DDP" else net
    if wrapper == "fully_shard":
        for layer in (net.encoder[0], net.encoder[2], net):
            fully_shard(layer)
    shared = list(net.encoder.parameters())

    def step(x: Tensor, y: Tensor) -> None:
        net.zero_grad()
        losses, z = model(x, y)
        if by == "plain":
            losses.sum().backward()
        else:
            balancer.backward(losses, **({"features": z} if by == "features" else {"shared": shared}))

    return step


def worker(rank: int, folder: str, forms: list[tuple[str, str]], tasks: int, repetitions: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=W)
    steps = {form: step_of(*form, tasks) for form in forms}
    torch.manual_seed(1 + rank)
    x, y = torch.randn(BATCH, 256), torch.randn(tasks, BATCH)
    counts = {}
    for form, step in steps.items():
        step(x, y), step(x, y)  # warm up
        with Collectives() as counts[form]:
            step(x, y)
    times: dict[tuple[str, str], list[float]] = {form: [] for form in forms}
    for _ in range(repetitions):
        for form, step in steps.items():
            dist.barrier()
            started = time.perf_counter()
            step(x, y)
            times[form].append(time.perf_counter() - started)
    dist.destroy_process_group()
    if rank > 0:
        return
    plain, first = counts[forms[0]], statistics.median(times[forms[0]])
    for form, count in counts.items():
        name, more = ", ".join(reversed(form)), count.given - plain.given
        ratio, slower = count.sent / plain.sent, statistics.median(times[form]) / first
        print(f"| {name} | {count.sent / 1e6:.3f} | {ratio:.4f} | {more:,.0f} | {slower:.2f} |", flush=True)


def main(arguments: list[str]) -> None:
    first, _, rest = " ".join(arguments).partition("--tasks")
    for tasks in [int(T) for T in rest.split()] or [4, 10]:
        P = sum(p.numel() for p in Network(tasks).encoder.parameters())
        print(f"\nT = {tasks}, P = {P:,}; T² + 3T = {tasks**2 + 3 * tasks}\n")
        print(HEADER, flush=True)
        for forms in FORMS:
            with tempfile.TemporaryDirectory() as folder:
                mp.spawn(worker, (folder, forms, tasks, int(first or 20)), nprocs=W)


if __name__ == "__main__":
    main(sys.argv[1:])
