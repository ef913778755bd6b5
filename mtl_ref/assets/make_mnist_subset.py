"""Make mnist_subset.npz, the digits that the book runs on without a download, from the whole of MNIST.

    python mtl_ref/assets/make_mnist_subset.py FOLDER    (as torchvision.datasets.MNIST(root=FOLDER) reads it)

10,000 training and 2,000 validation digits come from MNIST's training set, 2,000 test digits from its test
set; no digit is drawn twice.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import MNIST

TARGET = Path(__file__).with_name("mnist_subset.npz")


def main(root: str) -> None:
    """Choose the digits and write them beside this file."""
    whole = {split: MNIST(root, train=split == "train") for split in ("train", "test")}
    generator = torch.Generator().manual_seed(2018)
    order = torch.randperm(len(whole["train"]), generator=generator)
    test_order = torch.randperm(len(whole["test"]), generator=generator)
    chosen = {
        "train": ("train", order[:10_000]),
        "validation": ("train", order[10_000:12_000]),
        "test": ("test", test_order[:2_000]),
    }
    arrays = {}
    for split, (source, index) in chosen.items():
        arrays[f"{split}_images"] = whole[source].data[index].numpy()
        arrays[f"{split}_labels"] = whole[source].targets[index].numpy().astype(np.uint8)
    np.savez_compressed(TARGET, **arrays)
    print(f"{TARGET.name}: SHA-256 {hashlib.sha256(TARGET.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main(sys.argv[1])
