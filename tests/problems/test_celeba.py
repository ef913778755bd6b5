import hashlib
import math

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import mtl_ref as mtl
from mtl_ref.problems import CelebA, celeba, celeba_standin
from mtl_ref.problems.celeba import ATTRIBUTES, files

COLOURS = [(200, 30, 60), (20, 180, 90), (40, 60, 220), (250, 240, 10), (128, 0, 128), (5, 5, 5)]
PARTS = (2, 0, 1, 0, 2, 0)  # the partitions of the six pictures, not in order
LABELS, PARTITION, PICTURES = "list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba"


def by_hand(root, colours=COLOURS, parts=PARTS):
    """A small folder in the official layout, made without the package's writer; returns its attributes."""
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    answers = np.random.default_rng(0).choice([-1, 1], (len(colours), 40))
    rows = [f"{len(colours)}", " ".join(ATTRIBUTES) + " "]
    for number, (colour, row) in enumerate(zip(colours, answers, strict=True), 1):
        Image.new("RGB", (178, 218), colour).save(folder / "img_align_celeba" / f"{number:06d}.jpg", quality=95)
        rows.append(f"{number:06d}.jpg " + " ".join(f"{a:2d}" for a in row))
    (folder / "list_attr_celeba.txt").write_text("\r\n".join(rows) + "\r\n")
    lines = [f"{number:06d}.jpg {part}" for number, part in enumerate(parts, 1)]
    (folder / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return torch.from_numpy(answers)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return celeba_standin.write(tmp_path_factory.mktemp("standin"), (40, 12, 10), seed=3)


@pytest.fixture(scope="module")
def problem(root):
    return CelebA(root, encoder="small", batch_size=16)


def attribute(problem, name, split="train"):
    return problem.targets[split][:, problem.tasks.index(name)]


# Reading


def test_a_folder_made_by_hand_is_read_picture_by_picture(tmp_path):
    answers = by_hand(tmp_path)
    problem = CelebA(tmp_path, size=32)
    for number, split in enumerate(("train", "validation", "test")):
        rows = [row for row, part in enumerate(PARTS) if part == number]
        assert problem.images[split].shape == (len(rows), 3, 32, 32)
        assert problem.images[split].dtype == torch.uint8
        colours = torch.tensor([COLOURS[row] for row in rows]).view(-1, 3, 1, 1)
        assert (problem.images[split].int() - colours).abs().max() <= 3, "JPEG keeps plain colours"
        assert torch.equal(problem.targets[split], (answers[rows] > 0).to(torch.uint8))


def test_the_stand_in_is_read_by_the_same_code(problem):
    attributes = celeba_standin.draw_attributes(62, seed=3)
    assert [len(x) for x in problem.images.values()] == [40, 12, 10]
    assert torch.equal(torch.cat(list(problem.targets.values())), attributes.to(torch.uint8))
    generator = torch.Generator().manual_seed(3 * 1_000_003 + 1)
    drawn = celeba_standin.draw_faces(attributes, generator)
    difference = (torch.cat(list(problem.images.values())).float() - drawn.float()).abs().mean()
    assert difference < 5, "the pictures are those drawn, up to JPEG's loss"


def test_the_official_files_are_recognised_by_their_md5(problem, tmp_path, monkeypatch):
    assert "stand-in for CelebA: drawn faces, seed 3" in repr(problem)
    by_hand(tmp_path)
    assert "unknown origin" in repr(CelebA(tmp_path))
    known = {name: md5 for _, md5, name in torchvision.datasets.CelebA.file_list}
    assert {LABELS, PARTITION} == files.OFFICIAL_MD5.keys() == known.keys() & files.OFFICIAL_MD5.keys()
    assert files.OFFICIAL_MD5.items() <= known.items()
    for name in files.OFFICIAL_MD5:
        digest = hashlib.md5((tmp_path / "celeba" / name).read_bytes()).hexdigest()
        monkeypatch.setitem(files.OFFICIAL_MD5, name, digest)
    assert "CelebA(40 attributes; CelebA, 3/1/2," in repr(CelebA(tmp_path))


def lines(change):
    return lambda content: "\n".join(change(content.decode().splitlines())).encode()


# what is spoilt, what it becomes (None: it is deleted), and what the error says
BROKEN = {
    "no labels": (LABELS, None, r"list_attr_celeba\.txt is missing"),
    "no partitions": (PARTITION, None, r"list_eval_partition\.txt is missing"),
    "no pictures": (PICTURES, None, r"img_align_celeba is missing\. CelebA comes"),
    "some pictures": (
        f"{PICTURES}/00000[35].jpg",
        None,
        r"3\.jpg is missing, the first of 2 out of 6: the download",
    ),
    "rows cut off": (LABELS, lines(lambda x: x[:-1]), r"promises '6' rows, but it has 5"),
    "another attribute": (
        LABELS,
        lambda x: x.replace(b"Young", b"Old"),
        r"second line must be the names of the 40",
    ),
    "an empty list": (LABELS, lambda x: b"", r"second line must be"),
    "a line cut off": (
        LABELS,
        lines(lambda x: [*x[:4], x[4][:50], *x[5:]]),
        r"line 5 must be a file name and 40 numbers out of \[-1, 1\], but has \d+ and begins '000003\.jpg",
    ),
    "a bad number": (
        LABELS,
        lines(lambda x: [*x[:3], x[3][:-2] + " 0", *x[4:]]),
        r"line 4 must be a file name and",
    ),
    "an empty line": (LABELS, lines(lambda x: [*x[:3], "", *x[3:]]), r"line 4 must be a file name"),
    "a bad partition": (
        PARTITION,
        lambda x: x.replace(b" 2", b" 3"),
        r"line 1 must .* numbers out of \[0, 1, 2\]",
    ),
    "fewer partitions": (PARTITION, lines(lambda x: x[:-1]), r"has 6 rows, but .* has 5"),
    "other names": (PARTITION, lines(lambda x: x[::-1]), r"row 1 is '000001\.jpg', but in .* it is '000006\.jpg'"),
    "an empty partition": (
        PARTITION,
        lambda x: x.replace(b" 1", b" 0"),
        r"no image in partition 1 \(validation\)",
    ),
    "no text": (LABELS, lambda x: b"\xff\xfe\x00\x81", r"list_attr_celeba\.txt .*it is no text file"),
    "a picture cut off": (f"{PICTURES}/000002.jpg", lambda x: x[:700], r"000002\.jpg .*it cannot be decoded"),
    "an empty picture": (f"{PICTURES}/000004.jpg", lambda x: b"", r"000004\.jpg .*it cannot be decoded"),
}


@pytest.mark.parametrize(("spoilt", "becomes", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_download_is_named_with_its_source_and_licence(spoilt, becomes, message, tmp_path):
    by_hand(tmp_path)
    for path in (tmp_path / "celeba").glob(spoilt):
        if becomes:
            path.write_bytes(becomes(path.read_bytes()))
        else:
            path.rename(tmp_path / path.name)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(OSError if becomes else FileNotFoundError, match=message) as caught:
        CelebA(tmp_path)
    for part in ("mmlab.ie.cuhk.edu.hk/projects/CelebA.html", "non-commercial research", "not to be passed on"):
        assert part in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before, "nothing was written"


def test_pictures_that_are_still_packed_are_named(tmp_path):
    by_hand(tmp_path)
    (tmp_path / "celeba" / PICTURES).rename(tmp_path / "celeba" / f"{PICTURES}.zip")
    with pytest.raises(FileNotFoundError, match=r"img_align_celeba\.zip is there, but has to be unpacked"):
        CelebA(tmp_path)


# Learning


def test_the_tasks_wanted_are_the_columns(root, problem):
    two = CelebA(root, tasks=("Young", "Male"), encoder="small")
    assert torch.equal(two.targets["train"][:, 0], attribute(problem, "Young"))
    assert torch.equal(two.targets["train"][:, 1], attribute(problem, "Male"))
    assert list(two.metrics) == ["average error", "Young error", "Male error"]
    assert "Young, Male" in repr(two)
    assert two.model()(two.images["train"][:3] / 127.5 - 1)["attributes"].shape == (3, 2)


def test_losses_are_the_binary_cross_entropies(root):
    problem = CelebA(root, tasks=("Young", "Male", "Bald"))
    logits = torch.tensor([[2.0, -1.0, 0.0], [0.5, 3.0, 0.0]], dtype=torch.float64)
    answers = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    wanted = [
        (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(0.5))) / 2,
        (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3))) / 2,
        math.log(2),
    ]
    losses = problem.losses({"attributes": logits}, {"attributes": answers})
    assert losses.tolist() == pytest.approx(wanted, rel=1e-12)


