"""HTML pages: each is one file that loads nothing, from the templates in pages/."""

import base64
import functools
import io
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from .. import __version__
from ..errors import plural
from .figures import page_svg


def render(template: str, **values: Any) -> str:
    """Return a page from a template; a value that it names and nobody gives is an error."""
    return templates().get_template(template).render(version=__version__, **values)


@functools.cache
def templates(markdown: bool = False) -> Environment:
    """Return what keeps the templates once they are compiled: of HTML, or of Markdown, where lines count."""
    made = Environment(
        loader=PackageLoader("residual.analysis", "pages"),
        autoescape=not markdown,
        undefined=StrictUndefined,
        trim_blocks=markdown,
        lstrip_blocks=markdown,
    )
    made.globals["plural"] = plural
    return made


def part(figure: Figure, label: str) -> Markup:
    """Return a figure as a part of a page; ``label`` as of ``page_svg``."""
    return Markup(page_svg(figure, label))


def image_address(image: Image.Image, format: Literal["PNG", "JPEG"] = "PNG") -> str:
    """Return an image as an address that holds all of it; a JPEG where small differences do not matter."""
    buffer = io.BytesIO()
    image.save(buffer, format, **({"quality": 85} if format == "JPEG" else {}))
    return f"data:image/{format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
