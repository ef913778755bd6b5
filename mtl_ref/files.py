"""Files that are written whole or not at all: first beside their place, then moved into it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def written_whole(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write to, which takes its place at the end; if anything goes wrong, the old file stays.

    Args:
        path: the file's place.
        mode: "w" for text (UTF-8), "wb" for bytes.
    """
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        with open(unfinished, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
