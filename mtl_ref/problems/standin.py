"""What the drawn stand-ins share: a folder that is written whole or not at all, and a place to keep it."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MARKER = "THIS_IS_A_STAND-IN.txt"  # a file in the folder of a stand-in, whose first line says which it is


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A folder to write into. It takes the target's place at the end, or is removed if anything goes wrong.

    Raises:
        FileExistsError: there is something at the target. It is left as it is.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists already, and might be the real set. Choose another root.")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}-unfinished-", dir=target.parent))
    try:
        yield unfinished
        unfinished.chmod(0o755)
        os.rename(unfinished, target)  # fails, rather than replacing, where a folder with content has appeared
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def cached(name: str, write: Callable[[Path], object], target: str = "") -> Path:
    """The root `name` in the user's cache; on first use, `write(root)` makes `root/target`.

    The cache is `mtl_ref` in the folder that the environment variable XDG_CACHE_HOME names, or in `~/.cache`. It
    is safe to delete.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtl_ref" / name
    if not (root / target).exists():
        try:
            write(root)
        except OSError:
            if not (root / target).exists():  # unless another process was faster
                raise
    return root