class Fixed(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, x):
        return {"attributes": self.logits.repeat(len(x), 1)}


def test_metrics_are_shares_of_wrong_answers(problem):
    always_male = torch.full((40,), -1.0)
    always_male[ATTRIBUTES.index("Male")] = 1.0
    judged = problem.evaluate(Fixed(always_male), "test")
    answers = problem.targets["test"].float()
    wrong = answers.mean(0)
    wrong[ATTRIBUTES.index("Male")] = 1 - wrong[ATTRIBUTES.index("Male")]
    assert [judged[f"{name} error"] for name in ATTRIBUTES] == pytest.approx(wrong.tolist(), abs=1e-6)
    assert judged["average error"] == pytest.approx(wrong.mean().item(), abs=1e-6)
    assert list(judged) == list(problem.metrics)
    assert not any(problem.metrics.values()), "an error is better if it is lower"


def test_the_most_frequent_answer_is_that_of_training(problem):
    frequent = problem.targets["train"].float().mean(0) > 0.5
    judged = problem.evaluate(Fixed(frequent.float() - 0.5), "test")
    expected = [judged[f"{name} error"] for name in ATTRIBUTES]
    assert problem.most_frequent("test").tolist() == pytest.approx(expected, abs=1e-6)


def test_batches_are_the_images_between_minus_one_and_one(problem):
    in_order = torch.cat([x for x, _ in problem.batches("train")])
    assert torch.allclose(in_order, problem.images["train"] / 127.5 - 1)
    assert in_order.min() >= -1
    assert in_order.max() <= 1
    answers = torch.cat([y["attributes"] for _, y in problem.batches("train")])
    assert torch.equal(answers, problem.targets["train"].float())


