"""Every network keeps one contract, and every equation of Section 3 holds in numbers."""

import doctest
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from residual.errors import InputError
from residual.models import Classifier, blocks, build_model
from residual.models.blocks import BasicBlock, Block, BottleneckBlock, Residual, ZeroPadShortcut
from residual.models.classifier import StagedNetwork

CLASSES = 7


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The networks here are small: threads that wait for each other on a busy machine cost minutes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass
class Case:
    name: str
    options: dict[str, Any]
    model: Classifier

    def build(self) -> Classifier:
        return build_model(self.name, classes=CLASSES, **self.options)

    def maps(self, height: int, width: int) -> dict[str, tuple[int, int, int]]:
        """The shape (C, h, w) of each stage's output that Table 1, Section 4.2 or [40] gives."""
        bottleneck = self.name in ("resnet50", "resnet101", "resnet152")
        if self.name.startswith("vgg"):
            channels, halvings = [64, 128, 256, 512, 512], [0, 1, 2, 3, 4]
            return {
                f"conv{i + 1}_x": (c, height >> n, width >> n)
                for i, (c, n) in enumerate(zip(channels, halvings, strict=True))
            }
        if self.name.startswith("cifar"):
            channels, halvings = [16, 16, 32, 64], [0, 0, 1, 2]
        else:
            channels, halvings = (
                [64, *(c * (4 if bottleneck else 1) for c in (64, 128, 256, 512))],
                [1, 2, 3, 4, 5],
            )
        names = ["conv1", *(f"conv{i}_x" for i in range(2, 6))]
        return {
            name: (c, math.ceil(height / 2**n), math.ceil(width / 2**n))
            for name, c, n in zip(names, channels, halvings, strict=False)
        }

    def sizes(self) -> list[tuple[int, int]]:
        if self.name.startswith("vgg"):
            return [(32, 48), (33, 75)]
        return [(32, 32), (13, 18)] if self.name.startswith("cifar") else [(64, 32), (33, 75)]

    def pictures(self, number: int) -> Tensor:
        return torch.randn(number, 3, *self.sizes()[0])


CASES: list[tuple[str, dict[str, Any]]] = [
    *(("cifar_resnet20", {"shortcut": shortcut}) for shortcut in "ABC"),
    ("cifar_resnet32", {}),
    ("cifar_resnet56", {}),
    ("cifar_plain20", {}),
    *(("resnet18", {"shortcut": shortcut}) for shortcut in "AC"),
    *(("resnet34", {"shortcut": shortcut}) for shortcut in "AB"),
    *(("resnet50", {"shortcut": shortcut}) for shortcut in "BC"),
    ("resnet50", {"variant": "v1.5"}),
    ("resnet101", {}),
    ("resnet152", {}),
    ("plain18", {}),
    ("plain34", {}),
    ("vgg16", {}),
    ("vgg19", {}),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join([case[0], *case[1].values()]))
def case(request: pytest.FixtureRequest) -> Case:
    """One network for all tests of the contract, freed before the next is built."""
    torch.manual_seed(0)
    name, options = request.param
    model = build_model(name, classes=CLASSES, **options)
    case = Case(name, options, model)
    # Biases and BN's statistics are no longer those of a new network, so that losing them shows.
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.normal_(std=0.1)
        model(case.pictures(4))
    model.eval()
    return case


class TestContract:
    def test_shapes(self, case: Case) -> None:
        for height, width in case.sizes():
            x = torch.randn(2, 3, height, width)
            given = x.clone()
            with torch.no_grad():
                features, scores, score_map = case.model.features(x), case.model(x), case.model.score_map(x)
            expected = case.maps(height, width)
            assert {name: tuple(output.shape[1:]) for name, output in features.items()} == expected
            assert list(features) == list(expected)
            assert scores.shape == (2, CLASSES)
            # VGG's fully connected layers need 7x7 positions, so these pictures give them one.
            last = (1, 1) if case.name.startswith("vgg") else list(expected.values())[-1][1:]
            assert score_map.shape == (2, CLASSES, *last)
            scale = scores.abs().max().item()
            torch.testing.assert_close(score_map.mean(dim=(2, 3)), scores, rtol=0, atol=1e-5 * scale)
            assert torch.equal(x, given)

    def test_gradients_reach_every_parameter(self, case: Case) -> None:
        case.model.train()
        (case.model(case.pictures(4)) * torch.randn(4, CLASSES)).sum().backward()
        for name, parameter in case.model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
        case.model.zero_grad()
        case.model.eval()

    def test_state_dict_round_trip(self, case: Case) -> None:
        other = case.build().eval()
        x = case.pictures(2)
        with torch.no_grad():
            assert not torch.equal(other(x), case.model(x))
            other.load_state_dict(case.model.state_dict())
            assert torch.equal(other(x), case.model(x))

    def test_depth_is_the_one_in_the_name(self, case: Case) -> None:
        layers = [
            name
            for name, module in case.model.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear) and "downsample" not in name
        ]
        assert re.fullmatch(rf"[a-z_]+{len(layers)}", case.name)


