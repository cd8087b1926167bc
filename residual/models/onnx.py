"""A network with its preprocessing as one ONNX file, checked in ONNX Runtime.

input    images: uint8 (n, C, h, w), RGB, resized and cropped already; n, h and w are free
output   scores: float32 (n, K), before softmax
metadata classes (JSON), preprocessing and model (JSON), as in config.json; view (JSON): crop, the side of the
         images that it was trained on, and side, the shorter side that these are cut from

Scaling, mean and deviation are in the graph, so that nobody has to repeat them; resizing and cropping are
not, since every program has its own. The network is exported in its fully convolutional form (Section 3.4):
for images larger than those trained on, the scores are the average over the positions of the last map.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, needs
from ..files import check_new, first_line, strict_json, written_whole
from .classifier import Classifier
from .inference import fold_batchnorm
from .own import OwnNetwork, without_place
from .preprocessing import Preprocessing
from .weights import Weights

#: The largest difference that ONNX Runtime's scores may have from PyTorch's, relative to the largest score.
TOLERANCE = 1e-4

OPSET = 18


class Exported(nn.Module):
    """What is written: uint8 (n, C, h, w) to scores (n, K)."""

    def __init__(self, model: Classifier, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = fold_batchnorm(model)
        self.preprocessing = preprocessing

    def forward(self, images: Tensor) -> Tensor:
        return self.model.score_map(self.preprocessing.at_any_size(images)).mean(dim=(2, 3))


def export_onnx(weights: Weights, file: Path, view: tuple[int, int] | None = None) -> float:
    """Write a network as ONNX, after ONNX Runtime has given its scores for two batches of different sizes.

    Args:
        file: where nothing is yet, ending in .onnx.
        view: side of the square that the network is tested on and shorter side of the images that it is cut
            from, in pixels, to be told in the file; None for neither.

    Returns:
        The largest difference between ONNX Runtime's and PyTorch's scores, relative to the largest score.

    Raises:
        InputError: when the file exists or cannot be written, a package is missing, or the network cannot be
            exported or gives other scores there.
    """
    check_new(file, "a network as ONNX", ".onnx")
    _need_packages()
    module = Exported(weights.model, weights.preprocessing).eval()
    smallest, usual = _sizes(weights, view)
    if isinstance(weights.model, OwnNetwork):
        _try(module, weights.model, smallest)
    program = _export(module, weights, smallest, usual)
    for key, value in _metadata(weights, view).items():
        program.model.metadata_props[key] = value
    with written_whole(file) as temporary:
        program.save(temporary)
        difference = _largest_difference(module, temporary, weights.model.in_channels, (smallest, usual))
    return difference


def _need_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise needs("ONNX export", str(error.name), "onnx") from None


def _try(module: Exported, model: OwnNetwork, side: int) -> None:
    """Raise an InputError where a user's own network gives no scores, which the exporter would hide."""
    try:
        with torch.inference_mode():
            module(torch.zeros(1, model.in_channels, side, side, dtype=torch.uint8))
    except InputError:
        raise
    # What it may raise is anything.
    except Exception as error:
        raise InputError(
            f"{model.name} cannot take images of {side} x {side} pixels ({type(error).__name__}: "
            f"{first_line(error)})"
        ) from error


def _sizes(weights: Weights, view: tuple[int, int] | None) -> tuple[int, int]:
    """Return the smallest side of images that the graph takes, and a side to check it at."""
    if isinstance(weights.model, OwnNetwork) and view:
        # What else it takes, nobody knows.
        return view[0], view[0]
    if side := weights.model.whole_side:
        # On smaller maps VGG and Maxout repeat positions, for which the graph would need a branch.
        return side, side + 32
    return (8, 32) if weights.model.small_images else (32, 128)


def _export(module: Exported, weights: Weights, smallest: int, usual: int) -> Any:
    example = torch.zeros(2, weights.model.in_channels, usual, usual + 32, dtype=torch.uint8)
    dim = torch.export.Dim
    sizes = {0: dim("n", min=1), 2: dim("h", min=smallest), 3: dim("w", min=smallest)}
    try:
        with _quiet(), torch.inference_mode(False), torch.no_grad():
            return torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                dynamic_shapes=(sizes,),
                input_names=["images"],
                output_names=["scores"],
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    # The exporter raises errors of many kinds, all of which mean this.
    except Exception as error:
        name = weights.config["model"]["name"]
        raise InputError(f"{name} cannot be exported to ONNX by this PyTorch: {first_line(error)}") from None


def _metadata(weights: Weights, view: tuple[int, int] | None) -> dict[str, str]:
    model = weights.config["model"]
    return {
        **({"view": strict_json({"crop": view[0], "side": view[1]})} if view else {}),
        "classes": strict_json(weights.classes),
        "model": strict_json(model | {"name": without_place(model["name"])}),
        "preprocessing": strict_json(weights.config["preprocessing"] | {"input": "uint8; done in the graph"}),
    }


def _largest_difference(module: Exported, file: Path, channels: int, sides: tuple[int, int]) -> float:
    import onnxruntime

    generator = torch.Generator().manual_seed(0)
    # Another batch and another shape than the one that was traced: both must be free.
    batches = [
        torch.randint(256, (n, channels, height, width), generator=generator, dtype=torch.uint8)
        for n, height, width in ((1, sides[0], sides[0]), (3, sides[1] + 17, sides[1]))
    ]
    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        found = [torch.from_numpy(session.run(None, {"images": images.numpy()})[0]) for images in batches]
    # It raises errors of kinds of its own, for an operation that it has not in some precision, say.
    except Exception as error:
        raise InputError(
            f"ONNX Runtime cannot run the exported network: {first_line(error)}; nothing was written"
        ) from None
    largest = 0.0
    for images, theirs in zip(batches, found, strict=True):
        with torch.inference_mode():
            ours = module(images)
        difference = float((theirs - ours).abs().max() / ours.abs().max().clamp(min=1))
        largest = max(largest, difference)
        if not difference <= TOLERANCE:
            raise InputError(
                f"ONNX Runtime's scores differ from PyTorch's by {difference:.1e}, and {TOLERANCE:.0e} is "
                "allowed; nothing was written"
            )
    return largest


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and its developers' warnings off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
