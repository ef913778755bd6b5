import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from scipy import stats

import mtl_ref as mtl
from mtl_ref import benchmark, results, training
from mtl_ref.benchmark import settings
from mtl_ref.benchmark.__main__ import main
from mtl_ref.benchmark.pack import name_of_file
from mtl_ref.catalogue import CONTESTANTS, last_layer


def tiny(profile):
    sizes = {"train": 300, "validation": 100, "test": 100}
    return benchmark.Setting(
        lambda: mtl.problems.MultiMNIST(batch_size=100).keep(sizes),
        epochs=3,
        lrs=(3e-3,),
    )


@pytest.fixture(autouse=True)
def tiny_problem(monkeypatch):
    monkeypatch.setitem(benchmark.PROBLEMS, "tiny", tiny)


@pytest.fixture
def epochs_trained(monkeypatch):
    """Grows by one with each epoch that is trained."""
    trained = []

    def counted(*arguments):
        trained.append(1)
        return plain(*arguments)

    plain = training.train_epoch
    monkeypatch.setattr(training, "train_epoch", counted)
    return trained


RUN = benchmark.Run("tiny", "equal", 3e-3, 0, "quick", 3)
TIMES = ("seconds", "wall_seconds")


def read(path):
    return json.loads(path.read_text())


def without_times(path):
    return {name: value for name, value in read(path).items() if name not in TIMES}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The result of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(benchmark.PROBLEMS, "tiny", tiny)
        assert benchmark.execute(RUN, folder) == "done"
    return folder / f"{RUN.name}.json"


def place(finished, folder):
    path = folder / finished.name
    path.write_bytes(finished.read_bytes())
    return path


# running


def test_a_run_leaves_its_result_and_nothing_else(finished):
    assert [path.name for path in finished.parent.iterdir()] == ["tiny_quick_equal_lr0.003_seed0.json"]
    result = read(finished)
    history = mtl.train(tiny("quick").problem, mtl.EqualWeighting(), epochs=3, seed=0, lr=3e-3)
    assert result["test"]["left accuracy"] == pytest.approx([e["left accuracy"] for e in history.test])
    assert result["losses"]["right"] == pytest.approx([e[1] for e in history.losses], rel=1e-5)
    assert results.best_epoch(result) == history.best_epoch
    assert result["mean_step"] == pytest.approx(history.mean_step, rel=1e-5)
    assert len(result["seconds"]) == 3


def test_a_result_names_its_software_but_no_machine_and_no_folder(finished):
    result = read(finished)
    assert result["versions"]["torch"] == torch.__version__
    assert "thread" in result["hardware"] or torch.cuda.is_available()
    assert "/home" not in finished.read_text()
    assert str(Path.cwd()) not in finished.read_text()
    assert platform.node() not in finished.read_text()


def test_the_mean_step_is_the_mean_length_of_every_tenth():
    """All parameters move by 1 in step 0, 11 in step 10, and so on."""
    weight = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    lengths = training.StepLengths(optimizer)
    for step in range(25):
        weight.grad = torch.full((4,), 1.0 + step)
        optimizer.step()
    assert lengths.mean == pytest.approx(2 * (1 + 11 + 21) / 3)


def test_a_finished_run_is_skipped(finished, tmp_path, epochs_trained):
    path = place(finished, tmp_path)
    assert benchmark.execute(RUN, tmp_path) == "finished before"
    assert epochs_trained == []
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == finished.read_bytes()


def half(text):
    return text[: len(text) // 2]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (half, "only a part of one"),
        (lambda _: "", "not a result of"),
        (lambda _: "[1, 2]", "not a result of"),
        (lambda text: text.replace('"lr": 0.003', '"lr": 0.1'), "another run: its lr is 0.1, here it is 0.003"),
    ],
)
def test_what_is_not_the_result_of_this_run_is_set_aside_and_done_again(finished, tmp_path, capsys, spoil, reason):
    path = tmp_path / finished.name
    path.write_text(spoil(finished.read_text()))
    spoilt = path.read_bytes()
    assert benchmark.execute(RUN, tmp_path) == "done"
    assert without_times(path) == without_times(finished)
    assert path.with_name(path.name + ".rejected").read_bytes() == spoilt
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("moment", ["in its last epoch", "at its result"])
def test_an_interrupted_run_loses_at_most_its_current_epoch(
    moment, finished, tmp_path, monkeypatch, epochs_trained
):
    def epoch(*arguments):
        if len(epochs_trained) == 2:
            raise KeyboardInterrupt
        return train_epoch(*arguments)

    def replace(source, target):
        if str(target).endswith(".json"):
            raise KeyboardInterrupt
        shutil.move(source, target)

    train_epoch = training.train_epoch
    with monkeypatch.context() as patch:
        where = (training, "train_epoch", epoch) if moment == "in its last epoch" else (os, "replace", replace)
        patch.setattr(*where)
        with pytest.raises(KeyboardInterrupt):
            benchmark.execute(RUN, tmp_path)
    assert not (tmp_path / finished.name).exists()
    assert benchmark.execute(RUN, tmp_path) == "done"
    assert len(epochs_trained) == 3, "the checkpoint holds the others"
    assert without_times(tmp_path / finished.name) == without_times(finished)
    assert [path.name for path in tmp_path.iterdir()] == [finished.name]


