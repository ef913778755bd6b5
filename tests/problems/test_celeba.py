import math
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import mtl_ref as mtl
from mtl_ref.problems import CelebA, HardSharing, celeba, celeba_standin
from mtl_ref.problems.celeba import ATTRIBUTES, files

COLOURS = [(200, 30, 60), (20, 180, 90), (40, 60, 220), (250, 240, 10), (128, 0, 128), (5, 5, 5)]
PARTS = (2, 0, 1, 0, 2, 0)  # the partitions of the six pictures, not in order


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


def test_a_problem_says_what_its_pictures_are(problem, tmp_path, monkeypatch):
    assert "stand-in for CelebA: drawn faces, seed 3" in repr(problem)
    by_hand(tmp_path)
    assert "unknown origin" in repr(CelebA(tmp_path))
    monkeypatch.setattr(files, "check_md5", lambda path, md5: True)
    assert "CelebA(40 attributes; CelebA, 3/1/2," in repr(CelebA(tmp_path))


def test_the_official_files_are_recognised_by_their_md5(tmp_path, monkeypatch):
    by_hand(tmp_path)
    asked = {}
    monkeypatch.setattr(files, "check_md5", lambda path, md5: asked.setdefault(path.name, md5))
    CelebA(tmp_path)
    assert asked == {
        "list_attr_celeba.txt": "75e246fa4810816ffd6ee81facbd244c",
        "list_eval_partition.txt": "d32c9cbf5e040fd4025c592c306e6668",
    }
    (tmp_path / "a").write_text("abc")
    monkeypatch.undo()
    assert files.check_md5(tmp_path / "a", "900150983cd24fb0d6963f7d28e17f72")
    assert not files.check_md5(tmp_path / "a", "0" * 32)


def test_one_thread_decodes_what_many_decode(root, problem, monkeypatch):
    monkeypatch.setattr(files, "THREADS", 1)
    assert torch.equal(CelebA(root).images["train"], problem.images["train"])


def test_the_root_may_come_from_the_environment(root, monkeypatch):
    monkeypatch.setenv("MTL_REF_DATA", str(root))
    assert len(CelebA().images["train"]) == 40
    monkeypatch.delenv("MTL_REF_DATA")
    with pytest.raises(FileNotFoundError, match=r"No root is given.*non-commercial.*stand-in"):
        CelebA()


def drop(name):
    return lambda folder: shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def pack(folder):
    shutil.rmtree(folder / "img_align_celeba")
    (folder / "img_align_celeba.zip").write_bytes(b"PK")


def rewrite(name, change):
    def spoil(folder):
        lines = (folder / name).read_text().splitlines()
        change(lines)
        (folder / name).write_text("\n".join(lines) + "\n")

    return spoil


def cut(name, size):
    def spoil(folder):
        path = folder / "img_align_celeba" / name
        path.write_bytes(path.read_bytes()[:size])

    return spoil


