"""A contact sheet: images in rows, each with what a network sees in it."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..data.images import decode
from ..files import check_new, written_whole

#: Pixels: the side of an image's square, the height of the text below it, the space between, a frame's width.
SIDE, TEXT, SPACE, FRAME = 192, 62, 12, 4

COLUMNS = 6

#: More images than these would make a file that nothing opens.
MOST = 600
#: Frames of images whose class is known: what was seen is right, or wrong.
RIGHT, WRONG = "#2a9d6f", "#c0392b"


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
    images = images[:MOST]
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    size = (SPACE + columns * (SIDE + SPACE), SPACE + rows * (SIDE + TEXT + SPACE))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for n, seen in enumerate(images):
        x = SPACE + n % columns * (SIDE + SPACE)
        y = SPACE + n // columns * (SIDE + TEXT + SPACE)
        pixels = decode(seen.path, SIDE).movedim(0, -1).numpy()
        image = ImageOps.contain(Image.fromarray(pixels), (SIDE, SIDE))
        left, top = x + (SIDE - image.width) // 2, y + (SIDE - image.height) // 2
        sheet.paste(image, (left, top))
        lines = _short(f"{100 * seen.probability:.0f} % {seen.name}", 2)
        if seen.truth is not None:
            right = seen.truth == seen.name
            edge = (left - FRAME, top - FRAME, left + image.width + FRAME - 1, top + image.height + FRAME - 1)
            draw.rectangle(edge, outline=RIGHT if right else WRONG, width=FRAME)
            lines += ["right"] if right else _short(f"wrong, is {seen.truth}", 1)
        draw.multiline_text((x, y + SIDE + FRAME + 1), "\n".join(lines), fill="black", font=font)
    with written_whole(file) as temporary:
        sheet.save(temporary, "PNG")


def _short(text: str, lines: int) -> list[str]:
    return textwrap.wrap(text, 28, max_lines=lines, placeholder=" ...")
