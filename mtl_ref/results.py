"""The results of `mtl_ref.benchmark`: loading them, choosing on validation, comparing on test."""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import metadata
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.request import urlopen

from mtl_ref.catalogue import CONTESTANTS
from mtl_ref.files import written_whole
from mtl_ref.metrics import confidence_interval, delta_m, first_best, holm, mean_rank, paired_difference

Result = dict[str, Any]

IDENTITY = ("problem", "profile", "method", "lr", "seed")  # of a run
BOOK = Path(__file__).parents[1] / "book" / "results"


def run_name(problem: str, profile: str, method: str, lr: float, seed: int) -> str:
    """What the files of a run are called, without their ending; a method may name a member, as "fixed:3"."""
    return f"{problem}_{profile}_{method.replace(':', '-')}_lr{lr:g}_seed{seed}"


def name_of(method: str) -> str:
    """What a page calls a method of the results: its name in the catalogue, with the member; or its key."""
    key, _, member = method.partition(":")
    return f"{CONTESTANTS[key].name} {member}".strip() if key in CONTESTANTS else method


def as_line(result: Mapping[str, Any]) -> str:
    """A result as it is stored: one line of JSON."""
    return json.dumps(result, ensure_ascii=False) + "\n"


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result file whole or not at all."""
    with written_whole(path) as file:
        file.write(as_line(result))


def read_line(line: str) -> Result:
    """One result from its line.

    Raises:
        ValueError: it is not a result, or only part of one.
    """
    try:
        result = json.loads(line)
        run_name(*(result[name] for name in IDENTITY))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("it is not a result of mtl_ref.benchmark, or only a part of one") from error
    return dict(result)


def mismatch(path: Path, description: Mapping[str, Any]) -> str | None:
    """Why a file is not the finished result of the run described, or None if it is."""
    try:
        result = read_line(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return str(error)
    for name, value in description.items():
        if result.get(name) != value:
            return f"it belongs to another run: its {name} is {result.get(name)!r}, here it is {value!r}"
    return None


def load(path: str | Path) -> list[Result]:
    """All results in a folder of result files, by name, or in a packed file; other content causes a warning.

    Raises:
        FileNotFoundError: there is no such folder or file, or no result in it.
    """
    path = Path(path)
    if path.is_dir():
        lines = [(str(file), file.read_text(encoding="utf-8")) for file in sorted(path.glob("*.json"))]
    else:
        lines = _numbered(path, path.read_text(encoding="utf-8")) if path.exists() else []
    return _read(path, lines)


def _numbered(where: Any, text: str) -> list[tuple[str, str]]:
    return [
        (f"line {number} of {where}", line) for number, line in enumerate(text.strip("\n").split("\n"), start=1)
    ]


def _read(where: Any, lines: Iterable[tuple[str, str]]) -> list[Result]:
    loaded: list[Result] = []
    for place, line in lines:
        try:
            loaded.append(read_line(line))
        except ValueError as error:
            print(f"{place} is left out: {error}.", file=sys.stderr)
    if not loaded:
        raise FileNotFoundError(f"{where} holds no result of mtl_ref.benchmark.")
    return loaded


def stored(name: str) -> list[Result]:
    """The book's own results on a problem.

    Raises:
        FileNotFoundError: there are none, or they cannot be fetched.
    """
    return _read(name, _numbered(name, stored_text(f"{name}.jsonl")))


@cache
def stored_text(name: str) -> str:
    """A file of `book/results`, where the book's own results are.

    Where the package was installed alone, as in Colab, the file is fetched from the repository.

    Raises:
        FileNotFoundError: there is no such file, or it cannot be fetched.
    """
    if BOOK.is_dir():
        return (BOOK / name).read_text(encoding="utf-8")
    address = f"{repository()}/raw/main/book/results/{name}"
    try:
        with urlopen(address, timeout=60) as response:
            return str(response.read(), "utf-8")
    except OSError as error:
        raise FileNotFoundError(f"the stored results at {address} cannot be fetched: {error}.") from error


def repository() -> str:
    """The address of the repository that the package comes from."""
    urls = metadata("mtl_ref").get_all("Project-URL") or []
    return next(str(url).partition(", ")[2] for url in urls if url.startswith("Repository"))


def best_epoch(result: Result) -> int:
    """The epoch (from 0) with the best mean rank over the validation metrics that judge the run."""
    judged = result["judged_by"]
    table = list(zip(*(result["validation"][metric] for metric in judged), strict=True))
    return first_best(table, [result["metrics"][metric] for metric in judged])


def at_best(result: Result, split: str) -> dict[str, float]:
    """The metrics that judge a run, on a split, at the epoch that validation chose."""
    epoch = best_epoch(result)
    return {metric: result[split][metric][epoch] for metric in result["judged_by"]}


@dataclass
class Chosen:
    """A method at the learning rate (and member) that validation chose.

    Attributes:
        results: the chosen runs; those of "single" are one for each task and seed.
        seeds: in the order of `test`.
        test: for each seed, the test metrics at the epoch that validation chose.
        validation: the same on the validation split.
        tried: how many learning rates and members it was chosen from.
    """

    results: list[Result]
    seeds: list[int]
    test: list[dict[str, float]]
    validation: list[dict[str, float]]
    tried: int

    @property
    def mean(self) -> dict[str, float]:
        """The test metrics, averaged over the seeds."""
        return means(self.test)

    @property
    def lrs(self) -> list[float]:
        """The learning rates chosen; one, except for "single", which has one for each task."""
        return list(dict.fromkeys(result["lr"] for result in self.results))

    @property
    def seconds(self) -> float:
        """The fastest epoch's training time, least disturbed by other load; of "single", summed over the tasks."""
        fastest: dict[str, float] = {}
        for result in self.results:
            fastest[result["method"]] = min(fastest.get(result["method"], math.inf), *result["seconds"])
        return sum(fastest.values())

    @property
    def step(self) -> float:
        """The mean length of a step."""
        return fmean(result["mean_step"] for result in self.results)


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric."""
    return {metric: fmean(row[metric] for row in rows) for metric in rows[0]}


def select(results: Iterable[Result]) -> dict[str, Chosen]:
    """For each method the learning rate, and the member of "fixed", with the best validation; its test metrics.

    A candidate's score is its validation metrics, averaged over seeds, against the candidates' mean (Δm). The test
    split has no part in it. A candidate is left out if one of its runs diverged or it lacks a seed that another
    has; a method with no candidate left is left out too. "single" chooses for each task by that task's metrics.

    Args:
        results: of one problem, profile and data.

    Raises:
        ValueError: the results are of different problems.
    """
    results = list(results)
    kinds = {(r["problem"], r["profile"], r["data"], r["epochs"]) for r in results}
    if len(kinds) > 1:
        raise ValueError(f"results of different experiments cannot be compared: {sorted(kinds)}.")
    families = dict.fromkeys(r["method"].partition(":")[0] for r in results)
    chosen: dict[str, Chosen] = {}
    for family in families:
        runs = [r for r in results if r["method"].partition(":")[0] == family]
        parts = [
            choose([r for r in runs if r["judged_by"] == j]) for j in _different(r["judged_by"] for r in runs)
        ]
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts) or len({tuple(part.seeds) for part in whole}) > 1:
            continue
        chosen[family] = Chosen(
            [r for part in whole for r in part.results],
            whole[0].seeds,
            [_merged(rows) for rows in zip(*(part.test for part in whole), strict=True)],
            [_merged(rows) for rows in zip(*(part.validation for part in whole), strict=True)],
            max(part.tried for part in whole),
        )
    return chosen


def choose(runs: Sequence[Result]) -> Chosen | None:
    """The best candidate, by validation, among runs that are judged by the same metrics; None if there is none."""
    every_seed = sorted({r["seed"] for r in runs})
    candidates: list[list[Result]] = []
    for lr, method in _different((r["lr"], r["method"]) for r in runs):
        group = sorted((r for r in runs if (r["lr"], r["method"]) == (lr, method)), key=lambda r: r["seed"])
        if [r["seed"] for r in group] == every_seed and not any("diverged" in r for r in group):
            candidates.append(group)
    if not candidates:
        return None
    scores = [means([at_best(r, "validation") for r in group]) for group in candidates]
    middle = means(scores)
    higher = [runs[0]["metrics"][metric] for metric in middle]
    costs = [delta_m(list(score.values()), list(middle.values()), higher) for score in scores]
    best = candidates[costs.index(min(costs))]
    test, validation = ([at_best(r, split) for r in best] for split in ("test", "validation"))
    return Chosen(best, every_seed, test, validation, len(candidates))


def _different(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def _merged(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    return {metric: value for row in rows for metric, value in row.items()}


@dataclass
class Comparison:
    """A method against a baseline on one score, seed by seed.

    Attributes:
        difference: the mean of method minus baseline.
        half_width: of its 95 % interval.
        p: of the paired t-test, as if it were the only comparison.
        p_holm: the same, corrected for the number of methods compared.
    """

    difference: float
    half_width: float
    p: float
    p_holm: float


def compare(
    chosen: Mapping[str, Chosen], metrics: Sequence[str], baseline: str = "equal"
) -> dict[str, Comparison]:
    """Each method against the baseline, on the mean of some test metrics of one scale, paired by seed.

    The same seed gives the same initial network and order of batches. p-values are corrected by Holm's method for
    all the methods compared.

    Raises:
        ValueError: the baseline is not there, or a method has other seeds than it.
    """
    if baseline not in chosen:
        raise ValueError(f"the baseline {baseline!r} is not among the results: {', '.join(chosen)}.")
    for name, method in chosen.items():
        if method.seeds != chosen[baseline].seeds:
            raise ValueError(f"{name} has the seeds {method.seeds}, {baseline} has {chosen[baseline].seeds}.")
    scores = {name: [fmean(row[m] for m in metrics) for row in method.test] for name, method in chosen.items()}
    return compare_scores(scores, baseline)


def compare_scores(scores: Mapping[str, Sequence[float]], baseline: str = "equal") -> dict[str, Comparison]:
    """Each method against the baseline on any score, paired by seed, p-values corrected by Holm's method.

    Args:
        scores: for each method one number per seed, the seeds in the same order, at least two.
        baseline: one of the methods.
    """
    others = [name for name in scores if name != baseline]
    tests = [paired_difference(scores[name], scores[baseline]) for name in others]
    corrected = holm([p for _, _, p in tests]) if tests else []
    return {n: Comparison(*test, p_holm) for n, test, p_holm in zip(others, tests, corrected, strict=True)}


def table(results: Iterable[Result], baseline: str = "equal") -> str:
    """A Markdown table of all methods: test metrics with their 95 % intervals, Δm, rank and cost."""
    chosen = select(results)
    if not chosen:
        return "There is no method whose runs all came to their end."
    first = next(iter(chosen.values()))
    metrics = {metric: first.results[0]["metrics"][metric] for metric in first.mean}
    contestants = {name: method for name, method in chosen.items() if name != "single"}
    ranks = mean_rank([list(m.mean.values()) for m in contestants.values()], list(metrics.values()))
    rank = dict(zip(contestants, ranks.tolist(), strict=True))
    base = chosen.get("single", chosen.get(baseline, first))
    header = ["method", "lr", *metrics, "Δm % against single", "mean rank", "s/epoch", "passes", "step"]
    lines = [header, ["---"] * len(header)]
    for name, method in chosen.items():
        cells = [name_of(name), ", ".join(f"{lr:g}" for lr in method.lrs)]
        for metric in metrics:
            values = [row[metric] for row in method.test]
            mean, half = confidence_interval(values) if len(values) > 1 else (values[0], float("nan"))
            cells.append(f"{mean:.4g} ± {half:.2g}")
        change = delta_m(
            [method.mean[m] for m in metrics], [base.mean[m] for m in metrics], list(metrics.values())
        )
        cells += [f"{change:+.2f}", f"{rank[name]:.1f}" if name in rank else "–", f"{method.seconds:.2f}"]
        lines.append([*cells, method.results[0]["passes"], f"{method.step:.3g}"])
    seeds = f"{first.results[0]['data']}, {first.results[0]['epochs']} epochs, {len(first.seeds)} seeds"
    return "\n".join([seeds, "", *("| " + " | ".join(line) + " |" for line in lines)])
