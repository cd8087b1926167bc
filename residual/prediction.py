"""Using a trained network: pictures in, names and probabilities out.

>>> network = residual.load("runs/cifar10-resnet20")      # doctest: +SKIP
>>> network.predict(["cat.jpg", "ship.png"], top=2)       # doctest: +SKIP
[[Guess(name='cat', probability=0.93), Guess(name='dog', probability=0.04)], ...]
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .data.images import DamagedImage, Picture, as_pixels
from .errors import InputError
from .evaluation.batching import by_shape
from .evaluation.inputs import usual_size, with_channels
from .evaluation.reading import in_threads
from .evaluation.views import Views, cut, make_views, score
from .memory import keep_freed_memory
from .models import Classifier
from .models.inference import Precision, for_inference
from .models.preprocessing import Preprocessing
from .models.weights import load_weights
from .run import pick_device


class Guess(NamedTuple):
    """A class's name and its probability, 0 to 1."""

    name: str
    probability: float


@dataclass(frozen=True)
class Network:
    """A trained network with all that it takes to use it.

    Attributes:
        model: gives scores (n, K); BN is folded, and it is in evaluation mode.
        preprocessing: from uint8 (n, C, H, W) to the model's input.
        classes: the names of the K classes.
        views: what of a picture is looked at, by default the centre square of the size trained on.
        config: the content of the weights' config.json.
    """

    model: Classifier
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    views: Views
    config: dict[str, Any]

    def predict(
        self, images: Picture | Iterable[Picture], top: int = 5, batch: int = 32
    ) -> list[list[Guess]]:
        """Return the likeliest classes of each picture, the likeliest first.

        Args:
            images: one or many of: a path, a PIL image, an array uint8 (H, W), (H, W, 1) or (H, W, 3), a
                tensor uint8 (1 or 3, H, W). They may be of any sizes, and are resized as in testing.
            top: how many classes; all where there are fewer.
            batch: pictures that go through the network together.

        Raises:
            InputError: for a picture that cannot be read or is of another form, and for a wrong number.
        """
        return [guesses for _, guesses in self.stream(images, top, batch)]

    def probabilities(self, images: Picture | Iterable[Picture], batch: int = 32) -> Tensor:
        """Return the probability of every class for each of N pictures: float32 (N, K), as in ``predict``."""
        found = [row for _, row in self._rows(_many(images), batch, None)]
        return torch.stack(found) if found else torch.empty(0, len(self.classes))

    def stream(
        self,
        images: Picture | Iterable[Picture],
        top: int = 5,
        batch: int = 32,
        skip: Callable[[DamagedImage], None] | None = None,
    ) -> Iterator[tuple[Picture, list[Guess]]]:
        """Yield each picture with its likeliest classes, in order, with the memory of a batch.

        Args:
            skip: told of each damaged file, which is then left out; without it a damaged file is an error.
        """
        if top < 1 or batch < 1:
            raise InputError("top and batch are whole numbers of at least 1")
        for image, row in self._rows(_many(images), batch, skip):
            best = row.topk(min(top, len(row)))
            guesses = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            yield image, [Guess(self.classes[k], probability) for k, probability in guesses]

    def _rows(
        self, images: Iterable[Picture], batch: int, skip: Callable[[DamagedImage], None] | None
    ) -> Iterator[tuple[Picture, Tensor]]:
        device = next(self.model.parameters()).device

        def read(image: Picture) -> tuple[Picture, list[Tensor] | DamagedImage]:
            try:
                pixels = as_pixels(image, self.views.decoded_side)
                return image, cut(with_channels(pixels, self.model.in_channels), self.views)
            except DamagedImage as error:
                return image, error

        def readable() -> Iterator[tuple[list[Tensor], Picture]]:
            for image, cuts in in_threads(read, images):
                if not isinstance(cuts, DamagedImage):
                    yield cuts, image
                elif skip is None:
                    raise cuts
                else:
                    skip(cuts)

        # The squares have one shape, so batches come in order.
        for squares, pictures in by_shape(readable(), batch):
            squares = [square.to(device) for square in squares]
            rows = score(self.model, self.preprocessing, squares, self.views)
            yield from zip(pictures, rows, strict=True)


def load(folder: str | Path, device: str = "auto", precision: Precision = "float32") -> Network:
    """Return the network in a weights folder or a run folder, ready to ``predict``.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "bfloat16" is faster where there are instructions for it, and a little less exact.

    Raises:
        InputError: when there is none, it is damaged, or there is no such device.
    """
    where = pick_device(device)
    keep_freed_memory()
    weights = load_weights(Path(folder))
    crop, side = usual_size(weights)
    return Network(
        model=for_inference(weights.model, where, precision),
        preprocessing=weights.preprocessing.to(where),
        classes=weights.classes,
        views=make_views("center", crop, side),
        config=weights.config,
    )


def _many(images: Picture | Iterable[Picture]) -> Iterable[Picture]:
    """Return pictures as something to go through: one alone as a list, a stack of them one by one."""
    alone = isinstance(images, str | Path | Image.Image)
    if isinstance(images, np.ndarray | Tensor):
        alone = images.ndim < 4
    return [images] if alone else images  # type: ignore[list-item, return-value]
