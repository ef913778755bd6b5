"""GradNorm's toy: regressions that differ in nothing but their scale (chapter 4).

Source: Chen, Badrinarayanan, Lee and Rabinovich, ICML 2018, §4. The paper gives neither the distribution of the
inputs, the number of samples nor the batch size; here they are standard normal, 5000 and 100.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_ref.problems.base import HardSharing, Problem, batch_indices

INPUTS, OUTPUTS, WIDTH = 250, 100, 100
VARIANCE_B, VARIANCE_EPSILON = 10.0, 3.5  # of what the tasks share, and of what is a task's own


class GradNormToy(Problem):
    """Learn yᵢ = σᵢ tanh((B + εᵢ) x) for T scales σᵢ, with x in R²⁵⁰ and yᵢ in R¹⁰⁰, by the squared error.

    It is judged by the "normalised loss" Σ Lᵢ / E‖yᵢ‖², the paper's Σ Lᵢ(t)/Lᵢ(0): a fresh network answers
    nearly zero, so that each task starts near 1.

    Args:
        sigmas: the T scales, all > 0.
        seed: decides B, ε and the samples.
        samples: of the training split; validation and test have 1000 each.
        batch_size: of the batches, of every split.
    """

    def __init__(
        self, sigmas: Sequence[float], *, seed: int = 0, samples: int = 5000, batch_size: int = 100
    ) -> None:
        if len(sigmas) == 0 or min(sigmas) <= 0:
            raise ValueError(f"sigmas must be one positive number per task, but are {list(sigmas)}.")
        self.sigmas, self.seed, self.batch_size = list(sigmas), seed, batch_size
        self.tasks = tuple(f"σ = {sigma:.3g}" for sigma in sigmas)
        self.kinds = dict.fromkeys(self.tasks, "regression")
        self.metrics = {"normalised loss": False}
        self.device = torch.device("cpu")
        generator = torch.Generator().manual_seed(seed)
        B = VARIANCE_B**0.5 * torch.randn(INPUTS, OUTPUTS, generator=generator)
        epsilon = VARIANCE_EPSILON**0.5 * torch.randn(len(sigmas), INPUTS, OUTPUTS, generator=generator)
        self.x: dict[str, Tensor] = {}
        self.y: dict[str, Tensor] = {}
        for split, size in {"train": samples, "validation": 1000, "test": 1000}.items():
            x = torch.randn(size, INPUTS, generator=generator)
            self.x[split] = x
            self.y[split] = torch.tensor(self.sigmas)[:, None, None] * torch.tanh(x @ (B + epsilon))  # (T, N, 100)

    def __repr__(self) -> str:
        return f"GradNormToy({self.sigmas}, seed={self.seed}, samples={len(self.x['train'])})"

    def prior_losses(self) -> list[float]:
        """The mean variance of a task's outputs."""
        return self.y["train"].double().var(1, correction=0).mean(1).tolist()

    def judged_by(self, task: str) -> list[str]:
        """The one metric, which all tasks share."""
        return list(self.metrics)

    def to(self, device: torch.device | str) -> Self:
        self.device = torch.device(device)
        self.x = {split: x.to(device) for split, x in self.x.items()}
        self.y = {split: y.to(device) for split, y in self.y.items()}
        return self

    def model(self) -> HardSharing:
        """The paper's trunk of four layers of 100 units with ReLU, and one affine head per task."""
        layers: list[nn.Module] = []
        for inputs in (INPUTS, WIDTH, WIDTH, WIDTH):
            layers += [nn.Linear(inputs, WIDTH), nn.ReLU()]
        return HardSharing(
            nn.Sequential(*layers), {str(i): nn.Linear(WIDTH, OUTPUTS) for i in range(len(self.tasks))}
        )

    def batches(
        self, split: str, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        x, y = self.x[split], self.y[split]
        for index in batch_indices(len(x), self.batch_size, generator, self.device):
            yield x[index], {str(i): task[index] for i, task in enumerate(y)}

    def losses(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([F.mse_loss(outputs[task], targets[task]) for task in targets])

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        targets = {str(i): y for i, y in enumerate(self.y[split])}
        losses = self.losses(model(self.x[split]), targets)
        return {"normalised loss": (losses / self.y[split].square().mean((1, 2))).sum().item()}
