"""An experiment's own files: derived from run folders, written whole, replaced when they are made again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..analysis.figures import file_content
from ..errors import InputError
from ..training.checkpoint import write_atomically


def write_text(path: Path, text: str) -> None:
    """Write a text file.

    Raises:
        InputError: when it cannot be written; what was there is untouched.
    """
    _write(path, lambda: text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write plain data as JSON; errors as ``write_text``."""
    _write(path, lambda: (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_figure(folder: Path, name: str, figure: Figure) -> None:
    """Write a figure as ``name.svg`` and ``name.png``; errors as ``write_text``."""
    _write(folder / f"{name}.svg", lambda: file_content(figure, "svg"))
    _write(folder / f"{name}.png", lambda: file_content(figure, "png"))


def _write(path: Path, content: Callable[[], bytes]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content())
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
