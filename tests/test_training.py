import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import mtl_ref as mtl
from mtl_ref import training


@pytest.fixture(scope="module")
def problem():
    small = mtl.problems.MultiMNIST(("left", "sum"), dropout=0.5)
    for split in small.images:
        small.images[split] = small.images[split][:600]
        small.targets[split] = {task: y[:600] for task, y in small.targets[split].items()}
    return small


def weighting():
    return mtl.UncertaintyWeighting(["classification", "regression"])


def same(a, b):
    """Whether two runs agree to the last bit, but for their time."""
    models = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    return (
        a.losses == b.losses
        and a.weights == b.weights
        and a.validation == b.validation
        and a.test == b.test
        and all(torch.equal(x, y) for x, y in models)
    )


def test_a_run_depends_on_its_seed_alone(problem):
    torch.manual_seed(1)
    first = mtl.train(problem, weighting(), epochs=2, device="cpu")
    torch.manual_seed(2)
    second = mtl.train(problem, weighting(), epochs=2, device="cpu")
    other = mtl.train(problem, weighting(), epochs=2, device="cpu", seed=1)
    assert same(first, second)
    assert not same(first, other)


def test_training_leaves_the_callers_random_state_alone(problem):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    mtl.train(problem, mtl.EqualWeighting(), epochs=1, device="cpu")
    assert torch.equal(torch.rand(4), expected)


def test_history_has_an_entry_per_epoch_and_task(problem):
    history = mtl.train(problem, mtl.FixedWeighting([0.25, 0.5]), epochs=2, device="cpu")
    assert [len(x) for x in (history.losses, history.weights, history.validation, history.test)] == [2] * 4
    assert history.weights == [[0.25, 0.5]] * 2
    assert history.losses[0][1] > history.losses[0][0] > 0
    assert set(history.test[0]) == {"left accuracy", "sum error"}
    assert (history.tasks, history.metrics) == (problem.tasks, problem.metrics)


def test_the_result_is_the_test_of_the_epoch_that_validation_chose():
    history = mtl.History(
        ("a", "b"),
        {"a accuracy": True, "b error": False},
        validation=[
            {"a accuracy": 0.1, "b error": 2.0},
            {"a accuracy": 0.3, "b error": 1.0},
            {"a accuracy": 0.2, "b error": 3.0},
        ],
        test=[{"a accuracy": 1.0}, {"a accuracy": 2.0}, {"a accuracy": 3.0}],
    )
    assert history.best_epoch == 1
    assert history.result == {"a accuracy": 2.0}


def test_training_finds_a_device_of_its_own(problem):
    history = mtl.train(problem, mtl.EqualWeighting(), epochs=0)
    assert next(history.model.parameters()).device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_each_split_is_measured_as_what_it_is(problem):
    history = mtl.train(problem, mtl.EqualWeighting(), epochs=1, device="cpu")
    validation, test = (problem.evaluate(history.model, split) for split in ("validation", "test"))
    assert history.validation == [validation]
    assert history.test == [test]
    assert validation != test


def test_training_with_equal_weights_is_the_plain_loop(problem):
    torch.manual_seed(0)
    model, order = problem.model(), torch.Generator().manual_seed(0)
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    for x, targets in problem.batches("train", order):
        adam.zero_grad()
        problem.losses(model(x), targets).mean().backward()
        adam.step()
    history = mtl.train(problem, mtl.EqualWeighting(), epochs=1, device="cpu")
    for ours, plain in zip(history.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, plain)


def test_learned_weights_have_their_own_rate_and_no_decay(problem):
    slow, fast = weighting(), weighting()
    groups = []

    def recording(parameters, lr):
        groups.append(parameters)
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=0.1)

    mtl.train(problem, slow, epochs=1, device="cpu")
    mtl.train(problem, fast, epochs=1, device="cpu", balancer_lr=0.1, optimizer=recording)
    assert fast.s[1] > 5 * slow.s[1] > 0
    assert groups[0][1]["params"] == [fast.s]
    assert groups[0][1]["weight_decay"] == 0.0
    assert groups[0][1]["lr"] == 0.1


