"""The set-up cell installs the package where only its dependencies are, as in Colab."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[1]
ADDRESS = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECOND_CELL = """
import mtl_ref
from pathlib import Path
assert mtl_ref.problems.MultiMNIST
print("installed in", Path(mtl_ref.__file__).parent)
"""


def colab(folder: Path) -> Path:
    """A Python of its own that has all the packages that this one has, but for mtl_ref."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    find = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.check_output([python, "-c", find], text=True).strip())
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "mtl_ref" not in entry.name:
            (packages / entry.name).symlink_to(entry)
    return python


def published(folder: Path) -> str:
    """This working tree as a repository that git can clone; returns its address."""
    (folder / "repository").mkdir()
    git = ["git", f"--git-dir={folder / 'repository'}", f"--work-tree={ROOT}"]
    author = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "pyproject.toml", "README.md", "LICENSE", "mtl_ref"], check=True)
    subprocess.run([*git, *author, "commit", "--quiet", "--message=test"], check=True)
    return f"file://{folder / 'repository'}"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.skipif(sys.platform == "win32", reason="links site-packages with symbolic links")
def test_set_up_cell_installs_the_package_and_its_data(tmp_path: Path) -> None:
    assert NOTEBOOKS
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    set_up = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    python = colab(tmp_path / "colab")
    empty = tmp_path / "content"
    empty.mkdir()
    (empty / "cells.ipy").write_text(set_up + "\n" + SECOND_CELL)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "GIT_"))}
    environment |= {
        # git fetches this working tree instead of the published repository
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": f"url.{published(tmp_path)}.insteadOf",
        "GIT_CONFIG_VALUE_0": ADDRESS,
        "GIT_CONFIG_KEY_1": "safe.directory",
        "GIT_CONFIG_VALUE_1": "*",
        "PIP_NO_DEPS": "1",  # they are there, and must not be changed: they are this Python's own
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this as: no isolation, so that no network is needed
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    ran = subprocess.run(
        [python, "-m", "IPython", "--colors=nocolor", "cells.ipy"],
        cwd=empty,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "installed in" in ran.stdout, ran.stdout + ran.stderr
    installed = Path(ran.stdout.split("installed in")[-1].strip())
    assert installed.is_relative_to(tmp_path)
    assets = {path.name for path in (ROOT / "mtl_ref" / "assets").iterdir() if path.is_file()}
    assert {path.name for path in (installed / "assets").iterdir() if path.is_file()} == assets
