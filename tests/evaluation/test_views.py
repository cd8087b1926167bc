"""Testing protocols against slow references that look at one view of one image at a time."""

import pytest
import torch
from conftest import random_pixels
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from residual import InputError, build_model
from residual.data.images import LONGEST
from residual.evaluation.views import Views, crop_views, make_views, score
from residual.models import Classifier
from residual.models.preprocessing import Preprocessing

PREPARE = Preprocessing(torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.25]))


def probabilities(model: Classifier, prepare: Preprocessing, images: Tensor, views: Views) -> Tensor:
    """From images of one shape, uint8 (n, C, H, W), to scores (n, K)."""
    return score(model, prepare, crop_views(images, views), views)


def network(name: str = "cifar_resnet8", classes: int = 7) -> Classifier:
    torch.manual_seed(0)
    return build_model(name, classes=classes).eval()


@pytest.mark.parametrize("shape", [(40, 57), (57, 40), (32, 32), (33, 45)])
def test_ten_crop_is_five_of_torchvisions_and_their_flips(shape: tuple[int, int]) -> None:
    model, images = network(), random_pixels(3, 3, *shape)
    got = probabilities(model, PREPARE, images, make_views("ten-crop", 28, 32))
    for image, row in zip(images, got, strict=True):
        resized = transforms.resize(image, [32], antialias=True)
        # flip images of the crops: torchvision's ten_crop crops the flip, which is another centre
        # where the margin is odd.
        crops = [view for c in transforms.five_crop(resized, [28]) for view in (c, c.flip(-1))]
        with torch.inference_mode():
            each = [model(PREPARE(crop[None])).softmax(dim=1)[0] for crop in crops]
        torch.testing.assert_close(row, torch.stack(each).mean(dim=0), rtol=1e-5, atol=1e-6)


def test_ten_crop_averages_softmax_scores_not_logits() -> None:
    class Table(torch.nn.Module):
        """Scores that depend on the brightness of the first pixel alone, strongly."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(10.0))

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.weight * x[:, 0, 0, 0], torch.zeros(len(x))], dim=1)

    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    image[..., 0, 0] = 255  # the first pixel of one of the ten views
    views = make_views("ten-crop", 4, 8)
    got = probabilities(Table(), lambda x: x / 255, image, views)  # type: ignore[arg-type]
    bright, dark = torch.tensor([10.0, 0]).softmax(0), torch.tensor([0.5, 0.5])
    torch.testing.assert_close(got[0], (bright + 9 * dark) / 10)


@pytest.mark.parametrize("shape", [(40, 57), (57, 41)])
def test_center_is_torchvisions(shape: tuple[int, int]) -> None:
    model, images = network(), random_pixels(2, 3, *shape)
    crops = transforms.center_crop(transforms.resize(images, [32], antialias=True), [27])
    with torch.inference_mode():
        expected = model(PREPARE(crops)).softmax(dim=1)
    got = probabilities(model, PREPARE, images, make_views("center", 27, 32))
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(got.sum(dim=1), torch.ones(2))


def test_multi_scale_is_the_mean_over_positions_scales_and_flips() -> None:
    model, images = network(), random_pixels(2, 3, 30, 41)
    got = probabilities(model, PREPARE, images, make_views("multi-scale", sides=(24, 32, 50)))
    for image, row in zip(images, got, strict=True):
        each = []
        for side in (24, 32, 50):
            resized = transforms.resize(image, [side], antialias=True)
            for view in (resized, transforms.horizontal_flip(resized)):
                with torch.inference_mode():
                    scores = model.score_map(PREPARE(view[None]))[0]
                positions = [scores[:, y, x] for y in range(scores.shape[1]) for x in range(scores.shape[2])]
                each.append(torch.stack(positions).mean(dim=0).softmax(dim=0))
        torch.testing.assert_close(row, torch.stack(each).mean(dim=0), rtol=1e-5, atol=1e-6)


def test_dense_testing_averages_scores_over_the_positions_of_the_score_map() -> None:
    """Of VGG that is another number than its own forward pass gives."""

    class Map(torch.nn.Module):
        """Scores that depend on the brightness at each position, strongly."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(10.0))

        def score_map(self, x: Tensor) -> Tensor:
            return torch.stack([self.weight * x[:, 0], torch.zeros_like(x[:, 0])], dim=1)

    image = torch.zeros(1, 3, 4, 5, dtype=torch.uint8)
    image[..., 0, 0] = 255
    got = probabilities(Map(), lambda x: x / 255, image, Views("multi-scale", (4,)))  # type: ignore[arg-type]
    torch.testing.assert_close(got[0], torch.tensor([10.0 / 20, 0]).softmax(0))


