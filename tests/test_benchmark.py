import copy
import json
import os
import platform
import re
import shutil
import signal
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
    assert len(result["seconds"]) == 3


def test_a_result_names_its_software_but_no_machine_and_no_folder(finished):
    result = read(finished)
    assert result["versions"]["torch"] == torch.__version__
    assert "thread" in result["hardware"] or torch.cuda.is_available()
    assert "/home" not in finished.read_text()
    assert str(Path.cwd()) not in finished.read_text()
    assert platform.node() not in finished.read_text()


def test_the_mean_step_is_the_length_of_an_update(finished):
    """Ten steps apart, only the first of these nine is measured: from the fresh network to the one after it."""
    problem = tiny("quick").problem
    with torch.random.fork_rng():
        torch.manual_seed(0)
        before = [p.detach().clone() for p in problem.model().parameters()]
    one_batch = mtl.problems.MultiMNIST(batch_size=300).keep({"train": 300, "validation": 9, "test": 9})
    history = mtl.train(one_batch, mtl.EqualWeighting(), epochs=1, seed=0)
    pairs = zip(history.model.parameters(), before, strict=True)
    length = sum((a - b).square().sum().item() for a, b in pairs) ** 0.5
    assert history.mean_step == pytest.approx(length, rel=1e-5)


def test_every_tenth_step_is_measured(monkeypatch):
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


def of_another_rate(text):
    result = json.loads(text)
    result["lr"] = 0.1
    return json.dumps(result)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (half, "only a part of one"),
        (lambda _: "", "not a result of"),
        (lambda _: "[1, 2]", "not a result of"),
        (of_another_rate, "another run: its lr is 0.1, here it is 0.003"),
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


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from mtl_ref import benchmark, training
from test_benchmark import RUN, tiny
benchmark.PROBLEMS["tiny"] = tiny
plain = training.train_epoch
def reported(*arguments):
    result = plain(*arguments)
    print("an epoch", flush=True)
    return result
