import functools
import gzip
import hashlib
import http.server
import shutil
import struct
import threading

import numpy as np
import pytest
import torch
from torchvision.datasets import MNIST

from mtl_ref.problems import MultiMNIST, multimnist


@pytest.fixture(scope="module")
def problem():
    return MultiMNIST(("left", "right", "sum"))


def test_splits_have_the_promised_sizes_and_kinds(problem):
    assert {split: tuple(x.shape) for split, x in problem.images.items()} == {
        "train": (10_000, 1, 28, 28),
        "validation": (2_000, 1, 28, 28),
        "test": (2_000, 1, 28, 28),
    }
    targets = problem.targets["train"]
    assert targets["left"].dtype == targets["right"].dtype == torch.long
    assert torch.equal(targets["sum"], (targets["left"] + targets["right"]).float())


def test_no_digit_stands_in_two_splits():
    seen = [{image.tobytes() for image in images.numpy()} for images, _ in multimnist.read_subset().values()]
    assert [len(s) for s in seen] == [10_000, 2_000, 2_000]
    assert len(set.union(*seen)) == 14_000


def test_left_digit_lies_top_left_and_right_digit_bottom_right():
    ones, none = torch.ones(1, 28, 28), torch.zeros(1, 28, 28)
    left, right = multimnist.overlay(ones, none)[0], multimnist.overlay(none, ones)[0]
    # 28 of 36 canvas pixels are 21.8 of 28: rows and columns 0..21 for the left, the last 22 for the right.
    assert left[:21, :21].all()
    assert not left[22:].any()
    assert not left[:, 22:].any()
    assert right[7:, 7:].all()
    assert not right[:6].any()
    assert not right[:, :6].any()


def test_overlap_is_the_pixelwise_maximum():
    left, right = torch.full((1, 28, 28), 3.0), torch.full((1, 28, 28), 5.0)
    both = multimnist.overlay(left, right)[0]
    assert set(both.unique().tolist()) == {0.0, 3.0, 5.0}
    assert both[14, 14] == 5.0


def test_pairs_depend_on_the_seed_alone(problem):
    again, other = MultiMNIST(seed=0), MultiMNIST(seed=1)
    assert torch.equal(again.images["test"], problem.images["test"])
    assert torch.equal(other.targets["test"]["left"], problem.targets["test"]["left"])
    assert not torch.equal(other.targets["test"]["right"], problem.targets["test"]["right"])


def test_batches_cover_the_split_once_in_the_generators_order(problem):
    in_order = torch.cat([y["left"] for _, y in problem.batches("train")])
    assert torch.equal(in_order, problem.targets["train"]["left"])
    shuffled = torch.cat([y["left"] for _, y in problem.batches("train", torch.Generator().manual_seed(1))])
    again = torch.cat([y["left"] for _, y in problem.batches("train", torch.Generator().manual_seed(1))])
    assert torch.equal(shuffled, again)
    assert not torch.equal(shuffled, in_order)
    assert torch.equal(shuffled.sort().values, in_order.sort().values)


def test_losses_and_metrics_are_those_of_the_formulas(problem):
    class Fixed(torch.nn.Module):
        def forward(self, x):
            return {
                "left": torch.eye(10)[3].repeat(len(x), 1) * 4,
                "right": torch.zeros(len(x), 10),
                "sum": torch.full((len(x), 1), 9.0),
            }

    x, targets = next(problem.batches("test"))
    left, right, total = problem.losses(Fixed()(x), targets)
    is_three = (targets["left"] == 3).float()
    assert left.item() == pytest.approx((np.log(np.exp(4) + 9) - 4 * is_three).mean().item(), rel=1e-6)
    assert right.item() == pytest.approx(np.log(10), rel=1e-6)
    assert total.item() == pytest.approx((targets["sum"] - 9).square().mean().item(), rel=1e-6)
    judged = problem.evaluate(Fixed(), "test")
    answers = problem.targets["test"]
    assert judged["left accuracy"] == pytest.approx((answers["left"] == 3).float().mean().item(), rel=1e-6)
    assert judged["right accuracy"] == pytest.approx((answers["right"] == 0).float().mean().item(), rel=1e-6)
    assert judged["sum error"] == pytest.approx((answers["sum"] - 9).abs().mean().item(), rel=1e-6)
    assert problem.metrics == {"left accuracy": True, "right accuracy": True, "sum error": False}


def test_evaluation_is_without_dropout_and_leaves_the_mode_as_it_was():
    problem = MultiMNIST()
    model = problem.model()
    first, second = problem.evaluate(model, "validation"), problem.evaluate(model, "validation")
    assert first == second
    assert model.training


def test_dropout_keeps_the_expected_activation():
    # The released code of the paper masks without dividing by 1 − p.
    torch.manual_seed(0)
    dropout = multimnist.lenet_head(1, 0.5)[2]
    assert dropout(torch.ones(100_000)).mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("tasks", [(), ("left", "left"), ("middle",)])
def test_unknown_and_repeated_tasks_are_refused(tasks):
    with pytest.raises(ValueError, match="tasks must be some of"):
        MultiMNIST(tasks)


def test_a_damaged_subset_is_named_with_its_remedy(tmp_path, monkeypatch):
    damaged = tmp_path / "mnist_subset.npz"
    damaged.write_bytes(multimnist.SUBSET.read_bytes()[:1000])
    monkeypatch.setattr(multimnist, "SUBSET", damaged)
    with pytest.raises(OSError, match=r"mnist_subset\.npz is damaged or only partly downloaded.*reinstall"):
        MultiMNIST()
    damaged.unlink()
    with pytest.raises(FileNotFoundError, match=r"mnist_subset\.npz is missing: reinstall"):
        MultiMNIST()