@pytest.mark.parametrize(("name", "side"), [("resnet18", 32), ("cifar_resnet8", 4)])
def test_dense_testing_where_the_map_is_1x1_is_the_one_crop_result(name: str, side: int) -> None:
    model, images = network(name), random_pixels(1, 3, side, side)
    dense = Views("multi-scale", (side,))
    with torch.inference_mode():
        assert model.score_map(PREPARE(images)).shape[2:] == (1, 1)
    one_crop = probabilities(model, PREPARE, images, make_views("center", side, side))
    torch.testing.assert_close(probabilities(model, PREPARE, images, dense), one_crop, rtol=1e-4, atol=1e-6)


def test_a_residual_network_is_its_own_fully_convolutional_form_at_every_size() -> None:
    model, images = network(), random_pixels(2, 3, 40, 40)
    dense = probabilities(model, PREPARE, images, Views("multi-scale", (40,)))
    torch.testing.assert_close(dense, probabilities(model, PREPARE, images, make_views("center", 40, 40)))


def test_images_of_a_batch_do_not_depend_on_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = network(), random_pixels(5, 3, 36, 48)
    for views in (make_views("ten-crop", 28, 32), make_views("multi-scale", sides=(24, 32))):
        together = probabilities(model, PREPARE, images, views)
        alone = torch.cat([probabilities(model, PREPARE, image[None], views) for image in images])
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
        monkeypatch.setattr("residual.evaluation.views.PIXELS", 2 * 28 * 28)
        torch.testing.assert_close(
            probabilities(model, PREPARE, images, views), together, rtol=1e-5, atol=1e-6
        )
        monkeypatch.undo()


def test_a_very_long_image_is_seen_in_its_middle() -> None:
    image = random_pixels(3, 4, 1000)
    (whole,) = crop_views(image, Views("multi-scale", (8,)))
    assert whole.shape == (1, 3, 8, 8 * LONGEST)
    middle = image[..., 500 - 2 * LONGEST : 500 + 2 * LONGEST]
    assert torch.equal(whole[0], transforms.resize(middle, [8], antialias=True))


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2)])
def test_tiny_images(size: tuple[int, int]) -> None:
    for views in (make_views("ten-crop", 28, 32), make_views("multi-scale", sides=(24, 32))):
        row = probabilities(network(), PREPARE, random_pixels(1, 3, *size), views)
        assert row.isfinite().all()


def test_a_crop_that_does_not_fit() -> None:
    with pytest.raises(InputError, match=r"a crop of 300 does not fit .* 256"):
        make_views("center", 300, 256)
    with pytest.raises(InputError, match="at least 1"):
        make_views("multi-scale", sides=(0,))


def test_score_takes_what_cut_gives() -> None:
    images, views = random_pixels(2, 3, 40, 50), Views("center", (32, 36), 28, corners=True)
    cuts = crop_views(images, views)
    assert [tuple(squares.shape) for squares in cuts] == [(2, 5, 3, 28, 28)] * 2
    assert score(network(), PREPARE, cuts, views).shape == (2, 7)
