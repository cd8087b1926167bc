"""Images one after the other, and their boxes drawn: what ``detect predict`` and ``locate predict`` share."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import InputError
from ..terminal import note
from .options import drawn_files
from .output import say_drawn

if TYPE_CHECKING:
    from PIL import Image

    from ..analysis.detection_figures import BoxDrawing

T = TypeVar("T")


def each_usable(
    images: Sequence[Path], look: Callable[[Path], T], results: list[dict[str, Any]]
) -> Iterator[tuple[Path, T]]:
    """Yield images and what ``look`` makes of them; what cannot be used is said, and noted in the results.

    Raises:
        InputError: for an image that cannot be used, where it is the only one.
    """
    for image in images:
        try:
            found = look(image)
        except InputError as error:
            # One bad image among many does not end the work; alone it does.
            if len(images) == 1:
                raise
            note(f"skipped: {error}")
            results.append({"image": str(image), "error": str(error)})
        else:
            yield image, found


class Drawings:
    """Images with their boxes drawn, a file each, and on one sheet.

    Args:
        images: all that may be drawn.
        out: folder of the files, None for none.
        sheet: the sheet's file, None for none.

    Raises:
        InputError: where a file is there already, or cannot be.
    """

    def __init__(self, images: list[Path], out: Path | None, sheet: Path | None) -> None:
        self.out, self.sheet = out, sheet
        self._targets = drawn_files(images, out, "--out") if out else {}
        self._thumbnails: list[tuple[Image.Image, str]] = []
        self._count = 0

    @property
    def wanted(self) -> bool:
        """Whether anything is to be drawn."""
        return bool(self.out or self.sheet)

    def add(self, image: Path, pixels: "Image.Image", boxes: "Sequence[BoxDrawing]", told: str) -> None:
        """Write an image with its boxes, and keep it for the sheet with a text below it."""
        from ..analysis.detection_figures import draw_boxes
        from ..analysis.sheet import BOXED_MOST, BOXED_SIDE
        from ..files import written_whole

        if self.out:
            with written_whole(self._targets[image]) as temporary:
                draw_boxes(pixels, boxes).save(temporary, "PNG")
        self._count += 1
        if self.sheet and len(self._thumbnails) < BOXED_MOST:
            # Drawn anew: letters and lines of a large image would be too small to see.
            self._thumbnails.append((draw_boxes(pixels, boxes, BOXED_SIDE), f"{image.name}: {told}"))

    def write_sheet(self) -> None:
        """Write the sheet, if one is asked for and there is anything on it."""
        from ..analysis.sheet import draw_boxed_sheet

        if self.sheet and self._thumbnails:
            draw_boxed_sheet(self._thumbnails, self.sheet)
            say_drawn(self.sheet, len(self._thumbnails), self._count)
