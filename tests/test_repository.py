"""What must agree between files: the address, the version, the names, the dependencies."""

import ast
import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from method_map import BEGIN, END, PAGE, with_map

import mtl_ref
from mtl_ref.catalogue import ROWS

ROOT = Path(__file__).parents[1]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
ADDRESS = CONFIG["repository"]["url"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
OURS = [
    *(p for p in ROOT.glob("*.*") if p.name != ".git"),  # which a work tree has as a file, with a path in it
    *(p for f in ("book", "mtl_ref", "notebooks", "tests", ".github") for p in (ROOT / f).rglob("*")),
    *(ROOT / name for name in ("Makefile", "LICENSE", "LICENSE-text", ".ci/run")),
]
TEXTS = {
    str(p.relative_to(ROOT)): p.read_text()
    for p in OURS
    if p.suffix in {"", ".py", ".md", ".ipynb", ".toml", ".txt", ".yml", ".cff", ".bib", ".css"}
    if p.is_file() and "__pycache__" not in p.parts
}


def test_every_mention_of_the_address_is_the_configured_one() -> None:
    assert PROJECT["urls"]["Repository"] == ADDRESS
    assert CITATION["repository-code"] == ADDRESS
    assert f"pip install git+{ADDRESS}\n" in TEXTS["README.md"]
    for name, text in TEXTS.items():
        for installed in re.findall(r"git\+(https?://[^\s'\"\\`)]+)", text):
            assert installed == ADDRESS or name.startswith("tests/"), name


def test_readme_opens_the_first_chapter_in_colab() -> None:
    slug, branch = ADDRESS.removeprefix("https://github.com/"), CONFIG["repository"]["branch"]
    first = min(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    links = re.findall(r"https://colab\.research\.google\.com/[^\s)]+", TEXTS["README.md"])
    assert links == [f"https://colab.research.google.com/github/{slug}/blob/{branch}/notebooks/{first}"]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_files_that_a_page_links_to_exist(page: str) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", TEXTS[page])
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_versions_agree() -> None:
    changelog = TEXTS["book/changelog.md"]
    assert re.findall(r"^## (.+)", changelog, flags=re.M)[0] == "Unreleased"
    latest = re.search(r"^## (\S+) \(\d{4}-\d\d-\d\d\)$", changelog, flags=re.M)
    assert latest is not None
    assert {mtl_ref.__version__, CITATION["version"], latest[1]} == {PROJECT["version"]}


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement.strip(), maxsplit=1)[0].lower()


def requirements() -> set[str]:
    extras = [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    lines = TEXTS["requirements.txt"].splitlines() + PROJECT["dependencies"] + extras
    return {name_of(line) for line in lines if line and not line.startswith(("#", "-e ."))}


def test_every_dependency_has_a_tested_version_and_a_reason() -> None:
    lines = [line for line in TEXTS["constraints.txt"].splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert requirements() <= {name_of(line) for line in lines}
    reasons = re.findall(r"^- `([\w.-]+)`: \w", TEXTS["CONTRIBUTING.md"], flags=re.M)
    assert set(reasons) == requirements()


def test_workflows_run_the_oldest_supported_python() -> None:
    pythons = yaml.safe_load(TEXTS[".github/workflows/ci.yml"])["jobs"]["test"]["strategy"]["matrix"]
    assert pythons["python"][0] == PROJECT["requires-python"].removeprefix(">=")


def test_ci_builds_the_book_and_runs_every_test() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "make test" in TEXTS[".ci/run"].splitlines()
    assert re.search(r"^test: book\b", TEXTS["Makefile"], flags=re.M)


def test_make_check_leaves_out_only_tests_that_are_there() -> None:
    pages = re.search(r"^PAGES := (.+)$", TEXTS["Makefile"], flags=re.M)
    assert pages is not None
    assert [path for path in pages[1].split() if path not in TEXTS] == []


def test_nothing_depends_on_one_machine() -> None:
    path = re.compile(
        r"/(?:home|root|Users|work|farm)/|--(?:extra-)?index-url|--find-links|pypi\.org|pythonhosted"
    )
    found = {name: path.findall(text) for name, text in TEXTS.items() if not name.startswith("tests/")}
    assert {name: paths for name, paths in found.items() if paths} == {}


def test_every_public_name_is_on_the_api_page() -> None:
    page = TEXTS["book/api.md"]
    documented = re.findall(r"^\.\. auto\w+:: mtl_ref\.([\w.]+)", page, flags=re.M)
    files = re.findall(r"^\.\. automodule:: (mtl_ref\.methods\.\w+)\n   :members:\n", page, flags=re.M)
    documented += [n for n in mtl_ref.methods.__all__ if getattr(mtl_ref.methods, n).__module__ in files]
    assert sorted(set(documented)) == sorted(documented)
    assert set(mtl_ref.__all__) <= set(documented)
    for name in mtl_ref.problems.__all__:  # a module under the name that it is imported by
        module = getattr(getattr(mtl_ref.problems, name), "__name__", "").removeprefix("mtl_ref.")
        assert {f"problems.{name}", module} & set(documented), name


# From top to bottom: a file imports what stands below it, or in its own folder.
LEVELS = [
    *("page", "plotting", "benchmark", "results", "catalogue", "training", "metrics", "problems", "methods"),
    *("accumulation", "solvers", "rate", "beyond_gram", "balancer", "distributed", "gradients", "checks", "files"),
]


def imported(source: str) -> set[str]:
    """What a file imports of the package, anywhere in it: modules, and names with the module they come from."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "mtl_ref" if node.level else node.module  # we use no relative imports
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "mtl_ref"}


def import_faults(path: str, source: str) -> list[str]:
    """The imports of a file of the package, at `path` below mtl_ref, that do not go down."""
    parts = path.removesuffix(".py").split("/")
    if parts[0] not in LEVELS:
        return [f"{path}: {parts[0]} has no place in LEVELS"] if imported(source) else []
    faults = []
    for name in imported(source):
        room = (name + ".").split(".")[1]
        inside = room == parts[0] and (room != "methods" or parts[1] == "__init__")
        if not inside and room not in LEVELS[LEVELS.index(parts[0]) + 1 :]:
            faults.append(f"{path} imports {name}")
    return faults


def test_imports_go_down_the_list_of_levels() -> None:
    package = {p.relative_to(ROOT / "mtl_ref"): p.read_text() for p in (ROOT / "mtl_ref").rglob("*.py")}
    files = {str(path): source for path, source in package.items() if str(path) != "__init__.py"}
    assert {path.split("/")[0].removesuffix(".py") for path in files} - {"assets"} <= set(LEVELS)
    assert [fault for path, source in files.items() for fault in import_faults(path, source)] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("balancer.py", "from mtl_ref.methods import PCGrad"),  # up
        ("balancer.py", "def f():\n    from mtl_ref import metrics"),  # up, inside a function
        ("gradients.py", "import mtl_ref.balancer"),
        ("benchmark/runs.py", "import mtl_ref as mtl"),  # the package itself is above all
        ("results.py", "from mtl_ref import MGDA"),
        ("methods/pcgrad.py", "from mtl_ref.methods.mgda import MGDA"),  # sideways
        ("new.py", "from mtl_ref.checks import check_gram"),  # without a place
    ],
)
def test_an_import_that_does_not_go_down_is_found(path: str, source: str) -> None:
    assert import_faults(path, source) != []


def test_an_import_that_goes_down_is_none() -> None:
    assert import_faults("page.py", "import torch\nfrom mtl_ref import plotting\nimport mtl_ref.files") == []
    assert import_faults("problems/celeba/standin.py", "from mtl_ref.problems.standin import cached") == []
    assert import_faults("methods/__init__.py", "from mtl_ref.methods.mgda import MGDA") == []


def test_map_of_the_methods_is_the_catalogue() -> None:
    page = PAGE.read_text()
    assert with_map(page) == page, "run `python book/method_map.py`"
    assert with_map(page.replace("| your choice |", "| chance |")) == page


KEYS = {row.key for row in ROWS}
CLASSES = {name for name in mtl_ref.methods.__all__ if isinstance(getattr(mtl_ref.methods, name), type)}
TITLES = {row.title for row in ROWS}
ITEMS = re.compile(r"(?:^ *(?:\||[-*] |\d+\. |\.\. ).*\n)+", flags=re.M)  # of a table, of a list; directives


def listed(name: str, text: str) -> list[set[str]]:
    """For each literal of a .py file, each table and list of a .md file: the methods that it names."""
    if name.endswith(".md"):
        text = re.sub(f"{BEGIN}.*{END}", "", text, flags=re.S) + "\n"
        patterns = {name: rf"(?<!\w){re.escape(name)}(?!\w)" for name in CLASSES | TITLES}
        patterns |= {key: f"`{re.escape(key)}`" for key in KEYS}
        return [{n for n, p in patterns.items() if re.search(p, items)} for items in ITEMS.findall(text)]
    found = []
    for literal in ast.walk(ast.parse(text)):
        if isinstance(literal, ast.List | ast.Tuple | ast.Set | ast.Dict):
            parts = list(ast.walk(literal))
            strings = {part.value for part in parts if isinstance(part, ast.Constant)}
            names = {getattr(part, "attr", getattr(part, "id", "")) for part in parts}
            found.append(strings & (KEYS | CLASSES | TITLES) | names & CLASSES)
    return found


def test_there_is_one_list_of_methods() -> None:
    """A test may name those that its claim is about, and the changelog what came when."""
    allowed = {"mtl_ref/catalogue.py", "mtl_ref/methods/__init__.py", "book/changelog.md"}
    for name, text in TEXTS.items():
        if name.endswith((".py", ".md")) and name not in allowed and not Path(name).name.startswith("test_"):
            assert [methods for methods in listed(name, text) if len(methods) >= 5] == [], name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("new.py", 'KEYS = ["equal", "awl", "pcgrad", "mgda", "gradnorm"]'),
        ("new.py", "def f():\n    return {1: m.MGDA, 2: m.PCGrad, 3: [GradNorm(2), PowerMean], 4: GeometricMean}"),
        ("new.md", "| MGDA | 1 |\n| PCGrad | 2 |\n| geometric mean | 3 |\n| `equal` | 4 |\n| `awl` | 5 |"),
        ("new.md", "\n".join(f".. autoclass:: mtl_ref.{name}" for name in sorted(CLASSES))),
    ],
)
def test_another_list_of_methods_is_found(name: str, text: str) -> None:
    assert any(len(methods) >= 5 for methods in listed(name, text))
