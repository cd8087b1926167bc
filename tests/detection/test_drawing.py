"""What was found, drawn beside the truth: which image comes first, and what is marked as wrong."""

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageColor

from residual.data.boxes import AnnotatedImage, BoxDataset
from residual.detection.average_precision import Detections
from residual.detection.drawing import (
    RIGHT,
    WRONG,
    draw_judged,
    draw_mistakes_sheet,
    judged_worst_first,
)
from residual.errors import InputError

#: Boxes of an image of 80 x 60 pixels, far from each other.
LEFT, RIGHTMOST = [5.0, 5, 25, 25], [50.0, 30, 70, 50]
CLASSES = ("cat", "dog")


def annotated(folder: Path, name: str, difficult: bool = False) -> AnnotatedImage:
    """A cat at the left and a dog at the right, which may be difficult."""
    Image.new("RGB", (80, 60), "#404040").save(folder / f"{name}.png")
    no = torch.zeros(2, dtype=torch.bool)
    boxes, labels = torch.tensor([LEFT, RIGHTMOST]), torch.tensor([0, 1])
    hard = torch.tensor([False, difficult])
    return AnnotatedImage(name, folder / f"{name}.png", (80, 60), boxes, labels, hard, no, torch.ones(2))


def detections(*found: tuple[list[float], float, int]) -> Detections:
    boxes, scores, labels = zip(*found, strict=True) if found else ((), (), ())
    return Detections(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels).long())


#: Both; only the cat, and the dog with too low a score; a dog where the cat is, and nothing else.
BOTH = detections((LEFT, 0.9, 0), (RIGHTMOST, 0.8, 1))
ONE = detections((LEFT, 0.9, 0), (RIGHTMOST, 0.4, 1))
NEITHER = detections((LEFT, 0.9, 1))


def dataset(*images: AnnotatedImage) -> BoxDataset:
    return BoxDataset("voc", ("test",), CLASSES, images, (), (None, None))


def colours(image: Image.Image, box: list[float]) -> set[object]:
    """Return the colours around a box's lower edge, of an image that is enlarged where it has a caption."""
    times = image.width / 80
    x1, _, x2, y2 = (round(times * side) for side in box)
    return {image.getpixel((x, y)) for x in range(x1 + 8, x2 - 8) for y in range(y2 - 4, y2 + 1)}


def test_the_image_with_most_mistakes_comes_first(tmp_path: Path) -> None:
    data = dataset(*(annotated(tmp_path, name) for name in ("both", "one", "neither", "again")))
    judged = judged_worst_first(data, [BOTH, ONE, NEITHER, ONE], "area")
    assert [(image.id, one.mistakes) for image, one in judged] == [
        ("neither", 3),
        ("one", 1),
        ("again", 1),
        ("both", 0),
    ]


def test_what_is_wrong_has_a_colour_of_its_own(tmp_path: Path) -> None:
    right, wrong = ImageColor.getrgb(RIGHT), ImageColor.getrgb(WRONG)
    image = annotated(tmp_path, "image")

    def drawn(found: Detections, which: AnnotatedImage = image) -> list[bool | None]:
        """For both boxes of the truth and of what was found: whether it is marked right, or is not there."""
        ((_, judged),) = judged_worst_first(dataset(which), [found], "area")
        marks: list[bool | None] = []
        for half in draw_judged(which, judged, CLASSES, 160):
            for box in (LEFT, RIGHTMOST):
                seen = colours(half, box)
                marks.append(True if right in seen else False if wrong in seen else None)
        return marks

    assert drawn(BOTH) == [True, True, True, True]
    assert drawn(ONE) == [True, False, True, None]
    assert drawn(NEITHER) == [False, False, False, None]
    # Nobody has to find a difficult one.
    assert drawn(ONE, annotated(tmp_path, "difficult", difficult=True)) == [True, None, True, None]


def test_the_sheet_shows_each_image_twice_and_none_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [annotated(tmp_path, name) for name in ("a", "b", "c")]
    tiles: list[str] = []
    monkeypatch.setattr(
        "residual.detection.drawing.draw_boxed_sheet",
        lambda drawn, file, columns, together: tiles.extend(text for _, text in drawn),
    )

    def sheet(*unusable: str) -> list[str]:
        tiles.clear()
        found = [BOTH, ONE, NEITHER]
        shown = draw_mistakes_sheet(dataset(*images), found, "area", tmp_path / "sheet.png", unusable)
        assert 2 * shown == len(tiles)
        return tiles

    found = "found with a score of 0.5 and more:"
    of_c = ["c: 2 objects, 2 missed", f"{found} 1, all wrong"]
    of_b = ["b: 2 objects, 1 missed", f"{found} 1"]
    assert sheet() == [*of_c, *of_b, "a: 2 objects", f"{found} 2"]
    # Nothing was found where nobody could look.
    assert sheet("c") == [*of_b, "a: 2 objects", f"{found} 2"]
    images[0].path.unlink()
    assert sheet() == [*of_c, *of_b]
    monkeypatch.setattr("residual.detection.drawing.BOXED_MOST", 3)
    assert sheet() == of_c
    for image in images[1:]:
        image.path.unlink()
    with pytest.raises(InputError, match=r"voc test: there is nothing to draw"):
        sheet()