LABELS, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"
BROKEN = {
    "no labels": (drop(LABELS), FileNotFoundError, r"list_attr_celeba\.txt is missing"),
    "no partitions": (drop(PARTITION), FileNotFoundError, r"list_eval_partition\.txt is missing"),
    "no pictures": (drop("img_align_celeba"), FileNotFoundError, r"img_align_celeba is missing\. CelebA comes"),
    "packed": (pack, FileNotFoundError, r"img_align_celeba\.zip is there, but has to be unpacked"),
    "some pictures": (
        lambda folder: [drop(f"img_align_celeba/00000{n}.jpg")(folder) for n in (3, 5)],
        FileNotFoundError,
        r"000003\.jpg is missing, the first of 2 out of 6: the download is not complete",
    ),
    "rows cut off": (rewrite(LABELS, lambda lines: lines.pop()), OSError, r"promises '6' rows, but it has 5"),
    "another attribute": (
        rewrite(LABELS, lambda lines: lines.__setitem__(1, lines[1].replace("Young", "Old"))),
        OSError,
        r"second line must be the names of the 40 attributes",
    ),
    "an empty list": (rewrite(LABELS, lambda lines: lines.clear()), OSError, r"second line must be"),
    "a line cut off": (
        rewrite(LABELS, lambda lines: lines.__setitem__(4, lines[4][:50])),
        OSError,
        r"line 5 must be a file name and 40 numbers out of \[-1, 1\], but has \d+ and begins '000003\.jpg",
    ),
    "a bad number": (
        rewrite(LABELS, lambda lines: lines.__setitem__(3, lines[3][:-2] + " 0")),
        OSError,
        r"line 4 must be a file name and 40 numbers out of",
    ),
    "an empty line": (rewrite(LABELS, lambda lines: lines.insert(3, "")), OSError, r"line 4 must be a file name"),
    "a bad partition": (
        rewrite(PARTITION, lambda lines: lines.__setitem__(0, "000001.jpg 3")),
        OSError,
        r"line 1 must be a file name and 1 numbers out of \[0, 1, 2\]",
    ),
    "fewer partitions": (rewrite(PARTITION, lambda lines: lines.pop()), OSError, r"has 6 rows, but .* has 5"),
    "other names": (
        rewrite(PARTITION, lambda lines: lines.reverse()),
        OSError,
        r"row 1 is '000001\.jpg', but in list_eval_partition\.txt it is '000006\.jpg'",
    ),
    "an empty partition": (
        rewrite(PARTITION, lambda lines: lines.__setitem__(2, "000003.jpg 0")),
        OSError,
        r"it puts no image in partition 1 \(validation\)",
    ),
    "no text": (
        lambda folder: (folder / LABELS).write_bytes(b"\xff\xfe\x00\x81"),
        OSError,
        r"list_attr_celeba\.txt .*it is no text file",
    ),
    "a picture cut off": (cut("000002.jpg", 700), OSError, r"000002\.jpg .*it cannot be decoded"),
    "an empty picture": (cut("000004.jpg", 0), OSError, r"000004\.jpg .*it cannot be decoded"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_download_is_named_with_its_source_and_licence(fault, tmp_path):
    by_hand(tmp_path)
    spoil, kind, message = BROKEN[fault]
    spoil(tmp_path / "celeba")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(kind, match=message) as caught:
        CelebA(tmp_path)
    for part in ("mmlab.ie.cuhk.edu.hk/projects/CelebA.html", "non-commercial research", "not to be passed on"):
        assert part in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before, "nothing was written"


@pytest.mark.parametrize("tasks", [(), ("Male", "Male"), ("Tall",)])
def test_unknown_and_repeated_tasks_are_refused(tasks, root):
    with pytest.raises(ValueError, match="tasks must be some of the 40 attributes"):
        CelebA(root, tasks=tasks)


def test_an_unknown_encoder_is_refused(root):
    with pytest.raises(ValueError, match=r"encoder is 'vgg', but must be one of \['resnet18', 'small'\]"):
        CelebA(root, encoder="vgg")


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


def test_one_logit_is_the_two_of_a_softmax():
    two = torch.randn(20, 2, dtype=torch.float64)
    answers = torch.randint(2, (20,))
    one = F.binary_cross_entropy_with_logits(two[:, 1] - two[:, 0], answers.double())
    assert one.item() == pytest.approx(F.cross_entropy(two, answers).item(), rel=1e-12)


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


def test_evaluation_uses_the_running_statistics_and_leaves_the_mode(problem):
    torch.manual_seed(0)
    model = problem.model()
    first = problem.evaluate(model, "validation")
    problem.batch_size, kept = 5, problem.batch_size
    assert problem.evaluate(model, "validation") == pytest.approx(first)
    problem.batch_size = kept
    assert model.training


def test_batches_cover_the_split_once_in_the_generators_order(problem):
    in_order = torch.cat([x for x, _ in problem.batches("train")])
    assert torch.allclose(in_order, problem.images["train"] / 127.5 - 1)
    assert in_order.min() >= -1
    assert in_order.max() <= 1
    shuffled = torch.cat([y["attributes"] for _, y in problem.batches("train", torch.Generator().manual_seed(1))])
    again = torch.cat([y["attributes"] for _, y in problem.batches("train", torch.Generator().manual_seed(1))])
    assert torch.equal(shuffled, again)
    assert not torch.equal(shuffled, problem.targets["train"].float())
    assert torch.equal(shuffled.sum(0), problem.targets["train"].float().sum(0))


class Counted(TorchDispatchMode):
    """How many tensor operations run."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.number += 1
        return function(*args, **(kwargs or {}))


def test_no_work_is_done_sample_by_sample(root):
    counts = []
    for size in (4, 40):
        problem = CelebA(root, encoder="small", batch_size=size)
        problem.images = {split: x[:size] for split, x in problem.images.items()}
        problem.targets = {split: y[:size] for split, y in problem.targets.items()}
        problem.images["test"], problem.targets["test"] = problem.images["train"], problem.targets["train"]
        torch.manual_seed(0)
        model = problem.model()
        with Counted() as counted:
            x, targets = next(problem.batches("train", torch.Generator()))
            problem.losses(model(x), targets).sum().backward()
            problem.evaluate(model, "test")
        counts.append(counted.number)
    assert counts[0] == counts[1], "ten times the samples, the same number of operations"


def test_the_heads_of_all_tasks_cost_no_more_operations_than_one(root):
    counts = []
    for tasks in (("Male",), ATTRIBUTES):
        problem = CelebA(root, tasks=tasks, encoder="small")
        z = torch.randn(8, 128)
        with Counted() as counted:
            outputs = problem.model().decode(z)
            problem.losses(outputs, {"attributes": problem.targets["train"][:8].float()})
        counts.append(counted.number)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("by", ["shared", "features"])
@pytest.mark.parametrize("method", [mtl.EqualWeighting, mtl.MGDA, mtl.PCGrad, mtl.GradientNormalization])
def test_joint_heads_receive_what_forty_layers_of_their_own_receive(problem, method, by):
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 12), nn.Tanh()).double()
    joint = nn.Linear(12, 40).double()
    alone = nn.ModuleList([nn.Linear(12, 1).double() for _ in range(40)])
    for row, layer in enumerate(alone):
        layer.load_state_dict({"weight": joint.weight[row : row + 1], "bias": joint.bias[row : row + 1]})
    model = HardSharing(encoder, {"attributes": joint})
    x, targets = next(problem.batches("train"))
    x, answers = x.double(), targets["attributes"].double()

    def gradients(heads):
        encoder.zero_grad()
        z = encoder(x)
        if heads is joint:
            losses = problem.losses(model.decode(z), {"attributes": answers})
        else:
            each = zip(heads, answers.T, strict=True)
            losses = torch.stack([F.binary_cross_entropy_with_logits(h(z).squeeze(1), y) for h, y in each])
        torch.manual_seed(1)
        weights = method().backward(losses, **({"shared": encoder.parameters()} if by == "shared" else {by: z}))
        return weights, torch.cat([p.grad.flatten() for p in encoder.parameters()])

    weights, on_encoder = gradients(joint)
    weights_alone, on_encoder_alone = gradients(alone)
    assert torch.allclose(weights, weights_alone, rtol=1e-7, atol=1e-10)
    assert torch.allclose(on_encoder, on_encoder_alone, rtol=1e-7, atol=1e-12)
    assert torch.allclose(joint.weight.grad, torch.cat([h.weight.grad for h in alone]), rtol=1e-9, atol=1e-14)
    assert torch.allclose(joint.bias.grad, torch.cat([h.bias.grad for h in alone]), rtol=1e-9, atol=1e-14)
    if method is not mtl.EqualWeighting:  # Algorithm 2: a head has its own task's gradient, whatever its weight
        z = encoder(x).detach()
        plain = problem.losses(model.decode(z), {"attributes": answers}).sum()
        own = torch.autograd.grad(plain, joint.weight)[0]
        assert torch.allclose(joint.weight.grad, own, rtol=1e-9, atol=1e-14)


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

ATTRIBUTES_DRAWN = 2308
FACES_DRAWN = (122.19, 59.83)


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
    assert attributes.sum().item() == ATTRIBUTES_DRAWN
    assert [faces.mean().item(), faces.std().item()] == pytest.approx(FACES_DRAWN, abs=0.05)


@pytest.mark.parametrize("size", [64, 96])
def test_every_attribute_is_to_be_seen(size):
    attributes = torch.zeros(24, 40, dtype=torch.bool)
    for name in ("No_Beard", "Young", "Attractive"):
        attributes[:, ATTRIBUTES.index(name)] = True
    for column, name in enumerate(ATTRIBUTES):
        changed = attributes.clone()
        changed[:, column] = ~changed[:, column]
        if name in ("Goatee", "Mustache", "Sideburns"):
            changed[:, ATTRIBUTES.index("No_Beard")] = False
        faces = [
            celeba_standin.draw_faces(a, torch.Generator().manual_seed(2), size).float()
            for a in (attributes, changed)
        ]
        most = (faces[0] - faces[1]).abs().amax((1, 2, 3)).mean()
        assert most > 12, f"{name} changes a pixel by no more than {most:.0f} of 255"


def test_a_stand_in_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def fail(self, path, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        celeba_standin.write(tmp_path, (5, 2, 2))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    by_hand(tmp_path)
    before = sorted(path.name for path in (tmp_path / "celeba").iterdir())
    with pytest.raises(FileExistsError, match=r"celeba exists already, and might be the real set"):
        celeba_standin.write(tmp_path)
    assert sorted(path.name for path in (tmp_path / "celeba").iterdir()) == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("images", [(5, 0, 2), (5, 2)])
def test_a_stand_in_needs_all_three_partitions(images, tmp_path):
    with pytest.raises(ValueError, match="images must be three numbers"):
        celeba_standin.write(tmp_path / "new", images)
    assert not (tmp_path / "new").exists()


def test_the_cached_stand_in_is_written_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    root = celeba_standin.folder((6, 2, 2), size=32)
    assert root.is_relative_to(tmp_path / "mtl_ref")
    monkeypatch.setattr(celeba_standin, "write", None)
    assert celeba_standin.folder((6, 2, 2), size=32) == root
    assert CelebA(root, size=32).images["train"].shape == (6, 3, 32, 32)
    assert os.listdir(root) == ["celeba"]


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
