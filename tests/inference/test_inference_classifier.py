"""``residual.load(...).predict``: files, images, arrays."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TEN, pixels_of, save_network, sentence_of, smooth_image
from torchvision.transforms.v2 import functional as transforms

import residual as package
from residual import InputError
from residual.data.images import DamagedImage
from residual.models.weights import load_weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_network(tmp_path / "w", mean=torch.full((3, 32, 32), 0.5))


def probabilities(guesses: list[tuple[str, float]]) -> list[float]:
    return [probability for _, probability in guesses]


def test_every_kind_of_image_is_the_same_image(weights: Path, tmp_path: Path) -> None:
    network = package.load(weights)
    image = smooth_image()
    image.save(tmp_path / "a.png")
    array = np.asarray(image)
    tensor = pixels_of(image)
    found = network.predict([tmp_path / "a.png", str(tmp_path / "a.png"), image, array, tensor], top=3)
    assert len(found) == 5
    same = [(name, pytest.approx(probability, rel=1e-4)) for name, probability in found[0]]
    assert all(guesses == same for guesses in found)
    assert found[0][0].name in TEN
    assert probabilities(found[0]) == sorted(probabilities(found[0]), reverse=True)
    # One alone, and a stack.
    for alone in (tmp_path / "a.png", str(tmp_path / "a.png"), image, array, tensor):
        assert network.predict(alone, top=3) == [same]
    assert network.predict(np.stack([array, array]), top=3) == [same, same]
    assert network.predict(tensor[None], top=3) == [same]


def test_predictions_are_the_networks(weights: Path) -> None:
    network = package.load(weights)
    images = [smooth_image(30 + 7 * n, 60 - 3 * n, seed=n) for n in range(5)]
    saved = load_weights(weights)
    rows = []
    for image in images:
        tensor = pixels_of(image)
        square = transforms.center_crop(transforms.resize(tensor, [32], antialias=True), [32])
        with torch.inference_mode():
            rows.append(saved.model(saved.preprocessing(square[None])).softmax(dim=1)[0])
    expected = torch.stack(rows)
    for batch in (1, 2, 32):
        found = network.probabilities(images, batch=batch)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    best = network.predict(images, top=20, batch=2)
    assert [len(guesses) for guesses in best] == [10] * 5
    assert [guesses[0].name for guesses in best] == [TEN[k] for k in expected.argmax(dim=1).tolist()]
    assert all(sum(probabilities(guesses)) == pytest.approx(1, rel=1e-4) for guesses in best)


def test_a_grey_network_of_8_by_8_pixels(tmp_path: Path) -> None:
    network = package.load(save_network(tmp_path / "w", mean=torch.zeros(1, 8, 8)))
    assert (network.views.crop, network.views.sides) == (8, (8,))
    grey = smooth_image().convert("L")
    flat = np.asarray(grey)
    found = network.predict([grey, flat, flat[..., None], pixels_of(grey)])
    same = [(name, pytest.approx(probability, rel=1e-4)) for name, probability in found[0]]
    assert all(guesses == same for guesses in found)
    assert network.predict(smooth_image())  # colours are made grey


def test_networks_of_table_1_look_at_224_of_256(tmp_path: Path) -> None:
    network = package.load(save_network(tmp_path / "w", "resnet18", mean=torch.zeros(3)))
    assert (network.views.crop, network.views.sides) == (224, (256,))
    other = package.load(save_network(tmp_path / "v", "resnet18", mean=torch.zeros(3, 112, 112)))
    assert (other.views.crop, other.views.sides) == (112, (128,))


def test_bfloat16_is_close(weights: Path) -> None:
    images = [smooth_image(seed=n) for n in range(4)]
    exact, fast = (package.load(weights, precision=p).probabilities(images) for p in ("float32", "bfloat16"))
    assert fast.dtype == torch.float32
    torch.testing.assert_close(fast, exact, rtol=0.1, atol=0.01)
    assert not torch.equal(fast, exact)


def test_nothing_to_predict(weights: Path) -> None:
    network = package.load(weights)
    assert network.predict([]) == []
    assert network.probabilities([]).shape == (0, 10)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4, 3)), r"float64 \(4, 4, 3\) cannot be used; give an array of uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"\(H, W, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (np.zeros(4, np.uint8), "cannot be used"),
        (torch.zeros(3, 4, 4), r"give a tensor of uint8 .*\(3, H, W\)"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), r"\(4, 4, 3\) cannot be used"),
        ([7], "int is no image"),
        (["nowhere.jpg"], "nowhere.jpg"),
    ],
)
def test_what_is_no_image(weights: Path, image: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        package.load(weights).predict(image)  # type: ignore[arg-type]


def test_damaged_files_are_an_error_or_skipped(weights: Path, tmp_path: Path) -> None:
    smooth_image().save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:100])
    network, files = package.load(weights), [tmp_path / "bad.png", tmp_path / "good.png"]
    with pytest.raises(DamagedImage, match=r"bad\.png"):
        network.predict(files)
    skipped: list[DamagedImage] = []
    found = list(network.stream(files, skip=skipped.append))
    assert [file for file, _ in found] == [tmp_path / "good.png"]
    assert len(skipped) == 1


def test_heat_averages_to_the_score_of_its_class(tmp_path: Path) -> None:
    network = package.load(save_network(tmp_path / "w"), "cpu")
    image = smooth_image(60, 40)
    [predictions] = network.predict(image, top=10)
    best, probability = predictions[0]
    heat = network.heat(image)
    assert heat.name == best
    assert heat.probability == pytest.approx(probability, rel=1e-5)
    assert heat.scores.shape == (8, 8)
    means = [network.heat(image, p.name).scores.mean() for p in predictions]
    together = torch.stack(means).softmax(dim=0)
    assert together.tolist() == pytest.approx([p.probability for p in predictions], rel=1e-5)
    assert heat.draw_beside().height == heat.draw().height
    assert "did you mean" in sentence_of(lambda: network.heat(image, "caat"))
    tiny = package.load(save_network(tmp_path / "tiny", mean=torch.rand(3, 4, 4)), "cpu")
    assert "cannot say where it looks" in sentence_of(lambda: tiny.heat(image))


def test_features_are_what_the_classifier_is_a_linear_function_of(tmp_path: Path) -> None:
    network = package.load(save_network(tmp_path / "w"), "cpu")
    images = [smooth_image(60, 40, seed=n) for n in range(3)]
    features = network.embed(images, batch=2)
    assert features.shape == (3, 64)
    scores = network.model.classifier()(features).detach()
    assert scores.softmax(dim=1).numpy() == pytest.approx(network.probabilities(images).numpy(), abs=1e-6)
