"""Every network keeps one contract; networks by name."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from residual.errors import InputError
from residual.models import SINGLE, Classifier, build_model, last_layer, prelu_net, vgg
from residual.models.blocks import Block
from residual.models.classifier import StagedNetwork

CLASSES = 7


@dataclass
class Case:
    name: str
    options: dict[str, Any]
    model: Classifier

    def build(self) -> Classifier:
        return build_model(self.name, classes=CLASSES, **self.options)

    def maps(self, height: int, width: int) -> dict[str, tuple[int, int, int]]:
        """The shape (C, h, w) of each stage's output that Table 1, Section 4.2 or [40] gives."""
        bottleneck = self.name in ("resnet50", "resnet101")
        if self.name.startswith("vgg"):
            channels, halvings = [64, 128, 256, 512, 512], [0, 1, 2, 3, 4]
            up = self.options.get("pool") == "caffe"
            return {
                f"conv{i + 1}_x": (c, *(-(-side // 2**n) if up else side >> n for side in (height, width)))
                for i, (c, n) in enumerate(zip(channels, halvings, strict=True))
            }
        if self.name.startswith("cifar_highway"):
            widths = (32, 80, 128) if self.name.endswith("19") else (30, 64, 96)
            channels = [widths[0], *widths, 100]
            return {
                name: (c, height >> n, width >> n)
                for name, c, n in zip(
                    ["conv1", "conv2_x", "conv3_x", "conv4_x", "conv5"],
                    channels,
                    [0, 0, 1, 2, 2],
                    strict=True,
                )
            }
        if self.name in MAPS:
            return {name: (c, side(height), side(width)) for name, (c, side) in MAPS[self.name].items()}
        if self.name.startswith("cifar"):
            channels, halvings = [16, 16, 32, 64], [0, 0, 1, 2]
        else:
            channels, halvings = (
                [64, *(c * (4 if bottleneck else 1) for c in (64, 128, 256, 512))],
                [1, 2, 3, 4, 5],
            )
        names = ["conv1", *(f"conv{i}_x" for i in range(2, 6))]

        def halved(side: int, n: int) -> int:
            if n > 1 and self.options.get("pool") == "caffe":
                # Windows of 3 without padding: a last one that begins at the edge would see nothing new.
                return math.ceil(math.ceil(side / 2) // 2 / 2 ** (n - 2))
            return math.ceil(side / 2**n)

        return {
            name: (c, halved(height, n), halved(width, n))
            for name, c, n in zip(names, channels, halvings, strict=False)
        }

    def sizes(self) -> list[tuple[int, int]]:
        if self.name.startswith("vgg"):
            return [(32, 48), (33, 75)]
        return [(32, 32), (13, 18)] if self.name.startswith("cifar") else [(64, 32), (33, 75)]

    def images(self, number: int) -> Tensor:
        return torch.randn(number, 3, *self.sizes()[0])


def _after(side: int, growth: int, window: int) -> int:
    """A map's side after a layer that makes it grow, and pooling at stride 2 that reaches over the edge."""
    return max(1, math.ceil((side + growth - window) / 2) + 1)


def _maxout(side: int, layers: int) -> int:
    for growth, window in ((1, 4), (-1, 4), (2, 2))[:layers]:
        side = _after(side, growth, window)
    return side


NIN: dict[str, tuple[int, Callable[[int], int]]] = {
    "mlpconv1": (96, lambda side: side),
    "mlpconv2": (192, lambda side: _after(side, 0, 3)),
    "mlpconv3": (192, lambda side: _after(_after(side, 0, 3), 0, 3)),
}
#: Of the paper's rivals: a stage's channels, and the side of its map by that of the images.
MAPS: dict[str, dict[str, tuple[int, Callable[[int], int]]]] = {
    "cifar_nin": NIN,
    "cifar_dsn": NIN,
    "cifar_maxout": {
        "layer1": (96, lambda side: _maxout(side, 1)),
        "layer2": (192, lambda side: _maxout(side, 2)),
        "layer3": (192, lambda side: _maxout(side, 3)),
    },
    "cifar_fitnet19": {
        "layer1": (48, lambda side: side),
        "layer2": (80, lambda side: side // 2),
        "layer3": (128, lambda side: side // 4),
    },
}
HALF: list[Callable[[int], int]] = [
    lambda side: math.ceil(side / 2),
    lambda side: math.ceil(side / 2) // 2,
    lambda side: math.ceil(side / 2) // 4,
    lambda side: math.ceil(side / 2) // 8,
    lambda side: max(1, math.ceil(side / 2) // 16),
]
MAPS |= {
    **{
        name: dict(
            zip(
                ("conv1", "conv2", "inception3", "inception4", "inception5"),
                zip((64, 192, 480, 832, 1024), HALF, strict=True),
                strict=True,
            )
        )
        for name in ("googlenet", "googlenet_bn")
    },
    "bn_inception": {
        "conv1": (64, HALF[0]),
        "conv2": (192, HALF[1]),
        # 3a and 3b on maps half as large, and 3c halves those.
        "inception3": (576, lambda side: math.ceil(HALF[2](side) / 2)),
        "inception4": (1056, lambda side: math.ceil(HALF[2](side) / 4)),
        "inception5": (1024, lambda side: math.ceil(HALF[2](side) / 4)),
    },
    "prelu_net": {
        f"conv{number}": (channels, half)
        for number, channels, half in zip((1, 2, 3, 4), (96, 256, 512, 512), HALF[:4], strict=True)
    },
}
#: Networks with layers side by side, which a depth does not count.
INCEPTION = ("googlenet", "googlenet_bn", "bn_inception")
#: Networks that see the whole map at once, so that images of these sizes give one position of scores.
WHOLE = ("vgg16", "vgg19", "cifar_maxout", "cifar_fitnet19", "prelu_net")

CASES: list[tuple[str, dict[str, Any]]] = [
    *(("cifar_resnet20", {"shortcut": shortcut}) for shortcut in "ABC"),
    ("cifar_resnet32", {}),
    ("cifar_resnet56", {}),
    ("cifar_plain20", {}),
    ("cifar_highway19", {}),
    ("cifar_highway32", {}),
    *((name, {}) for name in ("cifar_nin", "cifar_dsn", "cifar_maxout", "cifar_fitnet19")),
    *(("resnet18", {"shortcut": shortcut}) for shortcut in "AC"),
    *(("resnet34", {"shortcut": shortcut}) for shortcut in "AB"),
    *(("resnet50", {"shortcut": shortcut}) for shortcut in "BC"),
    ("resnet50", {"variant": "v1.5"}),
    ("resnet50", {"pool": "caffe"}),
    ("resnet101", {}),
    ("plain18", {}),
    ("plain34", {}),
    ("vgg16", {}),
    ("vgg19", {}),
    ("vgg16", {"pool": "caffe"}),
    *((name, {}) for name in (*INCEPTION, "prelu_net")),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join([case[0], *case[1].values()]))
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """One network for all tests of the contract, freed before the next is built."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        # Half a gigabyte of fully connected layers shows nothing that narrow ones do not.
        for network in (prelu_net, vgg):
            patch.setattr(network, "UNITS", 64)
        yield made(*request.param)


def made(name: str, options: dict[str, Any]) -> Case:
    model = build_model(name, classes=CLASSES, **options)
    case = Case(name, options, model)
    # Biases and BN's statistics are no longer those of a new network, so that losing them shows.
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.normal_(std=0.1)
        model(case.images(4))
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
            # VGG's fully connected layers need 7x7 positions, so these images give them one.
            last = (1, 1) if case.name in WHOLE else list(expected.values())[-1][1:]
            assert score_map.shape == (2, CLASSES, *last)
            scale = scores.abs().max().item()
            torch.testing.assert_close(score_map.mean(dim=(2, 3)), scores, rtol=0, atol=1e-5 * scale)
            assert torch.equal(x, given)

    def test_gradients_reach_every_parameter(self, case: Case) -> None:
        case.model.train()
        (case.model(case.images(4)) * torch.randn(4, CLASSES)).sum().backward()
        for name, parameter in case.model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
        case.model.zero_grad()
        case.model.eval()

    def test_state_dict_round_trip(self, case: Case) -> None:
        other = case.build().eval()
        x = case.images(2)
        with torch.no_grad():
            assert not torch.equal(other(x), case.model(x))
            other.load_state_dict(case.model.state_dict())
            assert torch.equal(other(x), case.model(x))

    def test_depth_is_the_one_in_the_name(self, case: Case) -> None:
        layers = [
            name
            for name, module in case.model.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear) and "downsample" not in name and "gate" not in name
        ]
        if case.name in INCEPTION:
            return
        assert case.model.depth == len(layers)
        assert re.fullmatch(rf"[a-z_]+{len(layers)}", case.name) or case.name in MAPS


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cifar_resnet20", {}),
        ("cifar_plain20", {}),
        ("cifar_nin", {}),
        ("resnet50", {"shortcut": "C"}),
        ("vgg16", {}),
    ],
)
def test_he_initialisation(name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """N(0, 2/fan_in) [12]: mean and deviation of each layer within five standard errors."""
    monkeypatch.setattr(vgg, "UNITS", 64)
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


@pytest.mark.parametrize("name", ["cifar_resnet14", "resnet18", "resnet50", "googlenet", "bn_inception"])
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


@pytest.mark.parametrize(
    "name",
    [
        "cifar_resnet8",
        "cifar_plain14",
        "cifar_highway32",
        "cifar_nin",
        "cifar_maxout",
        "cifar_fitnet19",
        "googlenet",
        "bn_inception",
        "prelu_net",
        "resnet18",
        "plain18",
        "resnet50",
        "vgg16",
    ],
)
@pytest.mark.parametrize(("classes", "in_channels"), [(1, 1), (1001, 5)])
def test_any_number_of_classes_and_channels(name: str, classes: int, in_channels: int) -> None:
    with torch.device("meta"):
        model = build_model(name, classes=classes, in_channels=in_channels)
        assert (model.classes, model.in_channels) == (classes, in_channels)
        assert model(torch.empty(2, in_channels, 64, 64)).shape == (2, classes)


@pytest.mark.parametrize("name", SINGLE)
def test_the_last_layer_is_the_one_that_starts_anew_for_other_classes(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name, classes=CLASSES)
    last = model.get_submodule(last_layer(model))
    assert isinstance(last, nn.Linear | nn.Conv2d)
    assert len(last.weight) == CLASSES


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


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cifar_resnet20", {}),
        ("cifar_resnet20", {"shortcut": "B"}),
        ("cifar_plain20", {}),
        ("resnet18", {"shortcut": "A"}),
        ("resnet50", {}),
    ],
)
def test_gradients_stay_in_channels_last_format(name: str, options: dict[str, Any]) -> None:
    """A gradient in another format costs every operation after it a slow path: a fifth of a step."""
    torch.manual_seed(0)
    model = build_model(name, classes=CLASSES, **options).to(memory_format=torch.channels_last)
    gradients: list[Tensor] = []

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        output.register_hook(gradients.append)

    blocks = [module for module in model.modules() if isinstance(module, Block)]
    for block in blocks:
        block.register_forward_hook(watch)
    model(torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)).sum().backward()
    assert len(gradients) == len(blocks)
    assert all(g.is_contiguous(memory_format=torch.channels_last) for g in gradients)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet_50", {}, ["resnet_50", "did you mean", "resnet50"]),
        ("alexnet", {}, ["alexnet", "resnet"]),
        ("cifar_fitnet20", {}, ["cifar_fitnet20", "did you mean cifar_fitnet19"]),
        ("cifar_nin", {"pool": "caffe"}, ["cifar_nin has no option 'pool'"]),
        ("vgg", {}, ["vgg16"]),
        ("resnet51", {}, ["resnet51", "18, 34, 50, 101 or 152"]),
        ("plain50", {}, ["plain50", "18 or 34"]),
        ("vgg11", {}, ["vgg11", "16 or 19"]),
        ("cifar_highway20", {}, ["cifar_highway20", "19 or 32"]),
        ("cifar_highway19", {"shortcut": "A"}, ["cifar_highway19 has no option 'shortcut'"]),
        ("cifar_highway19", {"gate_bias": 1}, ["gate_bias is a number of at most 0, not 1"]),
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
        ("resnet50", {"pool": "max"}, ["torchvision, caffe", "'max'"]),
        ("cifar_resnet20", {"pool": "caffe"}, ["cifar_resnet20 has no option 'pool'"]),
        ("resnet18", {"classes": 0}, ["classes", "at least 1", "0"]),
        ("resnet18", {"classes": 2.5}, ["classes", "whole number", "2.5"]),
        ("vgg16", {"in_channels": "3"}, ["in_channels", "whole number", "'3'"]),
    ],
)
def test_wrong_input(name: str, options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        build_model(name, **options)
    assert all(word in str(error.value) for word in words), error.value
