"""What is learnt: the data, model, losses and metrics of one benchmark a file."""

from mtl_ref.problems import toy
from mtl_ref.problems.base import HardSharing, Problem
from mtl_ref.problems.multimnist import MultiMNIST

__all__ = ["HardSharing", "MultiMNIST", "Problem", "toy"]
