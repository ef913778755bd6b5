"""Balancing many losses in multi-task learning: the methods of the book, line for line from their formulas.

import mtl_ref as mtl

balancer = mtl.UncertaintyWeighting(["regression", "classification"])
losses = torch.stack([loss_1, loss_2])
optimizer.zero_grad()
weights = balancer.backward(losses)
optimizer.step()
"""

from mtl_ref import metrics, page, plotting, problems, results
from mtl_ref.balancer import GradientBalancer, LossBalancer
from mtl_ref.gradnorm import GradientNormalization, GradNorm
from mtl_ref.mgda import MGDA
from mtl_ref.min_norm import duality_gap, frank_wolfe, min_norm, min_norm_two
from mtl_ref.pcgrad import PCGrad
from mtl_ref.scaling import (
    GeometricMean,
    InitialLossScaling,
    PowerMean,
    PriorLossScaling,
    RealTimeLossScaling,
    prior_cross_entropy,
    prior_mse,
    uniform_cross_entropy,
    zero_mse,
)
from mtl_ref.training import History, train
from mtl_ref.uncertainty import AutomaticWeightedLoss, UncertaintyWeighting
from mtl_ref.weighting import EqualWeighting, FixedWeighting

__version__ = "0.1.0"

__all__ = [
    # what every method is
    "LossBalancer",
    "GradientBalancer",
    # chapter 1
    "FixedWeighting",
    "EqualWeighting",
    # chapter 2
    "InitialLossScaling",
    "PriorLossScaling",
    "RealTimeLossScaling",
    "GeometricMean",
    "PowerMean",
    "uniform_cross_entropy",
    "prior_cross_entropy",
    "zero_mse",
    "prior_mse",
    # chapter 3
    "UncertaintyWeighting",
    "AutomaticWeightedLoss",
    # chapter 6
    "min_norm_two",
    # chapter 7
    "duality_gap",
    "frank_wolfe",
    "min_norm",
    "MGDA",
    # chapter 5
    "PCGrad",
    # chapter 4
    "GradientNormalization",
    "GradNorm",
    # learning, judging and showing
    "train",
    "History",
    "problems",
    "metrics",
    "results",
    "plotting",
    "page",
]
