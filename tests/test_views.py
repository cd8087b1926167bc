"""Testing protocols against slow references that look at one view of one picture at a time."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from residual import InputError, build_model
from residual.evaluation.batching import by_shape
from residual.evaluation.reading import in_threads
from residual.evaluation.views import LONGEST, Views, cut, make_views, probabilities, score
from residual.models import Classifier
from residual.models.foreign import outline
from residual.models.preprocessing import Preprocessing

PREPARE = Preprocessing(torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.25]))


def network(name: str = "cifar_resnet8", classes: int = 7) -> Classifier:
    torch.manual_seed(0)
    if name != "vgg16":
        return build_model(name, classes=classes).eval()
    # He initialisation of 138 million weights takes seconds.
    model = outline(name, classes=classes).to_empty(device="cpu").eval()
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -0.01, 0.01)
    return model


def pictures(*shape: int) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [(40, 57), (57, 40), (32, 32), (33, 45)])
def test_ten_crop_is_five_of_torchvisions_and_their_mirror_images(shape: tuple[int, int]) -> None:
    model, images = network(), pictures(3, 3, *shape)
    got = probabilities(model, PREPARE, images, make_views("ten-crop", 28, 32))
    for image, row in zip(images, got, strict=True):
        resized = transforms.resize(image, [32], antialias=True)
        # Mirror images of the crops: torchvision's ten_crop crops the mirror image, which is another centre
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
    model, images = network(), pictures(2, 3, *shape)
    crops = transforms.center_crop(transforms.resize(images, [32], antialias=True), [27])
    with torch.inference_mode():
        expected = model(PREPARE(crops)).softmax(dim=1)
    got = probabilities(model, PREPARE, images, make_views("center", 27, 32))
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(got.sum(dim=1), torch.ones(2))


def test_multi_scale_is_the_mean_over_positions_scales_and_mirrors() -> None:
    model, images = network(), pictures(2, 3, 30, 41)
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


@pytest.mark.parametrize(("name", "side"), [("resnet18", 32), ("vgg16", 224), ("cifar_resnet8", 4)])
def test_dense_testing_where_the_map_is_1x1_is_the_one_crop_result(name: str, side: int) -> None:
    model, images = network(name), pictures(1, 3, side, side)
    dense = Views("multi-scale", (side,))
    with torch.inference_mode():
        assert model.score_map(PREPARE(images)).shape[2:] == (1, 1)
    one_crop = probabilities(model, PREPARE, images, make_views("center", side, side))
    torch.testing.assert_close(probabilities(model, PREPARE, images, dense), one_crop, rtol=1e-4, atol=1e-6)


def test_a_residual_network_is_its_own_fully_convolutional_form_at_every_size() -> None:
    model, images = network(), pictures(2, 3, 40, 40)
    dense = probabilities(model, PREPARE, images, Views("multi-scale", (40,)))
    torch.testing.assert_close(dense, probabilities(model, PREPARE, images, make_views("center", 40, 40)))


def test_pictures_of_a_batch_do_not_depend_on_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = network(), pictures(5, 3, 36, 48)
    for views in (make_views("ten-crop", 28, 32), make_views("multi-scale", sides=(24, 32))):
        together = probabilities(model, PREPARE, images, views)
        alone = torch.cat([probabilities(model, PREPARE, image[None], views) for image in images])
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
        monkeypatch.setattr("residual.evaluation.views.PIXELS", 2 * 28 * 28)
        torch.testing.assert_close(
            probabilities(model, PREPARE, images, views), together, rtol=1e-5, atol=1e-6
        )
        monkeypatch.undo()


def test_a_very_long_picture_is_seen_in_its_middle() -> None:
    image = pictures(3, 4, 1000)
    (whole,) = cut(image, Views("multi-scale", (8,)))
    assert whole.shape == (1, 3, 8, 8 * LONGEST)
    middle = image[..., 500 - 2 * LONGEST : 500 + 2 * LONGEST]
    assert torch.equal(whole[0], transforms.resize(middle, [8], antialias=True))


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2)])
def test_tiny_pictures(size: tuple[int, int]) -> None:
    for views in (make_views("ten-crop", 28, 32), make_views("multi-scale", sides=(24, 32))):
        row = probabilities(network(), PREPARE, pictures(1, 3, *size), views)
        assert row.isfinite().all()


def test_a_crop_that_does_not_fit() -> None:
    with pytest.raises(InputError, match=r"a crop of 300 does not fit .* 256"):
        make_views("center", 300, 256)
    with pytest.raises(InputError, match="at least 1"):
        make_views("multi-scale", sides=(0,))


def test_a_mean_picture_at_its_own_size_and_at_others() -> None:
    mean = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    prepare = Preprocessing(mean)
    assert torch.equal(prepare(pictures(2, 3, 8, 8)), pictures(2, 3, 8, 8).float().div(255) - mean)
    larger = prepare(pictures(2, 3, 16, 24))
    stretched = F.interpolate(mean[None], size=(16, 24), mode="bilinear")[0]
    torch.testing.assert_close(larger, pictures(2, 3, 16, 24) / 255 - stretched)
    flat = Preprocessing(torch.full((3, 8, 8), 0.25))
    assert torch.equal(flat(pictures(1, 3, 5, 9)), pictures(1, 3, 5, 9) / 255 - 0.25)


# Batches by shape


def test_batches_have_one_shape_and_miss_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = torch.randint(1, 4, (50, 2), generator=generator).tolist()
    stream = [([torch.full((3, h, w), n, dtype=torch.uint8)], n) for n, (h, w) in enumerate(shapes)]
    seen = []
    for (batch,), numbers in by_shape(stream, 4):
        assert 1 <= len(batch) == len(numbers) <= 4
        assert numbers == sorted(numbers)
        for image, n in zip(batch, numbers, strict=True):
            assert torch.equal(image, stream[n][0][0])
        seen += numbers
    assert sorted(seen) == list(range(50))


def test_what_waits_is_bounded() -> None:
    taken = given = most = 0

    def stream():  # type: ignore[no-untyped-def]
        nonlocal taken, most
        for n in range(1, 101):  # a hundred shapes: no batch would ever be full
            taken += n
            most = max(most, taken - given)
            yield [torch.zeros(1, 1, n, dtype=torch.uint8)], n

    for (batch,), _ in by_shape(stream(), 8, waiting_bytes=500):
        given += batch.numel()
    assert given == taken == 5050
    assert most <= 500 + 100


def test_batches_come_in_order_where_all_pictures_have_one_shape() -> None:
    stream = [([torch.zeros(1, 2, 2, dtype=torch.uint8)], n) for n in range(10)]
    assert [n for _, numbers in by_shape(stream, 3) for n in numbers] == list(range(10))


def test_threads_keep_the_order_and_stay_near() -> None:
    started = []
    results = in_threads(lambda n: started.append(n) or n * n, range(1000), workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(started) <= 3 + 2 * 2
    assert list(results) == [n * n for n in range(3, 1000)]


def test_an_error_in_a_thread_is_raised_where_its_result_is() -> None:
    results = in_threads(lambda n: 1 // (2 - n), range(10))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_score_takes_what_cut_gives() -> None:
    images, views = pictures(2, 3, 40, 50), Views("center", (32, 36), 28, corners=True)
    cuts = cut(images, views)
    assert [tuple(squares.shape) for squares in cuts] == [(2, 5, 3, 28, 28)] * 2
    assert score(network(), PREPARE, cuts, views).shape == (2, 7)
