"""Several processes: the step is the one that a single process takes on the whole batch, for every method."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from cases import GRADIENT, LOSS, build, vector
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from mtl_ref.catalogue import METHODS

STEPS, ROWS_OF_DATA = 3, 12
EQUAL = {2: [6, 6], 3: [4, 4, 4]}  # examples of each process
UNEQUAL = {2: [9, 3], 3: [6, 4, 2]}
WRAPPED = ["features, DDP", "features, two DDPs", "features, fully_shard", "features, fully_shard of the whole"]
SHARED = ["shared, plain", "shared, DDP"]
SHARDED = ["shared, fully_shard", "shared, fully_shard of the whole"]
FORMS = {
    **{row.key: WRAPPED + SHARED + SHARDED for row in GRADIENT},
    **{row.key: WRAPPED for row in LOSS},
    "gradnorm": [*WRAPPED, "shared, DDP"],
}
CASES = [(key, form, counted) for key, forms in FORMS.items() for form in forms for counted in (False, True)]


class Net(nn.Module):
    """An encoder and three heads; `forward` gives the mean losses over what is known, and the features."""

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
        return errors.sum(0) / known.sum(0).clamp(min=1), z


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
    optimizer = torch.optim.SGD([*net.parameters(), *balancer.parameters()], lr=0.1)
    returned = []
    for step in range(STEPS):
        x, y, known = (part[own] for part in batch(step, counted))
        losses, z = model(x, y, known)
        given = {"features": z} if form.startswith("features") else {"shared": list(net.encoder.parameters())}
        if key == "gradnorm" and "shared" in given:
            given["shared"] = given["shared"][2:]
        optimizer.zero_grad()
        present = known.sum(0) if counted else None
        returned.append(balancer.backward(losses, **given, present=present, group=group))
        optimizer.step()
    whole = [p.detach().full_tensor() if isinstance(p, DTensor) else p.detach() for p in net.parameters()]
    state = {k: v for k, v in balancer.state_dict().items() if isinstance(v, Tensor)}
    return {
        "weights": torch.stack(returned),
        "parameters": torch.cat([p.flatten() for p in whole]),
        "state": state,
    }


def worker(rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    found = {}
    for key, form, counted in CASES:
        ends = torch.tensor((UNEQUAL if counted else EQUAL)[size]).cumsum(0).tolist()
        found[key, form, counted] = train(key, form, counted, slice([0, *ends][rank], ends[rank]))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 3])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each process has found, for every case."""
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(worker, (request.param, str(folder)), nprocs=request.param)
    return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(request.param)]


@pytest.mark.parametrize(("key", "form", "counted"), CASES)
def test_several_processes_take_the_step_of_one(results: list[dict], key: str, form: str, counted: bool) -> None:
    alone = train(key, form.split(",")[0], counted, slice(None))
    for found in (part[key, form, counted] for part in results):
        for name in ("weights", "parameters"):
            torch.testing.assert_close(found[name], alone[name], rtol=0, atol=1e-10)
        for name, value in alone["state"].items():
            torch.testing.assert_close(found["state"][name], value, rtol=0, atol=1e-10)
    first = results[0][key, form, counted]
    for other in (part[key, form, counted] for part in results[1:]):
        assert torch.equal(other["weights"], first["weights"])
        assert all(torch.equal(other["state"][name], value) for name, value in first["state"].items())
