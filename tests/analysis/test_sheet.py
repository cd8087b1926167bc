"""Contact sheets: what was seen, and whether it is right."""

from pathlib import Path

from conftest import smooth_image
from PIL import Image

from residual.analysis.sheet import (
    BOXED_SIDE,
    FRAME,
    RIGHT,
    SIDE,
    SPACE,
    WRONG,
    Seen,
    boxed_thumbnail,
    draw_sheet,
)


def test_the_frame_says_right_or_wrong_where_the_class_is_known(tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    smooth_image(64, 64).save(image)
    seen = [Seen(image, "cat", 0.9, "cat"), Seen(image, "dog", 0.5, "cat"), Seen(image, "cat", 0.9)]
    draw_sheet(seen, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        # The upper left corners of the three frames; the third image has none.
        corners = [sheet.getpixel((SPACE + n * (SIDE + SPACE) - FRAME, SPACE - FRAME)) for n in range(3)]
    assert corners == [bytes_of(RIGHT), bytes_of(WRONG), (255, 255, 255)]


def test_of_a_long_name_as_much_is_told_as_there_is_room_for(tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    smooth_image(64, 64).save(image)
    sheets = []
    for number, truth in enumerate(("Tomato___Yellow_Leaf_Curl_Virus", "Pepper___Bacterial_spot_or_other")):
        draw_sheet([Seen(image, "cat", 0.9, truth)], tmp_path / f"{number}.png")
        sheets.append((tmp_path / f"{number}.png").read_bytes())
    assert sheets[0] != sheets[1]


def bytes_of(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def test_an_image_as_thin_as_a_line_is_on_the_sheet(tmp_path: Path) -> None:
    image = tmp_path / "line.png"
    Image.new("RGB", (4000, 3), "red").save(image)
    draw_sheet([Seen(image, "cat", 0.9)], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.getpixel((SPACE + 5, SPACE + (SIDE - 1) // 2)) == (255, 0, 0)
    with Image.open(image) as opened:
        assert boxed_thumbnail(opened).size == (BOXED_SIDE, 1)
