"""What is run on each problem: its size, its learning rates, the weights that a search tries."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import torch

from mtl_ref.balancer import GradientBalancer, LossBalancer
from mtl_ref.catalogue import CONTESTANTS
from mtl_ref.methods import FixedWeighting, prior_cross_entropy
from mtl_ref.problems.base import Problem

PROFILES = ("quick", "full")


@dataclass
class Setting:
    """A problem, and how it is run.

    Attributes:
        build: makes the problem; called once a process, and only if something asks for it.
        epochs: passes over the training split.
        lrs: the learning rates that are tried for every method.
        options: further keywords of `mtl_ref.train`, such as `decay` or `optimizer`.
        weights: the task weights that the method "fixed" tries; drawn at random if left out.
    """

    build: Callable[[], Problem]
    epochs: int
    lrs: tuple[float, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: Sequence[Sequence[float]] = ()

    @cached_property
    def problem(self) -> Problem:
        """The problem, built when first asked for."""
        return self.build()

    @cached_property
    def searched(self) -> Sequence[Sequence[float]]:
        """The task weights that the method "fixed" tries."""
        return self.weights or random_weights(len(self.problem.tasks))

    def members(self, method: str) -> list[str]:
        """The runs of one method at one rate and seed: weights to try, or tasks; [""] where there is only one."""
        if method == "fixed":
            return [str(number) for number in range(len(self.searched))]
        return list(self.problem.tasks) if method == "single" else [""]

    def balancer(self, method: str, member: str = "") -> LossBalancer | GradientBalancer:
        """A fresh balancer of a method, or of one member of it."""
        if method == "fixed":
            return FixedWeighting(self.searched[int(member)])
        if method == "single":  # what the encoder then learns is a single-task network
            return FixedWeighting([float(task == member) for task in self.problem.tasks])
        return CONTESTANTS[method].make(self.problem)


def random_weights(num_tasks: int, number: int = 8, seed: int = 0) -> list[list[float]]:
    """Weights that sum to one and differ by up to a factor of 100, log-uniform, shape (number, T)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = 100 ** torch.rand(number, num_tasks, generator=generator, dtype=torch.float64)
    return [[round(w, 4) for w in row] for row in (drawn / drawn.sum(1, keepdim=True)).tolist()]


TWO_WEIGHTS = ((0.1, 0.9), (0.25, 0.75), (0.4, 0.6), (0.6, 0.4), (0.75, 0.25), (0.9, 0.1))


def multimnist(profile: str) -> Setting:
    """Two digits. Quick: the embedded subset, 6 epochs. Full: the whole of MNIST by Kurin et al.'s protocol."""
    return Setting(
        lambda: build_multimnist(profile, ("left", "right")),
        weights=TWO_WEIGHTS,
        **multimnist_schedule(profile),
    )


def multimnist_sum(profile: str) -> Setting:
    """Two digits and, as a regression with a loss forty times as large, their sum."""
    return Setting(
        lambda: build_multimnist(profile, ("left", "right", "sum"), dropout=0.0),
        weights=[(1.0, 1.0, w) for w in (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)],
        **multimnist_schedule(profile),
    )


def fashion_mnist_mix(profile: str) -> Setting:
    """A digit and a piece of clothing: two tasks of unequal difficulty. Needs MTL_REF_DATA in both profiles."""
    return Setting(
        lambda: build_multimnist(profile, ("left", "right"), fashion=True),
        weights=TWO_WEIGHTS,
        **multimnist_schedule(profile),
    )


def multimnist_schedule(profile: str) -> dict[str, Any]:
    """What the three MultiMNIST settings have in common."""
    if profile == "quick":
        return {"epochs": 6, "lrs": (1e-3, 3e-3, 1e-2), "options": {"decay": 0.8}}
    return {"epochs": 100, "lrs": (1e-3, 3e-3, 1e-2), "options": {"decay": 0.95}}


def build_multimnist(
    profile: str, tasks: Sequence[str], *, fashion: bool = False, dropout: float = 0.5
) -> Problem:
    """MultiMNIST in the size of a profile: the quick one has 10,000 / 2,000 / 2,000 digits."""
    from mtl_ref.problems.multimnist import MultiMNIST

    if (profile == "full" or fashion) and "MTL_REF_DATA" not in os.environ:
        raise ValueError(
            "this problem in this profile reads whole data sets: set the environment variable MTL_REF_DATA to a "
            "folder in torchvision's layout; what is missing there is downloaded."
        )
    problem = MultiMNIST(tasks, fashion=fashion, dropout=dropout)
    if profile == "quick":
        problem.keep({"train": 10_000, "validation": 2_000, "test": 2_000})
    return problem


def cityscapes(profile: str) -> Setting:
    """Three dense tasks. Quick: the stand-in, 10 epochs. Full: the real set by Sener and Koltun's protocol."""
    from mtl_ref.problems import Cityscapes, cityscapes_standin

    quick = profile == "quick"
    size = (64, 128) if quick else (256, 512)
    network = "small" if quick else "resnet50-imagenet"
    return Setting(
        lambda: Cityscapes(cityscapes_standin.folder() if quick else None, size=size, network=network),
        epochs=10 if quick else 250,
        lrs=(3e-3, 1e-2) if quick else (1e-4, 5e-4),
        options={"decay": 0.8 if quick else 0.5 ** (1 / 30)},
        weights=[(1.0, instance, disparity) for instance in (0.03, 0.1, 0.3) for disparity in (1.0, 3.0)],
    )


def celeba(profile: str) -> Setting:
    """Forty attributes. Quick: the drawn stand-in, a small encoder. Full: CelebA in MTL_REF_DATA, ResNet-18."""
    from mtl_ref.problems import CelebA, celeba_standin
    from mtl_ref.problems.celeba import ATTRIBUTES

    percent = celeba_standin.RECIPE
    entropy = [prior_cross_entropy([percent[task][0], 100 - percent[task][0]]) for task in ATTRIBUTES]

    def powers(gamma: float) -> list[float]:
        """Weights ∝ Hᵢ^γ for the entropies Hᵢ of the answers; they sum to one."""
        total = sum(h**gamma for h in entropy)
        return [round(h**gamma / total, 5) for h in entropy]

    weights = [powers(gamma) for gamma in (-1.0, -0.5, 0.5, 1.0)]
    if profile == "quick":
        build = lambda: CelebA(celeba_standin.folder(), encoder="small", batch_size=128)
        return Setting(build, epochs=6, lrs=(3e-3, 1e-2, 3e-2), options={"decay": 0.8}, weights=weights)
    halved = 0.5 ** (1 / 30)  # every 30 epochs
    return Setting(CelebA, epochs=100, lrs=(1e-4, 5e-4, 1e-3), options={"decay": halved}, weights=weights)


PROBLEMS: dict[str, Callable[[str], Setting]] = {
    "celeba": celeba,
    "cityscapes": cityscapes,
    "multimnist": multimnist,
    "multimnist-sum": multimnist_sum,
    "fashion-mnist-mix": fashion_mnist_mix,
}


@cache
def setting_of(problem: str, profile: str) -> Setting:
    """The setting of a problem, made once a process."""
    return PROBLEMS[problem](profile)
