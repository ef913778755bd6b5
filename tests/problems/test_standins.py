"""What CelebA and Cityscapes share: options, a root, an order of batches, and stand-ins that are written whole."""

import pytest
import torch
from PIL import Image

from mtl_ref.problems import CelebA, Cityscapes, celeba_standin, cityscapes_standin

SMALL = {
    celeba_standin: {"images": (6, 2, 2), "size": 32},
    cityscapes_standin: {"train": 6, "val": 2, "size": (16, 32)},
}
each = pytest.mark.parametrize("standin", SMALL, ids=["celeba", "cityscapes"])


def read(standin, root=None, batch_size=2):
    if standin is celeba_standin:
        return CelebA(root, encoder="small", batch_size=batch_size)
    return Cityscapes(root, network="small", size=(16, 32), batch_size=batch_size)


@each
def test_it_is_drawn_once_into_the_cache_and_says_that_it_is_one(standin, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    root = standin.folder(**SMALL[standin])
    assert root.parent == tmp_path / "mtl_ref"
    monkeypatch.setattr(Image.Image, "save", None)
    assert standin.folder(**SMALL[standin]) == root
    assert "stand-in for C" in repr(read(standin, root))


@each
def test_it_is_written_whole_or_not_at_all(standin, tmp_path, monkeypatch):
    saved = []

    def full(image, path, **options):
        saved.append(path)
        if len(saved) == 5:
            raise OSError("No space left on device")
        return save(image, path, **options)

    save = Image.Image.save
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        standin.write(tmp_path / "root", **SMALL[standin])
    assert [path for path in tmp_path.rglob("*") if path.name != "root"] == []


@each
def test_nothing_is_overwritten(standin, tmp_path):
    standin.write(tmp_path / "root", **SMALL[standin])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(FileExistsError, match="exists already, and might be the real set"):
        standin.write(tmp_path / "root", **SMALL[standin])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("standin", "options", "message"),
    [
        (celeba_standin, {"images": (5, 0, 2)}, "images must be three numbers"),
        (celeba_standin, {"images": (5, 2)}, "images must be three numbers"),
        (cityscapes_standin, {"train": 5}, "at least one image for each of 6 and 2 cities"),
        (cityscapes_standin, {"val": 1}, "at least one image for each of 6 and 2 cities"),
        (cityscapes_standin, {"size": (8, 64)}, "of at least 16×32 pixels"),
    ],
)
def test_too_small_a_stand_in_is_refused(standin, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        standin.write(tmp_path / "root", **SMALL[standin] | options)
    assert list(tmp_path.iterdir()) == []


@each
def test_the_root_may_come_from_the_environment(standin, tmp_path, monkeypatch):
    standin.write(tmp_path / ("cityscapes" if standin is cityscapes_standin else ""), **SMALL[standin])
    monkeypatch.setenv("MTL_REF_DATA", str(tmp_path))
    assert "stand-in" in read(standin).source
    monkeypatch.delenv("MTL_REF_DATA")
    with pytest.raises(
        FileNotFoundError, match=r"No root is given.*non-commercial.*not to be passed on.*stand-in"
    ):
        read(standin)


@pytest.mark.parametrize(
    ("problem", "options", "message"),
    [
        (CelebA, {"tasks": ()}, "tasks must be some of the 40 attributes"),
        (CelebA, {"tasks": ("Male", "Male")}, "tasks must be some of the 40 attributes"),
        (CelebA, {"tasks": ("Tall",)}, "tasks must be some of the 40 attributes"),
        (CelebA, {"encoder": "vgg"}, r"encoder is 'vgg', but must be one of \['resnet18', 'small'\]"),
        (Cityscapes, {"tasks": ()}, "tasks must be some of"),
        (Cityscapes, {"tasks": ("semantic", "semantic")}, "tasks must be some of"),
        (Cityscapes, {"tasks": ("depth",)}, "tasks must be some of"),
        (Cityscapes, {"network": "vgg"}, "network is 'vgg', but must be one of"),
        (Cityscapes, {"size": (60, 128)}, "multiples of 8"),
    ],
)
def test_unknown_options_are_refused(problem, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        problem(tmp_path, **options)


@each
def test_batches_come_in_the_generators_order_and_evaluation_depends_on_none(standin, tmp_path):
    root = standin.write(tmp_path / "root", **SMALL[standin])
    one, two = (read(standin, root, batch_size) for batch_size in (1, 2))
    orders = [torch.Generator().manual_seed(1), torch.Generator().manual_seed(1), None]
    first, again, in_order = (torch.cat([x for x, _ in one.batches("train", order)]) for order in orders)
    assert torch.equal(first, again)
    assert not torch.equal(first, in_order)
    assert torch.equal(first.sum((1, 2, 3)).sort().values, in_order.sum((1, 2, 3)).sort().values)
    torch.manual_seed(0)
    model = one.model()
    assert one.evaluate(model, "test") == pytest.approx(two.evaluate(model, "test"), rel=1e-4)
    assert model.training
