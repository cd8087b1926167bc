"""Deep Residual Learning for Image Recognition (He, Zhang, Ren, Sun, 2016) as a library and a command."""

from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from .inference.classifier import load
    from .inference.detector import load_detector
    from .models import build_model

__all__ = ["InputError", "__version__", "build_model", "load", "load_detector"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # PyTorch takes seconds to import, and ``residual --help`` does not need it.
    if name == "build_model":
        from .models import build_model

        return build_model
    if name == "load":
        from .inference.classifier import load

        return load
    if name == "load_detector":
        from .inference.detector import load_detector

        return load_detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
