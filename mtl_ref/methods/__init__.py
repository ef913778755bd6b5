"""The methods, an idea a file, in the order of the book. No file imports another."""

from mtl_ref.methods.aligned import AlignedMTL
from mtl_ref.methods.bargaining import FairGrad, NashMTL
from mtl_ref.methods.cagrad import CAGrad
from mtl_ref.methods.conflict_free import ConFIG
from mtl_ref.methods.dual_balancing import DBMTL
from mtl_ref.methods.dual_cone import DualProj, UPGrad
from mtl_ref.methods.dwa import DWA
from mtl_ref.methods.excess import ExcessMTL
from mtl_ref.methods.famo import FAMO
from mtl_ref.methods.gradnorm import GradNorm
from mtl_ref.methods.gradvac import GradVac
from mtl_ref.methods.hedge import GO4Align, GroupDRO
from mtl_ref.methods.impartial import IMTL, IMTLG, IMTLL
from mtl_ref.methods.kernel import NTKMTL
from mtl_ref.methods.krum import Krum
from mtl_ref.methods.means import GeometricMean, PowerMean
from mtl_ref.methods.metabalance import MetaBalance
from mtl_ref.methods.mgda import MGDA
from mtl_ref.methods.moco import MoCo
from mtl_ref.methods.modo import MoDo
from mtl_ref.methods.normalization import GradientNormalization
from mtl_ref.methods.normalized import Normalized
from mtl_ref.methods.pace import ReLoBRaLo, SoftAdapt
from mtl_ref.methods.pcgrad import PCGrad
from mtl_ref.methods.primary import PCD, PrimaryTask
from mtl_ref.methods.random_weights import RLW
from mtl_ref.methods.reference_losses import prior_cross_entropy, prior_mse, uniform_cross_entropy, zero_mse
from mtl_ref.methods.rewards import gdpo
from mtl_ref.methods.scalarization import COSMOS, PBI, STCH, Chebyshev
from mtl_ref.methods.scaling import InitialLossScaling, PriorLossScaling, RealTimeLossScaling
from mtl_ref.methods.sdmgrad import SDMGrad
from mtl_ref.methods.sign_dropout import GradDrop
from mtl_ref.methods.smoothed import CRMOGM
from mtl_ref.methods.soft_optimal import UWSO
from mtl_ref.methods.trimmed import TrimmedMean
from mtl_ref.methods.uncertainty import AutomaticWeightedLoss, UncertaintyWeighting
from mtl_ref.methods.weighting import EqualWeighting, FixedWeighting

__all__ = [
    # weighting the losses
    "FixedWeighting",
    "EqualWeighting",
    "InitialLossScaling",
    "PriorLossScaling",
    "RealTimeLossScaling",
    "GeometricMean",
    "PowerMean",
    "UncertaintyWeighting",
    "AutomaticWeightedLoss",
    # by how fast they fall
    "RLW",
    "UWSO",
    "DWA",
    "SoftAdapt",
    "ReLoBRaLo",
    "GroupDRO",
    "GO4Align",
    "FAMO",
    # for a chosen point of the front
    "Chebyshev",
    "STCH",
    "PBI",
    "COSMOS",
    # by the lengths of gradients
    "GradientNormalization",
    "GradNorm",
    # by their conflicts
    "PCGrad",
    # to a Pareto stationary point
    "MGDA",
    # towards equal gains, and common descent
    "ConFIG",
    "NashMTL",
    "FairGrad",
    "UPGrad",
    "DualProj",
    "CAGrad",
    # orthogonal and of one length
    "AlignedMTL",
    # relatives of these
    "IMTLG",
    "IMTLL",
    "IMTL",
    "NTKMTL",
    "GradVac",
    "PrimaryTask",
    "PCD",
    "Krum",
    "CRMOGM",
    # any of them, on gradients of one length
    "Normalized",
    # of the entries of the gradients
    "GradDrop",
    "TrimmedMean",
    # of gradients that are tracked over the steps
    "MoCo",
    "DBMTL",
    "ExcessMTL",
    # of two batches
    "MoDo",
    "SDMGrad",
    # tensor by tensor
    "MetaBalance",
    # of the rewards of answers
    "gdpo",
    # what a loss is worth at the start, and to an answer that ignores the input
    "uniform_cross_entropy",
    "prior_cross_entropy",
    "zero_mse",
    "prior_mse",
]
