"""``residual.load(...).predict``: files, images, arrays."""

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import (
    SEVEN,
    TEN,
    pixels_of,
    save_network,
    sentence_of,
    shrink_rivals,
    smooth_image,
    write_images,
)
from PIL import Image, ImageSequence
from torchvision.transforms.v2 import functional as transforms

import residual as package
from residual import InputError, build_model
from residual.data.images import DamagedImage
from residual.evaluation.views import make_views
from residual.inference.evaluation import EvaluationOptions, evaluate
from residual.models.weights import load_weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_network(tmp_path / "w", mean=torch.full((3, 32, 32), 0.5))


def probabilities(guesses: list[tuple[str, float]]) -> list[float]:
    return [probability for _, probability in guesses]


def test_a_network_is_shown_in_a_line(weights: Path) -> None:
    shown = "<Network cifar_resnet8: 10 classes, center (32 of shorter side 32)>"
    assert repr(package.load(weights)) == shown


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


@pytest.mark.parametrize("views", ["center", "ten-crop", "multi-scale"])
def test_views_are_those_of_testing(views: Any, tmp_path: Path) -> None:
    """Of images of any sizes, in their order."""
    data = write_images(tmp_path / "data", SEVEN, val=14, sizes=((60, 40), (40, 60), (50, 50)))
    weights = save_network(tmp_path / "w", classes=SEVEN, mean=torch.full((3,), 0.4))
    options = EvaluationOptions("folder", "test", data, views, scales=(40, 48))
    scores = evaluate(weights, options, device="cpu", keep_scores=True).scores
    assert scores is not None
    network = package.load(weights, "cpu", views=views, scales=(40, 48))
    found = network.probabilities([data / "val" / name for name in scores.ids])
    torch.testing.assert_close(found, scores.probabilities, rtol=1e-4, atol=1e-6)
    centre = package.load(weights, "cpu").probabilities([data / "val" / name for name in scores.ids])
    assert (found - centre).abs().max() > 1e-3
    for look in (network.heat, network.embed):
        said = sentence_of(lambda look=look: look(data / "val" / scores.ids[0]))  # type: ignore[misc]
        assert "of the centre of an image alone; load the network without other views" in said


def test_views_that_there_are_not(weights: Path) -> None:
    assert "did you mean ten-crop?" in sentence_of(lambda: package.load(weights, views="ten_crop"))  # type: ignore[arg-type]
    assert "a crop of 32 does not fit" in sentence_of(lambda: package.load(weights, scales=[16]))
    assert "size is a whole number" in sentence_of(lambda: package.load(weights, size=0))
    assert "leave it out" in sentence_of(lambda: package.load(weights, size=64, crop=32, scales=[40]))
    assert package.load(weights, size=48).views == make_views("center", 48, 48)
    assert package.load(weights, crop=24).views == make_views("center", 24, 32)
    assert "a scale is a whole number" in sentence_of(lambda: package.load(weights, scales=["x"]))  # type: ignore[list-item]


