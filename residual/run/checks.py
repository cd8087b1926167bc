"""What has to hold before work begins, and where a run's data lay."""

from pathlib import Path

import torch

from ..errors import InputError
from ..models.classifier import Classifier
from ..training.folder import RunFolder, read_json


@torch.inference_mode()
def check_pictures(model: Classifier, name: str, shape: tuple[int, ...]) -> None:
    """Raise an InputError when a network's last map would be empty: VGG halves pictures five times."""
    training = model.training
    try:
        model.eval()(torch.zeros(1, *shape))
    except RuntimeError:
        size = " x ".join(map(str, shape[1:]))
        raise InputError(f"{name} cannot take pictures of {size} pixels; they are too small for it") from None
    model.train(training)


def remembered_data_dir(path: Path) -> Path | None:
    """Return where the data of a run lay in its last session, None where none is known or it is gone.

    Args:
        path: the run folder, or the weights folder in it.
    """
    for folder in (path, path.parent):
        file = RunFolder(folder).environment_file
        if file.is_file() and (stored := read_json(file)[-1].get("data_dir")) and Path(stored).is_dir():
            return Path(stored)
    return None