def whole_mnist(folder, monkeypatch, sizes=(70, 20)):
    """A small MNIST in the official format, accepted as the whole; returns its folder of files."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in zip(("train", "t10k"), sizes, strict=True):
        images = np.arange(n * 784, dtype=np.int64).astype(np.uint8).reshape(n, 28, 28)
        header = struct.pack(">4B3I", 0, 0, 8, 3, n, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = (np.arange(n) % 10).astype(np.uint8)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, n) + labels.tobytes())
    digests = {name: hashlib.sha256((raw / name).read_bytes()).hexdigest() for name in multimnist.WHOLE_SHA256}
    monkeypatch.setattr(multimnist, "WHOLE_SHA256", digests)
    monkeypatch.setattr(multimnist, "VALIDATION", 10)
    return raw


def test_clothing_takes_the_place_of_the_right_digits(tmp_path, monkeypatch):
    raw = whole_mnist(tmp_path, monkeypatch)
    clothes = tmp_path / "FashionMNIST" / "raw"
    shutil.copytree(raw, clothes)
    for part, n in (("train", 70), ("t10k", 20)):  # every piece of clothing is black and of class 9
        path = clothes / f"{part}-images-idx3-ubyte"
        path.write_bytes(path.read_bytes()[:16] + bytes(n * 784))
        path = clothes / f"{part}-labels-idx1-ubyte"
        path.write_bytes(path.read_bytes()[:8] + bytes([9] * n))
    digests = {name: hashlib.sha256((clothes / name).read_bytes()).hexdigest() for name in multimnist.WHOLE_SHA256}
    monkeypatch.setattr(multimnist, "FASHION_SHA256", digests)
    plain, mixed = MultiMNIST(root=tmp_path), MultiMNIST(root=tmp_path, fashion=True)
    assert "whole MNIST and Fashion-MNIST" in repr(mixed)
    assert torch.equal(mixed.targets["test"]["left"], plain.targets["test"]["left"])
    assert mixed.targets["train"]["right"].eq(9).all()
    black = torch.zeros(1, 28, 28)
    left = torch.from_numpy(np.frombuffer((raw / "t10k-images-idx3-ubyte").read_bytes(), np.uint8, 784, 16).copy())
    alone = multimnist.overlay(left.view(1, 28, 28), black)
    torch.testing.assert_close(mixed.images["test"][0], (alone / 255 - multimnist.MEAN) / multimnist.STD)


def test_clothing_needs_a_folder_and_has_no_sum(tmp_path, monkeypatch):
    monkeypatch.delenv("MTL_REF_DATA", raising=False)
    with pytest.raises(ValueError, match="no embedded subset"):
        MultiMNIST(fashion=True)
    whole_mnist(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match="leave out the task 'sum'"):
        MultiMNIST(("left", "sum"), root=tmp_path, fashion=True)


def test_a_problem_can_keep_its_first_images_only():
    small = MultiMNIST().keep({"train": 7, "test": 3})
    assert [len(x) for x in small.images.values()] == [7, 2000, 3]
    assert len(small.targets["train"]["right"]) == 7
    assert "7/2000/3" in repr(small)


@pytest.mark.parametrize("way", ["root", "environment"])
def test_the_whole_set_is_read_from_root_or_the_environment(way, tmp_path, monkeypatch):
    whole_mnist(tmp_path, monkeypatch)
    if way == "environment":
        monkeypatch.setenv("MTL_REF_DATA", str(tmp_path))
    problem = MultiMNIST(root=tmp_path if way == "root" else None)
    assert [len(x) for x in problem.images.values()] == [60, 10, 20]
    assert problem.targets["validation"]["left"].tolist() == [i % 10 for i in range(60, 70)]
    assert "whole MNIST" in repr(problem)


def test_a_half_downloaded_file_is_named_with_its_remedy(tmp_path, monkeypatch):
    raw = whole_mnist(tmp_path, monkeypatch)
    name = raw / "train-images-idx3-ubyte"
    name.write_bytes(name.read_bytes()[:500])
    with pytest.raises(OSError, match=r"train-images-idx3-ubyte is damaged or only partly downloaded.*delete it"):
        MultiMNIST(root=tmp_path)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A download server for MNIST on this machine, and its folder."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/MNIST/raw/"])
        yield folder
        server.shutdown()


def test_a_missing_file_that_cannot_be_downloaded_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:1/nobody-listens/"])
    raw = whole_mnist(tmp_path, monkeypatch)
    (raw / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"(?s)labels-idx1-ubyte is missing.*not be downloaded.*Copy"):
        MultiMNIST(root=tmp_path)


def test_missing_files_are_downloaded_where_that_works(tmp_path, monkeypatch, mirror):
    raw = whole_mnist(mirror, monkeypatch)
    resources = []
    for name in multimnist.WHOLE_SHA256:
        packed = raw / f"{name}.gz"
        with open(raw / name, "rb") as source, gzip.open(packed, "wb") as target:
            shutil.copyfileobj(source, target)
        resources.append((packed.name, hashlib.md5(packed.read_bytes()).hexdigest()))
    monkeypatch.setattr(MNIST, "resources", resources)
    assert len(MultiMNIST(root=tmp_path / "fresh").images["train"]) == 60
