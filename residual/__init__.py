"""Deep Residual Learning for Image Recognition (He, Zhang, Ren, Sun, 2016) as a library and a command."""

from .errors import InputError
from .models import build_model

__all__ = ["InputError", "__version__", "build_model"]

__version__ = "0.1.0"
