"""The counts of the paper's networks: known numbers, the paper's own, and a network counted by hand."""

import json
import re
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any

import pytest
import torch
import torchvision

from residual.analysis.complexity import Complexity, complexity, default_input_size, headings, rows, to_json
from residual.device import packs_weights
from residual.errors import InputError
from residual.models import SINGLE, build_model, model_names
from residual.models.inference import for_inference

#: Parameters as torchvision's documentation and the public CIFAR-10 networks give them.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "cifar_resnet20": 269_722,
    "cifar_resnet32": 464_154,
    "cifar_resnet44": 658_586,
    "cifar_resnet56": 853_018,
    "cifar_resnet110": 1_727_962,
    "cifar_resnet1202": 19_421_274,
    # By the files and the description of their authors, layer by layer.
    "cifar_highway19": 2_256_838,
    "cifar_highway32": 1_253_090,
    "cifar_nin": 966_986,
    "cifar_dsn": 966_986,
    "cifar_maxout": 16_247_830,
    "cifar_fitnet19": 2_742_102,
    "googlenet": 6_998_552,
    "googlenet_bn": 6_624_904,
    "bn_inception": 11_285_224,
    "prelu_net": 178_032_072,
}

#: Layers of networks that have some side by side: three before the modules, one after them. GoogLeNet's have
#: six each; BN-Inception's seven, or five where the map is halved.
SIDE_BY_SIDE = {"googlenet": 3 + 9 * 6 + 1, "googlenet_bn": 58, "bn_inception": 3 + 8 * 7 + 2 * 5 + 1}

#: Multiply-adds (10^9) as printed: Table 1, Figure 3, and Section 4.1 for VGG.
PRINTED_MULTIPLY_ADDS = {
    "resnet18": "1.8",
    "resnet34": "3.6",
    "plain34": "3.6",
    "resnet50": "3.8",
    "resnet101": "7.6",
    "resnet152": "11.3",
    "vgg19": "19.6",
    # As [12] gives model A, cut off.
    "prelu_net": "19.0",
}

#: Parameters (10^6) as printed in Table 6, of NIN and PReLU-net A in their own descriptions.
PRINTED_PARAMETERS = {
    "cifar_nin": "0.97",
    "prelu_net": "178",
    "cifar_highway19": "2.3",
    "cifar_highway32": "1.25",
    "cifar_resnet20": "0.27",
    "cifar_resnet32": "0.46",
    "cifar_resnet44": "0.66",
    "cifar_resnet56": "0.85",
    "cifar_resnet110": "1.7",
    "cifar_resnet1202": "19.4",
}


def count(name: str, **options: Any) -> Complexity:
    # Random weights of VGG would take seconds; the deepest networks are faster with them than without.
    with torch.device("cpu" if name.startswith("cifar_") else "meta"):
        model = build_model(name, **options)
    return complexity(model, default_input_size(name, options.get("in_channels", 3)))


def agrees(exact: int, unit: int, printed: str) -> bool:
    """Whether the printed number is the exact one, rounded or cut off: the paper does both."""
    number, places = Decimal(exact) / unit, Decimal(printed)
    return places in {number.quantize(places, rounding) for rounding in (ROUND_HALF_UP, ROUND_DOWN)}


@pytest.mark.parametrize("name", [name for name in model_names() if name != "cifar_plain1202"])
def test_networks_of_the_paper(name: str) -> None:
    counted = count(name)
    assert re.fullmatch(rf"[a-z_]+{counted.layers}", name) or counted.layers == SIDE_BY_SIDE.get(
        name, SINGLE[name][0].depth
    )
    auxiliary = [key for key in ("aux1", "aux2") if name == "googlenet"]
    with torch.device("meta"):
        learned = {key: p.numel() for key, p in build_model(name).named_parameters()}
    assert counted.parameters == sum(
        number for key, number in learned.items() if key.partition(".")[0] not in auxiliary
    )
    # A plain network has the parameters of the residual one with option A, which adds none.
    if name.startswith("plain"):
        assert counted.parameters == count(name.replace("plain", "resnet"), shortcut="A").parameters
    else:
        assert counted.parameters == PARAMETERS[name.replace("plain", "resnet")]
    if name in PRINTED_MULTIPLY_ADDS:
        assert agrees(counted.multiply_adds, 10**9, PRINTED_MULTIPLY_ADDS[name])
    if name in PRINTED_PARAMETERS:
        assert agrees(counted.parameters, 10**6, PRINTED_PARAMETERS[name])