def test_a_killed_runner_takes_its_workers_with_it(tmp_path):
    command = "--problem multimnist --methods equal --seeds 0-1 --lrs 3e-3 --epochs 500 --jobs 2 --out"
    arguments = [sys.executable, "-m", "mtl_ref.benchmark", *command.split(), str(tmp_path)]
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as run:
        names = [r.name for r in benchmark.plan("multimnist", ["equal"], [0, 1], [3e-3])]
        while not all((tmp_path / f"{name}.checkpoint").exists() for name in names):
            assert run.poll() is None
            time.sleep(0.1)
        run.kill()
    for name in names:
        with FileLock(tmp_path / f"{name}.lock", timeout=20):  # a worker that lives on would hold it
            pass


def test_a_damaged_checkpoint_starts_the_run_again(finished, tmp_path, capsys):
    (tmp_path / f"{RUN.name}.checkpoint").write_bytes(b"half a checkpoint")
    assert benchmark.execute(RUN, tmp_path) == "done"
    assert without_times(tmp_path / finished.name) == without_times(finished)
    assert "is damaged: the run starts again" in capsys.readouterr().err


def test_a_run_that_another_process_does_is_left_to_it(tmp_path, epochs_trained):
    with FileLock(tmp_path / f"{RUN.name}.lock"):
        assert benchmark.execute(RUN, tmp_path) == "held by another process"
    assert epochs_trained == []


def test_a_run_that_diverges_is_a_result_and_never_chosen(tmp_path, monkeypatch):
    exploding = tiny("quick")
    exploding.options = {"optimizer": torch.optim.SGD}
    monkeypatch.setitem(benchmark.PROBLEMS, "exploding", lambda profile: exploding)
    runs = benchmark.plan("exploding", ["equal"], [0], [1e30, 1e-2], epochs=1)
    outcomes = benchmark.run_all(runs, tmp_path)
    assert sorted(outcomes.values()) == ["diverged", "done"]
    assert benchmark.run_all(runs, tmp_path) == dict.fromkeys(outcomes, "finished before")
    assert results.select(results.load(tmp_path))["equal"].lrs == [1e-2]


