"""Deep Residual Learning for Image Recognition (He, Zhang, Ren, Sun, 2016) as a library and a command."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from .api import FinishedRun, evaluate, recipe, reproduce, train
    from .inference.classifier import load
    from .inference.detector import load_detector
    from .inference.localizer import load_localizer
    from .models import build_model
    from .run import finish

__all__ = [
    "FinishedRun",
    "InputError",
    "__version__",
    "build_model",
    "evaluate",
    "finish",
    "load",
    "load_detector",
    "load_localizer",
    "recipe",
    "reproduce",
    "train",
]

__version__ = "0.1.0"

#: Where each name comes from. PyTorch takes seconds to import, and ``residual --help`` does not need it.
_SOURCES = {
    "FinishedRun": "api",
    "build_model": "models",
    "evaluate": "api",
    "finish": "run",
    "load": "inference.classifier",
    "load_detector": "inference.detector",
    "load_localizer": "inference.localizer",
    "recipe": "api",
    "train": "api",
}


def __getattr__(name: str) -> Any:
    if name == "reproduce":
        # The room of this name is the function: it calls _experiment.
        return import_module(".reproduce", __name__)
    if name == "_experiment":
        return import_module(".api", __name__).reproduce
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_SOURCES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