@pytest.mark.parametrize(
    ("name", "options"),
    [("cifar_resnet20", {}), ("cifar_plain20", {}), ("resnet50", {"shortcut": "C"}), ("vgg16", {})],
)
def test_he_initialisation(name: str, options: dict[str, Any]) -> None:
    """N(0, 2/fan_in) [12]: mean and deviation of each layer within five standard errors."""
    torch.manual_seed(0)
    for layer, module in build_model(name, **options).named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight.detach()
            number = weight.numel()
            deviation = math.sqrt(2 / weight[0].numel())
            assert abs(weight.mean().item()) < 5 * deviation / math.sqrt(number), layer
            assert abs(weight.std().item() / deviation - 1) < 5 / math.sqrt(2 * number), layer
            assert module.bias is None or not module.bias.any(), layer
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.eq(1).all(), layer
            assert not module.bias.any(), layer


@pytest.mark.parametrize("name", ["cifar_resnet14", "resnet18", "resnet50"])
@torch.no_grad()
def test_later_stages_leave_earlier_maps_alone(name: str) -> None:
    """Blocks work in place; the maps that ``features`` gives must be those that the stages gave."""
    model = build_model(name).eval()
    assert isinstance(model, StagedNetwork)
    x = torch.randn(2, 3, 32, 32)
    features = model.features(x)
    x = model.stem(x)
    assert torch.equal(features["conv1"], x)
    for stage_name, stage in model.stages().items():
        x = stage(x.clone())
        assert torch.equal(features[stage_name], x)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16"])
def test_torchvisions_weights_give_torchvisions_outputs(name: str) -> None:
    """The networks are torchvision's (bottlenecks in variant v1.5), by parameter names and in numbers."""
    theirs = getattr(torchvision.models, name)(num_classes=CLASSES).eval()
    with torch.device("meta"):
        ours = build_model(
            name, classes=CLASSES, **({"variant": "v1.5"} if name == "resnet50" else {})
        ).eval()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    x = torch.randn(2, 3, 70, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_vgg_moves_its_classifier_over_a_larger_map() -> None:
    """On last maps of 7x7 (224 x 224 pictures) and more, without the cost of the convolutions before them."""
    torch.manual_seed(0)
    model = build_model("vgg16", classes=CLASSES).eval()
    model.convolutions = nn.Identity()
    maps = torch.randn(2, 512, 8, 9)
    score_map = model.score_map(maps)
    assert score_map.shape == (2, CLASSES, 2, 3)
    for row in range(2):
        for column in range(3):
            window = maps[:, :, row : row + 7, column : column + 7]
            torch.testing.assert_close(score_map[:, :, row, column], model(window), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["cifar_resnet8", "cifar_plain14", "resnet18", "plain18", "resnet50", "vgg16"]
)
@pytest.mark.parametrize(("classes", "in_channels"), [(1, 1), (1001, 5)])
def test_any_number_of_classes_and_channels(name: str, classes: int, in_channels: int) -> None:
    with torch.device("meta"):
        model = build_model(name, classes=classes, in_channels=in_channels)
        assert (model.classes, model.in_channels) == (classes, in_channels)
        assert model(torch.empty(2, in_channels, 64, 64)).shape == (2, classes)


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_plain20"])
def test_channels_last_gives_the_same_scores(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name).eval()
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        scores = model(x)
        model.to(memory_format=torch.channels_last)
        maps = model.features(x.contiguous(memory_format=torch.channels_last))
        assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps.values())
        torch.testing.assert_close(
            model(x.contiguous(memory_format=torch.channels_last)), scores, rtol=1e-4, atol=1e-4
        )


