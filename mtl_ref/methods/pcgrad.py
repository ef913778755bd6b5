"""PCGrad, "gradient surgery": a task gives up what conflicts with the others (chapter 5).

Source: Yu, Kumar, Gupta, Levine, Hausman and Finn, NeurIPS 2020, Algorithm 1.
"""

import numpy as np
import torch
from torch import Tensor

from mtl_ref.balancer import GradientBalancer


class PCGrad(GradientBalancer):
    """d = Σᵢ gᵢᴾᶜ: each gᵢ loses, in a random order of the other tasks, what conflicts with their gⱼ.

    This is the paper's form: a gradient is not projected on itself, the projected gradients are summed, and the
    tasks' own parameters keep their gradients. LibMTL, nash-mtl and the authors' TensorFlow code let j = i take
    part; WeiChengTseng's Pytorch-PCGrad does so too, averages, and projects the heads along with the rest.

    A gradient of zero conflicts with nothing, and adds nothing.

    Args:
        generator: a CPU generator that draws the orders; its state is the caller's to save. Where None, PyTorch's
            global one draws, whose state `train` seeds and keeps in its checkpoints.
    """

    random = True

    def __init__(self, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.generator = generator

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        G = M.cpu().numpy()  # (T, T)
        T = len(G)
        C = np.eye(T)  # (PC.1)  (T, T): row i is of gᵢᴾᶜ = Σₖ Cᵢₖ gₖ
        for i in range(T):
            inner = G[i].copy()  # (T,): ⟨gᵢ, gⱼ⟩ for every j
            for j in torch.randperm(T, generator=self.generator).tolist():
                if inner[j] < 0 and j != i:
                    share = inner[j] / G[j, j]
                    C[i, j] -= share  # (PC.3)
                    inner -= share * G[j]  # (PC.2)  (T,): ⟨gᵢᴾᶜ, gⱼ⟩, all j
        return torch.from_numpy(C.sum(axis=0))  # (PC.4)  (T,)
