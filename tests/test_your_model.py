"""The page for the reader's own model: its blocks run from top to bottom, and what it says about them holds."""

import copy
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import mtl_ref as mtl

PAGE = (Path(__file__).parents[1] / "book" / "your_model.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that all blocks leave behind, and for each optimised model whether every parameter has moved."""
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.chdir(tmp_path_factory.mktemp("page"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        warnings.simplefilter("default")  # those of the two frameworks are not ours to mend
        for block in BLOCKS:
            exec(block, names)
    return names


def test_every_block_runs(after: dict[str, Any]) -> None:
    assert len(BLOCKS) >= 9
    assert isinstance(after["trainer"].model, after["TwoTasks"])


def test_the_state_of_the_model_holds_the_balancers(after: dict[str, Any]) -> None:
    assert "balancer.s" in after["model"].state_dict()
    assert after["model"].balancer.s.abs().min() > 0.05  # four steps of Adam at 0.025


@pytest.mark.parametrize("name", ["LossLevel", "GradientLevel"])
def test_lightning_trains_every_parameter_and_lowers_both_losses(after: dict[str, Any], name: str) -> None:
    module = after[name]()
    before, first = copy.deepcopy(module), all_losses(after, module.model)
    fit(after, module, epochs=60)
    assert_all_moved(before, module)
    assert (all_losses(after, module.model) < 0.98 * first).all()


def fit(after: dict[str, Any], module: torch.nn.Module, epochs: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = after["lightning"].Trainer(max_epochs=epochs, accelerator="cpu", **quiet)
        trainer.fit(module, after["loader"])


@pytest.mark.parametrize("name", ["a loss-level method", "a gradient method"])
def test_the_hugging_face_trainer_moves_every_parameter(after: dict[str, Any], name: str, tmp_path: Path) -> None:
    loss_level = name == "a loss-level method"
    uncertainty = mtl.UncertaintyWeighting(["classification", "regression"])
    model = after["ForTrainer"](uncertainty) if loss_level else after["TwoTasks"]()
    before = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        arguments = copy.copy(after["arguments"])
        arguments.output_dir, arguments.disable_tqdm = str(tmp_path), True
        trainer = after["Trainer" if loss_level else "BalancedTrainer"]
        trainer(model, arguments, train_dataset=after["rows"]).train()
    assert_all_moved(before, model)


def assert_all_moved(before: torch.nn.Module, module: torch.nn.Module) -> None:
    for (name, old), new in zip(before.named_parameters(), module.parameters(), strict=True):
        assert not torch.equal(old, new), name


def all_losses(after: dict[str, Any], model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.losses(*after["data"].tensors)[0]


def test_accumulated_directions_are_those_of_the_large_batch_for_fixed_weights_only(after: dict[str, Any]) -> None:
    for balancer, same in ((mtl.FixedWeighting([1.0, 0.1]), True), (mtl.MGDA(), False)):
        model = after["TwoTasks"]()
        grads = []
        for parts in (1, 2):
            model.zero_grad()
            for batch in zip(*(t.chunk(parts) for t in after["data"].tensors), strict=True):
                losses, _ = model.losses(*batch)
                balancer.backward(losses / parts, shared=model.encoder.parameters())
            grads.append(torch.cat([p.grad.flatten() for p in model.encoder.parameters()]))
        assert torch.allclose(*grads, rtol=1e-3, atol=1e-4) == same


@pytest.mark.parametrize("balancer", [mtl.PCGrad(), mtl.MGDA(), mtl.GradientNormalization()], ids=repr)
def test_what_a_loss_scale_does_to_gradient_methods(after: dict[str, Any], balancer: mtl.GradientBalancer) -> None:
    model = after["TwoTasks"]()
    grads = []
    for scale in (1.0, 1024.0):
        model.zero_grad()
        losses, _ = model.losses(*after["data"].tensors)
        balancer.backward(scale * losses, shared=model.encoder.parameters())
        grads.append(torch.cat([p.grad.flatten() for p in model.encoder.parameters()]))
    grows = 1.0 if isinstance(balancer, mtl.GradientNormalization) else 1024.0
    torch.testing.assert_close(grads[1], grows * grads[0], rtol=1e-4, atol=1e-5 * grows)


@pytest.mark.parametrize("balancer", [mtl.PCGrad(), mtl.MGDA(), mtl.GradientNormalization()], ids=repr)
def test_a_task_without_labels_has_the_gradient_that_the_page_says(
    after: dict[str, Any], balancer: mtl.GradientBalancer
) -> None:
    model = after["TwoTasks"]()
    losses, _ = model.losses(*after["data"].tensors)
    balancer.backward(losses * torch.tensor([1.0, 0.0]), shared=model.encoder.parameters())
    length = sum(p.grad.abs().sum() for p in model.encoder.parameters())
    assert (length == 0) == isinstance(balancer, mtl.MGDA)


def test_methods_that_divide_by_a_loss_refuse_zero(after: dict[str, Any]) -> None:
    losses, _ = after["TwoTasks"]().losses(*after["data"].tensors)
    for balancer in (mtl.InitialLossScaling(), mtl.GeometricMean(), mtl.RealTimeLossScaling()):
        with pytest.raises(ValueError, match="task 1"):
            balancer.backward(losses * torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize(
    ("balancer", "runs"), [(mtl.EqualWeighting(), 1), (mtl.MGDA(), 0)], ids=["losses", "gradients"]
)
def test_the_hooks_that_average_over_processes_run_for_loss_level_methods_only(
    after: dict[str, Any], balancer: Any, runs: int
) -> None:
    model = after["TwoTasks"]()
    seen: list[torch.Tensor] = []
    model.encoder[0].weight.register_post_accumulate_grad_hook(seen.append)
    losses, _ = model.losses(*after["data"].tensors)
    balancer.backward(losses, shared=model.encoder.parameters())
    assert len(seen) == runs