class Counted(TorchDispatchMode):
    """How many tensor operations run."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.number += 1
        return function(*args, **(kwargs or {}))


def operations(problem):
    torch.manual_seed(0)
    model = problem.model()
    with Counted() as counted:
        x, targets = next(problem.batches("train", torch.Generator()))
        problem.losses(model(x), targets).sum().backward()
        problem.evaluate(model, "test")
    return counted.number


def test_ten_times_the_samples_and_forty_times_the_tasks_cost_no_more_operations(root):
    counts = []
    for tasks, size in ((ATTRIBUTES, 4), (ATTRIBUTES, 40), (("Male",), 40)):
        problem = CelebA(root, tasks=tasks, encoder="small", batch_size=size)
        for data in (problem.images, problem.targets):
            data["train"] = data["test"] = data["train"][:size]
        counts.append(operations(problem))
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("by", ["shared", "features"])
@pytest.mark.parametrize("method", [mtl.EqualWeighting, mtl.MGDA, mtl.PCGrad, mtl.GradientNormalization])
def test_joint_heads_receive_what_forty_layers_of_their_own_receive(problem, method, by):
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 12), nn.Tanh()).double()
    joint = nn.Linear(12, 40).double()
    alone = nn.ModuleList([nn.Linear(12, 1).double() for _ in range(40)])
    for row, layer in enumerate(alone):
        layer.load_state_dict({"weight": joint.weight[row : row + 1], "bias": joint.bias[row : row + 1]})
    x, targets = next(problem.batches("train"))
    found = []
    for heads in ([joint], alone):
        encoder.zero_grad()
        z = encoder(x.double())
        logits = torch.cat([head(z) for head in heads], dim=1)
        losses = problem.losses({"attributes": logits}, {"attributes": targets["attributes"].double()})
        given = {"shared": encoder.parameters()} if by == "shared" else {"features": z}
        torch.manual_seed(1)
        weights = method().backward(losses, **given)
        on_heads = [torch.cat([head.weight.grad, head.bias.grad[:, None]], dim=1) for head in heads]
        on_encoder = torch.cat([p.grad.flatten() for p in encoder.parameters()])
        found.append((weights, torch.cat(on_heads), on_encoder))
    torch.testing.assert_close(*found, rtol=1e-7, atol=1e-10)


def test_the_encoders_have_the_papers_shapes():
    with torch.device("meta"):
        resnet, small = celeba.resnet18_encoder(), celeba.small_encoder()
        x = torch.empty(2, 3, 64, 64)
        assert resnet(x).shape == (2, 2048)
        assert small(x).shape == (2, 128)
        seen = []
        resnet.layer1.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
        resnet(x)
    assert seen == [(2, 64, 64, 64)], "the stem shrinks nothing"
    assert sum(p.numel() for p in resnet.parameters()) == 11_168_832


def test_training_runs_and_learns(root):
    problem = CelebA(root, encoder="small", batch_size=20)
    history = mtl.train(problem, mtl.MGDA(normalize="l2"), epochs=3, lr=1e-2, features=True)
    assert sum(history.losses[-1]) < sum(history.losses[0])
    assert len(history.weights[0]) == 40


# The stand-in


def test_frequencies_are_those_of_the_recipe():
    share = 100 * celeba_standin.draw_attributes(6000).double().mean(0)
    for name, found in zip(ATTRIBUTES, share.tolist(), strict=True):
        assert found == pytest.approx(celeba_standin.RECIPE[name][0], abs=0.6), name
    assert set(celeba_standin.RECIPE) == set(ATTRIBUTES)
    assert set(celeba_standin.DEGREES) <= set(ATTRIBUTES)


@pytest.mark.parametrize("seed", range(3))
def test_correlations_are_near_those_aimed_at(seed):
    drawn = dict(zip(ATTRIBUTES, celeba_standin.draw_attributes(6000, seed).double().T, strict=True))
    for (one, other), target in celeba_standin.CORRELATIONS.items():
        found = torch.corrcoef(torch.stack([drawn[one], drawn[other]]))[0, 1].item()
        assert found == pytest.approx(target, abs=0.08), (one, other)


def test_what_excludes_each_other_does():
    drawn = dict(zip(ATTRIBUTES, celeba_standin.draw_attributes(6000).T, strict=True))
    colours = torch.stack([drawn[f"{c}_Hair"] for c in ("Black", "Blond", "Brown", "Gray")])
    assert colours.sum(0).max() == 1
    assert not (drawn["Bald"] & (colours.any(0) | drawn["Bangs"] | drawn["Wavy_Hair"])).any()
    assert not (drawn["No_Beard"] & (drawn["Goatee"] | drawn["Mustache"] | drawn["Sideburns"])).any()


def test_a_seed_decides_everything():
    first, second = (celeba_standin.draw_attributes(500, seed=5) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, celeba_standin.draw_attributes(500, seed=6))
    faces = [celeba_standin.draw_faces(first[:20], torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(faces[0], faces[1])
    assert not torch.equal(faces[0], faces[2])


def test_the_drawing_is_the_one_whose_results_are_stored():
    # If this fails, the pictures have changed: raise celeba_standin.DRAWING and run the benchmark again.
    attributes = celeba_standin.draw_attributes(256)
    faces = celeba_standin.draw_faces(attributes, torch.Generator().manual_seed(0)).double()
    assert celeba_standin.DRAWING == 1
    assert attributes.sum().item() == 2308
    assert [faces.mean().item(), faces.std().item()] == pytest.approx([122.19, 59.83], abs=0.05)


@pytest.mark.parametrize("size", [64, 96])
def test_every_attribute_is_to_be_seen(size):
    def faces(attributes):
        return celeba_standin.draw_faces(attributes, torch.Generator().manual_seed(2), size).float()

    plain = torch.zeros(24, 40, dtype=torch.bool)
    plain[:, [ATTRIBUTES.index(name) for name in ("No_Beard", "Young", "Attractive")]] = True
    before = faces(plain)
    for column, name in enumerate(ATTRIBUTES):
        changed = plain.clone()
        changed[:, column] = ~changed[:, column]
        if name in ("Goatee", "Mustache", "Sideburns"):
            changed[:, ATTRIBUTES.index("No_Beard")] = False
        most = (before - faces(changed)).abs().amax((1, 2, 3)).mean()
        assert most > 12, f"{name} changes a pixel by no more than {most:.0f} of 255"


def test_the_files_are_in_the_official_format(root):
    folder = root / "celeba"
    lines = (folder / "list_attr_celeba.txt").read_text().splitlines()
    assert lines[0] == "62"
    assert lines[1].split() == list(ATTRIBUTES)
    assert lines[2].startswith("000001.jpg ")
    assert set(" ".join(line.split(maxsplit=1)[1] for line in lines[2:]).split()) == {"-1", "1"}
    assert (folder / "list_eval_partition.txt").read_text().splitlines()[40] == "000041.jpg 1"
    with Image.open(folder / "img_align_celeba" / "000062.jpg") as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (64, 64))
    assert "show nobody" in (folder / files.MARKER).read_text()
