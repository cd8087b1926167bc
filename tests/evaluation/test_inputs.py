"""The size and the channels of the images that a network was trained on."""

from pathlib import Path

import pytest
import torch
from conftest import pixels_of, random_pixels, save_network, sentence_of
from torchvision.transforms.v2.functional import to_pil_image

from residual import build_model
from residual.data import DATASETS, SIDES
from residual.data.digits import load_digits
from residual.evaluation.inputs import check_input, usual_size, with_channels
from residual.models.foreign import outline
from residual.models.weights import load_weights


@pytest.mark.parametrize(
    ("name", "mean", "expected"),
    [
        # Crops of 224 are cut from 256; the networks of Section 4.2 see whole images.
        ("resnet18", torch.zeros(3), (224, 256)),
        ("resnet18", torch.zeros(3, 112, 112), (112, 128)),
        ("cifar_resnet8", torch.zeros(3), (32, 32)),
        ("cifar_resnet8", torch.zeros(3, 32, 32), (32, 32)),
        ("cifar_resnet8", torch.zeros(1, 8, 8), (8, 8)),
        ("cifar_resnet8", torch.zeros(3, 24, 48), (24, 24)),
    ],
)
def test_the_usual_size(name: str, mean: torch.Tensor, expected: tuple[int, int], tmp_path: Path) -> None:
    assert usual_size(load_weights(save_network(tmp_path / "w", name, mean=mean))) == expected


def test_the_usual_size_of_a_run_on_a_folder_is_its_recipes(trained_on_images: Path) -> None:
    assert usual_size(load_weights(trained_on_images)) == (32, 37)


@pytest.mark.parametrize(("dataset", "side"), [("cifar10", 32), ("digits", 8)])
@pytest.mark.parametrize("name", ["resnet18", "cifar_resnet8"])
def test_a_dataset_in_memory_is_looked_at_whole(name: str, dataset: str, side: int, tmp_path: Path) -> None:
    weights = load_weights(save_network(tmp_path / "w", name, mean=torch.zeros(3)))
    weights.config["recipe"] = {"data": {"dataset": dataset, "folder": None}}
    assert usual_size(weights) == (side, side)


def test_the_sides_of_datasets_are_those_of_their_images() -> None:
    assert load_digits("test").shape == (1, SIDES["digits"], SIDES["digits"])
    assert DATASETS == ("digits", "cifar10")


def test_channels() -> None:
    images = random_pixels(2, 3, 4, 5)
    assert with_channels(images, 3) is images
    grey = [pixels_of(to_pil_image(image).convert("L")) for image in images]
    assert torch.equal(with_channels(images, 1), torch.stack(grey))
    # Grey stays grey, all 256 of it.
    ramp = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    assert torch.equal(with_channels(ramp, 1), ramp[:1])
    assert with_channels(images[0], 1).shape == (1, 4, 5)
    assert "the network takes 4 channels" in sentence_of(lambda: with_channels(images, 4))


def test_images_that_are_too_small_for_a_network() -> None:
    with torch.device("meta"):
        vgg = build_model("vgg16", classes=2)
    vgg.convolutions.to_empty(device="cpu")
    said = sentence_of(lambda: check_input(vgg, "vgg16", (3, 16, 40)))
    assert said == "vgg16 cannot take images of 16 x 40 pixels; they are too small for it"
    # Shapes alone tell, of both ways to look at images; 32 pixels are a map of one.
    for whole in (False, True):
        check_input(outline("vgg16"), "vgg16", (3, 32, 32), whole=whole)
        sentence_of(lambda: check_input(outline("vgg16"), "vgg16", (3, 31, 32), whole=whole))  # noqa: B023
    model = build_model("cifar_resnet8").train()
    before = model.bn1.running_mean.clone()
    check_input(model, "cifar_resnet8", (3, 4, 4))
    # It is left in its mode, and has learned nothing.
    assert model.training
    assert torch.equal(model.bn1.running_mean, before)
