"""What is learnt: a file for each benchmark, with its data, model, losses and metrics."""

from mtl_ref.problems import toy
from mtl_ref.problems.base import HardSharing, Problem
from mtl_ref.problems.celeba import CelebA
from mtl_ref.problems.celeba import standin as celeba_standin
from mtl_ref.problems.cityscapes import Cityscapes
from mtl_ref.problems.cityscapes import standin as cityscapes_standin
from mtl_ref.problems.multimnist import MultiMNIST

__all__ = [
    "CelebA",
    "Cityscapes",
    "HardSharing",
    "MultiMNIST",
    "Problem",
    "celeba_standin",
    "cityscapes_standin",
    "toy",
]
