"""A contact sheet: images in rows, each with what a network sees in it."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..data.images import decode
from ..files import check_new, written_whole

#: Pixels: the side of an image's square, the height of the text below it, the space between.
SIDE, TEXT, SPACE = 192, 44, 12

COLUMNS = 6

#: More images than these would make a file that nothing opens.
MOST = 600


def draw_sheet(images: Sequence[tuple[Path, str, float]], file: Path) -> None:
    """Write a PNG of images, whole and as large as fits, each with a name and a probability below.

    Args:
        images: files, and the likeliest class and its probability of each; the first ``MOST`` are drawn.
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
    for n, (path, name, probability) in enumerate(images):
        x = SPACE + n % columns * (SIDE + SPACE)
        y = SPACE + n // columns * (SIDE + TEXT + SPACE)
        image = ImageOps.contain(Image.fromarray(decode(path, SIDE).movedim(0, -1).numpy()), (SIDE, SIDE))
        sheet.paste(image, (x + (SIDE - image.width) // 2, y + (SIDE - image.height) // 2))
        text = textwrap.wrap(f"{100 * probability:.0f} % {name}", 28, max_lines=2, placeholder=" ...")
        draw.multiline_text((x, y + SIDE + 4), "\n".join(text), fill="black", font=font)
    with written_whole(file) as temporary:
        sheet.save(temporary, "PNG")