def test_threads_share_a_network(weights: Path) -> None:
    """As those of a web service do, that loads it once."""
    network = package.load(weights, "cpu")
    images = [smooth_image(30 + n, 60 - n, seed=n) for n in range(24)]
    expected = [network.probabilities(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(network.probabilities, images))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


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
    assert network.embed([]).shape == (0, 64)


def test_what_a_network_gives_is_tensors_as_any_other(weights: Path) -> None:
    """One that was made in inference mode can neither be learned from nor written to."""
    network = package.load(weights, "cpu")
    [(_, features)] = network.features(smooth_image())
    heat = network.heat(smooth_image())
    head = torch.nn.Linear(64, 2)
    head(features).sum().backward()
    torch.testing.assert_close(head.weight.grad, features.expand(2, -1))
    heat.scores.sub_(heat.scores.min())
    heat.image.fill_(0)
    # As what they are: numbers of tensors have no one answer to whether they are equal.
    assert heat != network.heat(smooth_image())
    assert {network: 1}[network] == 1


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


def test_a_folder_is_the_images_in_it(weights: Path, deep_folder: Path, tmp_path: Path) -> None:
    network = package.load(weights)
    files = [deep_folder / "a.png", deep_folder / "b [1].JPG", deep_folder / "deep" / "c.png"]
    for folder in (deep_folder, str(deep_folder)):
        assert network.predict(folder) == network.predict(files)
        assert [file for file, _ in network.stream(folder)] == files
    assert network.embed(deep_folder).shape[0] == 3
    (tmp_path / "empty").mkdir()
    said = sentence_of(lambda: network.predict(tmp_path / "empty"))
    assert said.startswith(f"there is no image in the folder {tmp_path / 'empty'}; images end in ")


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
    assert heat.draw_beside().width > 2 * heat.draw().width
    assert "did you mean" in sentence_of(lambda: network.heat(image, "caat"))
    # Where layers move over the map the mean of its scores is another one.
    with pytest.MonkeyPatch.context() as patch:
        shrink_rivals(patch)
        model = build_model("cifar_maxout", classes=10).eval()
    moving = replace(network, model=model, views=make_views("center", 60, 60))
    found = moving.heat(image)
    assert found.scores.shape == (4, 4)
    assert (found.name, pytest.approx(found.probability, rel=1e-5)) == moving.predict(image)[0][0]
    tiny = package.load(save_network(tmp_path / "tiny", mean=torch.rand(3, 4, 4)), "cpu")
    assert "cannot say where it looks" in sentence_of(lambda: tiny.heat(image))


def test_features_are_what_the_classifier_is_a_linear_function_of(tmp_path: Path) -> None:
    network = package.load(save_network(tmp_path / "w"), "cpu")
    images = [smooth_image(60, 40, seed=n) for n in range(3)]
    features = network.embed(images, batch=2)
    assert features.shape == (3, 64)
    scores = network.model.classifier()(features).detach()
    assert scores.softmax(dim=1).numpy() == pytest.approx(network.probabilities(images).numpy(), abs=1e-6)


def turned(image: Image.Image, file: Path) -> Path:
    """Save an image that is to be seen turned by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(file, exif=exif)
    return file


def test_a_pil_image_is_what_its_file_is(tmp_path: Path) -> None:
    network = package.load(save_network(tmp_path / "w", "resnet18", mean=torch.zeros(3, 16, 16)))
    sideways = turned(smooth_image(40, 24), tmp_path / "turned.png")
    clear = Image.merge("RGBA", (*smooth_image(seed=1).split(), Image.linear_gradient("L").resize((60, 40))))
    clear.save(tmp_path / "clear.png")
    deep = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(np.linspace(0, 1, 2400, dtype=np.float32).reshape(40, 60)).save(tmp_path / "float.tiff")
    files = [sideways, *(tmp_path / name for name in ("clear.png", "deep.png", "float.tiff"))]
    by_path = network.probabilities(files)
    assert torch.equal(network.probabilities([Image.open(file) for file in files]), by_path)
    assert torch.equal(network.probabilities([open(file, "rb") for file in files]), by_path)  # noqa: SIM115
    # Right, not only alike: upright, laid on white, 65,535 is white.
    upright = np.asarray(smooth_image(40, 24).transpose(Image.Transpose.ROTATE_270))
    ramp = np.repeat((np.linspace(0, 1, 2400) * 255).round().astype(np.uint8).reshape(40, 60, 1), 3, axis=2)
    for image, file in ((upright, files[0]), (ramp, files[3])):
        torch.testing.assert_close(
            network.probabilities(image), network.probabilities(file), atol=1e-3, rtol=0.02
        )


def test_frames_of_one_file_are_read_one_by_one(weights: Path, tmp_path: Path) -> None:
    network = package.load(weights)
    frames = [smooth_image(seed=n) for n in range(42)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    expected = network.probabilities(frames)
    with Image.open(tmp_path / "a.png") as file:
        found = network.probabilities(ImageSequence.Iterator(file))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with Image.open(tmp_path / "a.png") as file:
        twice = network.probabilities([file, file])
    torch.testing.assert_close(twice, expected[[0, 0]], rtol=1e-4, atol=1e-5)
    buffer = np.empty((40, 60, 3), np.uint8)

    def camera() -> Iterator[np.ndarray]:
        for frame in frames:
            buffer[:] = np.asarray(frame)
            yield buffer

    assert torch.equal(network.probabilities(camera()), network.probabilities(map(np.asarray, frames)))


def test_a_truncated_pil_image_is_damaged_as_its_file_is(weights: Path, tmp_path: Path) -> None:
    content = io.BytesIO()
    smooth_image(600, 400).save(content, "jpeg")
    cut = content.getvalue()[:2000]
    network, skipped = package.load(weights), []
    with pytest.raises(DamagedImage):
        network.predict(Image.open(io.BytesIO(cut)))
    images = [Image.open(io.BytesIO(cut)), smooth_image(), io.BytesIO(cut)]
    found = list(network.stream(images, skip=skipped.append))
    assert [image for image, _ in found] == images[1:2]
    assert [str(error).split(" is damaged")[0] for error in skipped] == ["the image", "the open file"]


def test_images_in_other_forms(weights: Path, tmp_path: Path) -> None:
    network = package.load(weights)
    smooth_image().save(tmp_path / "a.png")
    expected = network.predict(str(tmp_path / "a.png"))
    (entry,) = [entry for entry in os.scandir(tmp_path) if entry.name == "a.png"]
    content = io.BytesIO()
    smooth_image().save(content, "png")  # and is not rewound
    for given in (entry, content, np.array([str(tmp_path / "a.png")]), np.array([tmp_path / "a.png"])):
        assert network.predict(given) == expected
    wrong = {
        "NoneType": (None, [None]),
        "int": (5, [5]),
        "bytes": (b"a.png",),
        "bytearray": (bytearray(content.getvalue()),),
        "memoryview": (memoryview(np.zeros((4, 4, 3), np.uint8)),),
        "dict": ({"a": 1},),
    }
    for name, given in [(name, given) for name, some in wrong.items() for given in some]:
        with pytest.raises(InputError, match=f"{name} is no image"):
            network.predict(given)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"batch": 0}, "batch is a whole number of at least 1, not 0"),
        ({"top": 2.5}, "top is a whole number of at least 1, not 2.5"),
        ({"top": True}, "top is a whole number"),
    ],
)
def test_wrong_numbers(weights: Path, wrong: dict[str, Any], words: str) -> None:
    network = package.load(weights)
    with pytest.raises(InputError, match=words):
        network.predict(smooth_image(), **wrong)
    uses = (network.probabilities, network.embed, lambda image, batch: list(network.features([image], batch)))
    for use in uses:
        for batch in (0, 2.5, "4", None):
            with pytest.raises(InputError, match=f"batch is a whole number of at least 1, not {batch!r}"):
                use(smooth_image(), batch=batch)


def test_numbers_of_numpy_and_unknown_precisions(weights: Path) -> None:
    assert package.build_model("cifar_resnet8", classes=np.int64(3)).classes == 3
    found = package.load(weights).predict(smooth_image(), top=np.int64(2), batch=np.int32(1))
    assert len(found[0]) == 2
    with pytest.raises(InputError, match=r"no precision 'float16'; did you mean bfloat16\?"):
        package.load(weights, precision="float16")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"no precision torch\.bfloat16; did you mean bfloat16"):
        package.load(weights, precision=torch.bfloat16)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no precision None; known are float32, bfloat16"):
        package.load(weights, precision=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no model 'None'; known are cifar_resnet20, "):
        package.build_model(None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the class '5' is not one of the network's 10 classes"):
        package.load(weights).heat(smooth_image(), 5)  # type: ignore[arg-type]


def test_a_file_that_is_open_for_text(weights: Path, tmp_path: Path) -> None:
    smooth_image().save(tmp_path / "a.png")
    with (
        open(tmp_path / "a.png") as file,
        pytest.raises(InputError, match=r"is open for text; open it as open\(path, 'rb'\)$"),
    ):
        package.load(weights).predict(file)  # type: ignore[arg-type]


def test_a_stream_is_no_damaged_file(weights: Path) -> None:
    read, write = os.pipe()
    os.close(write)
    with open(read, "rb") as file:
        said = sentence_of(lambda: list(package.load(weights).stream(file, skip=pytest.fail)))
    assert said == "the open file is a stream; give what it holds, as io.BytesIO(file.read())"


def test_scores_that_are_no_numbers(tmp_path: Path) -> None:
    network = package.load(save_network(tmp_path / "w", mean=torch.full((3, 32, 32), torch.nan)))
    for use in (network.predict, network.probabilities, network.embed, network.heat):
        with pytest.raises(InputError, match="NaN"):
            use(smooth_image())  # type: ignore[operator]
