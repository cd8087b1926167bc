"""A contact sheet: images in rows, each with what a network sees in it."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from rich.cells import cell_len

from ..data.images import decode
from ..files import check_new, written_whole
from .fonts import image_font

#: Pixels: the side of an image's square, the height of a line of the text below it, the space between, a
#: frame's width.
SIDE, LINE, SPACE, FRAME = 192, 18, 12, 4

COLUMNS = 6
#: Of sheets of images with boxes, which are to be told apart.
BOXED_SIDE, BOXED_COLUMNS = 384, 3

#: More images than these would make a file that nothing opens.
MOST, BOXED_MOST = 600, 210
#: Frames of images whose class is known: what was seen is right, or wrong.
RIGHT, WRONG = "#2a9d6f", "#c0392b"
#: Ends a text that is cut.
MORE = " ..."


@dataclass(frozen=True)
class Seen:
    """An image, and what is seen in it.

    Attributes:
        name, probability: of the likeliest class.
        truth: the name of its own class, None where that is not known.
    """

    path: Path
    name: str
    probability: float
    truth: str | None = None

    @property
    def right(self) -> bool:
        """Whether its own class is what is seen."""
        return self.truth == self.name


def draw_sheet(images: Sequence[Seen], file: Path) -> None:
    """Write a PNG of images, whole and as large as fits, each with a name and a probability below.

    Where an image's own class is known, its frame and the text say whether what was seen is right.

    Args:
        images: the first ``MOST`` are drawn.
        file: where nothing is yet.

    Raises:
        InputError: when the file exists, is no .png or cannot be written, or an image cannot be read again.
    """
    check_new(file, "a contact sheet", ".png")
    _write_sheet([_seen(image) for image in images[:MOST]], file, SIDE, COLUMNS)


def draw_boxed_sheet(
    images: Sequence[tuple[Image.Image, str]], file: Path, columns: int = BOXED_COLUMNS, together: int = 1
) -> None:
    """Write a PNG of images with their boxes, each with a text below.

    Args:
        images: each drawn at ``BOXED_SIDE``, and its text; the first ``BOXED_MOST`` are shown.
        columns: how many stand in a row.
        together: how many of a row belong together: there is more space after them.

    Raises:
        InputError: as ``draw_sheet``.
    """
    check_new(file, "a contact sheet", ".png")
    tiles = [_Tile(image, short_lines(text, 3, BOXED_SIDE // 7)) for image, text in images[:BOXED_MOST]]
    _write_sheet(tiles, file, BOXED_SIDE, columns, together)


@dataclass(frozen=True)
class _Tile:
    """An image of a sheet, no larger than its square, the lines below it and the colour of its frame."""

    image: Image.Image
    lines: list[str]
    frame: str | None = None


def _seen(seen: Seen) -> _Tile:
    pixels = decode(seen.path, SIDE).movedim(0, -1).numpy()
    image = contained(Image.fromarray(pixels), SIDE)
    lines, frame = short_lines(f"{100 * seen.probability:.0f} % {seen.name}", 2), None
    if seen.truth is not None:
        frame = RIGHT if seen.right else WRONG
        lines += ["right"] if seen.right else short_lines(f"wrong, is {seen.truth}", 1)
    return _Tile(image, lines, frame)


def contained(image: Image.Image, side: float) -> Image.Image:
    """Return an image as large as a square shows it, with a pixel at least each way."""
    scale = side / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _write_sheet(tiles: Sequence[_Tile], file: Path, side: int, columns: int, together: int = 1) -> None:
    columns = min(columns, len(tiles))
    rows = [tiles[n : n + columns] for n in range(0, len(tiles), columns)]
    lefts = [SPACE + n * (side + SPACE) + n // together * (together - 1) * SPACE for n in range(columns)]
    # A text stands close below its image, and low images and short texts leave no gap.
    images = [max(tile.image.height for tile in row) for row in rows]
    heights = [
        image + FRAME + LINE * max(len(tile.lines) for tile in row) + 2 * SPACE
        for image, row in zip(images, rows, strict=True)
    ]
    sheet = Image.new("RGB", (lefts[-1] + side + SPACE, SPACE + sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    font = image_font("".join(line for tile in tiles for line in tile.lines), 13)
    y = SPACE
    for row, image, height in zip(rows, images, heights, strict=True):
        for x, tile in zip(lefts, row, strict=False):
            top = y + image - tile.image.height
            sheet.paste(tile.image, (x, top))
            if tile.frame:
                edge = (x - FRAME, top - FRAME, x + tile.image.width + FRAME - 1, y + image + FRAME - 1)
                draw.rectangle(edge, outline=tile.frame, width=FRAME)
            draw.multiline_text((x, y + image + FRAME + 1), "\n".join(tile.lines), fill="black", font=font)
        y += height
    with written_whole(file) as temporary:
        sheet.save(temporary, "PNG")


def short_lines(text: str, lines: int, width: int = 28) -> list[str]:
    """Return a text in lines of at most so many letters; a name without spaces is cut like any other."""
    # Chinese letters are twice as wide as Latin ones.
    width = width * len(text) // max(1, cell_len(text))
    wrapped = textwrap.wrap(text, width)
    if len(wrapped) > lines:
        wrapped[lines - 1] = wrapped[lines - 1][: width - len(MORE)].rstrip() + MORE
    return wrapped[:lines]
