"""The only place where names become objects: recipes become runs, folders become networks."""

from .checks import remembered_data_dir
from .devices import pick_device
from .sources import folder_statistics
from .start import take_model
from .testing import evaluate_weights, layer_responses, layer_signals, named
from .training import train

__all__ = [
    "evaluate_weights",
    "folder_statistics",
    "layer_responses",
    "layer_signals",
    "named",
    "pick_device",
    "remembered_data_dir",
    "take_model",
    "train",
]
