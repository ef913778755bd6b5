"""Run methods on problems over seeds and learning rates; each run leaves one result file::

    python -m mtl_ref.benchmark --problem multimnist --out FOLDER \\
        --methods equal,pcgrad --seeds 0,1,2
    python -m mtl_ref.benchmark --problem multimnist --out FOLDER \\
        --methods all --seeds 0-4 --jobs 8
    torchrun --nproc-per-node 4 -m mtl_ref.benchmark --problem multimnist \\
        --out FOLDER --methods all --seeds 0-9
    python -m mtl_ref.benchmark --table FOLDER
    python -m mtl_ref.benchmark --pack FOLDER FILE.jsonl

A single process prints the table when it has finished; several leave that to `--table`.
The same command resumes where it was stopped: finished runs are skipped, an interrupted one resumes from the
checkpoint of its last epoch. Processes started by torchrun or a Slurm job array share the runs among them.
`--pack` adds a folder's results to one file, a line a run. `mtl_ref.results` reads and compares them.
"""

from mtl_ref.benchmark.pack import pack
from mtl_ref.benchmark.runs import Run, execute
from mtl_ref.benchmark.schedule import plan, run_all, shard
from mtl_ref.benchmark.settings import PROBLEMS, PROFILES, TWO_WEIGHTS, Setting, setting_of

__all__ = [
    "PROBLEMS",
    "PROFILES",
    "TWO_WEIGHTS",
    "Run",
    "Setting",
    "execute",
    "pack",
    "plan",
    "run_all",
    "setting_of",
    "shard",
]
