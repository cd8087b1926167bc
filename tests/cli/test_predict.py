"""``residual predict``: tables, JSON, CSV, sheets."""

import csv
import io
import json
from pathlib import Path

import pytest
from conftest import TEN, Refused, Shown, save_network
from PIL import Image


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_network(tmp_path / "w")


def test_the_command_prints_json_and_draws_a_sheet(
    weights: Path, deep_folder: Path, shown: Shown, tmp_path: Path
) -> None:
    file = tmp_path / "new" / "sheet.png"
    found = json.loads(shown("predict", weights, deep_folder, "--json", "--sheet", file).out)
    assert [Path(entry["image"]).name for entry in found] == ["a.png", "b [1].JPG", "c.png"]
    assert all(len(entry["top"]) == 5 and set(entry["top"][0]) == {"name", "probability"} for entry in found)
    with Image.open(file) as sheet:
        assert sheet.width > 3 * 192
        assert len(sheet.getcolors(2**24) or []) > 100


def test_csv_and_table(
    weights: Path, deep_folder: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    rows = list(csv.DictReader(io.StringIO(shown("predict", weights, deep_folder, "--csv", "--top", 2).out)))
    assert [row["rank"] for row in rows] == ["1", "2"] * 3
    assert float(rows[0]["probability"]) >= float(rows[1]["probability"])
    printed = shown("predict", weights, deep_folder / "b [1].JPG", "--top", 10).out
    assert "b [1].JPG" in printed
    assert all(name in printed for name in TEN)


def test_damaged_images_are_named_and_skipped(
    weights: Path, deep_folder: Path, shown: Shown, refused: Refused
) -> None:
    (deep_folder / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    printed = shown("predict", weights, deep_folder, "--json")
    assert len(json.loads(printed.out)) == 3
    assert printed.err.count("\n") == 1
    assert "skipped" in printed.err
    assert "damaged.png" in printed.err
    said = refused("predict", weights, deep_folder / "damaged.png", "--json", "--sheet", "s.png")
    assert "none of the 1 images could be read" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.jpg"], "there is no file nowhere.jpg"),
        (["*.gif"], "there is no file *.gif"),
        (["empty"], "no image in the folder empty"),
        (["images", "--sheet", "images/a.png"], "images/a.png exists already"),
        (["images", "--sheet", "sheet.jpg"], "ends in .png"),
        (["images", "--json", "--csv"], "choose one"),
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
