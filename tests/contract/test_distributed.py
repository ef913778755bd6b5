"""Several processes: the step is the one that a single process takes on the whole batch, for every method."""

import re
import warnings
from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from cases import GRADIENT, LOSS, MATRIX, build, same, vector
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import mtl_ref as mtl
from mtl_ref.balancer import LooksAfter
from mtl_ref.catalogue import METHODS

STEPS, ROWS_OF_DATA = 3, 12
EQUAL = {2: [6, 6], 3: [4, 4, 4]}  # examples of each process
UNEQUAL = {2: [9, 3], 3: [6, 4, 2]}
WRAPPED = [
    "features, DDP",
    "features, DDP, in micro-batches",
    "features, two DDPs",
    "features, fully_shard",
    "features, fully_shard of the whole",
]
SHARED = ["shared, plain", "shared, DDP", "shared, DDP, in micro-batches"]
SHARDED = ["shared, fully_shard", "shared, fully_shard of the whole"]
# Methods that remember nothing take one path: one goes through all forms, the others through the main ones.
WHOLE = {"mgda", "equal"} | {row.key for row in [*GRADIENT, *LOSS] if row.state != "none"}
OWN = [row for row in MATRIX if type(build(row)).combine is not mtl.GradientBalancer.combine]
FORMS = {
    row.key: WRAPPED + SHARED + SHARDED if row.key in WHOLE else ["features, DDP", "shared, DDP"]
    for row in GRADIENT
    if row not in MATRIX
}
FORMS |= {row.key: SHARED + SHARDED for row in MATRIX if row not in OWN}
FORMS |= {row.key: WRAPPED if row.key in WHOLE else ["features, DDP"] for row in LOSS}
FORMS["gradnorm"] = [*WRAPPED, "shared, DDP"]
REFUSED = {  # a key, and what is wrong
    "mgda without a wrapper": "step 1: the parameters differ between processes",
    "equal without a wrapper": "step 1: the parameters differ between processes",
    "pcgrad from other starts": "step 0: the parameters differ between processes",
    "mgda in fully_shard, listed late": "step 0: .* the copy that fully_shard gathers",
    "gradnorm in fully_shard": "step 0: the parameters in shared are sharded.* Give features",
    "mgda with a combine of its own": "step 0: Watching has a combine of its own",
    "mgda with a nan of no label": "step 0: the loss of task 2 .* not finite on some process.* through the graph",
    "equal in micro-batches without a wrapper": "step 1: the parameters differ between processes",
    "mgda in fully_shard, alone": "step 0: .* sharded over 3 processes, but the losses are those of 1",
    "realtime by forward": "step 0: on several processes, balancer.losses. weighs by the losses of this process",
    "equal by forward": "none",
    "modo by shared, with a second batch": "step 0: a second batch works in one process only",
    "modo by shared, with a second batch, alone": "none",
    **{f"{row.key} by shared": r"step 0: \w+ has a combine of its own" for row in OWN},
    **{f"{row.key} by shared, alone": "none" for row in MATRIX},
    **{f"{row.key} by features": r"step 0: \w+ (has a combine of its own|holds the gradients)" for row in MATRIX},
}


# one of each kind: with and without state, learned, drawn, from norms, from the losses after a step
OF_EACH_KIND = {
    "equal",
    "mgda",
    "pcgrad",
    "uncertainty",
    "normalized-rate",
    "gradnorm",
    "gradvac",
    "relobralo",
    "famo",
}


def cases(size: int) -> list[tuple[str, str, bool]]:
    """A key, a form, and whether the numbers of labels differ.

    Three processes are tried with numbers that differ, and one method of each kind.
    """
    keys, counts = (FORMS, (False, True)) if size == 2 else (FORMS.keys() & OF_EACH_KIND, (True,))
    return [(key, form, counted) for key in sorted(keys) for form in FORMS[key] for counted in counts]


