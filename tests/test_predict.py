"""``residual.load(...).predict`` and ``residual predict``: files, images, arrays; tables, JSON, sheets."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

import residual as package
from residual import InputError, build_model
from residual.cli import main
from residual.cli.predict import find_images
from residual.data.images import DamagedImage
from residual.models.preprocessing import Preprocessing
from residual.models.weights import load_weights, save_weights

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "[ship]", "truck")


def save_network(folder: Path, mean: Tensor, channels: int = 3, name: str = "cifar_resnet8") -> Path:
    torch.manual_seed(0)
    options = {"in_channels": channels}
    save_weights(
        folder,
        build_model(name, classes=10, **options),
        name=name,
        options=options,
        preprocessing=Preprocessing(mean),
        classes=CLASSES,
    )
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_network(tmp_path / "w", torch.full((3, 32, 32), 0.5))


def picture(seed: int = 0, width: int = 50, height: int = 40) -> Image.Image:
    """Broad coloured patches: what resizing does to noise would hide a real difference."""
    coarse = np.random.default_rng(seed).integers(256, size=(4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height))


def probabilities(guesses: list[tuple[str, float]]) -> list[float]:
    return [probability for _, probability in guesses]


def test_every_kind_of_picture_is_the_same_picture(weights: Path, tmp_path: Path) -> None:
    network = package.load(weights)
    image = picture()
    image.save(tmp_path / "a.png")
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    found = network.predict([tmp_path / "a.png", str(tmp_path / "a.png"), image, array, tensor], top=3)
    assert len(found) == 5
    same = [(name, pytest.approx(probability, rel=1e-4)) for name, probability in found[0]]
    assert all(guesses == same for guesses in found)
    assert found[0][0].name in CLASSES
    assert probabilities(found[0]) == sorted(probabilities(found[0]), reverse=True)
    # One alone, and a stack.
    for alone in (tmp_path / "a.png", str(tmp_path / "a.png"), image, array, tensor):
        assert network.predict(alone, top=3) == [same]
    assert network.predict(np.stack([array, array]), top=3) == [same, same]
    assert network.predict(tensor[None], top=3) == [same]


def test_predictions_are_the_networks(weights: Path) -> None:
    network = package.load(weights)
    images = [picture(n, 30 + 7 * n, 60 - 3 * n) for n in range(5)]
    saved = load_weights(weights)
    rows = []
    for image in images:
        tensor = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
        square = transforms.center_crop(transforms.resize(tensor, [32], antialias=True), [32])
        with torch.inference_mode():
            rows.append(saved.model(saved.preprocessing(square[None])).softmax(dim=1)[0])
    expected = torch.stack(rows)
    for batch in (1, 2, 32):
        found = network.probabilities(images, batch=batch)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    best = network.predict(images, top=20, batch=2)
    assert [len(guesses) for guesses in best] == [10] * 5
    assert [guesses[0].name for guesses in best] == [CLASSES[k] for k in expected.argmax(dim=1).tolist()]
    assert all(sum(probabilities(guesses)) == pytest.approx(1, rel=1e-4) for guesses in best)


def test_a_grey_network_of_8_by_8_pixels(tmp_path: Path) -> None:
    network = package.load(save_network(tmp_path / "w", torch.zeros(1, 8, 8), channels=1))
    assert (network.views.crop, network.views.sides) == (8, (8,))
    grey = picture().convert("L")
    flat = np.asarray(grey)
    found = network.predict([grey, flat, flat[..., None], torch.from_numpy(flat.copy())[None]])
    same = [(name, pytest.approx(probability, rel=1e-4)) for name, probability in found[0]]
    assert all(guesses == same for guesses in found)
    assert network.predict(picture())  # colours are made grey


def test_networks_of_table_1_look_at_224_of_256(tmp_path: Path) -> None:
    network = package.load(save_network(tmp_path / "w", torch.zeros(3), name="resnet18"))
    assert (network.views.crop, network.views.sides) == (224, (256,))
    other = package.load(save_network(tmp_path / "v", torch.zeros(3, 112, 112), name="resnet18"))
    assert (other.views.crop, other.views.sides) == (112, (128,))


def test_bfloat16_is_close(weights: Path) -> None:
    images = [picture(n) for n in range(4)]
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
        ([7], "int is no picture"),
        (["nowhere.jpg"], "nowhere.jpg"),
    ],
)
def test_what_is_no_picture(weights: Path, image: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        package.load(weights).predict(image)  # type: ignore[arg-type]


def test_damaged_files_are_an_error_or_skipped(weights: Path, tmp_path: Path) -> None:
    picture().save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:100])
    network, files = package.load(weights), [tmp_path / "bad.png", tmp_path / "good.png"]
    with pytest.raises(DamagedImage, match=r"bad\.png"):
        network.predict(files)
    skipped: list[DamagedImage] = []
    found = list(network.stream(files, skip=skipped.append))
    assert [file for file, _ in found] == [tmp_path / "good.png"]
    assert len(skipped) == 1


# The command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures at two depths, and files that are none."""
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for n, name in enumerate(("a.png", "b [1].JPG", "deep/c.png")):
        picture(n).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    (tmp_path / "photos" / "deep" / "loop").symlink_to(tmp_path / "photos")
    return tmp_path / "photos"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["residual", "predict", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_files_folders_and_patterns(folder: Path) -> None:
    deep = folder / "deep" / "c.png"
    everything = [folder / "a.png", folder / "b [1].JPG", deep]
    assert find_images([str(folder)]) == everything
    assert find_images([str(folder / "*.png")]) == [folder / "a.png"]
    assert find_images([str(folder / "b [1].JPG")]) == [folder / "b [1].JPG"]
    assert find_images([str(deep), str(folder)]) == [deep, *everything[:2]]  # each once
    assert find_images([str(folder / "notes.txt")]) == [folder / "notes.txt"]  # named, so tried


def test_the_command_prints_json_csv_and_a_table_and_draws_a_sheet(
    weights: Path, folder: Path, residual: Command
) -> None:
    found = json.loads(residual("predict", weights, folder, "--json", "--sheet", "new/sheet.png").stdout)
    assert [Path(entry["image"]).name for entry in found] == ["a.png", "b [1].JPG", "c.png"]
    assert all(len(entry["top"]) == 5 and set(entry["top"][0]) == {"name", "probability"} for entry in found)
    with Image.open(weights.parent / "new" / "sheet.png") as sheet:
        assert sheet.width > 3 * 192
        assert len(sheet.getcolors(2**24) or []) > 100


def test_csv_and_table(
    weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(monkeypatch, weights, folder, "--csv", "--top", 2) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["rank"] for row in rows] == ["1", "2"] * 3
    assert float(rows[0]["probability"]) >= float(rows[1]["probability"])
    assert run(monkeypatch, weights, folder / "b [1].JPG", "--top", 10) == 0
    shown = capsys.readouterr().out
    assert "b [1].JPG" in shown
    assert all(name in shown for name in CLASSES)


def test_damaged_images_are_named_and_skipped(
    weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    assert run(monkeypatch, weights, folder, "--json") == 0
    shown = capsys.readouterr()
    assert len(json.loads(shown.out)) == 3
    assert shown.err.count("\n") == 1
    assert "skipped" in shown.err
    assert "damaged.png" in shown.err
    assert run(monkeypatch, weights, folder / "damaged.png", "--json", "--sheet", "s.png") == 2
    shown = capsys.readouterr()
    assert "none of the 1 images could be read" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.jpg"], "there is no file nowhere.jpg"),
        (["*.gif"], "there is no file *.gif"),
        (["empty"], "no image in the folder empty"),
        (["photos", "--sheet", "photos/a.png"], "photos/a.png exists already"),
        (["photos", "--sheet", "sheet.jpg"], "ends in .png"),
        (["photos", "--json", "--csv"], "choose one"),
    ],
)
def test_wrong_input(
    arguments: list[str],
    words: str,
    weights: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(weights.parent)
    Path("empty").mkdir()
    before = (folder / "a.png").read_bytes()
    assert run(monkeypatch, "w", *arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert words in shown.err
    assert shown.err.count("\n") == 1
    assert (folder / "a.png").read_bytes() == before
