"""Using a trained network: images in, names and probabilities out.

>>> network = residual.load("runs/cifar10-resnet20")      # doctest: +SKIP
>>> network.predict(["cat.jpg", "ship.png"], top=2)       # doctest: +SKIP
[[Prediction(name='cat', probability=0.93), Prediction(name='dog', probability=0.04)], ...]
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.images import DamagedImage, ImageLike, as_pixels
from ..device import open_device
from ..errors import InputError
from ..evaluation.batching import by_shape
from ..evaluation.inputs import usual_size
from ..evaluation.labelled import views_of
from ..evaluation.testing import scored
from ..evaluation.views import Views, make_views
from ..models import Classifier
from ..models.inference import Precision, for_inference
from ..models.preprocessing import Preprocessing
from ..models.weights import load_weights


class Prediction(NamedTuple):
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
        views: what of an image is looked at, by default the centre square of the size trained on.
        config: the content of the weights' config.json.
    """

    model: Classifier
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    views: Views
    config: dict[str, Any]

    def predict(
        self, images: ImageLike | Iterable[ImageLike], top: int = 5, batch: int = 32
    ) -> list[list[Prediction]]:
        """Return the likeliest classes of each image, the likeliest first.

        Args:
            images: one or many of: a path, a PIL image, an array uint8 (H, W), (H, W, 1) or (H, W, 3), a
                tensor uint8 (1 or 3, H, W). They may be of any sizes, and are resized as in testing.
            top: how many classes; all where there are fewer.
            batch: images that go through the network together.

        Raises:
            InputError: for an image that cannot be read or is of another form, and for a wrong number.
        """
        return [predictions for _, predictions in self.stream(images, top, batch)]

    def probabilities(self, images: ImageLike | Iterable[ImageLike], batch: int = 32) -> Tensor:
        """Return the probability of every class for each of N images: float32 (N, K), as in ``predict``."""
        found = [row for _, row in self._rows(_many(images), batch, None)]
        return torch.stack(found) if found else torch.empty(0, len(self.classes))

    def stream(
        self,
        images: ImageLike | Iterable[ImageLike],
        top: int = 5,
        batch: int = 32,
        skip: Callable[[DamagedImage], None] | None = None,
    ) -> Iterator[tuple[ImageLike, list[Prediction]]]:
        """Yield each image with its likeliest classes, in order, with the memory of a batch.

        Args:
            skip: told of each damaged file, which is then left out; without it a damaged file is an error.
        """
        if top < 1 or batch < 1:
            raise InputError("top and batch are whole numbers of at least 1")
        for image, row in self._rows(_many(images), batch, skip):
            best = row.topk(min(top, len(row)))
            predictions = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            yield image, [Prediction(self.classes[k], probability) for k, probability in predictions]

    def _rows(
        self, images: Iterable[ImageLike], batch: int, skip: Callable[[DamagedImage], None] | None
    ) -> Iterator[tuple[ImageLike, Tensor]]:
        def read(image: ImageLike) -> Tensor:
            return as_pixels(image, self.views.decoded_side)

        def damaged(image: ImageLike, error: DamagedImage) -> None:
            if skip is None:
                raise error
            skip(error)

        crops = views_of(read, images, self.views, self.model.in_channels, damaged)
        # The views of all images have one shape, so batches come in order.
        for rows, items in scored(self.model, self.preprocessing, by_shape(crops, batch), self.views):
            yield from zip(items, rows.cpu(), strict=True)


def load(folder: str | Path, device: str = "auto", precision: Precision = "float32") -> Network:
    """Return the network in a weights folder or a run folder, ready to ``predict``.

    Args:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "bfloat16" is faster where there are instructions for it, and a little less exact.

    Raises:
        InputError: when there is none, it is damaged, or there is no such device.
    """
    where = open_device(device)
    weights = load_weights(Path(folder))
    crop, side = usual_size(weights)
    return Network(
        model=for_inference(weights.model, where, precision),
        preprocessing=weights.preprocessing.to(where),
        classes=weights.classes,
        views=make_views("center", crop, side),
        config=weights.config,
    )


def _many(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
    """Return images as something to go through: one alone as a list, a stack of them one by one."""
    alone = isinstance(images, str | Path | Image.Image)
    if isinstance(images, np.ndarray | Tensor):
        alone = images.ndim < 4
    return [images] if alone else images  # type: ignore[list-item, return-value]