def test_the_learning_rate_decays_each_epoch(problem):
    stopped = mtl.train(problem, mtl.EqualWeighting(), epochs=3, device="cpu", decay=1e-12)
    once = mtl.train(problem, mtl.EqualWeighting(), epochs=1, device="cpu")
    for a, b in zip(stopped.model.parameters(), once.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_resumed_run_is_bit_for_bit_the_whole_run(problem, tmp_path):
    whole = mtl.train(problem, weighting(), epochs=3, device="cpu", decay=0.5)
    mtl.train(problem, weighting(), epochs=1, device="cpu", decay=0.5, checkpoint=tmp_path / "run.pt")
    resumed = mtl.train(problem, weighting(), epochs=3, device="cpu", decay=0.5, checkpoint=tmp_path / "run.pt")
    assert same(whole, resumed)


def test_state_that_appears_at_the_first_call_is_resumed_too(problem, tmp_path):
    whole = mtl.train(problem, mtl.InitialLossScaling(), epochs=2, device="cpu")
    mtl.train(problem, mtl.InitialLossScaling(), epochs=1, device="cpu", checkpoint=tmp_path / "run.pt")
    resumed = mtl.train(problem, mtl.InitialLossScaling(), epochs=2, device="cpu", checkpoint=tmp_path / "run.pt")
    assert same(whole, resumed)


def test_a_finished_run_is_only_read(problem, tmp_path):
    first = mtl.train(problem, weighting(), epochs=1, device="cpu", checkpoint=tmp_path / "run.pt")
    written = (tmp_path / "run.pt").read_bytes()
    again = mtl.train(problem, weighting(), epochs=1, device="cpu", checkpoint=tmp_path / "run.pt")
    assert same(first, again)
    assert first.seconds == again.seconds
    assert (tmp_path / "run.pt").read_bytes() == written


KILLED = """
import sys, torch, mtl_ref as mtl
problem = mtl.problems.MultiMNIST(("left", "sum"))
for split in problem.images:
    problem.images[split] = problem.images[split][:600]
    problem.targets[split] = {task: y[:600] for task, y in problem.targets[split].items()}
balancer = mtl.UncertaintyWeighting(["classification", "regression"])
print("start", flush=True)
mtl.train(problem, balancer, epochs=8, device="cpu", checkpoint=sys.argv[1])
"""


def test_a_run_killed_at_any_moment_resumes_to_the_same_result(problem, tmp_path):
    whole = mtl.train(problem, weighting(), epochs=8, device="cpu")
    path = tmp_path / "run.pt"
    kills = 0
    for delay in (0.05, 0.25, 0.6):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE) as run:
            assert run.stdout is not None
            run.stdout.readline()
            time.sleep(delay)
            run.send_signal(signal.SIGKILL)
            kills += run.wait() == -signal.SIGKILL
    assert kills > 0, "every run had finished before it was killed: nothing was tried"
    assert same(whole, mtl.train(problem, weighting(), epochs=8, device="cpu", checkpoint=path))


def test_a_kill_while_writing_leaves_the_checkpoint_before(problem, tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    mtl.train(problem, weighting(), epochs=1, device="cpu", checkpoint=path)
    before = path.read_bytes()

    def half_written(state, file):
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.torch, "save", half_written)
        with pytest.raises(KeyboardInterrupt):
            mtl.train(problem, weighting(), epochs=2, device="cpu", checkpoint=path)
    assert path.read_bytes() == before
    whole = mtl.train(problem, weighting(), epochs=2, device="cpu")
    assert same(whole, mtl.train(problem, weighting(), epochs=2, device="cpu", checkpoint=path))


def test_a_checkpoint_of_another_run_is_refused_and_kept(problem, tmp_path):
    path = tmp_path / "run.pt"
    mtl.train(problem, weighting(), epochs=1, device="cpu", checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"run\.pt belongs to another run: its seed is 0, here it is 1"):
        mtl.train(problem, weighting(), epochs=2, device="cpu", seed=1, checkpoint=path)
    with pytest.raises(ValueError, match="its balancer is"):
        mtl.train(problem, mtl.FixedWeighting([1.0, 2.0]), epochs=2, device="cpu", checkpoint=path)
    assert path.read_bytes() == before


def test_a_checkpoint_that_lacks_a_setting_is_refused(problem, tmp_path):
    path = tmp_path / "run.pt"
    mtl.train(problem, weighting(), epochs=1, device="cpu", checkpoint=path)
    state = torch.load(path, weights_only=True)
    del state["settings"]["features"]
    torch.save(state, path)
    with pytest.raises(ValueError, match="its features is None, here it is False"):
        mtl.train(problem, weighting(), epochs=2, device="cpu", checkpoint=path)


def test_fixed_weights_tell_checkpoints_apart(problem, tmp_path):
    path = tmp_path / "run.pt"
    mtl.train(problem, mtl.FixedWeighting([1.0, 2.0]), epochs=1, device="cpu", checkpoint=path)
    with pytest.raises(ValueError, match="its balancer is"):
        mtl.train(problem, mtl.FixedWeighting([1.0, 3.0]), epochs=1, device="cpu", checkpoint=path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", "truncated"])
def test_a_damaged_checkpoint_is_named_with_its_remedy(problem, tmp_path, content):
    path = tmp_path / "run.pt"
    if content == "truncated":
        mtl.train(problem, weighting(), epochs=1, device="cpu", checkpoint=path)
        content = path.read_bytes()[: os.path.getsize(path) // 2]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.pt is not a checkpoint of mtl_ref, or is damaged.*Delete it"):
        mtl.train(problem, weighting(), epochs=1, device="cpu", checkpoint=path)


def test_a_loss_that_is_not_finite_stops_the_run_with_the_task(problem):
    with pytest.raises(ValueError, match=r"the loss of task \d .counting from 0. is (nan|inf)"):
        mtl.train(
            problem, mtl.FixedWeighting([1.0, 1e6]), epochs=3, device="cpu", optimizer=torch.optim.SGD, lr=1.0
        )
