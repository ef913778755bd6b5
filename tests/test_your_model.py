"""The page for the reader's own model: its blocks run from top to bottom, and what it says about them holds."""

import copy
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._functorch.config
from cases import LOSS, Method, both_ways, build, every_row, looks_at_gradients, rows
from torch import Tensor, nn

import mtl_ref as mtl
from mtl_ref.catalogue import METHODS

PAGE = (Path(__file__).parents[1] / "book" / "your_model.md").read_text()
FILES = dict(re.findall(r"^```{code-block} python\n:caption: (\S+)\n(.*?)^```", PAGE, flags=re.M | re.S))
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)
COMMANDS = re.findall(r"^torchrun (.+)$", PAGE, flags=re.M)
COMMANDS.append(f"--standalone --nproc-per-node 2 {__file__}")  # the two frameworks: the end of this file
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}


def started(command: str, folder: Path) -> subprocess.Popen[str]:
    """A command of torchrun, running in a folder."""
    path = os.pathsep.join([str(folder), str(Path(mtl.__file__).parents[1]), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    call = [sys.executable, "-m", "torch.distributed.run", *command.split()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(call, cwd=folder, env=environment, **pipes)


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The names that all blocks leave behind; `folder` has the files that the page's commands have written."""
    folder = tmp_path_factory.mktemp("page")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    running = [started(command, folder) for command in COMMANDS]
    names: dict[str, Any] = {"folder": folder}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.setenv("HF_HUB_OFFLINE", "1")
        warnings.simplefilter("default")  # those of the two frameworks are not ours to mend
        for block in BLOCKS:
            exec(block, names)
        for process in running:
            said = process.communicate(timeout=300)[0]
            assert process.returncode == 0, said
        yield names
    sys.modules.pop("model", None)


def model_of(after: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return after["TwoTasks"]()


def grads(*modules: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for m in modules for p in m.parameters() if p.grad is not None])


def parameters(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def assert_all_moved(before: nn.Module, module: nn.Module) -> None:
    for (name, old), new in zip(before.named_parameters(), module.parameters(), strict=True):
        assert not torch.equal(old, new), name


# --- The page


def test_every_block_runs(after: dict[str, Any]) -> None:
    assert (len(BLOCKS), len(FILES), len(COMMANDS)) == (11, 2, 3)
    assert "balancer.s" in torch.load(after["folder"] / "model.pt")
    assert after["weights"][1] == 0  # the task without labels
    assert not any(len(line) > 78 for code in (*FILES.values(), *BLOCKS) for line in code.splitlines())


@pytest.mark.parametrize("name", ["ddp", "fully_shard"])
def test_two_processes_take_the_steps_of_one(after: dict[str, Any], name: str) -> None:
    model, balancer = model_of(after), mtl.MGDA()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for batch in torch.utils.data.DataLoader(after["data"], batch_size=16):
        losses, z = model(*batch)
        optimizer.zero_grad()
        given = {"features": z} if name == "ddp" else {"shared": model.encoder.parameters()}
        balancer.backward(losses, **given)
        optimizer.step()
    for alone, both in zip(model.encoder.parameters(), torch.load(after["folder"] / f"{name}.pt"), strict=True):
        torch.testing.assert_close(both, alone.detach(), rtol=0, atol=1e-6)


# --- The table: rows of the catalogue against one process in float32, eager

# of the methods that need backward itself: these take losses that a scaler has multiplied
FITS_SCALER = {"gradnorm", "pcgrad", "mgda", "config", "upgrad", "dualproj", "cagrad", "aligned"} | {
    *("ntkmtl", "gradvac", "imtl-g", "primary", "pcd", "krum", "cr-mogm"),
    *("graddrop", "trimmed", "excess", "metabalance", "sdmgrad"),
}


def step_of(after: dict[str, Any], row: Method, by: str, scale: float = 1.0, **how: Any) -> Tensor:
    """The gradients that a step leaves, in units of the scale."""
    model, balancer = model_of(after), build(row, order=(1, 0))
    if "compiled" in how:
        for layer in (model.encoder, model.kind, model.size):
            layer.compile(backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in how):
        losses, z = model(*(t[:16] for t in after["data"].tensors))
    given = {"features": z} if by == "features" else {"shared": list(model.encoder.parameters())}
    torch.manual_seed(0)
    if "forward" in how:
        (scale * balancer(losses)).backward()
    else:
        balancer.backward(scale * losses, **given)
    return grads(model, balancer) / scale


@every_row
@both_ways
def test_what_works_with_half_precision(after: dict[str, Any], row: Method, by: str) -> None:
    plain = step_of(after, row, by)
    half = step_of(after, row, by, bf16=True)
    drawn = row.key == "graddrop"  # of a few entries, in which P comes to lie on the other side of what is drawn
    assert torch.cosine_similarity(half, plain, 0) > (0.9 if drawn else 0.999)
    if looks_at_gradients(row) and row.key not in ("moco", "modo"):  # whose weights may end in a corner
        scaled = step_of(after, row, by, scale=1024.0)
        assert torch.allclose(scaled, plain, rtol=1e-3, atol=1e-4) == (row.key in FITS_SCALER)
    if row in LOSS:
        torch.testing.assert_close(step_of(after, row, by, scale=1024.0, forward=True), plain)


@rows([METHODS[key] for key in ("geometric", "gradnorm", "mgda")])
@both_ways
def test_what_works_compiled_in_parts(after: dict[str, Any], row: Method, by: str) -> None:
    plain = step_of(after, row, by)
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler, about the gradient of what is no leaf
        torch.testing.assert_close(step_of(after, row, by, compiled=True), plain)


@pytest.mark.parametrize("remedy", ["reset", "donated_buffer=False"])
def test_a_warm_up_with_the_plain_sum_needs_another_compilation(remedy: str) -> None:
    torch.compiler.reset()
    encoder, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.ones(5, 3)
    encoder.compile(backend="aot_eager")
    encoder(x).square().mean(0).sum().backward()
    with pytest.raises(RuntimeError, match="compiled with non-empty donated buffers"):
        mtl.MGDA().backward(encoder(x).square().mean(0), shared=encoder.parameters())
    if remedy == "reset":
        torch.compiler.reset()
    with torch._functorch.config.patch(donated_buffer=remedy == "reset"):
        mtl.MGDA().backward(encoder(x).square().mean(0), shared=encoder.parameters())


def test_a_model_compiled_as_a_whole_is_for_methods_that_combine_losses(after: dict[str, Any]) -> None:
    torch.compiler.reset()
    whole = torch.compile(model_of(after), backend="aot_eager")
    losses, z = whole(*(t[:16] for t in after["data"].tensors))
    with pytest.raises(ValueError, match="compile encoder and heads each for itself"):
        mtl.MGDA().backward(losses, features=z)
    mtl.GeometricMean().backward(losses)


def test_accumulated_directions_are_those_of_the_large_batch_for_fixed_weights_only(after: dict[str, Any]) -> None:
    for balancer, same in ((mtl.FixedWeighting([1.0, 0.1]), True), (mtl.MGDA(), False)):
        model, found = model_of(after), []
        for parts in (1, 2):
            model.zero_grad()
            for batch in zip(*(t.chunk(parts) for t in after["data"].tensors), strict=True):
                balancer.backward(model(*batch)[0] / parts, shared=model.encoder.parameters())
            found.append(grads(model.encoder))
        assert torch.allclose(*found, rtol=1e-3, atol=1e-4) == same


# --- Lightning and Hugging Face's Trainer


def fit(after: dict[str, Any], module: nn.Module, epochs: int = 1, **options: Any) -> nn.Module:
    """The module after a run of Lightning, on as many processes as there are."""
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    loader = torch.utils.data.DataLoader(after["data"], 16 // world, sampler=range(rank, 64, world))
    options = {**QUIET, "use_distributed_sampler": False, "strategy": "ddp" if world > 1 else "auto", **options}
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        after["lightning"].Trainer(max_epochs=epochs, devices=world, **options).fit(module, loader)
    return module


def trained(after: dict[str, Any], kind: str, balancer: nn.Module, folder: str, **options: Any) -> Any:
    """The model after a run of the Trainer, on as many processes as there are; `seen` are the encoder's types."""
    torch.manual_seed(0)
    model = after["ForTrainer"](balancer)
    model.seen = set()
    model.encoder.register_forward_hook(lambda module, x, z: model.seen.add(z.dtype))
    options |= {"report_to": [], "use_cpu": True, "remove_unused_columns": False, "disable_tqdm": True}
    options |= {"per_device_train_batch_size": 16 // int(os.environ.get("WORLD_SIZE", 1))}
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        arguments = after["TrainingArguments"](
            folder, num_train_epochs=2, ddp_find_unused_parameters=False, **options
        )
        after[kind](model, arguments, train_dataset=after["rows"]).train()
    return model


def by_frameworks(after: dict[str, Any], folder: str) -> dict[str, Tensor]:
    """The parameters after a run of each framework."""
    found = {}
    for balancer in (mtl.MGDA(), mtl.GeometricMean()):
        torch.manual_seed(0)
        found[f"Lightning, {balancer}"] = parameters(fit(after, after["GradientLevel"](balancer)))
        model = trained(after, "BalancedTrainer", balancer, folder, save_strategy="no")
        found[f"Hugging Face, {balancer}"] = parameters(model)
    torch.manual_seed(0)
    found["Lightning, automatic"] = parameters(fit(after, after["LossLevel"](mtl.GeometricMean())))
    return found


def test_in_the_frameworks_too_two_processes_take_the_steps_of_one(after: dict[str, Any], tmp_path: Path) -> None:
    both, alone = torch.load(after["folder"] / "frameworks.pt"), by_frameworks(after, str(tmp_path))
    for name, value in alone.items():
        assert torch.allclose(both[name], value, rtol=0, atol=1e-6) == (name != "Lightning, automatic"), name


@pytest.mark.parametrize(
    ("name", "balancer"), [("LossLevel", mtl.AutomaticWeightedLoss(2)), ("GradientLevel", mtl.MGDA())]
)
def test_lightning_trains_every_parameter_and_lowers_both_losses(
    after: dict[str, Any], name: str, balancer: nn.Module
) -> None:
    module = after[name](balancer)
    before = copy.deepcopy(module)
    fit(after, module, epochs=20)
    assert_all_moved(before, module)
    with torch.no_grad():
        old, new = (m.model(*after["data"].tensors)[0] for m in (before, module))
    assert (new < 0.98 * old).all()


@pytest.mark.parametrize("flag", [{"gradient_clip_val": 1.0}, {"accumulate_grad_batches": 2}], ids=str)
def test_lightning_refuses_its_flags_in_manual_optimisation(after: dict[str, Any], flag: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="not supported for manual optimization"):
        fit(after, after["GradientLevel"](mtl.MGDA()), **flag)


def test_lightnings_scaler_takes_scaled_losses(after: dict[str, Any]) -> None:
    class Scaled(mtl.PCGrad):
        def backward(self, losses: Tensor, **given: Any) -> Tensor | None:
            return super().backward(module.trainer.precision_plugin.scaler.scale(losses), **given)

    half = after["lightning"].pytorch.plugins.MixedPrecision
    module = after["GradientLevel"](Scaled())
    before = copy.deepcopy(module)
    assert_all_moved(before, fit(after, module, epochs=5, plugins=half("16-mixed", "cpu")))
    with pytest.raises(AssertionError, match="did not use scaler"):
        fit(after, after["GradientLevel"](mtl.PCGrad()), plugins=half("16-mixed", "cpu"))


@pytest.mark.parametrize("method", ["uncertainty", "gradnorm"])
def test_the_trainer_computes_in_bf16_and_saves_as_it_does_without_a_balancer(
    after: dict[str, Any], method: str, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    balancer = build(METHODS[method], order=(1, 0))
    kind = "Trainer" if method == "uncertainty" else "BalancedTrainer"
    model = trained(after, kind, balancer, str(tmp_path), bf16=True, save_strategy="epoch")
    torch.manual_seed(0)
    assert_all_moved(after["ForTrainer"](build(METHODS[method], order=(1, 0))), model)
    stock = trained(after, "Trainer", mtl.EqualWeighting(), str(tmp_path / "stock"), bf16=True)
    assert model.seen == stock.seen == {torch.bfloat16}
    saved = load_file(tmp_path / "checkpoint-8" / "model.safetensors")
    for name, value in balancer.state_dict().items():
        assert torch.equal(saved[f"balancer.{name}"], value)


# --- Tasks without labels, losses on one output, rewards, notes


@pytest.mark.parametrize(("optimizer", "drift"), [(torch.optim.Adam, 0.23), (torch.optim.SGD, 0.0)])
def test_momentum_moves_the_weight_of_an_absent_task(optimizer: Any, drift: float) -> None:
    balancer = mtl.UncertaintyWeighting(["classification", "regression"])
    step = optimizer(balancer.parameters(), lr=0.025)
    s = []
    for i in range(420):
        step.zero_grad()
        balancer.backward(torch.tensor([1.1, 230.0], requires_grad=True), present=[True, i < 20])
        step.step()
        s.append(balancer.s[1].item())
    assert s[-1] - s[19] == pytest.approx(drift, abs=0.005)
    assert s[-1] - s[69] == pytest.approx(0, abs=0.005)


def test_a_loss_that_reaches_the_network_past_the_output_is_refused(
    after: dict[str, Any],
) -> None:
    image = after["decoder"](after["code"])
    losses = torch.stack([image.square().mean(), after["decoder"][0].weight.square().sum()])
    with pytest.raises(ValueError, match="do not separate"):
        mtl.MGDA().backward(losses, features=image)
    mtl.MGDA().backward(losses, shared=after["decoder"].parameters())


def test_the_scale_of_a_reward_is_no_part_of_the_advantage(after: dict[str, Any]) -> None:
    block = next(block for block in BLOCKS if block.startswith("rewards"))
    found = []
    for factor in (1.0, 40.0):
        torch.manual_seed(0)
        names = {"torch": torch}
        exec(block.replace("3)  #", f"3) * torch.tensor([1.0, {factor}, 1.0])  #"), names)
        found.append(names["advantage"])
    torch.testing.assert_close(*found, rtol=0, atol=1e-3)


def test_what_the_notes_say(after: dict[str, Any]) -> None:
    for method, by, runs in ((mtl.EqualWeighting(), "", 2), (mtl.MGDA(), "", 0), (mtl.MGDA(), "features", 1)):
        model, seen = model_of(after), []
        for layer in (model.encoder[0], model.kind):
            layer.weight.register_post_accumulate_grad_hook(seen.append)
        losses, z = model(*after["data"].tensors)
        method.backward(losses, **({by: z} if by else {"shared": model.encoder.parameters()}))
        assert len(seen) == runs
    table = nn.Embedding(5, 4, sparse=True)
    z = table(torch.tensor([1, 3]))
    mtl.MGDA().backward(z.square().sum(0), features=z)
    torch.optim.SparseAdam([table.weight]).step()
    table.weight.grad = None
    mtl.MGDA().backward(table(torch.tensor([1, 3])).square().sum(0), shared=[table.weight])
    with pytest.raises(RuntimeError, match="does not support dense gradients"):
        torch.optim.SparseAdam([table.weight]).step()
    z_1, z_2 = (-torch.ones(3, requires_grad=True) for _ in range(2))
    opposed = torch.stack([z_1.sum(), -z_2.sum()])
    assert mtl.PCGrad().backward(opposed, features=[z_1, z_2]).tolist() == [1, 1]
    M = torch.eye(2).double()
    twice = torch.tensor([2.0, 1.0]).double()
    assert mtl.MGDA().task_weights(M * twice.outer(twice)).tolist() == [0.2, 0.8]


if __name__ == "__main__":  # as one of two processes
    from model import TwoTasks, data

    names: dict[str, Any] = {"mtl": mtl, "nn": nn, "torch": torch, "TwoTasks": TwoTasks, "data": data}
    for start, end in (("import lightning", "options ="), ("from transformers", "arguments =")):
        exec(next(block for block in BLOCKS if block.startswith(start)).split(f"\n{end}")[0], names)
    found = by_frameworks(names, "trained")
    if os.environ["RANK"] == "0":
        torch.save(found, "frameworks.pt")