class Net(nn.Module):
    """An encoder and three heads; `forward` gives the mean losses over what is known, and the features."""

    stacked = False

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.encoder = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
            self.heads = nn.Sequential(nn.Linear(3, 3))
            self.heads.append(nn.Linear(3, 3))  # its middle layer is shared by the heads alone
        self.double()

    def forward(self, x: Tensor, y: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        errors = (self.heads(z) - y).square() * known * vector(1, 2, 3)
        losses = errors.sum(0) / known.sum(0).clamp(min=1)
        return torch.stack(losses.unbind()) if self.stacked else losses, z


def batch(step: int, counted: bool) -> tuple[Tensor, Tensor, Tensor]:
    """x, y, and which labels are known; task 2 has none in the second step, task 1 only among the first rows."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(ROWS_OF_DATA, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(ROWS_OF_DATA, 3, generator=generator, dtype=torch.float64)
    known = torch.ones(ROWS_OF_DATA, 3, dtype=torch.float64)
    if counted:
        known = (torch.rand(ROWS_OF_DATA, 3, generator=generator) < 0.7).double()
        known[0] = 1
        known[:, 2] *= step != 1
        known[5:, 1] = 0
    return x, y, known


def train(key: str, form: str, counted: bool, own: slice, group: object = None) -> dict[str, object]:
    """Some steps of SGD on some rows of the batches; what they leave behind."""
    net, balancer = Net(), build(METHODS[key])
    if dist.is_initialized():  # what is drawn must not differ between processes: the first one's counts
        torch.manual_seed(dist.get_rank())
    model: Callable[..., tuple[Tensor, Tensor]] = net
    if "two DDPs" in form:
        net.encoder, net.heads = DistributedDataParallel(net.encoder), DistributedDataParallel(net.heads)
    elif "DDP" in form:
        model = DistributedDataParallel(net)
    elif "fully_shard" in form:
        if "whole" not in form:
            for layer in (net.encoder[0], net.encoder[2], *net.heads):
                fully_shard(layer)
        fully_shard(net)
        net.stacked = "whole" in form  # and multiplied below: what returns them has hooks that must run
    shared = list(net.encoder.parameters())[2 if key == "gradnorm" else 0 :]
    optimizer = torch.optim.SGD([*net.parameters(), *balancer.parameters()], lr=0.1)
    returned = []
    for step in range(STEPS):
        data = [part[own] for part in batch(step, counted)]
        optimizer.zero_grad()
        if "micro-batches" in form:
            returned.append(accumulate(model, balancer, data, None if form.startswith("features") else shared))
        else:
            losses, z = model(*data)
            losses = losses * 1.0 if net.stacked else losses
            given = {"features": z} if form.startswith("features") else {"shared": shared}
            present = data[2].sum(0) if counted else None
            returned.append(balancer.backward(losses, **given, present=present, group=group))
        optimizer.step()
        if isinstance(balancer, LooksAfter):
            with torch.no_grad():
                balancer.update(model(*data)[0], present=data[2].sum(0) if counted else None, group=group)
    whole = [p.detach().full_tensor() if isinstance(p, DTensor) else p.detach() for p in net.parameters()]
    state = {k: v for k, v in balancer.state_dict().items() if isinstance(v, Tensor)}
    return {
        "weights": torch.stack(returned),
        "parameters": torch.cat([p.flatten() for p in whole]),
        "state": state,
    }


def accumulate(model: Callable, balancer: object, data: list[Tensor], shared: list[Tensor] | None) -> Tensor:
    """The step from two micro-batches, whose losses are sums over examples, by the numbers of labels in both."""
    step = mtl.Accumulation(balancer)
    x, y, known = data
    labels = known.sum(0)
    parts = [slice(0, len(x) // 2), slice(len(x) // 2, None)]

    def losses_of(part: slice) -> tuple[Tensor, dict[str, object]]:
        losses, z = model(x[part], y[part], known[part])
        return losses * known[part].sum(0) / labels.clamp(min=1), {"features": z}

    for part in parts:
        losses, features = losses_of(part)
        step.add(losses, **({"shared": shared} if shared else features), present=labels)
    weights = step.finish()
    if shared is None or isinstance(balancer, mtl.LossBalancer):
        for part in parts:
            losses, features = losses_of(part)
            step.backward(losses, **features, present=labels)
    return weights


class Watching(mtl.MGDA):
    """A method that looks at the gradients themselves."""

    def combine(self, gradients: Tensor, losses: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return super().combine(gradients.clone(), losses)


def refusal(name: str, own: slice, rank: int) -> str:
    """What a step that cannot be exact says, and in which step; every `.grad` is None then."""
    net, balancer = Net(), build(METHODS[name.split()[0]])
    given: dict[str, object] = {}
    if "a combine" in name:
        balancer = Watching()
    if "other starts" in name:
        nn.init.constant_(net.encoder[0].weight, rank)
    if "fully_shard" in name or "by shared" in name:
        if "fully_shard" in name:
            fully_shard(net)
        given["shared"] = list(net.encoder.parameters())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(2):
        x, y, known = (part[own] for part in batch(0, False))
        losses, z = net(x, y, known)
        if "listed late" in name:
            given["shared"] = list(net.encoder.parameters())
        elif "nan" in name:
            given["present"], losses = [1, 1, 0], losses * vector(1, 1, float("nan"))
        elif "alone" in name:
            given["group"] = "alone"
        if "second" in name:
            given["second"] = net(x.flip(0), y, known)[0]
        optimizer.zero_grad()
        try:
            if "by forward" in name:
                balancer(losses)
            elif "micro-batches" in name:
                accumulated = mtl.Accumulation(balancer)
                accumulated.add(losses)
                accumulated.finish()
                accumulated.backward(losses)
            else:
                balancer.backward(losses, **(given if "shared" in given else {"features": z, **given}))
        except (ValueError, UserWarning) as error:
            assert all(p.grad is None for p in net.parameters())
            return f"step {step}: {error}"
        optimizer.step()
    return "none"


def worker(rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    found = {}
    for key, form, counted in cases(size):
        ends = torch.tensor((UNEQUAL if counted else EQUAL)[size]).cumsum(0).tolist()
        found[key, form, counted] = train(key, form, counted, slice([0, *ends][rank], ends[rank]))
    own = slice(rank * 4, rank * 4 + 4)
    found |= {key: train(key, "shared, plain", False, own, group="alone") for key in FORMS}
    found |= {name: refusal(name, own, rank) for name in REFUSED}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found_by(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], list[dict]]:
    """Of a number of processes, what each of them has found."""

    mp.set_forkserver_preload(["cases", "torch.distributed.fsdp"])  # imported once for all

    @cache
    def run(size: int) -> list[dict]:
        folder = tmp_path_factory.mktemp("processes")
        mp.start_processes(worker, (size, str(folder)), nprocs=size, start_method="forkserver")
        return [torch.load(folder / f"{rank}.pt") for rank in range(size)]

    return run


@pytest.mark.parametrize(("size", "key", "form", "counted"), [(W, *case) for W in (2, 3) for case in cases(W)])
def test_several_processes_take_the_step_of_one(
    found_by: Callable[[int], list[dict]], size: int, key: str, form: str, counted: bool
) -> None:
    alone = train(key, form.split(",")[0], counted, slice(None))
    first, *others = (part[key, form, counted] for part in found_by(size))
    for name in ("weights", "parameters"):
        torch.testing.assert_close(first[name], alone[name], rtol=0, atol=1e-10)
    for name, value in alone["state"].items():
        torch.testing.assert_close(first["state"][name], value, rtol=0, atol=1e-10, equal_nan=True)
    for other in others:
        assert torch.equal(other["weights"], first["weights"])
        assert torch.equal(other["parameters"], first["parameters"])
        assert all(same(other["state"][name], value) for name, value in first["state"].items())


@pytest.mark.parametrize("key", FORMS)
def test_without_the_reductions_the_step_is_another(found_by: Callable[[int], list[dict]], key: str) -> None:
    whole = train(key, "shared, plain", False, slice(None))
    for part in found_by(2):
        assert (part[key]["parameters"] - whole["parameters"]).abs().max() > 1e-3


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exact_is_refused_on_every_process(
    found_by: Callable[[int], list[dict]], name: str
) -> None:
    for part in found_by(3):
        assert re.match(REFUSED[name], part[name])
