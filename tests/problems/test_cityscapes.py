import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import mtl_ref as mtl
from mtl_ref import results
from mtl_ref.problems import Cityscapes, cityscapes, cityscapes_standin
from mtl_ref.problems.cityscapes import files
from mtl_ref.problems.cityscapes import network as cityscapes_network

NAN = float("nan")
SIZE = (16, 32)


def png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def by_hand(root, cities=(("train", "aachen"), ("train", "bonn"), ("val", "lindau")), size=SIZE):
    """A miniature Cityscapes, file by file: sky over road, a car and a group of cars, a disparity for each row."""
    h, w = size
    for split, city in cities:
        for number in range(2):
            stem = f"{city}_{number:06d}_000019"
            label = np.full((h, w), 7, dtype=np.uint8)
            label[: h // 2] = 23
            label[-1] = 1  # ego vehicle
            label[8:12, 4:10] = 26
            label[8:10, 20:24] = 26
            instance = label.astype(np.uint16)
            instance[8:12, 4:10] = 26001
            disparity = np.zeros((h, w), dtype=np.uint16)
            disparity[h // 2 :] = 1 + 256 * (2 + np.arange(h - h // 2))[:, None]
            colour = np.full((h, w, 3), 40 * number, dtype=np.uint8)
            png(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", colour)
            png(root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", label)
            png(root / "gtFine" / split / city / f"{stem}_gtFine_instanceIds.png", instance)
            png(root / "disparity" / split / city / f"{stem}_disparity.png", disparity)
    return root


def one(root, pattern):
    return sorted(root.glob(pattern))[0]


@pytest.fixture
def hand(tmp_path):
    return by_hand(tmp_path / "cityscapes")


def load(root, *, size=SIZE, network="small", **options):
    return Cityscapes(root, size=size, network=network, **options)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return cityscapes_standin.write(tmp_path_factory.mktemp("drawn") / "streets", train=12, val=4, size=(32, 64))


@pytest.fixture(scope="module")
def problem(drawn):
    return load(drawn, size=(32, 64))


# What is read


def test_official_label_ids_become_the_19_official_train_ids():
    expected = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13}
    expected |= {27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
    assert files.train_ids().tolist() == [expected.get(label, 255) for label in range(34)]
    assert list(cityscapes.CLASSES)[13] == "car"


def test_a_folder_written_by_hand_is_read(hand):
    problem = load(hand)
    assert [len(data["image"]) for data in problem.data.values()] == [2, 2, 2]
    assert problem.held_out == ("bonn",)
    assert problem.source == "Cityscapes"
    assert "Cityscapes, 2/2/2, held out bonn, 16×32 of 16×32" in repr(problem)
    x, targets = next(problem.batches("train"))
    assert x.shape == (2, 3, 16, 32)
    assert x[1, 0, 0, 0].item() == pytest.approx((40 / 255 - 0.485) / 0.229, rel=1e-5)
    semantic = targets["semantic"][0]
    assert semantic[0, 0] == 10
    assert semantic[14, 0] == 0
    assert semantic[15].unique().tolist() == [255]
    assert semantic[8, 4] == semantic[8, 20] == 13


def test_offsets_lead_from_each_pixel_of_an_instance_to_its_centroid(hand):
    _, targets = next(load(hand).batches("train"))
    offsets = targets["instance"][0]  # the car covers rows 8 to 11 and columns 4 to 9: its centroid is (6.5, 9.5)
    assert offsets[:, 8, 4].tolist() == [2.5, 1.5]
    assert offsets[:, 11, 9].tolist() == [-2.5, -1.5]
    assert (~offsets[0].isnan()).sum() == 24
    assert offsets[:, 8, 20].isnan().all()  # a group of cars has no instances
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(32.0), indexing="ij")
    goals = torch.stack([x, y]) + offsets
    assert goals[:, 8:12, 4:10].flatten(1).unique(dim=1).flatten().tolist() == [6.5, 9.5]


def test_disparities_are_those_of_the_files_and_zero_is_invalid(hand):
    png(one(hand, "disparity/val/*/*_000000_*"), np.ones(SIZE, dtype=np.uint16))
    problem = load(hand)
    _, targets = next(problem.batches("train"))
    pixels = targets["disparity"][0, 0] * problem.std + problem.mean
    assert pixels[:8].isnan().all()
    assert pixels[8:, 5].tolist() == pytest.approx([2, 3, 4, 5, 6, 7, 8, 9], rel=1e-6)
    assert problem.mean == pytest.approx(5.5)
    assert problem.std == pytest.approx(np.arange(2, 10).std())
    assert problem.data["test"]["disparity"][0].unique().tolist() == [0.0], "a one in the file is valid"


def test_offsets_and_disparities_stay_in_pixels_of_the_original_image_when_it_is_shrunk(tmp_path):
    problem = load(by_hand(tmp_path / "big", size=(32, 64)), size=(16, 32))
    assert problem.original == [32, 64]
    _, targets = next(problem.batches("train"))
    # The pixel (row 4, column 2) stands for (9, 5) of the original, half way between its four.
    assert targets["instance"][0, :, 4, 2].tolist() == [1.5, 0.5]
    assert (targets["disparity"][0, 0, 8, 0] * problem.std + problem.mean).item() == pytest.approx(3, rel=1e-6)


def test_labels_of_thin_things_are_never_mixed_by_shrinking(tmp_path):
    root = by_hand(tmp_path / "thin", size=(32, 64))
    path = one(root, "gtFine/val/*/*_000000_*_gtFine_labelIds.png")
    label = np.array(Image.open(path))
    label[:, ::2] = 17
    png(path, label)
    seen = load(root, size=(16, 32)).data["test"]["semantic"][0]
    assert set(seen.unique().tolist()) <= {0, 5, 10, 13, 255}


def test_source_pixels_are_those_nearest_to_the_middles():
    assert files.source_pixels(6, 2).tolist() == [1, 4]
    assert files.source_pixels(4, 4).tolist() == [0, 1, 2, 3]
    assert files.source_pixels(2, 4).tolist() == [0, 0, 1, 1]


def test_instances_outside_the_19_classes_are_not_counted():
    instance = np.array([[26000, 29000, 29001, 26, 7]])
    number, centroids = files.number_instances(instance)
    assert number.tolist() == [[1, 0, 0, 0, 0]]
    assert centroids[1].tolist() == [0, 0]
    assert np.isnan(centroids[0]).all()


def test_validation_is_whole_cities_held_out_of_train(drawn):
    problem = load(drawn, size=(32, 64), validation=("drawn-b", "drawn-c"))
    assert [len(data["image"]) for data in problem.data.values()] == [8, 4, 4]
    assert problem.held_out == ("drawn-b", "drawn-c")
    assert load(drawn, size=(32, 64)).held_out == ("drawn-f",)


@pytest.mark.parametrize("cities", [(), ("nowhere",), ("aachen", "bonn")])
def test_held_out_cities_must_be_some_but_not_all(hand, cities):
    with pytest.raises(ValueError, match=r"validation is .* but must be some, not all, of the cities"):
        load(hand, validation=cities)


def test_one_task_alone_has_its_own_target_head_loss_and_metric(problem, drawn):
    alone = load(drawn, tasks=("disparity",), size=(32, 64))
    x, targets = next(alone.batches("train"))
    assert list(targets) == ["disparity"]
    model = alone.model()
    assert list(model(x)) == ["disparity"]
    assert alone.losses(model(x), targets).shape == (1,)
    assert list(alone.evaluate(model, "test")) == ["disparity error"]


# Broken folders


IMAGE = "leftImg8bit/train/aachen/*_000000_*.png"
LABEL = "gtFine/train/aachen/*_000000_*_labelIds.png"
INSTANCE = "gtFine/train/aachen/*_000000_*_instanceIds.png"
DISPARITY = "disparity/train/aachen/*_000000_*.png"
LICENCE = r".*cityscapes-dataset\.com after registration.*licence"


def flipped(content):
    return content[:45] + bytes([content[45] ^ 255]) + content[46:]


@pytest.mark.parametrize("pattern", [IMAGE, LABEL, INSTANCE, DISPARITY])
@pytest.mark.parametrize(
    ("becomes", "message"),
    [
        (None, "missing"),
        (lambda content: b"", "damaged or only partly copied"),
        (lambda content: content[: len(content) * 6 // 10], "damaged or only partly copied"),
        (flipped, "damaged or only partly copied"),
    ],
    ids=["missing", "empty", "cut off", "flipped"],
)
def test_a_missing_or_damaged_file_is_named_with_its_source_and_licence(hand, pattern, becomes, message):
    path = one(hand, pattern)
    content = path.read_bytes()
    path.unlink()
    if becomes:
        path.write_bytes(becomes(content))
    before = sorted(hand.rglob("*"))
    with pytest.raises(OSError if becomes else FileNotFoundError, match=f"{path.name} is {message}{LICENCE}"):
        load(hand)
    assert sorted(hand.rglob("*")) == before


def test_a_missing_folder_is_named(hand, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"nowhere.leftImg8bit.train holds no{LICENCE}"):
        load(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    shutil.rmtree(hand / "disparity" / "val")
    with pytest.raises(FileNotFoundError, match=r"_disparity\.png and 1 others are missing"):
        load(hand)


UNKNOWN_INSTANCES = (34, 999, 7001, 34000, 1000)
SMALLER, KIND = "has 8×32 pixels, but its image 16×32", "has pixels of kind L, but should have I;16"


@pytest.mark.parametrize(
    ("pattern", "pixels", "message"),
    [
        (LABEL, np.zeros((8, 32), np.uint8), SMALLER),
        (INSTANCE, np.zeros((8, 32), np.uint16), SMALLER),
        (DISPARITY, np.zeros((8, 32), np.uint16), SMALLER),
        (INSTANCE, np.zeros(SIZE, np.uint8), KIND),
        (DISPARITY, np.zeros(SIZE, np.uint8), KIND),
        (LABEL, np.full(SIZE, 34, np.uint8), "holds 34, but label ids are 0 to 33"),
        *((INSTANCE, np.full(SIZE, n, np.uint16), f"holds {n}, but an instance id is") for n in UNKNOWN_INSTANCES),
    ],
)
def test_pixels_that_cannot_be_are_named(hand, pattern, pixels, message):
    path = one(hand, pattern)
    png(path, pixels)
    with pytest.raises(ValueError, match=f"{path.name} {message}"):
        load(hand)


def test_images_of_two_sizes_are_refused(hand, tmp_path):
    other = by_hand(tmp_path / "other", [("train", "aachen")], size=(32, 64))
    shutil.copytree(other, hand, dirs_exist_ok=True)
    by_hand(hand, [("train", "celle")])
    with pytest.raises(ValueError, match=r"celle_000000.* has size \[16, 32\], but .*aachen.* has \[32, 64\]"):
        load(hand, validation=("bonn",))


def test_val_of_another_size_is_refused(hand, tmp_path):
    shutil.rmtree(hand / "leftImg8bit" / "val")
    shutil.rmtree(hand / "gtFine" / "val")
    by_hand(hand, [("val", "lindau")], size=(32, 64))
    with pytest.raises(ValueError, match=r"images of test have size \[32, 64\], those of train \[16, 32\]"):
        load(hand)


def test_a_set_without_disparities_is_refused(hand):
    for path in (hand / "disparity" / "train").glob("*/*.png"):
        png(path, np.zeros(SIZE, dtype=np.uint16))
    with pytest.raises(ValueError, match="all invalid or all equal"):
        load(hand)


# Losses


def test_cross_entropy_is_the_mean_over_judged_pixels_alone():
    output = torch.zeros(1, 19, 1, 4)
    output[0, 3, 0, 0] = 2.0
    target = torch.tensor([[[3, 5, 255, 255]]])
    expected = (-2 + np.log(np.exp(2) + 18) + np.log(19)) / 2
    assert cityscapes.masked_cross_entropy(output, target).item() == pytest.approx(expected, rel=1e-6)


def test_l1_is_the_mean_over_valid_entries_alone_below_the_mean_too():
    # The released code keeps normalised targets above zero only: half of these pixels would be lost.
    target = torch.tensor([[[[-1.0, -0.5, NAN, 0.5, 1.0]]]])
    output = torch.tensor([[[[1.0, 1.0, 5.0, 1.0, 1.0]]]])
    assert cityscapes.masked_l1(output, target).item() == pytest.approx((2 + 1.5 + 0.5 + 0) / 4)


@pytest.mark.parametrize("bad", [1e30, float("inf")])
def test_what_is_predicted_where_nothing_is_judged_is_never_felt(bad):
    output = torch.tensor([[[[1.0, bad]]]], requires_grad=True)
    cityscapes.masked_l1(output, torch.tensor([[[[0.5, NAN]]]])).backward()
    assert output.grad.tolist() == [[[[1.0, 0.0]]]]


@pytest.mark.parametrize(
    ("loss", "output", "target"),
    [
        (cityscapes.masked_cross_entropy, torch.randn(2, 19, 3, 4), torch.full((2, 3, 4), 255)),
        (cityscapes.masked_l1, torch.randn(2, 2, 3, 4), torch.full((2, 2, 3, 4), NAN)),
    ],
)
def test_an_empty_mask_gives_zero_with_a_gradient_of_zero(loss, output, target):
    output.requires_grad_()
    value = loss(output, target)
    assert value.item() == 0
    assert value.requires_grad
    value.backward()
    assert (output.grad == 0).all()


def test_a_batch_without_instances_trains_the_other_tasks(problem):
    x, targets = next(problem.batches("train"))
    targets["instance"] = torch.full_like(targets["instance"], NAN)
    for balancer in (mtl.EqualWeighting(), mtl.MGDA(), mtl.PCGrad(), mtl.GradientNormalization()):
        torch.manual_seed(0)
        model = problem.model()
        losses = problem.losses(model(x), targets)
        assert losses[1].item() == 0
        balancer.backward(losses, shared=model.encoder.parameters())
        gradients = [p.grad for p in model.parameters()]
        assert all(g is not None and g.isfinite().all() for g in gradients)
        assert any((g != 0).any() for g in gradients)


# Metrics


class Fixed(torch.nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, x):
        return {task: y.expand(len(x), -1, -1, -1) for task, y in self.outputs.items()}


def test_mean_iou_by_hand():
    predicted, target = torch.tensor([[[0, 0, 1, 1, 2, 0]]]), torch.tensor([[[0, 1, 1, 1, 255, 3]]])
    matrix = cityscapes.confusion(predicted, target)
    assert matrix.sum() == 5
    assert matrix[1, 0] == 1
    # Class 0: 1 hit of 3; class 1: 2 of 3; class 3: 0 of 1; class 2 is only where nothing is judged.
    assert cityscapes.mean_iou(matrix) == pytest.approx((1 / 3 + 2 / 3 + 0) / 3)
    matrix = cityscapes.confusion(torch.tensor([[[0, 5]]]), torch.tensor([[[0, 0]]]))
    assert cityscapes.mean_iou(matrix) == pytest.approx((1 / 2 + 0) / 2), "class 5 is only predicted"


def test_errors_are_in_original_pixels_and_not_cut_to_integers(tmp_path):
    problem = load(by_hand(tmp_path / "big", size=(32, 64)), size=(16, 32))
    constant = {"semantic": torch.zeros(1, 19, *SIZE), "instance": torch.zeros(1, 2, *SIZE)}
    fixed = Fixed(constant | {"disparity": torch.full((1, 1, *SIZE), 0.4 / problem.std)})
    judged = problem.evaluate(fixed, "test")
    d = problem.data["test"]["disparity"].double()
    d = d[~d.isnan()]
    assert judged["disparity error"] == pytest.approx((problem.mean + 0.4 - d).abs().mean().item(), rel=1e-5)
    _, targets = next(problem.batches("test"))
    offsets = targets["instance"][~targets["instance"].isnan()]
    assert judged["instance error"] == pytest.approx(offsets.abs().mean().item(), rel=1e-6)
    assert judged["instance error"] % 1 != 0


def test_a_perfect_answer_has_no_error(problem):
    class Truth(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.answers = iter([targets for _, targets in problem.batches("test")])

        def forward(self, x):
            y = next(self.answers)
            semantic = F.one_hot(y["semantic"].clamp(max=18), 19).movedim(3, 1).float()
            return {"semantic": semantic, "instance": y["instance"], "disparity": y["disparity"]}

    assert problem.evaluate(Truth(), "test") == {"mIoU": 1.0, "instance error": 0.0, "disparity error": 0.0}


def test_a_split_with_nothing_to_judge_has_no_error(hand):
    for path in (hand / "disparity" / "val").glob("*/*.png"):
        png(path, np.zeros(SIZE, dtype=np.uint16))
    problem = load(hand)
    assert np.isnan(problem.evaluate(problem.model(), "test")["disparity error"])


def test_prior_losses_are_those_of_the_best_constant_answers(hand):
    problem = load(hand)
    _, targets = next(problem.batches("train"))
    counts = targets["semantic"][targets["semantic"] != 255].bincount().double()
    p = counts[counts > 0] / counts.sum()
    semantic, instance, disparity = problem.prior_losses()
    assert semantic == pytest.approx(-(p * p.log()).sum().item())
    assert instance == pytest.approx((1.5 + 1.0) / 2)  # columns −2.5 … 2.5, rows −1.5 … 1.5, medians inside
    assert disparity == pytest.approx(2 / problem.std)


# Networks and batches


@pytest.mark.parametrize("network", ["small", "resnet50"])
def test_networks_have_stride_8_and_answers_of_the_inputs_size(hand, network):
    problem = load(hand, network=network)
    model = problem.model().eval()
    z = model.encoder(torch.zeros(1, 3, 16, 32))
    assert z.shape == (1, {"small": 64, "resnet50": 2048}[network], 2, 4)
    shapes = {task: tuple(y.shape) for task, y in model.decode(z).items()}
    assert shapes == {"semantic": (1, 19, 16, 32), "instance": (1, 2, 16, 32), "disparity": (1, 1, 16, 32)}


def test_resnet50_is_dilated_where_it_would_stride():
    encoder, channels, inner = cityscapes_network.resnet50()
    assert (channels, inner) == (2048, 512)
    dilations = {m.dilation for m in encoder.modules() if isinstance(m, torch.nn.Conv2d)}
    assert dilations == {(1, 1), (2, 2), (4, 4)}
    head = cityscapes_network.pyramid_head(2048, 512, 19)
    pools = [m.output_size for m in head.modules() if isinstance(m, torch.nn.AdaptiveAvgPool2d)]
    assert pools == [1, 2, 3, 6]


def test_batches_cover_the_split_and_a_random_order_drops_an_incomplete_batch(drawn):
    problem = load(drawn, size=(32, 64), batch_size=4)
    assert [len(x) for x, _ in problem.batches("train")] == [4, 4, 2]
    generator = torch.Generator().manual_seed(0)
    assert [len(x) for x, _ in problem.batches("train", generator)] == [4, 4]
    few = load(drawn, size=(32, 64), batch_size=64)
    assert [len(x) for x, _ in few.batches("train", generator)] == [10]


def test_training_lowers_every_loss_and_repeats_exactly(drawn):
    problem = load(drawn, size=(32, 64))
    runs = [mtl.train(problem, mtl.EqualWeighting(), epochs=6, seed=0, lr=1e-2) for _ in range(2)]
    assert runs[0].losses == runs[1].losses
    assert runs[0].test == runs[1].test
    assert all(last < first for first, last in zip(runs[0].losses[0], runs[0].losses[-1], strict=True))


# The stand-in


def test_a_stand_in_depends_on_its_seed_alone(tmp_path, drawn):
    def content(root):
        return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    options = {"train": 12, "val": 4, "size": (32, 64)}
    again = cityscapes_standin.write(tmp_path / "again", **options)
    other = cityscapes_standin.write(tmp_path / "other", seed=1, **options)
    assert content(again) == content(drawn)
    assert content(other).keys() == content(drawn).keys()
    assert content(other) != content(drawn)
    assert len(content(drawn)) == 4 * 16 + 1


def test_an_image_does_not_depend_on_how_many_are_drawn(tmp_path, drawn):
    more = cityscapes_standin.write(tmp_path / "more", train=18, val=4, size=(32, 64))
    name = "leftImg8bit/train/drawn-a/drawn-a_000006_000000_leftImg8bit.png"
    assert (more / name).read_bytes() == (drawn / name).read_bytes()


def test_all_classes_are_drawn_and_some_pixels_are_in_none():
    labels = [cityscapes_standin.draw(np.random.default_rng(k), k, (64, 128))["label"] for k in range(40)]
    assert set(np.unique(labels)) >= {label for label, _ in cityscapes.CLASSES.values()} | {1, 3}


@pytest.fixture(scope="module")
def street():
    return cityscapes_standin.draw(np.random.default_rng(5), 0, (128, 256))


def test_disparity_falls_up_the_road(street):
    road = np.where((street["label"] == 7) & (street["disparity"] > 0), street["disparity"] / 256, np.nan)
    rows = np.nanmedian(road[np.isfinite(road).sum(1) > 20], axis=1)
    assert len(rows) > 30
    assert (np.diff(rows) > 0).mean() > 0.95


def test_disparity_is_focal_length_times_baseline_over_depth():
    street = cityscapes_standin.Street(np.random.default_rng(0), (64, 128), 28.0)
    street.stand(cityscapes_standin.SHAPES["bus"](street.rng), 0.0, 10.0)
    shown = cityscapes_standin.expose(street, np.ones(3))
    bus = (shown["label"] == 28) & (shown["disparity"] > 0)
    d = (shown["disparity"][bus] - 1.0) / 256
    assert np.median(d) == pytest.approx(1.105 * 128 * 0.209 / 10, rel=0.02)
    assert (shown["disparity"][shown["label"] == 23] == 0).all()  # the sky has none


@pytest.mark.parametrize("order", [(8.0, 16.0), (16.0, 8.0)])
def test_the_nearer_of_two_cars_hides_the_farther_whichever_is_painted_first(order):
    street = cityscapes_standin.Street(np.random.default_rng(0), (64, 128), 28.0)
    for z in order:
        street.stand(cityscapes_standin.SHAPES["car"](street.rng), 0.0, z)
    seen = street.depth[street.label == 26]
    near = 26000 + order.index(8.0)
    assert street.instance[np.abs(street.depth - 8) < 0.1].tolist() == [near] * (np.abs(seen - 8) < 0.1).sum()
    assert (np.abs(seen - 8) < 0.1).sum() > 4 * (np.abs(seen - 16) < 0.1).sum()


def test_a_thing_twice_as_far_is_half_as_large_and_stands_on_the_ground():
    heights, feet = [], []
    for z in (10.0, 20.0):
        street = cityscapes_standin.Street(np.random.default_rng(3), (256, 512), 110.0)
        street.stand(cityscapes_standin.SHAPES["person"](np.random.default_rng(3)), 0.5, z)
        rows = np.nonzero((street.label == 24).any(1))[0]
        heights.append(np.ptp(rows) + 1)
        feet.append(rows.max() + 1 - 110)
    assert heights[0] / heights[1] == pytest.approx(2, rel=0.1)
    assert feet == pytest.approx([1.105 * 512 * 1.22 / z for z in (10, 20)], abs=1)


def test_instances_agree_with_labels(street):
    ids = street["instance"].astype(int)
    assert (np.where(ids < 1000, ids, ids // 1000) == street["label"]).all()
    _, counts = np.unique(ids[ids >= 1000], return_counts=True)
    assert counts.max() > 100


def test_what_shows_too_little_is_a_group():
    street = cityscapes_standin.Street(np.random.default_rng(0), (64, 128), 28.0)
    for x, z in ((0.0, 10.0), (5.0, 60.0)):
        street.stand(cityscapes_standin.SHAPES["person"](street.rng), x, z)
    shown = cityscapes_standin.expose(street, np.ones(3))
    assert np.unique(street.instance).tolist() == [23, 24000, 24001]
    assert set(np.unique(shown["instance"])) == {1, 3, 23, 24, 24000}


# The stored runs


def test_stored_runs_say_that_they_are_on_the_present_stand_in():
    stored = results.stored("cityscapes")
    assert {run["data"] for run in stored} == {stored[0]["data"]}
    assert (
        f"stand-in for Cityscapes: drawn streets, seed 0, drawing {cityscapes_standin.DRAWING}"
        in stored[0]["data"]
    )


def test_the_drawing_is_the_one_that_the_stored_runs_are_on():
    # Where this fails for more than rounding: raise cityscapes_standin.DRAWING, and run the benchmark again.
    street = cityscapes_standin.draw(np.random.default_rng([0, 0, 0]), 0, (128, 256))
    found = {name: np.asarray(array, dtype=float).mean() for name, array in street.items()}
    expected = {"image": 110.66, "label": 15.956, "instance": 6143.1, "disparity": 1054.1}
    assert found == pytest.approx(expected, rel=1e-3)
