"""What `import mtl_ref` costs beyond `import torch`: the median of five fresh processes, in seconds.

python tests/benchmarks/import_cost.py
"""

import statistics
import subprocess
import sys

TIMED = """
import time
import torch
started = time.perf_counter()
import mtl_ref
print(time.perf_counter() - started)
"""


def main() -> None:
    """Print the five times and their median."""
    times = [float(subprocess.check_output([sys.executable, "-c", TIMED])) for _ in range(5)]
    print("seconds:", ", ".join(f"{seconds:.3f}" for seconds in times))
    print(f"median: {statistics.median(times):.3f}")


if __name__ == "__main__":
    main()
