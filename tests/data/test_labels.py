"""A CSV file of images and classes: what spreadsheets write, and what is wrong with a list."""

from pathlib import Path

import pytest
from conftest import sentence_of

from residual.data.folder import index_folder
from residual.data.labels import LabelledFile, read_labels

PLAIN = [LabelledFile("a.jpg", "sea lion", None), LabelledFile("b/c d.png", "cat", None)]


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    """Where a list goes, beside three images."""
    for name in ("a.jpg", "b/c d.png", "e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "list.csv"


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg,sea lion\nb/c d.png,cat\n",
        "path,label\na.jpg,sea lion\nb/c d.png,cat",
        "\ufeffFilename;Width;Class\r\na.jpg;3;sea lion\r\nb\\c d.png;4;cat\r\n",
        'label\timage\n"sea lion"\ta.jpg\ncat\t"b/c d.png"\n\n',
        "a.jpg, sea lion\nb/c d.png,cat\na.jpg,sea lion\n",
        'a.jpg,"sea lion" \n"b/c d.png",cat\n',
        "\r\n;;\r\nImage;Label\r\na.jpg;sea lion\r\nb/c d.png;cat\r\n",
    ],
    ids=["bare", "header", "excel", "tabs", "twice", "spaces", "empty lines"],
)
def test_lists_as_they_are_written(text: str, listing: Path) -> None:
    listing.write_bytes(text.encode())
    assert read_labels(listing) == PLAIN


def test_names_that_macos_has_written(listing: Path) -> None:
    """It takes letters and their accents apart in the names of files; spreadsheets do not."""
    apart, one = "a\u0308", "\u00e4"
    listing.with_name(f"{apart}.jpg").touch()
    listing.write_text(f"{one}.jpg,{one}\na.jpg,{apart}\n", encoding="utf-8")
    assert read_labels(listing) == [LabelledFile(f"{apart}.jpg", one, None), LabelledFile("a.jpg", one, None)]


def test_absolute_paths_and_splits(listing: Path) -> None:
    a = listing.with_name("a.jpg")
    listing.write_text(f"image,class,split\n{a},cat,training\ne.png,cat,Valid\nb/c d.png,ant,train\n")
    assert [each.split for each in read_labels(listing)] == ["train", "val", "train"]
    train = index_folder(listing, "train")
    assert train.classes == ("ant", "cat")
    assert train.targets.tolist() == [0, 1]
    assert train.path(1) == a
    assert index_folder(listing, "val", train.classes).targets.tolist() == [1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.jpg,cat\nnone.jpg,cat\n", "line 2: there is no file"),
        ("path,label\na.jpg,cat\na.jpg,dog", "line 3: a.jpg stands in line 2 otherwise"),
        ("a.jpg\n", "line 1: 'a.jpg' names no image and its class"),
        ("path,label\na.jpg,\n", "line 2: 'a.jpg,' names no image and its class"),
        ("path,label,split\na.jpg,cat,holdout\n", "line 2: there is no split 'holdout'"),
        ("path,label,split\na.jpg,cat,train\ne.png,cat,\n", "names the split of some images only"),
        # It would be one cell with all lines to the next quote, or to the end.
        ('a.jpg,"cat\nb/c d.png,dog\ne.png,"ant"\n', "line 3: a cell ends here that began in a line before"),
        ('a.jpg,cat\nb/c d.png,"dog\n', "a cell ends here that began"),
        ("\n\npath,label\na.jpg,cat\nnone.jpg,cat\n", "line 5: there is no file"),
        ("", "lists no image"),
        ("path,label\n", "lists no image"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str, listing: Path) -> None:
    listing.write_text(text)
    assert said in sentence_of(lambda: read_labels(listing))


def test_a_part_that_a_list_does_not_have(listing: Path) -> None:
    listing.write_text("a.jpg,cat\n")
    assert "add a column split" in sentence_of(lambda: index_folder(listing, "train"))
    assert len(index_folder(listing, "val")) == 1
    listing.write_text("a.jpg,cat,train\n")
    assert "lists no image of the split val" in sentence_of(lambda: index_folder(listing, "val"))
    other = listing.rename(listing.with_suffix(".xlsx"))
    assert "or a .csv file that lists them" in sentence_of(lambda: index_folder(other, "val"))
