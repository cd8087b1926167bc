"""Networks of the user's own: ``mine.py:build``, a function in a file, in place of a name.

    def build(classes, in_channels=3):      # in_channels may be left out
        return MyNetwork(classes)           # a torch.nn.Module: (N, C, H, W) to scores (N, classes)

The weights folder of such a network holds a copy of the file. It is code, and a weights folder may be
anybody's: it runs only where its user has trained with just this file, or has said ``residual trust FOLDER``.
What is trusted is the hash of the file and of the function's name, kept in the user's cache folder.
"""

import hashlib
import inspect
import itertools
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import InputError
from ..files import cache_folder, first_line, keep
from .classifier import Classifier
from .layout import CODE_FILE


def is_own(name: str) -> bool:
    """Whether a network's name is FILE.py:FUNCTION."""
    file, colon, function = name.rpartition(":")
    return bool(colon) and file.endswith(".py") and function.isidentifier()


def split_name(name: str) -> tuple[Path, str]:
    """Return the file and the function that a name is of."""
    file, _, function = name.rpartition(":")
    return Path(file), function


def without_place(name: str) -> str:
    """Return a network's name as a weights folder has it, which holds a copy of the file that it may name."""
    return f"{CODE_FILE}:{split_name(name)[1]}" if is_own(name) else name


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
    #: In another one a map cannot be seen as rows, as x.view(len(x), -1) does.
    memory_format = torch.contiguous_format

    def __init__(self, network: nn.Module, name: str, classes: int, in_channels: int) -> None:
        super().__init__()
        self.network = network
        self.name, self.code = name, _code(split_name(name)[0])
        self.classes, self.in_channels = classes, in_channels
        self.depth = sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules())

    def features(self, x: Tensor) -> dict[str, Tensor]:
        maps = self._theirs("features")(_usual(x))
        if not isinstance(maps, Mapping) or not maps or not all(map(_is_map, maps.values())):
            raise self._other("features", maps, "a dictionary of maps (N, C, h, w) by their stages' names")
        return dict(maps)

    def stage_layers(self) -> list[list[nn.Module]]:
        stages = self._theirs("stage_layers")()
        try:
            layers = [list(stage) for stage in stages]
        except TypeError:
            layers = [[]]
        if not all(stage and all(isinstance(layer, nn.Module) for layer in stage) for stage in layers):
            raise self._other("stage_layers", stages, "a list of modules for each stage")
        return layers

    def score_map(self, x: Tensor) -> Tensor:
        scores = self._theirs("score_map")(_usual(x))
        # Not len(x), which would fix the number of images in ONNX.
        if not _is_map(scores) or scores.shape[0] != x.shape[0] or scores.shape[1] != self.classes:
            raise self._other("score_map", scores, f"scores ({len(x)}, {self.classes}, h, w)")
        return scores

    def forward(self, x: Tensor) -> Tensor:
        scores = self.network(_usual(x))
        if not isinstance(scores, Tensor) or scores.shape != (len(x), self.classes):
            raise InputError(
                f"{self.name}: the network gives {_told(scores)} for {len(x)} images, and scores "
                f"({len(x)}, {self.classes}) are expected"
            )
        return scores

    def _theirs(self, method: str) -> Callable[..., Any]:
        found = getattr(self.network, method, None)
        if not callable(found):
            raise InputError(
                f"{self.name}: the network has no method {method}, which this needs (docs/training.md)"
            )
        return found

    def _other(self, method: str, given: object, expected: str) -> InputError:
        return InputError(
            f"{self.name}: the network's {method} gives {_told(given)}, and {expected} is expected "
            "(docs/api.md, Networks)"
        )


def _usual(x: Tensor) -> Tensor:
    """Return (N, C, H, W) in the usual memory format, which the strides show of a single channel, too."""
    return x.contiguous().flatten(1).view(x.shape)


def _is_map(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4


def _told(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def build_own(name: str, classes: int = 1000, in_channels: int = 3) -> OwnNetwork:
    """Run a file and return the network that its function builds.

    Raises:
        InputError: for a file that does not run, or a function that builds no module.
    """
    file, function = split_name(name)
    # Dataclasses and type hints look a module up by its name: each time it runs, it is another one.
    module = ModuleType(f"_residual_own_{next(_COUNT)}_{file.stem}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module
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
        if not isinstance(network, nn.Module):
            raise InputError(f"{name} gives a {type(network).__name__}, not a torch.nn.Module")
        tensors = itertools.chain(network.named_parameters(), network.named_buffers())
        if lazy := next((tensor for tensor, value in tensors if is_lazy(value)), None):
            raise InputError(
                f"{name}: {lazy} has no size before the network has seen an image, and weights are loaded "
                f"before; give its layer one (nn.Linear, not nn.LazyLinear), or show an image in {function}"
            )
    except BaseException as error:
        del sys.modules[module.__name__]
        if isinstance(error, InputError) or not isinstance(error, Exception):
            raise
        raise InputError(f"{name} cannot be built: {type(error).__name__}: {first_line(error)}") from error
    return OwnNetwork(network, name, classes, in_channels)


def _code(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(
            f"{file} cannot be read: {error.strerror}; a network's file is named mine.py:build"
        ) from None


#: Tells the modules apart that files have run as.
_COUNT = itertools.count(1)
#: Hashes that are trusted in this process, also where the cache folder cannot be written.
_HERE: set[str] = set()


def _known() -> set[str]:
    try:
        return _HERE | set(_file().read_text(encoding="utf-8").split())
    except (OSError, ValueError):
        return set(_HERE)


def _file() -> Path:
    return cache_folder() / "trusted-networks.txt"