def slow_shortcut_a(x: Tensor, channels: int, stride: int) -> Tensor:
    """Option A position by position: every ``stride``-th one, zero channels before and after."""
    n, before = x.shape[0], (channels - x.shape[1]) // 2
    height, width = math.ceil(x.shape[2] / stride), math.ceil(x.shape[3] / stride)
    y = torch.zeros(n, channels, height, width)
    for c in range(x.shape[1]):
        for row in range(height):
            for column in range(width):
                y[:, before + c, row, column] = x[:, c, row * stride, column * stride]
    return y


@pytest.mark.parametrize(("channels", "stride"), [(8, 2), (7, 2), (8, 1), (4, 2), (12, 3)])
def test_zero_pad_shortcut(channels: int, stride: int) -> None:
    shortcut = ZeroPadShortcut(4, channels, stride)
    x = torch.randn(2, 4, 7, 10)
    assert torch.equal(shortcut(x), slow_shortcut_a(x, channels, stride))
    assert not list(shortcut.parameters())


def randomised(block: Block) -> Block:
    """Give BN scales and shifts other than 1 and 0, and statistics other than a new network's."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                assert values is not None
                nn.init.uniform_(values, 0.5, 1.5)
    return block.eval()


@pytest.mark.parametrize("kind", [BasicBlock, BottleneckBlock])
@pytest.mark.parametrize(("in_channels", "stride"), [(8, 1), (8, 2), (4, 2), (4, 1)])
@torch.no_grad()
def test_plain_is_residual_without_the_shortcut(kind: type[Block], in_channels: int, stride: int) -> None:
    """Equation (1) with option A, against the plain block with the same weights."""
    torch.manual_seed(0)
    width = 8 // kind.expansion
    residual = randomised(kind(in_channels, width, stride, "A"))
    plain = kind(in_channels, width, stride, None).eval()
    plain.load_state_dict(residual.state_dict())
    x = torch.randn(2, in_channels, 7, 6)
    given = x.clone()
    shortcut = slow_shortcut_a(x, 8, stride)
    torch.testing.assert_close(residual(x), F.relu(plain.function(x) + shortcut))
    torch.testing.assert_close(plain(x), F.relu(plain.function(x)))
    assert torch.equal(x, given)


@pytest.mark.parametrize(
    ("option", "in_channels", "stride"), [("B", 4, 2), ("B", 8, 2), ("B", 4, 1), ("C", 8, 1), ("C", 4, 2)]
)
@pytest.mark.parametrize("kind", [BasicBlock, BottleneckBlock])
@torch.no_grad()
def test_projection(kind: type[Block], option: Any, in_channels: int, stride: int) -> None:
    """Equation (2): a matrix over channels at every ``stride``-th position, then BN."""
    torch.manual_seed(0)
    block = randomised(kind(in_channels, 8 // kind.expansion, stride, option))
    x = torch.randn(2, in_channels, 7, 6)
    projection, bn = block.downsample
    projected = torch.einsum("oc,nchw->nohw", projection.weight[:, :, 0, 0], x[:, :, ::stride, ::stride])
    mean, var, scale, shift = (
        v[:, None, None] for v in (bn.running_mean, bn.running_var, bn.weight, bn.bias)
    )
    shortcut = (projected - mean) / torch.sqrt(var + bn.eps) * scale + shift
    torch.testing.assert_close(block(x), F.relu(block.function(x) + shortcut))


def projections(name: str, **options: Any) -> list[str]:
    """The blocks of a network whose shortcut has parameters."""
    with torch.device("meta"):
        names = build_model(name, **options).state_dict()
    return [key.removesuffix(".downsample.0.weight") for key in names if key.endswith(".downsample.0.weight")]


def test_where_projections_are() -> None:
    every = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    assert projections("resnet18", shortcut="A") == projections("plain18") == []
    assert projections("resnet18") == projections("resnet18", shortcut="B") == every[2::2]
    assert projections("resnet18", shortcut="C") == every
    # conv2_1 of a bottleneck network increases dimensions too: 64 to 256.
    assert projections("resnet50") == every[::2]
    assert projections("cifar_resnet14") == projections("cifar_plain14") == []
    assert projections("cifar_resnet14", shortcut="B") == every[2:6:2]
    assert projections("cifar_resnet14", shortcut="C") == every[:6]


@pytest.mark.parametrize(
    ("plain", "residual"),
    [("cifar_plain20", "cifar_resnet20"), ("plain18", "resnet18"), ("plain34", "resnet34")],
)
def test_plain_networks_have_the_weights_of_option_a(plain: str, residual: str) -> None:
    with torch.device("meta"):
        a, b = build_model(plain), build_model(residual, shortcut="A")
    shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (a, b)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnet152"])
def test_variant_moves_the_stride(name: str) -> None:
    with torch.device("meta"):
        v1, later = build_model(name), build_model(name, variant="v1.5")
    for stage in ("layer2", "layer3", "layer4"):
        first, moved = getattr(v1, stage), getattr(later, stage)
        assert [conv.stride for conv in (first[0].conv1, first[0].conv2, first[0].conv3)] == [
            (2, 2),
            (1, 1),
            (1, 1),
        ]
        assert [conv.stride for conv in (moved[0].conv1, moved[0].conv2, moved[0].conv3)] == [
            (1, 1),
            (2, 2),
            (1, 1),
        ]
    strided = [
        m for model in (v1, later) for m in model.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)
    ]
    # conv1, and in each of three stages one layer and its projection; twice.
    assert len(strided) == 2 * (1 + 3 * 2)


@torch.no_grad()
def test_residual_around_fully_connected_layers() -> None:
    """Equations (1) and (2) as Section 3.2 writes them, F = W2 relu(W1 x)."""
    torch.manual_seed(0)
    x = torch.randn(5, 6)

    def mapping(out: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(6, 9, bias=False), nn.ReLU(), nn.Linear(9, out, bias=False))

    same, wider, projection = mapping(6), mapping(8), nn.Linear(6, 8, bias=False)
    f_same, f_wider = ((x @ f[0].weight.T).clamp(min=0) @ f[2].weight.T for f in (same, wider))
    torch.testing.assert_close(Residual(same)(x), (f_same + x).clamp(min=0))
    torch.testing.assert_close(Residual(same, activation=nn.Identity())(x), f_same + x)
    projected = (f_wider + x @ projection.weight.T).clamp(min=0)
    torch.testing.assert_close(Residual(wider, projection)(x), projected)


# The second pair could be broadcast.
@pytest.mark.parametrize(("function", "shape"), [(nn.Linear(6, 8), "(5, 8)"), (nn.Linear(6, 1), "(5, 1)")])
def test_residual_refuses_other_shapes(function: nn.Module, shape: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"gives shape {shape} and the shortcut (5, 6)")):
        Residual(function)(torch.randn(5, 6))


def test_the_example_in_the_docstring() -> None:
    outcome = doctest.testmod(blocks)
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet_50", {}, ["resnet_50", "did you mean", "resnet50"]),
        ("alexnet", {}, ["alexnet", "resnet"]),
        ("vgg", {}, ["vgg16"]),
        ("resnet51", {}, ["resnet51", "18, 34, 50, 101 or 152"]),
        ("plain50", {}, ["plain50", "18 or 34"]),
        ("vgg11", {}, ["vgg11", "16 or 19"]),
        ("cifar_resnet21", {}, ["6n+2", "cifar_resnet20 and cifar_resnet26"]),
        ("cifar_plain2", {}, ["6n+2", "cifar_plain8"]),
        ("plain18", {"shortcut": "A"}, ["plain18 has no option 'shortcut'"]),
        ("plain18", {"variant": "v1"}, ["plain18 has no option 'variant'"]),
        ("cifar_plain20", {"shortcut": "B"}, ["cifar_plain20 has no option 'shortcut'"]),
        ("cifar_resnet20", {"variant": "v1"}, ["cifar_resnet20 has no option 'variant'"]),
        ("vgg16", {"depth": 19}, ["vgg16 has no option 'depth'"]),
        ("resnet18", {"clases": 3}, ["'clases'; did you mean classes"]),
        ("resnet18", {"shortcut": "D"}, ["A, B, C", "'D'"]),
        ("resnet18", {"shortcut": None}, ["A, B, C", "None"]),
        ("resnet50", {"variant": "v2"}, ["v1, v1.5", "'v2'"]),
        ("resnet18", {"classes": 0}, ["classes", "at least 1", "0"]),
        ("resnet18", {"classes": 2.5}, ["classes", "whole number", "2.5"]),
        ("vgg16", {"in_channels": "3"}, ["in_channels", "whole number", "'3'"]),
    ],
)
def test_wrong_input(name: str, options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        build_model(name, **options)
    assert all(word in str(error.value) for word in words), error.value
