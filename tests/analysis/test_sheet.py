"""Contact sheets: what was seen, and whether it is right."""

from pathlib import Path

from conftest import smooth_image
from PIL import Image, ImageColor

from residual.analysis.sheet import (
    BOXED_SIDE,
    FRAME,
    LINE,
    RIGHT,
    SIDE,
    SPACE,
    WRONG,
    Seen,
    contained,
    draw_boxed_sheet,
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
        assert sheet.getpixel((SPACE + 5, SPACE)) == (255, 0, 0)
    with Image.open(image) as opened:
        assert contained(opened, BOXED_SIDE).size == (BOXED_SIDE, 1)


def test_low_images_leave_no_gap_and_pairs_stand_apart(tmp_path: Path) -> None:
    shapes = [(384, 200), (384, 100), (100, 384), (384, 200), (384, 100)]
    colours = ["red", "lime", "blue", "black", "gray"]
    tiles = [(Image.new("RGB", shape, colour), "a") for shape, colour in zip(shapes, colours, strict=True)]
    draw_boxed_sheet(tiles, tmp_path / "sheet.png", columns=4, together=2)
    below = FRAME + LINE + 2 * SPACE
    # All of a row stand on one line, close above their texts; the second pair has more space before it.
    first, second = SPACE + 384, SPACE + 384 + below + 100
    lefts = [SPACE, 2 * SPACE + 384, 4 * SPACE + 2 * 384, 5 * SPACE + 3 * 384]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (lefts[-1] + 384 + SPACE, second + below)
        corners = [(x, first - 1) for x in lefts] + [(SPACE, second - 1)]
        assert [sheet.getpixel(corner) for corner in corners] == [ImageColor.getrgb(c) for c in colours]
        assert sheet.getpixel((lefts[2] - 1, first - 1)) == (255, 255, 255)
        assert sheet.getpixel((SPACE, first - 201)) == (255, 255, 255)
