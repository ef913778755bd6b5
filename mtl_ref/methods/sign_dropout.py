"""GradDrop, "Just Pick a Sign": in each entry, the gradients of one sign are kept (chapter 15).

Source: Chen, Ngiam, Huang, Luong, Kretzschmar, Chai and Anguelov, "Just Pick a Sign: Optimizing Deep Multitask
Models with Gradient Sign Dropout", NeurIPS 2020, arXiv 2010.06808, Algorithm 1.
"""

import math

import torch
from torch import Tensor

from mtl_ref.beyond_gram import MatrixBalancer


class GradDrop(MatrixBalancer):
    """In each entry a sign is drawn, and what has the other sign is dropped: dⱼ sums the gᵢⱼ that are kept.

    Plus is drawn with the probability P = ½ (1 + Σᵢ gᵢⱼ / Σᵢ abs(gᵢⱼ)), the share of what is positive. The mean
    of d over the draws is the sum of the gradients, whatever `leak` is.

    The paper's form for gradients of parameters, with f(p) = p; TorchJD's is the same. The paper puts it at a
    layer of activations, whose gradients it multiplies by the activations' signs and adds up over the batch, so
    that all examples draw one sign. With `features` here, each entry of each example draws for itself.

    Args:
        leak: ℓ, the part of the dropped gradients that stays, from 0 (the paper's) to 1 (the sum).
        generator: a CPU generator that draws the signs; its state is the caller's to save. Where None, PyTorch's
            global one draws, whose state `train` seeds and keeps in its checkpoints.

    Raises:
        ValueError: leak is not between 0 and 1.
    """

    def __init__(
        self,
        leak: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not (math.isfinite(leak) and 0 <= leak <= 1):
            raise ValueError(f"leak is {leak}, but must be between 0 and 1.")
        self.leak, self.generator = leak, generator

    def mix(self, J: Tensor, losses: Tensor | None) -> tuple[Tensor, None]:
        size = J.abs().sum(0)  # (P,)
        P = (1 + J.sum(0) / size) / 2  # (GD.1)  nan where nothing is to keep
        U = torch.rand(len(P), generator=self.generator, dtype=torch.float32)
        plus = U.to(P) < P  # (GD.2)
        kept = torch.where(plus, J > 0, J < 0)  # (GD.3)  (T, P)
        mask = self.leak + (1 - self.leak) * kept
        return (mask * J).sum(0), None  # (GD.4)

    def extra_repr(self) -> str:
        return f"leak={self.leak}"
