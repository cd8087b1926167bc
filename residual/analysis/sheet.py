"""A contact sheet: pictures in rows, each with what a network sees in it."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..data.images import decode
from ..errors import InputError
from ..models.statedict import refuse_existing, written_whole

#: Pixels: the side of a picture's square, the height of the text below it, the space between.
SIDE, TEXT, SPACE = 192, 44, 12

COLUMNS = 6

#: More pictures than these would make a file that nothing opens.
MOST = 600


def check_new_sheet(file: Path) -> None:
    """Raise an InputError unless a contact sheet can be written to a file of this name."""
    if file.suffix.lower() != ".png":
        raise InputError(f"{file}: a contact sheet is a file that ends in .png; name it so")
    refuse_existing(file)


def draw_sheet(pictures: Sequence[tuple[Path, str, float]], file: Path) -> None:
    """Write a PNG of pictures, whole and as large as fits, each with a name and a probability below.

    Args:
        pictures: files, and the likeliest class and its probability of each; the first ``MOST`` are drawn.
        file: where nothing is yet.

    Raises:
        InputError: when the file exists, is no .png or cannot be written, or a picture cannot be read again.
    """
    check_new_sheet(file)
    pictures = pictures[:MOST]
    columns = min(COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    size = (SPACE + columns * (SIDE + SPACE), SPACE + rows * (SIDE + TEXT + SPACE))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for n, (path, name, probability) in enumerate(pictures):
        x = SPACE + n % columns * (SIDE + SPACE)
        y = SPACE + n // columns * (SIDE + TEXT + SPACE)
        picture = ImageOps.contain(Image.fromarray(decode(path, SIDE).movedim(0, -1).numpy()), (SIDE, SIDE))
        sheet.paste(picture, (x + (SIDE - picture.width) // 2, y + (SIDE - picture.height) // 2))
        text = textwrap.wrap(f"{100 * probability:.0f} % {name}", 28, max_lines=2, placeholder=" ...")
        draw.multiline_text((x, y + SIDE + 4), "\n".join(text), fill="black", font=font)
    with written_whole(file) as temporary:
        sheet.save(temporary, "PNG")
