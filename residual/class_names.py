"""The classes of published datasets, in the order that published networks have them in."""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from .errors import on_a_line

#: How Unicode writes a letter with an accent: as one, or as two, which is macOS's.
Form = Literal["NFC", "NFD"]

#: CIFAR-10's ten, in the order of its labels.
CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


@functools.cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """Return ImageNet 2012's 1,000 classes in the order of their WordNet ids.

    Each is that id and the name that torchvision gives it: ``("n01440764", "tench")``.
    """
    return _listed("imagenet_classes.txt")


@functools.cache
def imagenet_det_classes() -> tuple[tuple[str, str], ...]:
    """Return the 200 classes of ImageNet's detection task in the order of the development kit's numbers.

    Each is a WordNet id and the kit's name, ``("n02672831", "accordion")``; the numbers are 1 to 200.
    """
    return _listed("imagenet_det_classes.txt")


def readable(classes: Sequence[str]) -> list[str]:
    """Return classes as people call them: "tench" for "n01440764" and for "n01440764 tench".

    Two classes of one name keep their WordNet ids: ImageNet has two cranes.
    """
    known = dict(imagenet_classes())
    found = []
    for name in classes:
        match = re.fullmatch(r"(n\d{8})(?: (.+))?", name)
        found.append((match[2] or known.get(match[1], name)) if match else name)
    times = Counter(found)
    return [short if times[short] == 1 else name for short, name in zip(found, classes, strict=True)]


def composed(name: str) -> str:
    """Return a name with one letter where macOS writes two: a letter and its accent."""
    return unicodedata.normalize("NFC", name)


def class_name(text: str) -> str:
    """Return the name of a class as it is everywhere, whatever wrote it: ``composed``, on a line."""
    return composed(on_a_line(text))


def in_form(names: Iterable[str], form: Form) -> list[str]:
    """Return names with accents as letters of their own ("NFD"), or not ("NFC")."""
    return [unicodedata.normalize(form, name) for name in names]


#: In a recipe, and in what describes weights, of earlier versions too.
ClassName = Annotated[str, AfterValidator(class_name)]


def first_twice(names: Iterable[str]) -> str | None:
    """Return the first name that was there before."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _listed(file: str) -> tuple[tuple[str, str], ...]:
    lines = Path(__file__).with_name(file).read_text(encoding="utf-8").splitlines()
    return tuple((line[:9], line[10:]) for line in lines)
