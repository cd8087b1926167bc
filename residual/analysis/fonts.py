"""Fonts for names in any script: the one that figures are drawn in has no Chinese letters."""

import functools

from matplotlib.font_manager import FontEntry, fontManager, get_font
from PIL import ImageFont

#: Matplotlib's own: Latin, Greek, Cyrillic, Hebrew and Arabic letters.
OWN = "DejaVu Sans"
#: Another one of its own, an empty box for every letter there is.
BOXES = "Last Resort"


def image_font(text: str, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font in which a text is drawn on an image.

    Args:
        size: of the letters, in pixels.
    """
    if text.isascii():
        return ImageFont.load_default(size)
    return ImageFont.truetype(font_with(text).fname, size)


def font_with(text: str) -> FontEntry:
    """Return the installed font that has most letters of a text, ``OWN`` where it has no less than others."""
    letters = {ord(letter) for letter in text if not letter.isspace()}

    def lacking(font: FontEntry) -> int:
        return len(letters - _letters_of(font.fname))

    upright = [
        font
        for font in fontManager.ttflist
        if font.style == "normal" and str(font.weight) in ("400", "normal") and BOXES not in font.name
    ]
    own = next(font for font in upright if font.name == OWN and font.stretch == "normal")
    return min([own, *upright] if lacking(own) else [own], key=lacking)


@functools.cache
def _letters_of(file: str) -> frozenset[int]:
    """Return the letters that a font has; captions are many, and to look into all fonts takes a second."""
    try:
        return frozenset(get_font(file).get_charmap())
    except (OSError, RuntimeError):
        # Matplotlib remembers fonts that are gone.
        return frozenset()
