"""Networks of the user's own: ``mine.py:build``, a function in a file, in place of a name.

    def build(classes, in_channels=3):      # in_channels may be left out
        return MyNetwork(classes)           # a torch.nn.Module: (N, C, H, W) to scores (N, classes)

The weights folder of such a network holds a copy of the file. It is code, and a weights folder may be
anybody's: it runs only where its user has trained with just this file, or has said ``residual trust FOLDER``.
What is trusted is the hash of the file and of the function's name, kept in the user's cache folder.
"""

import hashlib
import inspect
import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from ..errors import InputError
from ..files import cache_folder, first_line, keep
from .classifier import Classifier


def is_own(name: str) -> bool:
    """Whether a network's name is FILE.py:FUNCTION."""
    file, colon, function = name.rpartition(":")
    return bool(colon) and file.endswith(".py") and function.isidentifier()


def split_name(name: str) -> tuple[Path, str]:
    """Return the file and the function that a name is of."""
    file, _, function = name.rpartition(":")
    return Path(file), function


def fingerprint(name: str) -> str:
    """Return the SHA-256 of a network's file and its function's name.

    Raises:
        InputError: when there is no such file.
    """
    file, function = split_name(name)
    return hashlib.sha256(_code(file) + b"\0" + function.encode()).hexdigest()


def trust(name: str) -> None:
    """Remember that a network's file may run on this machine, as the user has asked for."""
    if not is_trusted(name):
        _HERE.add(fingerprint(name))
        keep(_file(), "".join(f"{each}\n" for each in sorted(_known())).encode())


def is_trusted(name: str) -> bool:
    """Whether the user has asked for a network's file to run, on this machine or in this process."""
    return fingerprint(name) in _known()


def check_trusted(name: str, folder: Path) -> None:
    """Raise an InputError for code that nobody has asked to run.

    Args:
        folder: that it is from, for the message.
    """
    if not is_trusted(name):
        raise InputError(
            f"{folder} holds a network of somebody's own, and loading it runs {split_name(name)[0]}; read "
            f"that file, and if it may run here: residual trust {shlex.quote(str(folder))}"
        )


class OwnNetwork(Classifier):
    """A user's module as a classifier; what it has beside ``forward`` is the module's own affair.

    Attributes:
        network: the module.
        name: FILE.py:FUNCTION, of the file that it was built from.
        code: that file's content.
    """

    plain = False
    #: What it is trained on is whole images, unless a recipe crops them.
    small_images = True

    def __init__(self, network: nn.Module, name: str, classes: int, in_channels: int) -> None:
        super().__init__()
        self.network = network
        self.name, self.code = name, _code(split_name(name)[0])
        self.classes, self.in_channels = classes, in_channels
        self.depth = sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules())

    def features(self, x: Tensor) -> dict[str, Tensor]:
        return self._theirs("features")(x)

    def stage_layers(self) -> list[list[nn.Module]]:
        return self._theirs("stage_layers")()

    def score_map(self, x: Tensor) -> Tensor:
        return self._theirs("score_map")(x)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.network(x)
        if not isinstance(scores, Tensor) or scores.shape != (len(x), self.classes):
            given = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise InputError(
                f"{self.name}: the network gives {given} for {len(x)} images, and scores "
                f"({len(x)}, {self.classes}) are expected"
            )
        return scores

    def _theirs(self, method: str) -> Callable[..., Any]:
        found = getattr(self.network, method, None)
        if not callable(found):
            raise InputError(f"{self.name}: the network has no {method}, which this needs (docs/training.md)")
        return found


def build_own(name: str, classes: int = 1000, in_channels: int = 3) -> OwnNetwork:
    """Run a file and return the network that its function builds.

    Raises:
        InputError: for a file that does not run, or a function that builds no module.
    """
    file, function = split_name(name)
    module = ModuleType(file.stem)
    module.__file__ = str(file)
    try:
        exec(compile(_code(file), str(file), "exec"), module.__dict__)
        build = getattr(module, function, None)
        if not callable(build):
            raise InputError(f"{file} has no function {function}")
        takes = inspect.signature(build).parameters
        any_name = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values())
        given = {"in_channels": in_channels} if "in_channels" in takes or any_name else {}
        if not given and in_channels != 3:
            raise InputError(f"{name} has no argument in_channels, and the images have {in_channels}")
        network = build(classes=classes, **given)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{name} cannot be built: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"{name} gives a {type(network).__name__}, not a torch.nn.Module")
    return OwnNetwork(network, name, classes, in_channels)


def _code(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(
            f"{file} cannot be read: {error.strerror}; a network's file is named mine.py:build"
        ) from None


#: Hashes that are trusted in this process, also where the cache folder cannot be written.
_HERE: set[str] = set()


def _known() -> set[str]:
    try:
        return _HERE | set(_file().read_text(encoding="utf-8").split())
    except (OSError, ValueError):
        return set(_HERE)


def _file() -> Path:
    return cache_folder() / "trusted-networks.txt"
