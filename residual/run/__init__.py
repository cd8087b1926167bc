"""Training runs: from a recipe to a complete run folder."""

from .early import finish
from .run import report, train
from .sources import folder_statistics
from .start import going_on, start_from

__all__ = ["finish", "folder_statistics", "going_on", "report", "start_from", "train"]
