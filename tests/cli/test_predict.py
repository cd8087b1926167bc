"""``residual predict``: tables, JSON, CSV, sheets."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import TEN, Call, Refused, Shown, save_network, smooth_image
from PIL import Image

from residual.analysis.heat import SIDE, SPACE, STRIP


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_network(tmp_path / "w")


def test_the_command_prints_json_and_draws_a_sheet(
    weights: Path, deep_folder: Path, shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sheet.png"
    found = json.loads(shown("predict", weights, deep_folder, "--json", "--sheet", file).out)
    assert [Path(entry["image"]).name for entry in found] == ["a.png", "b [1].JPG", "c.png"]
    assert all(len(entry["top"]) == 5 and set(entry["top"][0]) == {"name", "probability"} for entry in found)
    with Image.open(file) as sheet:
        assert sheet.width > 3 * 192
        assert len(sheet.getcolors(2**24) or []) > 100
    monkeypatch.setattr("residual.analysis.sheet.MOST", 2)
    less = tmp_path / "less.png"
    said = shown("predict", weights, deep_folder, "--sheet", less).err
    assert f"drawn: {less}, the first 2 of 3 images" in said


def test_csv_and_table(
    weights: Path, deep_folder: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    rows = list(csv.DictReader(io.StringIO(shown("predict", weights, deep_folder, "--csv", "--top", 2).out)))
    assert [row["rank"] for row in rows] == ["1", "2"] * 3
    assert float(rows[0]["probability"]) >= float(rows[1]["probability"])
    strange = deep_folder / "c\rd,\n.png"
    smooth_image().save(strange)
    written = io.StringIO(shown("predict", weights, strange, "--csv", "--top", 1).out, newline="")
    assert [row["image"] for row in csv.DictReader(written)] == [str(strange)]
    printed = shown("predict", weights, deep_folder / "b [1].JPG", "--top", 10).out
    assert "b [1].JPG" in printed
    assert all(name in printed for name in TEN)


def test_views_of_an_image_are_averaged(weights: Path, deep_folder: Path, shown: Shown) -> None:
    asked = ("predict", weights, deep_folder / "a.png", "--json")
    one, ten = (
        json.loads(shown(*asked, *more).out) for more in ((), ("--views", "ten-crop", "--scales", "40"))
    )
    assert one[0]["image"] == ten[0]["image"]
    assert one[0]["top"] != ten[0]["top"]


def test_bfloat16_is_said_to_be_slow_where_it_is(
    weights: Path, deep_folder: Path, shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("residual.device._kernels_take_bfloat16", lambda: False)
    for command in (("predict",), ("embed", "--out", tmp_path / "features.npz")):
        said = shown(*command, weights, deep_folder, "--precision", "bfloat16", "--device", "cpu").err
        assert "note: this CPU has no instructions for bfloat16" in said
    assert "instructions" not in shown("predict", weights, deep_folder, "--device", "cpu").err


def test_the_table_names_classes_as_people_do(tmp_path: Path, shown: Shown) -> None:
    weights = save_network(tmp_path / "w", classes=("n01440764", "n02102040"))
    smooth_image().save(tmp_path / "a.png")
    printed = shown("predict", weights, tmp_path / "a.png").out
    assert "tench" in printed
    assert "English springer" in printed
    assert "n0" not in printed.replace(str(tmp_path), "")
    # For programs they are the weights' own.
    found = json.loads(shown("predict", weights, tmp_path / "a.png", "--json").out)
    assert {guess["name"] for guess in found[0]["top"]} == {"n01440764", "n02102040"}


@pytest.mark.parametrize("words", [("predict",), ("embed", "--out", "a.npz"), ("locate", "predict")])
def test_an_image_before_the_weights(words: tuple[str, ...], tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "photo.jpg").touch()
    (tmp_path / "run").mkdir()
    said = refused(*words, tmp_path / "photo.jpg", tmp_path / "run")
    assert "photo.jpg is an image, where weights are expected" in said


def test_damaged_images_are_named_and_skipped(
    weights: Path,
    deep_folder: Path,
    call: Call,
    refused: Refused,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """What was found in the others is there, and whoever asks the exit code learns that something is not."""
    (deep_folder / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    more = ("--json", "--heat", tmp_path / "heat", "--sheet", tmp_path / "sheet.png")
    assert call("predict", weights, deep_folder, *more) == 2
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)) == 3
    skipped, *_, last = printed.err.splitlines()
    assert skipped.startswith("note: skipped: ")
    assert "damaged.png" in skipped
    assert last == "residual: 1 of 4 images could not be used, as said above"
    assert len(list((tmp_path / "heat").iterdir())) == 3
    assert (tmp_path / "sheet.png").is_file()
    said = refused("predict", weights, deep_folder / "damaged.png", "--json", "--sheet", "s.png")
    assert "damaged.png could not be read, and there is no other image" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.jpg"], "there is no file nowhere.jpg"),
        (["*.gif"], "there is no file *.gif"),
        (["empty"], "no image in the folder empty"),
        (["images", "--sheet", "images/a.png"], "images/a.png exists already"),
        (["images", "--sheet", "sheet.jpg"], "ends in .png"),
        (["images", "--sheet", "imagess/sheet.png"], "there is no folder imagess; make it"),
        (["images", "--json", "--csv"], "choose one"),
        (["images", "--heat", "heat", "--views", "ten-crop"], "leave --views and --scales out"),
        (["images", "--views", "ten-crop", "--scales", "16"], "a crop of 32 does not fit"),
        (["images", "--scales", "a"], "--scales a: write whole numbers with commas between"),
    ],
)
def test_wrong_input_of_predict(
    arguments: list[str],
    words: str,
    weights: Path,
    deep_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Refused,
) -> None:
    monkeypatch.chdir(weights.parent)
    Path("empty").mkdir()
    before = (deep_folder / "a.png").read_bytes()
    said = refused("predict", "w", *arguments)
    assert words in said
    assert said.count("\n") == 1
    assert (deep_folder / "a.png").read_bytes() == before


def test_heat_maps_are_drawn_into_a_folder_for_any_class(
    weights: Path, deep_folder: Path, shown: Shown, refused: Refused, tmp_path: Path
) -> None:
    shown("predict", weights, deep_folder, "--csv", "--heat", tmp_path / "heat")
    assert sorted(p.name for p in (tmp_path / "heat").iterdir()) == ["a.png", "b [1].png", "c.png"]
    with Image.open(tmp_path / "heat" / "a.png") as drawn:
        assert drawn.size == (2 * SIDE + SPACE, SIDE + STRIP)
    image = deep_folder / "a.png"
    of = ("--heat", tmp_path / "of", "--class", TEN[3])
    shown("predict", weights, image, "--csv", *of, "--scales", "40")
    assert "of the centre of an image alone" in refused("predict", weights, image, *of, "--scales", "40,50")
    for size, told in ((12, True), (16, False)):
        few = ("--heat", tmp_path / f"{size}", "--size", size)
        said = shown("predict", weights, image, "--csv", *few).err
        assert ("the heat map has 3 x 3 places at 12 pixels; a network" in said) == told
    assert "a.png exists already" in refused("predict", weights, image, "--heat", tmp_path / "heat")
    assert "not one of the network's" in refused(
        "predict", weights, image, "--heat", tmp_path / "new", "--class", "ghost"
    )
    assert "name a folder with --heat" in refused("predict", weights, image, "--class", TEN[3])


def test_a_sheet_calls_classes_by_their_names_and_knows_the_folders_class(
    tmp_path: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    from residual.analysis import sheet

    drawn: list[sheet.Seen] = []
    monkeypatch.setattr(sheet, "draw_sheet", lambda images, file: drawn.extend(images))
    network = save_network(tmp_path / "w", classes=("n01440764", "n02102040", "n02979186"))
    for folder in ("n01440764", "tench", "holidays"):
        (tmp_path / "images" / folder).mkdir(parents=True)
        smooth_image().save(tmp_path / "images" / folder / "1.png")
    shown("predict", network, tmp_path / "images", "--csv", "--sheet", tmp_path / "sheet.png")
    assert {seen.path.parent.name: seen.truth for seen in drawn} == {
        "n01440764": "tench",
        "tench": "tench",
        "holidays": None,
    }
    assert {seen.name for seen in drawn} <= {"tench", "English springer", "cassette player"}


def test_the_table_is_followed_by_how_many_are_right_by_their_folders(tmp_path: Path, shown: Shown) -> None:
    network = save_network(tmp_path / "w", classes=("tench", "church"))
    images = tmp_path / "images"
    for folder in ("tench", "church", "holidays"):
        (images / folder).mkdir(parents=True)
        for number in range(2):
            smooth_image().save(images / folder / f"{number}.png")
    # The same image: of two classes one is right.
    assert "right, as their folders are named: 2 of 4 images\n" in shown("predict", network, images).out
    assert "right" not in shown("predict", network, images / "holidays").out
    for form in ("--csv", "--json"):
        assert "right" not in "".join(shown("predict", network, images, form))


def test_features_become_one_array_file(
    weights: Path,
    deep_folder: Path,
    call: Call,
    shown: Shown,
    refused: Refused,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "features.npz"
    (deep_folder / "damaged.png").write_bytes(b"no image")
    assert call("embed", weights, deep_folder, "--out", out) == 2
    printed = capsys.readouterr()
    assert "3 x 64" in printed.out
    assert "skipped" in printed.err
    assert "1 of 4 images could not be used" in printed.err
    (deep_folder / "damaged.png").unlink()
    with np.load(out) as stored:
        assert stored["features"].shape == (3, 64)
        assert stored["features"].dtype == np.float32
        assert [Path(name).name for name in stored["files"]] == ["a.png", "b [1].JPG", "c.png"]
    shown("embed", weights, deep_folder, "--out", tmp_path / "LOUD.NPZ")
    with np.load(tmp_path / "LOUD.NPZ") as stored:
        assert stored["features"].shape == (3, 64)
    assert "exists already" in refused("embed", weights, deep_folder, "--out", out)
    assert "ends in .npz" in refused("embed", weights, deep_folder, "--out", tmp_path / "features.csv")
    (tmp_path / "damaged.png").write_bytes(b"no image")
    assert "damaged.png could not be read, and there is no other image" in refused(
        "embed", weights, tmp_path / "damaged.png", "--out", tmp_path / "new.npz"
    )
