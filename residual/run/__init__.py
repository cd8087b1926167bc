"""Training runs: the only place where recipes become objects."""

from .run import train
from .sources import folder_statistics
from .start import start_from

__all__ = ["folder_statistics", "start_from", "train"]