def test_an_error_in_one_run_leaves_the_others_alone(tmp_path, capsys, monkeypatch):
    without_priors = tiny("quick")
    monkeypatch.setattr(without_priors.problem, "prior_losses", lambda: [1.0, 0.0])
    monkeypatch.setitem(benchmark.PROBLEMS, "no-priors", lambda profile: without_priors)
    arguments = ["--problem", "no-priors", "--methods", "prior,equal", "--seeds", "0", "--epochs", "1"]
    assert main([*arguments, "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "the prior loss" in printed.err
    assert printed.out == "1 failed, 1 done\n"


def test_every_method_can_be_made():
    setting = tiny("quick")
    for method in CONTESTANTS:
        for member in setting.members(method):
            assert isinstance(setting.balancer(method, member), mtl.LossBalancer | mtl.GradientBalancer)


@pytest.mark.parametrize("profile", benchmark.PROFILES)
def test_every_problem_has_a_setting_in_both_profiles(profile):
    number = {"celeba": 40, "cityscapes": 3, "multimnist": 2, "multimnist-sum": 3, "fashion-mnist-mix": 2}
    for name in number.keys() | benchmark.PROBLEMS.keys() - {"tiny"}:
        setting = benchmark.PROBLEMS[name](profile)
        assert setting.epochs > 0
        assert all(lr > 0 for lr in setting.lrs)
        assert {len(weights) for weights in setting.weights} == {number[name]}


def test_a_problem_knows_its_kinds_its_prior_losses_and_what_judges_a_task():
    problem = mtl.problems.MultiMNIST(("sum", "left"))
    assert problem.kinds == {"sum": "regression", "left": "classification"}
    targets = problem.targets["train"]
    expected = [mtl.prior_mse(targets["sum"]), mtl.prior_cross_entropy(targets["left"].bincount())]
    assert problem.prior_losses() == pytest.approx(expected, rel=1e-12)
    assert problem.judged_by("left") == ["left accuracy"]
    toy = mtl.problems.toy.GradNormToy([1.0, 100.0], samples=200)
    assert toy.prior_losses()[1] == pytest.approx(toy.y["train"][1].var(0, correction=0).mean().item())
    assert toy.judged_by(toy.tasks[1]) == ["normalised loss"]


def test_methods_with_a_gram_matrix_run_at_the_representation_too():
    upper = {key: row for key, row in CONTESTANTS.items() if row.train.get("features")}
    assert {key.replace("-ub", "") for key in upper} == {
        key for key, row in mtl.catalogue.METHODS.items() if row.gram
    }
    assert {row.passes for row in upper.values()} == {"1"}
    names = [results.name_of(key) for key in ("mgda-ub-l2", "fixed:3", "fixed", "single")]
    assert names == ["MGDA-UB l2", "searched weights 3", "searched weights", "single tasks"]
    assert len({row.name for row in CONTESTANTS.values()}) == len(CONTESTANTS)


def test_gradnorm_looks_at_the_last_layer_and_a_single_task_trains_for_itself():
    setting = tiny("quick")
    assert [tuple(p.shape) for p in last_layer(setting.problem.model())] == [(50, 320), (50,)]
    assert setting.balancer("single", "right").weights.tolist() == [0.0, 1.0]
    assert setting.problem.judged_by("right") == ["right accuracy"]


def test_drawn_weights_sum_to_one_and_differ_between_tasks():
    drawn = torch.tensor(settings.random_weights(40))
    assert drawn.shape == (8, 40)
    torch.testing.assert_close(drawn.sum(1), torch.ones(8), atol=2e-3, rtol=0)
    assert (drawn.amax(1) / drawn.amin(1)).min() > 10


# planning


def test_the_plan_is_the_whole_grid_one_seed_after_the_other():
    runs = benchmark.plan("tiny", ["equal", "single"], [0, 1], [1e-3, 1e-2], epochs=5)
    assert len(runs) == len(set(runs)) == 2 * 3 * 2
    assert [run.seed for run in runs] == [0] * 6 + [1] * 6
    assert {run.label for run in runs} == {"equal", "single:left", "single:right"}
    assert {run.epochs for run in runs} == {5}
    assert len({run.name for run in runs}) == 12


def torchrun(ranks):
    return [{"RANK": str(rank), "WORLD_SIZE": str(ranks)} for rank in range(ranks)]


def slurm(first, count, step):
    names = ("ID", "COUNT", "MIN", "STEP")
    numbers = [(first + step * i, count, first, step) for i in range(count)]
    return [{f"SLURM_ARRAY_TASK_{n}": str(v) for n, v in zip(names, row, strict=True)} for row in numbers]


BOTH = [one | other for one in slurm(0, 2, 1) for other in torchrun(2)]


@pytest.mark.parametrize(
    "environments", [[{}], torchrun(3), slurm(5, 4, 2), BOTH], ids=["alone", "torchrun", "Slurm array", "both"]
)
def test_the_shards_cover_every_run_once(environments):
    runs = benchmark.plan("tiny", ["all"], [0, 1, 2])
    shards = [benchmark.shard(runs, environment) for environment in environments]
    assert sorted((run for shard in shards for run in shard), key=repr) == sorted(runs, key=repr)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_runs_side_by_side_give_the_same_results(tmp_path):
    runs = benchmark.plan("multimnist", ["equal"], [0, 1], [3e-3], epochs=1)
    assert benchmark.run_all(runs, tmp_path, jobs=2) == {run.name: "done" for run in runs}
    assert [r["hardware"].endswith("1 thread") for r in results.load(tmp_path)] == [True, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--problem", "multimist"], r"there is no problem 'multimist'; there are .*multimnist, "),
        (["--methods", "equal,pcgard"], r"there is no method 'pcgard'; there are all, equal, .*pcgrad"),
        (["--methods", "fixed:99"], r"there is no method 'fixed:99'; of 'fixed' there are fixed:0, fixed:1"),
        (["--methods", "equal:0"], r"of 'equal' there are no members"),
        (["--profile", "fast"], r"there is no profile 'fast'; there are quick, full"),
        (["--lrs", "0"], "must be positive"),
        (["--epochs", "0"], "must be positive"),
        (["--seeds", "one"], "invalid literal for int.*'one'"),
        (["--seeds", "3-1"], "nothing to run"),
        (["--table", "nowhere"], "nowhere holds no result"),
    ],
)
def test_wrong_arguments_are_named_with_what_there_is(arguments, message, tmp_path, capsys):
    assert main(["--problem", "tiny", "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not (tmp_path / "out").exists()


def test_the_full_profile_does_not_pass_the_subset_off_as_the_whole(monkeypatch):
    monkeypatch.delenv("MTL_REF_DATA", raising=False)
    assert "embedded" in repr(benchmark.PROBLEMS["multimnist"]("quick").problem)
    for name, profile in (("multimnist", "full"), ("fashion-mnist-mix", "quick")):
        with pytest.raises(ValueError, match="set the environment variable MTL_REF_DATA"):
            _ = benchmark.PROBLEMS[name](profile).problem


# choosing and comparing


def made_up(method, lr, seed, *validation, test=None, **changes):
    """A result with metrics "a" (higher is better) and "e" (lower is better): (a, e) for each epoch."""
    splits = {"validation": validation, "test": validation if test is None else test}
    return {
        "problem": "p",
        "profile": "quick",
        "data": "d",
        "epochs": 2,
        "method": method,
        "lr": lr,
        "seed": seed,
        "judged_by": ["a", "e"],
        "metrics": {"a": True, "e": False},
        **{split: {"a": [a for a, _ in pairs], "e": [e for _, e in pairs]} for split, pairs in splits.items()},
        "passes": "1",
        "mean_step": 0.1,
        "seconds": [1.0, 3.0],
        **changes,
    }


GOOD, FAIR, BAD = (0.9, 1.0), (0.8, 2.0), (0.1, 9.0)


def test_validation_chooses_the_rate_and_the_epoch_and_test_has_no_part_in_it():
    for other in (GOOD, FAIR, BAD):
        runs = [
            made_up("m", 0.1, 0, FAIR, BAD, test=[GOOD, other]),
            made_up("m", 0.2, 0, BAD, GOOD, test=[other, BAD]),
        ]
        chosen = results.select(runs)["m"]
        assert (chosen.lrs, chosen.tried) == ([0.2], 2)
        assert chosen.test == [{"a": 0.1, "e": 9.0}]
        assert chosen.validation == [{"a": 0.9, "e": 1.0}]


def test_the_rate_is_chosen_by_the_mean_over_all_seeds():
    fair = [made_up("m", 0.2, seed, FAIR) for seed in (0, 1)]
    for better_once in ([made_up("m", 0.1, 0, GOOD), made_up("m", 0.1, 1, BAD)], [made_up("m", 0.1, 0, GOOD)]):
        assert results.select(better_once + fair)["m"].lrs == [0.2]


def test_fixed_weights_are_one_method_and_single_tasks_one_result():
    chosen = results.select(
        [
            made_up("fixed:0", 0.1, 0, FAIR),
            made_up("fixed:1", 0.1, 0, GOOD),
            made_up("single:a", 0.1, 0, BAD, FAIR, judged_by=["a"]),
            made_up("single:a", 0.2, 0, BAD, GOOD, judged_by=["a"]),
            made_up("single:e", 0.1, 0, GOOD, BAD, judged_by=["e"]),
            made_up("single:e", 0.2, 0, BAD, BAD, judged_by=["e"]),
        ]
    )
    assert set(chosen) == {"fixed", "single"}
    assert chosen["fixed"].results[0]["method"] == "fixed:1"
    assert chosen["single"].test == [{"a": 0.9, "e": 1.0}]
    assert chosen["single"].lrs == [0.2, 0.1]
    assert (chosen["single"].seconds, chosen["fixed"].seconds) == (2 * 1.0, 1.0)


def test_results_of_different_experiments_are_not_mixed():
    with pytest.raises(ValueError, match="different experiments"):
        results.select([made_up("m", 0.1, 0, GOOD), made_up("m", 0.1, 1, GOOD, data="other")])


def test_comparison_is_paired_by_seed_and_corrected():
    values = {"equal": [0.50, 0.60, 0.70], "better": [0.52, 0.62, 0.73], "same": [0.51, 0.58, 0.71]}
    runs = [made_up(name, 0.1, seed, (a, 1.0)) for name, row in values.items() for seed, a in enumerate(row)]
    chosen = results.select(runs)
    compared = results.compare(chosen, ["a"])
    expected = [stats.ttest_rel(values[name], values["equal"]).pvalue for name in ("better", "same")]
    assert [c.p for c in compared.values()] == pytest.approx(expected)
    assert compared["better"].difference == pytest.approx(0.07 / 3)
    assert compared["better"].p_holm == pytest.approx(2 * expected[0])
    assert compared["same"].p_holm == pytest.approx(expected[1])
    with pytest.raises(ValueError, match="baseline 'none' is not among the results: equal, better, same"):
        results.compare(chosen, ["a"], baseline="none")
    others = [made_up("m", 0.1, seed, GOOD) for seed in (0, 1, 3)]
    with pytest.raises(ValueError, match=r"m has the seeds \[0, 1, 3\], equal has \[0, 1, 2\]"):
        results.compare(results.select(runs + others), ["a"])


def test_the_table_has_a_row_for_each_method(finished, tmp_path):
    place(finished, tmp_path)
    text = results.table(results.load(tmp_path))
    assert "embedded subset of MNIST, 300/100/100" in text
    assert text.splitlines()[-1].startswith("| equal weights | 0.003 | ")
    assert time.strftime("%Y") not in text


def test_one_process_prints_the_table_when_it_is_through(finished, tmp_path, capsys, monkeypatch):
    place(finished, tmp_path)
    other = read(finished) | {"profile": "full"}
    results.write(tmp_path / "other.json", other)
    arguments = ["--problem", "tiny", "--methods", "equal", "--seeds", "0", "--out", str(tmp_path)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed == f"1 finished before\n{results.table([read(finished)])}\n"
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(arguments) == 0
    assert capsys.readouterr().out == "no runs for this process\n"


def test_a_table_of_nothing_says_so():
    diverged = [made_up("equal", 0.1, 0, GOOD, diverged="a loss is not finite")]
    assert results.table(diverged) == "There is no method whose runs all came to their end."


def test_a_damaged_file_is_left_out_when_loading(finished, tmp_path, capsys):
    place(finished, tmp_path)
    (tmp_path / "other.json").write_text(half(finished.read_text()))
    assert len(results.load(tmp_path)) == 1
    assert "other.json is left out" in capsys.readouterr().err


def test_stored_results_are_read_from_the_repository_or_fetched_from_it(finished, tmp_path, monkeypatch):
    folder = tmp_path / "raw" / "main" / "book" / "results"
    folder.mkdir(parents=True)
    benchmark.pack(finished.parent, folder / "tiny.jsonl", allow_dirty=True)
    assert results.repository().startswith("https://")
    for book, address in ((folder, "nowhere"), (tmp_path / "nowhere", f"file://{tmp_path}")):
        results.stored_text.cache_clear()
        monkeypatch.setattr(results, "BOOK", book)
        monkeypatch.setattr(results, "repository", lambda address=address: address)
        assert results.stored("tiny") == [read(finished)]
        with pytest.raises(FileNotFoundError, match=r"other\.jsonl"):
            results.stored("other")
    results.stored_text.cache_clear()


# packing


def test_a_packed_file_has_a_line_a_run_and_says_what_the_folder_says(tmp_path):
    runs = {name: made_up(name, 0.1, 0, GOOD, commit="abc") for name in ("m+", "equal", "fixed:1")}
    for name in ("m+", "equal"):
        results.write(tmp_path / name_of_file(runs[name]), runs[name])
    packed = tmp_path / "p.jsonl"
    assert benchmark.pack(tmp_path, packed) == 2
    assert results.load(packed) == results.load(tmp_path) == [runs["equal"], runs["m+"]]
    other = tmp_path / "other"
    other.mkdir()
    changed = runs["equal"] | {"seconds": [2.0]}
    for run in (changed, runs["fixed:1"]):
        results.write(other / name_of_file(run), run)
    assert main(["--pack", str(other), str(packed)]) == 0
    assert results.load(packed) == [changed, runs["fixed:1"], runs["m+"]]
    assert len(packed.read_text().splitlines()) == 3


@pytest.mark.parametrize("commit", ["abc-dirty", None])
def test_results_of_uncommitted_code_are_packed_only_on_demand(commit, tmp_path, capsys):
    run = made_up("equal", 0.1, 0, GOOD, commit=commit)
    results.write(tmp_path / "a.json", run)
    arguments = ["--pack", str(tmp_path), str(tmp_path / "p.jsonl")]
    assert main(arguments) == 2
    assert "1 of 1 results come from code that no commit holds" in capsys.readouterr().err
    assert not (tmp_path / "p.jsonl").exists()
    assert main([*arguments, "--allow-dirty"]) == 0
    assert results.load(tmp_path / "p.jsonl") == [run]
