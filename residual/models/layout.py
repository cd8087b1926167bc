"""What the files of a weights folder are called, here and on the Hub; weights.py says what they hold."""

import shlex
from pathlib import Path

from ..errors import InputError

MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
PREPROCESSING_FILE = "preprocessing.safetensors"
CODE_FILE = "network.py"
#: Of a run folder, in which weights/ is.
RECIPE_FILE = "recipe.yaml"


def refuse_unfinished(folder: Path, command: str, also: str = "") -> None:
    """Raise an InputError where a folder holds a run that has no weights yet, with the way to have some.

    Args:
        command: that trains such runs, as "residual detect train".
        also: what else helps.
    """
    if (folder / RECIPE_FILE).is_file():
        raise InputError(
            f"{folder} holds a run that is not complete, so it has no weights yet; finish it with: "
            f"{command} --resume --out {shlex.quote(str(folder))}{also}"
        )


def held_in(folder: Path, *names: str) -> str:
    """Return which folders with such a file lie in a folder, as the end of a sentence; "" for none."""
    held = sorted({str(file.parent) for name in names for file in folder.glob(f"*/{name}")})[:3]
    if not held:
        return ""
    return f"; it holds {' and '.join(held)}; name {'one of them' if len(held) > 1 else 'that one'}"