def test_vgg16_as_printed_leaves_out_the_fully_connected_layers() -> None:
    counted = count("vgg16")
    assert counted.multiply_adds == 15_470_264_320
    convolutions = sum(stage.multiply_adds for stage in counted.stages if stage.name.startswith("conv"))
    assert agrees(convolutions, 10**9, "15.3")
    assert not agrees(counted.multiply_adds, 10**9, "15.3")


def test_a_classifier_that_is_a_convolution_counts_at_every_position() -> None:
    """NIN by hand, on 32 x 32, 16 x 16 and 8 x 8 positions."""
    counted = count("cifar_nin")
    first = (3 * 25 * 192 + 192 * 160 + 160 * 96) * 32 * 32
    second = (96 * 25 * 192 + 192 * 192 + 192 * 192) * 16 * 16
    third = (192 * 9 * 192 + 192 * 192) * 8 * 8
    assert [stage.multiply_adds for stage in counted.stages] == [first, second, third, 192 * 10 * 8 * 8]
    assert counted.stages[-1].output_size == (10, 8, 8)


def test_variant_costs_multiply_adds_and_no_parameters() -> None:
    v1, later = count("resnet50"), count("resnet50", variant="v1.5")
    assert later.parameters == v1.parameters
    # In three stages the first 1x1 runs before the stride instead of after it; conv3_x stands for all.
    assert later.multiply_adds - v1.multiply_adds == 3 * 256 * 128 * (56 * 56 - 28 * 28)
    assert (v1.multiply_adds, later.multiply_adds) == (3_857_973_248, 4_089_184_256)


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vgg16", "vgg19"]
)
def test_parameters_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)(num_classes=7)
    assert count(name, classes=7).parameters == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_plain20", "resnet50", "vgg16"])
def test_stages_hold_every_parameter_once(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name)
    counted = complexity(model, default_input_size(name, 3))
    assert counted.parameters == sum(p.numel() for p in model.parameters())
    for total in ("layers", "parameters", "multiply_adds", "activations"):
        assert to_json(counted)[total] == sum(stage[total] for stage in to_json(counted)["stages"])


def test_stages_of_table_1() -> None:
    stages = count("resnet50").stages
    assert [(stage.name, stage.output_size, stage.layers) for stage in stages] == [
        ("conv1", (64, 112, 112), 1),
        ("conv2_x", (256, 56, 56), 9),
        ("conv3_x", (512, 28, 28), 12),
        ("conv4_x", (1024, 14, 14), 18),
        ("conv5_x", (2048, 7, 7), 9),
        ("fc", (1000, 1, 1), 1),
    ]


def test_stages_of_vgg() -> None:
    stages = count("vgg19", classes=10).stages
    assert [(stage.name, stage.output_size, stage.layers) for stage in stages] == [
        ("conv1_x", (64, 224, 224), 2),
        ("conv2_x", (128, 112, 112), 2),
        ("conv3_x", (256, 56, 56), 4),
        ("conv4_x", (512, 28, 28), 4),
        ("conv5_x", (512, 14, 14), 4),
        ("fc6", (4096, 1, 1), 1),
        ("fc7", (4096, 1, 1), 1),
        ("fc8", (10, 1, 1), 1),
    ]