training.train_epoch = reported
benchmark.execute(RUN, Path(sys.argv[2]))
"""


def test_a_killed_run_loses_at_most_its_current_epoch(finished, tmp_path, epochs_trained):
    arguments = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        for _ in range(2):
            assert run.stdout.readline() == b"an epoch\n"
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
    assert not (tmp_path / finished.name).exists()
    assert benchmark.execute(RUN, tmp_path) == "done"
    assert len(epochs_trained) <= 2
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


def test_a_result_is_written_whole_or_not_at_all(finished, tmp_path, monkeypatch, epochs_trained):
    def killed_at_the_result(source, target):
        if str(target).endswith(".json"):
            raise KeyboardInterrupt
        shutil.move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed_at_the_result)
        with pytest.raises(KeyboardInterrupt):
            benchmark.execute(RUN, tmp_path)
    assert not (tmp_path / finished.name).exists()
    assert len(epochs_trained) == 3
    assert benchmark.execute(RUN, tmp_path) == "done"
    assert len(epochs_trained) == 3, "the checkpoint holds all epochs"
    assert without_times(tmp_path / finished.name) == without_times(finished)


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


@pytest.mark.parametrize("method", CONTESTANTS)
def test_every_method_can_be_made(method):
    setting = tiny("quick")
    for member in setting.members(method):
        assert isinstance(setting.balancer(method, member), mtl.LossBalancer | mtl.GradientBalancer)


def test_every_problem_has_a_setting_in_both_profiles():
    for make in benchmark.PROBLEMS.values():
        for profile in benchmark.PROFILES:
            setting = make(profile)
            assert setting.epochs > 0
            assert all(lr > 0 for lr in setting.lrs)


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


def test_clothing_that_is_not_wanted_needs_no_whole_data(monkeypatch):
    monkeypatch.delenv("MTL_REF_DATA", raising=False)
    assert "embedded" in repr(settings.build_multimnist("quick", ("left",), fashion=False))


def test_methods_with_a_gram_matrix_run_at_the_representation_too():
    upper = {key: row for key, row in CONTESTANTS.items() if row.train.get("features")}
    assert {key.replace("-ub", "") for key in upper} == {
        key for key, row in mtl.catalogue.METHODS.items() if row.gram
    }
    assert {row.passes for row in upper.values()} == {"1"}
    names = [results.name_of(key) for key in ("mgda-ub-l2", "fixed:3", "fixed", "single")]
    assert names == ["MGDA-UB l2", "searched weights 3", "searched weights", "single tasks"]
    assert len({row.name for row in CONTESTANTS.values()}) == len(CONTESTANTS)


def test_gradnorm_looks_at_the_last_layer_of_the_encoder():
    model = tiny("quick").problem.model()
    assert [tuple(p.shape) for p in last_layer(model)] == [(50, 320), (50,)]


def test_a_single_task_trains_for_itself_alone():
    made = tiny("quick").balancer("single", "right")
    assert made.weights.tolist() == [0.0, 1.0]
    assert tiny("quick").problem.judged_by("right") == ["right accuracy"]


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


@pytest.mark.parametrize(
    "environments",
    [
        [{}],
        [{"RANK": str(r), "WORLD_SIZE": "3"} for r in range(3)],
        [
            {
                "SLURM_ARRAY_TASK_ID": str(i),
                "SLURM_ARRAY_TASK_COUNT": "4",
                "SLURM_ARRAY_TASK_MIN": "5",
                "SLURM_ARRAY_TASK_STEP": "2",
            }
            for i in (5, 7, 9, 11)
        ],
        [
            {
                "SLURM_ARRAY_TASK_ID": str(i),
                "SLURM_ARRAY_TASK_COUNT": "2",
                "SLURM_ARRAY_TASK_MIN": "0",
                "RANK": str(r),
                "WORLD_SIZE": "2",
            }
            for i in range(2)
            for r in range(2)
        ],
    ],
    ids=["alone", "torchrun", "Slurm array", "both"],
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
    for name, profile in (("multimnist", "full"), ("fashion-mnist-mix", "quick")):
        with pytest.raises(ValueError, match="set the environment variable MTL_REF_DATA"):
            _ = benchmark.PROBLEMS[name](profile).problem


# choosing and comparing


def made_up(method, lr, seed, validation, test, **changes):
    """A result with metrics "a" (higher is better) and "e" (lower is better): (a, e) for each epoch."""
    judged = changes.pop("judged", ["a", "e"])
    return {
        "problem": "p",
        "profile": "quick",
        "data": "d",
        "epochs": len(validation),
        "method": method,
        "lr": lr,
        "seed": seed,
        "judged_by": judged,
        "metrics": {"a": True, "e": False},
        "validation": dict(zip("ae", map(list, zip(*validation, strict=True)), strict=True)),
        "test": dict(zip("ae", map(list, zip(*test, strict=True)), strict=True)),
        "passes": "1",
        "mean_step": 0.1,
        "seconds": [1.0, 3.0],
        **changes,
    }


GOOD, FAIR, BAD = (0.9, 1.0), (0.8, 2.0), (0.1, 9.0)


def test_validation_chooses_the_rate_and_the_epoch_and_test_has_no_part_in_it():
    runs = [
        made_up("m", 0.1, 0, validation=[FAIR, BAD], test=[GOOD, GOOD]),
        made_up("m", 0.2, 0, validation=[BAD, GOOD], test=[GOOD, BAD]),
    ]
    chosen = results.select(runs)["m"]
    assert chosen.lrs == [0.2]
    assert chosen.test == [{"a": 0.1, "e": 9.0}]
    assert chosen.validation == [{"a": 0.9, "e": 1.0}]
    assert chosen.tried == 2
    for best in (GOOD, FAIR, BAD):
        changed = copy.deepcopy(runs)
        for run in changed:
            run["test"] = dict(zip("ae", zip(best, BAD, strict=True), strict=True))
        assert results.select(changed)["m"].validation == chosen.validation


def test_the_rate_is_chosen_by_the_mean_over_seeds():
    runs = [
        made_up("m", 0.1, 0, [GOOD], [GOOD]),
        made_up("m", 0.1, 1, [BAD], [BAD]),
        made_up("m", 0.2, 0, [FAIR], [FAIR]),
        made_up("m", 0.2, 1, [FAIR], [FAIR]),
    ]
    assert results.select(runs)["m"].lrs == [0.2]


def test_a_candidate_that_lacks_a_seed_is_left_out():
    runs = [made_up("m", 0.1, s, [FAIR], [FAIR]) for s in (0, 1)] + [made_up("m", 0.2, 0, [GOOD], [GOOD])]
    assert results.select(runs)["m"].lrs == [0.1]


def test_fixed_weights_are_one_method_and_single_tasks_one_result():
    runs = [
        made_up("fixed:0", 0.1, 0, [FAIR], [FAIR]),
        made_up("fixed:1", 0.1, 0, [GOOD], [GOOD]),
        made_up("single:a", 0.1, 0, [BAD, FAIR], [BAD, FAIR], judged=["a"]),
        made_up("single:a", 0.2, 0, [BAD, GOOD], [BAD, GOOD], judged=["a"]),
        made_up("single:e", 0.1, 0, [GOOD, BAD], [GOOD, BAD], judged=["e"]),
        made_up("single:e", 0.2, 0, [BAD, BAD], [BAD, BAD], judged=["e"]),
    ]
    runs = [run | {"epochs": 2} for run in runs]
    chosen = results.select(runs)
    assert set(chosen) == {"fixed", "single"}
    assert chosen["fixed"].results[0]["method"] == "fixed:1"
    assert chosen["single"].test == [{"a": 0.9, "e": 1.0}]
    assert chosen["single"].lrs == [0.2, 0.1]
    assert chosen["single"].seconds == 2 * 1.0
    assert chosen["fixed"].seconds == 1.0


def test_results_of_different_experiments_are_not_mixed():
    runs = [made_up("m", 0.1, 0, [GOOD], [GOOD]), made_up("m", 0.1, 1, [GOOD], [GOOD], data="other")]
    with pytest.raises(ValueError, match="different experiments"):
        results.select(runs)


def test_comparison_is_paired_by_seed_and_corrected():
    def method(name, values):
        return [made_up(name, 0.1, s, [(v, 1.0)], [(v, 1.0)]) for s, v in enumerate(values)]

    equal, better, same = [0.50, 0.60, 0.70], [0.52, 0.62, 0.73], [0.51, 0.58, 0.71]
    chosen = results.select(method("equal", equal) + method("better", better) + method("same", same))
    compared = results.compare(chosen, ["a"])
    expected = [stats.ttest_rel(values, equal).pvalue for values in (better, same)]
    assert [c.p for c in compared.values()] == pytest.approx(expected)
    assert compared["better"].difference == pytest.approx(0.07 / 3)
    assert compared["better"].p_holm == pytest.approx(2 * expected[0])
    assert compared["same"].p_holm == pytest.approx(expected[1])
    with pytest.raises(ValueError, match="baseline 'none' is not among the results: equal, better, same"):
        results.compare(chosen, ["a"], baseline="none")


def test_comparison_needs_the_same_seeds():
    runs = [made_up("equal", 0.1, s, [GOOD], [GOOD]) for s in (0, 1)]
    runs += [made_up("m", 0.1, s, [GOOD], [GOOD]) for s in (0, 2)]
    with pytest.raises(ValueError, match=r"m has the seeds \[0, 2\], equal has \[0, 1\]"):
        results.compare(results.select(runs), ["a"])


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
    diverged = [{**made_up("equal", 0.1, 0, [GOOD], [GOOD]), "diverged": "a loss is not finite"}]
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
    runs = {name: made_up(name, 0.1, 0, [GOOD], [FAIR]) | {"commit": "abc"} for name in ("m+", "equal", "fixed:1")}
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
    run = made_up("equal", 0.1, 0, [GOOD], [FAIR]) | {"commit": commit}
    results.write(tmp_path / "a.json", run)
    arguments = ["--pack", str(tmp_path), str(tmp_path / "p.jsonl")]
    assert main(arguments) == 2
    assert "1 of 1 results come from code that no commit holds" in capsys.readouterr().err
    assert not (tmp_path / "p.jsonl").exists()
    assert main([*arguments, "--allow-dirty"]) == 0
    assert results.load(tmp_path / "p.jsonl") == [run]
