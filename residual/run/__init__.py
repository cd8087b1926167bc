"""Training runs: from a recipe to a complete run folder."""

from .early import finish
from .run import train
from .sources import folder_statistics
from .start import start_from

__all__ = ["finish", "folder_statistics", "start_from", "train"]