def test_by_hand() -> None:
    """cifar_resnet8 with option B on 2 x 12 x 10: maps of 12 x 10, 6 x 5 and 3 x 3 (odd sides round up)."""
    counted = complexity(build_model("cifar_resnet8", shortcut="B", classes=5, in_channels=2), (2, 12, 10))
    kernel = 3 * 3
    expected = [
        # stage, layers, parameters (BN has two a channel), multiply-adds, activations
        ("conv1", 1, kernel * 2 * 16 + 2 * 16, kernel * 2 * 16 * 120, 16 * 120),
        ("conv2_x", 2, 2 * (kernel * 16 * 16 + 2 * 16), 2 * kernel * 16 * 16 * 120, 2 * 16 * 120),
        (
            "conv3_x",
            2,
            (kernel * 16 * 32 + 2 * 32) + (kernel * 32 * 32 + 2 * 32) + (16 * 32 + 2 * 32),
            (kernel * 16 * 32 + kernel * 32 * 32 + 16 * 32) * 30,
            3 * 32 * 30,
        ),
        (
            "conv4_x",
            2,
            (kernel * 32 * 64 + 2 * 64) + (kernel * 64 * 64 + 2 * 64) + (32 * 64 + 2 * 64),
            (kernel * 32 * 64 + kernel * 64 * 64 + 32 * 64) * 9,
            3 * 64 * 9,
        ),
        ("fc", 1, 64 * 5 + 5, 64 * 5, 5),
    ]
    assert [
        (stage.name, stage.layers, stage.parameters, stage.multiply_adds, stage.activations)
        for stage in counted.stages
    ] == expected


def test_the_model_is_left_as_it_is() -> None:
    model = build_model("cifar_resnet8").train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    # The last map is 1x1, which BN refuses in training mode.
    with torch.no_grad():
        first = complexity(model, (3, 4, 4))
    assert complexity(model, (3, 4, 4)) == first
    assert first.parameters == sum(p.numel() for p in model.parameters())
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(("name", "size"), [("vgg16", (3, 16, 224)), ("resnet18", (1, 64, 64))])
def test_impossible_images(name: str, size: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        model = build_model(name)
    with pytest.raises(InputError, match="cannot take images of " + " x ".join(map(str, size))):
        complexity(model, size)


def test_default_input_size() -> None:
    assert default_input_size("cifar_plain20", 1) == (1, 32, 32)
    assert default_input_size("plain18", 3) == (3, 224, 224)
    assert default_input_size("vgg16", 4) == (4, 224, 224)


def test_json_is_exact() -> None:
    written = json.loads(json.dumps(to_json(count("resnet18", shortcut="A"))))
    assert written["input_size"] == [3, 224, 224]
    assert written["multiply_adds"] == 1_794_805_760
    assert written["activations"] == 2_309_096
    assert written["stages"][-1] == {
        "name": "fc",
        "output_size": [1000, 1, 1],
        "layers": 1,
        "parameters": 513_000,
        "multiply_adds": 512_000,
        "activations": 1000,
    }


def test_rows_write_the_papers_units() -> None:
    counted = rows(count("resnet50"))
    assert headings() == ["stage", "output", "layers", "parameters", "multiply-adds", "activations"]
    assert [row[:2] for row in counted] == [
        ["conv1", "64 x 112 x 112"],
        ["conv2_x", "256 x 56 x 56"],
        ["conv3_x", "512 x 28 x 28"],
        ["conv4_x", "1024 x 14 x 14"],
        ["conv5_x", "2048 x 7 x 7"],
        ["fc", "1000 x 1 x 1"],
        ["total", ""],
    ]
    assert counted[-1][2:] == ["50", "25,557,032", "3.86 G", "10.59 M"]


@pytest.mark.skipif(not packs_weights(torch.float32), reason="this processor packs no weights")
def test_a_network_that_is_made_ready_is_not_counted_for_what_is_left_of_it() -> None:
    network = for_inference(build_model("cifar_resnet8"))
    with pytest.raises(
        InputError, match=r"count the one that residual\.models\.weights\.load_weights gives$"
    ):
        complexity(network, (3, 32, 32))
