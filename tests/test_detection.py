"""The detector's parts: what regions learn, how pictures are independent, and what fixed BN is."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.ops import roi_pool

from residual.data.boxes import BoxDataset, Photo
from residual.data.photos import PhotoBatches, load
from residual.detection.alternating import AlternatingRCNN, step_of
from residual.detection.alternating import rate as alternating_rate
from residual.detection.backbones import Affine, cut, fix_batch_norm, folded, measure_batch_norm
from residual.detection.faster_rcnn import Example, FasterRCNN, decode
from residual.detection.targets import judge_anchors, judge_regions, sample
from residual.detection.testing import Options, detect, input_size
from residual.errors import InputError
from residual.models import build_model
from residual.models.preprocessing import Preprocessing
from residual.recipes.schema import Schedule
from residual.training.sgd import SGD

NO_BOXES = torch.empty(0, 4)


def detector(name: str = "cifar_resnet8", **options: object) -> FasterRCNN:
    torch.manual_seed(0)
    network = build_model(name)
    measure_batch_norm(network, [torch.randn(4, 3, 64, 64)])
    backbone = cut(network)
    fix_batch_norm(backbone)
    numbers = {"anchor_sides": (12, 24), "smallest": 2.0, "proposals": (60, 20), "regions": 16} | options
    model = FasterRCNN(backbone, 3, Preprocessing(torch.full((3,), 0.5)), **numbers)  # type: ignore[arg-type]
    return model.to(memory_format=torch.channels_last)


def example(seed: int, height: int = 40, width: int = 48, objects: int = 1) -> Example:
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.tensor([[4.0, 6, 20, 20], [20, 10, 40, 34]])[:objects]
    labels = torch.tensor([1, 2])[:objects]
    return Example(torch.randn(3, height, width, generator=generator), boxes, labels, NO_BOXES, seed)


def test_which_anchors_are_objects() -> None:
    anchors = torch.tensor(
        [
            [0.0, 0, 10, 10],  # an overlap of 1
            [0, 0, 10, 8],  # 0.8
            [0, 0, 10, 5],  # 0.5: neither
            [20, 20, 30, 30],  # 0
            [-5, 0, 10, 10],  # over the edge
            [40, 40, 50, 60],  # the best of the second object, though only 0.5
        ]
    )
    boxes = torch.tensor([[0.0, 0, 10, 10], [40, 40, 50, 50]])
    objects, background, whose = judge_anchors(anchors, boxes, NO_BOXES, (100, 100))
    assert objects.tolist() == [True, True, False, False, False, True]
    assert background.tolist() == [False, False, False, True, False, False]
    assert whose[objects].tolist() == [0, 0, 1]
    # Over the edge, where that is allowed: 100 of 150.
    objects, background, _ = judge_anchors(anchors, boxes, NO_BOXES, None)
    assert not objects[4]
    assert not background[4]
    # A picture without objects is background, but for what lies in a crowd.
    objects, background, _ = judge_anchors(anchors, NO_BOXES, torch.tensor([[18.0, 18, 31, 31]]), (100, 100))
    assert not objects.any()
    assert background.tolist() == [True, True, True, False, False, True]


def test_which_regions_are_objects() -> None:
    regions = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4]])
    objects, background, whose = judge_regions(regions, torch.tensor([[0.0, 0, 10, 10]]), NO_BOXES)
    assert objects.tolist() == [True, True, False]
    assert background.tolist() == [False, False, True]
    assert whose.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("objects", "background"), [(30, 50), (2, 50), (30, 3), (0, 50), (2, 1), (0, 0), (1, 0)]
)
def test_sampling(objects: int, background: int) -> None:
    kinds = torch.tensor([1] * objects + [0] * background + [-1] * 5)[
        torch.randperm(objects + background + 5)
    ]
    random = torch.rand(len(kinds))
    chosen, positive, used = sample(kinds == 1, kinds == 0, random, 16, 4)
    assert chosen.shape == positive.shape == used.shape == (16,)
    taken = min(objects, 4)
    assert positive.sum() == taken
    assert used.sum() == min(16, taken + background)
    assert (kinds[chosen[positive]] == 1).all()
    assert (kinds[chosen[used & ~positive]] == 0).all()
    assert len(set(chosen[used].tolist())) == used.sum()
    # Of the objects those with the highest numbers.
    highest = random[kinds == 1].sort(descending=True).values[:taken]
    assert torch.equal(random[chosen[positive]], highest)


def test_a_picture_learns_the_same_alone_and_among_others() -> None:
    model = detector().train()
    pictures = [example(1), example(2, 48, 40), example(3, objects=0), example(4, objects=2)]
    together = model(pictures)
    alone = torch.stack([model([picture]) for picture in pictures]).sum(dim=0)
    assert torch.allclose(together, alone, rtol=1e-5)
    assert torch.equal(model(pictures), together)
    together.sum().backward()
    learned = {name for name, p in model.named_parameters() if p.grad is not None}
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert learned == {name for name, _ in model.named_parameters()} - frozen
    # conv1 and the first stage.
    assert {name.split(".")[2] for name in frozen} == {"conv1", "layer1"}


def test_a_picture_is_seen_the_same_alone_and_among_others() -> None:
    model = detector(proposals=(60, 10)).eval()
    images = [
        torch.randint(0, 256, (3, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(w))
        for h, w in ((40, 48), (48, 40), (40, 48))
    ]
    how = Options(shorter=40, longer=64, score=0.2)
    together = detect([model], images, how)
    for image, found in zip(images, together, strict=True):
        (alone,) = detect([model], [image], how)
        assert len(alone) == len(found) > 0
        assert torch.allclose(alone.boxes, found.boxes, atol=1e-3)


def test_fixed_bn_is_bn_in_evaluation_and_folds_into_the_convolution() -> None:
    layer = torch.nn.BatchNorm2d(4)
    layer(torch.randn(8, 4, 5, 5) * 3 + 1)
    torch.nn.init.uniform_(layer.weight)
    torch.nn.init.uniform_(layer.bias)
    x = torch.randn(2, 4, 6, 6)
    assert torch.allclose(Affine(layer)(x), layer.eval()(x), atol=1e-5)
    for name in ("cifar_resnet8", "resnet18"):
        model = detector(name).eval()
        fast = folded(model)
        assert not any(isinstance(module, Affine) for module in fast.modules())
        image = torch.randn(3, 64, 80)
        with torch.no_grad():
            slow_map, fast_map = model.maps([image])[0], fast.maps([image])[0]  # type: ignore[operator]
            assert torch.allclose(slow_map, fast_map, atol=1e-3 * float(slow_map.abs().max()))
            pooled = model.pool(slow_map, torch.tensor([[0.0, 0, 40, 40]]))
            slow, quick = model.describe(pooled), fast.describe(pooled)  # type: ignore[operator]
            assert torch.allclose(slow, quick, atol=1e-3 * float(slow.abs().max()))


@pytest.mark.parametrize(
    ("name", "channels", "width", "side"),
    [
        ("resnet18", 256, 512, 14),
        ("resnet50", 1024, 2048, 14),
        ("vgg16", 512, 4096, 7),
        ("plain18", 256, 512, 14),
    ],
)
def test_where_networks_are_cut(name: str, channels: int, width: int, side: int) -> None:
    with torch.device("meta"):
        backbone = cut(build_model(name))
        assert (backbone.channels, backbone.width, backbone.side, backbone.stride) == (
            channels,
            width,
            side,
            16,
        )
        assert backbone.shared(torch.empty(1, 3, 96, 64)).shape == (1, channels, 6, 4)
        assert backbone.describe(torch.empty(5, channels, side, side)).shape == (5, width)
        backbone.freeze(2)
    frozen = [p.shape[0] for p in backbone.parameters() if not p.requires_grad and p.ndim == 4]
    # VGG: conv1_1 to conv2_2. ResNet: conv1 and conv2_x.
    assert set(frozen) <= {64, 128, 256}
    assert len(frozen) == {"resnet18": 5, "resnet50": 11, "vgg16": 4, "plain18": 5}[name]


@pytest.mark.parametrize(("width", "height"), [(800, 600), (1000, 600), (640, 480), (801, 599), (100, 100)])
def test_regions_at_the_edge_are_pooled_from_the_map_alone(width: int, height: int) -> None:
    torch.manual_seed(0)
    backbone = cut(build_model("resnet18"))
    fix_batch_norm(backbone)
    model = FasterRCNN(backbone, 3, Preprocessing(torch.full((3,), 0.5)))
    # The map of ones has the size that the network gives; a bin beyond it would be zero.
    ones = torch.ones(1, 4, -(-height // 16), -(-width // 16))
    for x in (0.0, width - 100.0, width - 20.0, width - 1.0):
        for y in (0.0, height - 100.0, height - 20.0, height - 1.0):
            pooled = model.pool(ones, torch.tensor([[x, y, float(width), float(height)]]))
            assert torch.equal(pooled, torch.ones_like(pooled)), (x, y)


def test_the_last_pixel_of_a_region_is_its_corner_in_pooling() -> None:
    # As in the released code: x2 and y2 are the last pixel, which belongs to the region.
    model = detector()
    map = torch.rand(1, 2, 64, 64)
    box = torch.tensor([[7.0, 20, 61, 90]])
    last = torch.tensor([[7.0, 20, 60, 89]])
    assert torch.equal(model.pool(map, box), roi_pool(map, [last], model.side, 1 / model.backbone.stride))


def test_vggs_map_covers_the_whole_picture() -> None:
    backbone = cut(build_model("vgg16"))
    with torch.device("meta"):
        pictures = torch.empty(1, 3, 600, 810)
    assert backbone.to("meta").shared(pictures).shape == (1, 512, 38, 51)


@pytest.mark.parametrize("pooling", ["pool", "align"])
def test_regions_keep_their_place_in_bfloat16(pooling: str) -> None:
    model = detector(pooling=pooling)
    # Its numbers have eight binary digits: the column 257 would be 256 or 258.
    map = (torch.arange(512.0) % 64).expand(1, 1, 4, 512).bfloat16()
    place = model.backbone.stride * torch.tensor([[257.0, 0, 257 + model.side, 3]])
    exact = model.pool(map.float(), place)
    assert torch.equal(model.pool(map, place), exact.bfloat16())
    moved = model.pool(map.float(), place.bfloat16().float())
    assert not torch.equal(moved, exact), "the case does not show what it is for"


def test_outputs_of_zero_leave_a_region_as_it_is() -> None:
    regions = torch.tensor([[3.0, 4, 13, 24]])
    assert decode(torch.zeros(1, 2, 4), regions).tolist() == [[[3, 4, 13, 24]] * 2]


def test_the_size_that_the_network_sees() -> None:
    assert input_size(500, 375, 600, 1000, 16) == (800, 600)
    assert input_size(1000, 300, 600, 1000, 16) == (1000, 300)
    with pytest.raises(InputError, match="a picture of 10 x 4000 is too long"):
        input_size(10, 4000, 600, 1000, 16)


@pytest.fixture
def photo(tmp_path: Path) -> Photo:
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    boxes = torch.tensor([[8.0, 6, 20, 30], [0, 0, 40, 60], [40, 0, 80, 60]])
    flags = torch.tensor([False, True, False]), torch.tensor([False, False, True])
    return Photo("a", tmp_path / "a.png", (80, 60), boxes, torch.tensor([2, 1, 0]), *flags, torch.ones(3))


def test_boxes_follow_their_picture(photo: Photo) -> None:
    loaded = load(photo, lambda w, h: (w // 2, h // 2), mirrored=False, seed=1)
    assert loaded.image.shape == (3, 30, 40)
    # The difficult object is not learned; the crowd is neither object nor background.
    assert loaded.boxes.tolist() == [[4, 3, 10, 15]]
    assert loaded.labels.tolist() == [2]
    assert loaded.crowds.tolist() == [[20, 0, 40, 30]]
    mirrored = load(photo, lambda w, h: (w // 2, h // 2), mirrored=True, seed=1)
    assert mirrored.boxes.tolist() == [[30, 3, 36, 15]]


def test_batches_are_a_function_of_the_iteration_and_shared_by_ranks(photo: Photo) -> None:
    data = BoxDataset("made", ("a", "b", "c"), (photo,) * 6, (), (1, 2, 3))

    def batches(rank: int = 0, ranks: int = 1) -> PhotoBatches:
        return PhotoBatches(data, lambda w, h: (w, h), 4, True, 3, rank, ranks)

    whole = batches()
    first = [whole(iteration) for iteration in range(3)]
    again = batches()(2)
    assert [picture.seed for picture in again] == [picture.seed for picture in first[2]]
    shared = [picture for rank in range(2) for picture in batches(rank, 2)(1)]
    assert [p.boxes.tolist() for p in shared] == [p.boxes.tolist() for p in first[1]]
    assert [p.seed for p in shared] == [p.seed for p in first[1]]
    assert len({p.seed for part in first for p in part}) == 12
    assert len({p.boxes[0, 0].item() for part in first for p in part}) == 2


def test_what_learns_in_each_of_the_four_steps() -> None:
    model = AlternatingRCNN(detector().train())
    optimizer = SGD(model, 0.9, 5e-4, "paper")
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    changed = []
    for step in range(4):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        model.begin(step, True, optimizer)
        if step == 2:
            before = {name: p.detach().clone() for name, p in model.named_parameters()}
        losses = model([example(step), example(9, objects=2)])
        assert [bool(loss) for loss in losses] == (
            [True, True, False, False] if step in (0, 2) else [False, False, True, True]
        )
        losses.sum().backward()
        optimizer.step(0.1)
        changed.append({name for name, p in model.named_parameters() if not torch.equal(p, before[name])})
    proposal = {"proposal_head"}
    assert {name.split(".")[0] for name in changed[0]} == {"proposer"}
    assert {name.split(".")[1] for name in changed[0]} == {"backbone"} | proposal
    assert not any("layer3" in name or "layer1" in name for name in changed[0])
    assert {name.split(".")[0] for name in changed[1]} == {"detector"}
    assert {name.split(".")[1] for name in changed[1]} == {"backbone", "score", "box"}
    assert {name.split(".")[1] for name in changed[2]} == proposal
    assert {name.split(".")[1] for name in changed[3]} == {"backbone", "score", "box"}
    assert all("layer3" in name for name in changed[3] if "backbone" in name)
    # The second network starts where the first one did.
    name = "backbone.network.layer2.0.conv1.weight"
    assert torch.equal(start[f"detector.{name}"], start[f"proposer.{name}"])


def test_each_of_the_four_steps_runs_through_the_schedule() -> None:
    schedule = Schedule(iterations=16, learning_rate=0.5, drops=(0.75,))
    assert [alternating_rate(schedule, i) for i in range(16)] == [0.5, 0.5, 0.5, 0.05] * 4
    assert [step_of(i, 10)[0] for i in range(10)] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
