"""Equal weights on the whole of MultiMNIST with the protocol of Kurin et al. 2022, beside their .9476 ± .0044.

    MTL_REF_DATA=FOLDER python tests/benchmarks/whole_multimnist.py CHECKPOINTS [EPOCHS]

FOLDER holds MNIST in torchvision's layout, or is filled. Each seed's run goes on from its file in CHECKPOINTS.
50k/10k/10k digits, Adam at 1e-2, ×0.95 an epoch, batch 256, dropout .5, 100 epochs, the epoch chosen on
validation; they ran 10 seeds, this runs 3.
"""

import sys
from pathlib import Path

import mtl_ref as mtl

SEEDS = (0, 1, 2)


def main(folder: Path, epochs: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    problem = mtl.problems.MultiMNIST()
    print(problem)
    means = []
    for seed in SEEDS:
        history = mtl.train(
            problem,
            mtl.EqualWeighting(),
            epochs=epochs,
            seed=seed,
            lr=1e-2,
            decay=0.95,
            checkpoint=folder / f"equal-{seed}.pt",
        )
        means.append(sum(history.result.values()) / len(history.result))
        print(
            f"seed {seed}: {history.result}, epoch {history.best_epoch + 1}, {sum(history.seconds):.0f} s",
            flush=True,
        )
    mean, half = mtl.metrics.confidence_interval(means)
    print(f"mean test accuracy {mean:.4f} ± {half:.4f} (95 % interval over {len(SEEDS)} seeds)")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100)
