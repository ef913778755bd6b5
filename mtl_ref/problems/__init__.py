"""What is learnt: the data, model, losses and metrics of one benchmark a file."""

from mtl_ref.problems import celeba_standin, toy
from mtl_ref.problems.base import HardSharing, Problem
from mtl_ref.problems.celeba import CelebA
from mtl_ref.problems.cityscapes import Cityscapes
from mtl_ref.problems.multimnist import MultiMNIST

__all__ = ["CelebA", "Cityscapes", "HardSharing", "MultiMNIST", "Problem", "celeba_standin", "toy"]
