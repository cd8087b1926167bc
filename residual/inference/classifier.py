"""Using a trained network: images in, names and probabilities out.

>>> network = residual.load("runs/cifar10-resnet20")      # doctest: +SKIP
>>> network.predict(["cat.jpg", "ship.png"], top=2)       # doctest: +SKIP
[[Prediction(name='cat', probability=0.93), Prediction(name='dog', probability=0.04)], ...]
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..class_names import readable
from ..data.folder import images_in
from ..data.images import DamagedImage, ImageLike, as_pixels, is_open_file
from ..device import full_float32, open_device
from ..errors import InputError, whole_number, whole_numbers
from ..evaluation.batching import by_shape
from ..evaluation.classes import match_classes
from ..evaluation.inputs import check_input, check_view, views_for, with_channels
from ..evaluation.labelled import views_of
from ..evaluation.testing import scored
from ..evaluation.views import Views, ViewsName, crop_views
from ..models import Classifier
from ..models.inference import Precision, for_inference
from ..models.preprocessing import Preprocessing
from ..models.weights import load_weights


class Prediction(NamedTuple):
    """A class's name and its probability, 0 to 1."""

    name: str
    probability: float


# Compared and found in sets as what it is: tensors have no one answer to whether they are equal.
@dataclass(frozen=True, eq=False)
class Heat:
    """Where in an image a network sees a class.

    Attributes:
        name: of the class.
        probability: of it, 0 to 1, as in ``predict``.
        scores: of the class at every position of the last map, float32 (h, w): global average pooling and a
            linear layer can change places, so their mean is the class's score (logit) in the image (nearly,
            of networks with layers between, as VGG).
        image: what the network looked at, uint8 (C, H, W).
    """

    name: str
    probability: float
    scores: Tensor
    image: Tensor

    def draw(self) -> Image.Image:
        """Return the image with the scores over it, bright where the class is seen."""
        # Matplotlib, for its colours, takes longer to import than to predict.
        from ..analysis.heat import draw_heat

        return draw_heat(self.image, self.scores)

    def draw_beside(self) -> Image.Image:
        """Return the image as the network saw it, beside it ``draw``; below, the class and a scale."""
        from ..analysis.heat import draw_beside

        [name] = readable([self.name])
        return draw_beside(self.image, self.scores, f"{100 * self.probability:.1f} % {name}")


@dataclass(frozen=True, repr=False, eq=False)
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

    def __repr__(self) -> str:
        # A line: every layer of the network and the whole recipe would fill pages.
        return f"<Network {self.config['model']['name']}: {len(self.classes):,} classes, {self.views}>"

    def predict(
        self, images: ImageLike | Iterable[ImageLike], top: int = 5, batch: int = 32
    ) -> list[list[Prediction]]:
        """Return the likeliest classes of each image, the likeliest first.

        Args:
            images: one or many of: a path, a file open for reading, a PIL image, an array uint8 (H, W),
                (H, W, 1) or (H, W, 3), a tensor uint8 (1 or 3, H, W). They may be of any sizes, and are
                resized as in testing. All but paths are read before the next one is asked for. Or a folder's
                path, for the images in it at any depth in the order of their paths, as the command has them:
                ``stream`` names each.
            top: how many classes; all where there are fewer.
            batch: images that go through the network together.

        Raises:
            InputError: for an image that cannot be read or is of another form, and for a wrong number.
        """
        return [predictions for _, predictions in self.stream(images, top, batch)]

    def probabilities(self, images: ImageLike | Iterable[ImageLike], batch: int = 32) -> Tensor:
        """Return the probability of every class for each of N images: float32 (N, K), as in ``predict``."""
        found = [row for _, row in self._rows(_many(images), whole_number("batch", batch), None)]
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
        top, batch = whole_number("top", top), whole_number("batch", batch)
        for image, row in self._rows(_many(images), batch, skip):
            best = row.topk(min(top, len(row)))
            predictions = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            yield image, [Prediction(self.classes[k], probability) for k, probability in predictions]

    def heat(self, image: ImageLike, name: str | None = None) -> Heat:
        """Return where in an image the network sees a class: class activation maps, exact in these networks.

        Args:
            image: as of ``predict``; what of it is looked at is the same.
            name: of a class, as ``predict`` gives it, or as people call it; None for the likeliest one.

        Raises:
            InputError: for an image that cannot be read, a class that the network has not, scores that are no
                numbers, other views than the centre, and a network with a single position for the whole image
                (VGG's layers see all of it at once).
        """
        self._check_centre("a heat map is")
        wanted = None if name is None else int(match_classes([str(name)], self.classes, "heat")[0])
        pixels = with_channels(as_pixels(image, self.views.decoded_side), self.model.in_channels)
        [seen] = crop_views(pixels, self.views)
        first = next(self.model.parameters())
        with torch.inference_mode(), full_float32(first.device):
            x = self.preprocessing(seen.to(first.device)).to(first.dtype)
            maps, scores = (each[0].float().cpu() for each in (self.model.score_map(x), self.model(x)))
        if maps.shape[1:] == (1, 1):
            raise InputError(
                "this network has one position for the whole image, so it cannot say where it looks; take a "
                "residual or a plain network, on images that are large enough for it"
            )
        # Of networks with layers between (VGG) they are not those of the maps' means.
        probabilities = _numbers(scores.softmax(dim=0))
        k = int(probabilities.argmax()) if wanted is None else wanted
        return Heat(self.classes[k], float(probabilities[k]), maps[k].clone(), seen[0])

    def embed(self, images: ImageLike | Iterable[ImageLike], batch: int = 32) -> Tensor:
        """Return the features of N images: the last stage's output, averaged over its positions.

        Args:
            images: as of ``predict``.

        Returns:
            float32 (N, C), C the channels of the last stage: what the classifier is a linear function of,
            where there are no layers between, as VGG, Maxout, FitNet and PReLU-net have.

        Raises:
            InputError: for an image that cannot be read or is of another form, and other views than the
                centre.
        """
        found = [row for _, row in self.features(images, batch)]
        return torch.stack(found) if found else self.embed(Image.new("L", (1, 1)))[:0]

    def features(
        self,
        images: ImageLike | Iterable[ImageLike],
        batch: int = 32,
        skip: Callable[[DamagedImage], None] | None = None,
    ) -> Iterator[tuple[ImageLike, Tensor]]:
        """Yield each image with its features (C,), in order; see ``embed``, and ``stream`` for ``skip``."""
        batch = whole_number("batch", batch)
        self._check_centre("features are")
        first = next(self.model.parameters())
        for [seen], items in by_shape(self._crops(_many(images), skip), batch):
            with torch.inference_mode(), full_float32(first.device):
                x = self.preprocessing(seen[:, 0].to(first.device)).to(first.dtype)
                *_, last = self.model.features(x).values()
                rows = last.float().mean(dim=(2, 3)).cpu()
            # A copy made outside: what is made in inference mode can neither be learned from nor written to.
            yield from zip(items, _numbers(rows).clone(), strict=True)

    def _check_centre(self, what: str) -> None:
        if self.views.name != "center" or len(self.views.sides) > 1:
            raise InputError(f"{what} of the centre of an image alone; load the network without other views")

    def _rows(
        self, images: Iterable[ImageLike], batch: int, skip: Callable[[DamagedImage], None] | None
    ) -> Iterator[tuple[ImageLike, Tensor]]:
        # The squares of all images have one shape, so batches come in order; whole images come alone.
        crops = by_shape(self._crops(images, skip), batch if self.views.crop else 1)
        for rows, items in scored(self.model, self.preprocessing, crops, self.views):
            yield from zip(items, _numbers(rows).cpu(), strict=True)

    def _crops(
        self, images: Iterable[ImageLike], skip: Callable[[DamagedImage], None] | None
    ) -> Iterator[tuple[list[Tensor], ImageLike]]:
        def given() -> Iterator[tuple[ImageLike, Tensor | DamagedImage | None]]:
            """Yield what is given with its pixels, but for paths, which threads read."""
            for image in images:
                try:
                    path = isinstance(image, str | os.PathLike)
                    yield image, None if path else as_pixels(image)
                except DamagedImage as error:
                    yield image, error

        def read(item: tuple[ImageLike, Tensor | DamagedImage | None]) -> Tensor:
            image, pixels = item
            if isinstance(pixels, DamagedImage):
                raise pixels
            return as_pixels(image, self.views.decoded_side) if pixels is None else pixels

        def damaged(_: object, error: DamagedImage) -> None:
            if skip is None:
                raise error
            skip(error)

        crops = views_of(read, given(), self.views, self.model.in_channels, damaged)
        return ((views, image) for views, (image, _) in crops)


def load(
    folder: str | Path,
    device: str = "auto",
    precision: Precision = "float32",
    *,
    views: ViewsName | None = None,
    size: int | None = None,
    crop: int | None = None,
    scales: Sequence[int] | None = None,
) -> Network:
    """Return the network in a weights folder or a run folder, ready to ``predict``.

    Args:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "bfloat16" is faster where there are instructions for it, and a little less exact.
        views: what of each image is looked at, "center", "ten-crop" or "multi-scale" (Section 3.4), at the
            size that the network was trained on; ``predict`` gives the mean of the views' probabilities.
        size: side of the network's input, for which the views are chosen, if it was trained on another.
        crop: side of the squares, if it is not that.
        scales: shorter sides that images are resized to, other than those of the views.

    Raises:
        InputError: when there is none, it is damaged, or there is no such device or view.
    """
    sides = None if scales is None else whole_numbers("a scale", scales)
    check_view(views, size, crop, sides)
    where = open_device(device)
    weights = load_weights(Path(folder).expanduser())
    seen = views_for(weights, views, size, crop, sides)
    least = seen.crop or min(seen.sides)
    if views or size or crop or scales:
        shape = (weights.model.in_channels, least, least)
        check_input(weights.model, str(folder), shape, whole=seen.crop is None)
    return Network(
        model=for_inference(weights.model, where, precision),
        preprocessing=weights.preprocessing.to(where),
        classes=weights.classes,
        views=seen,
        config=weights.config,
    )


def _numbers(found: Tensor) -> Tensor:
    """Return what a network gives, if it is finite numbers.

    Raises:
        InputError: when it is not.
    """
    if not found.isfinite().all():
        raise InputError(
            "what the network gives are no numbers (NaN); its weights are damaged, or it has diverged in "
            "training"
        )
    return found


def _many(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
    """Return images as something to go through: one alone as a list, a stack or a folder of them one by one.

    Raises:
        InputError: for what is neither an image nor many, and a folder without images.
    """
    if isinstance(images, str | os.PathLike) and os.path.isdir(images):
        return list(images_in(Path(os.fsdecode(images)))[0])
    if isinstance(images, np.ndarray) and images.dtype.kind in "UO":
        return list(images.ravel().tolist())  # paths, as np.array gives them
    if isinstance(images, np.ndarray | Tensor):
        alone = images.ndim < 4
    else:
        alone = isinstance(images, str | os.PathLike | Image.Image) or is_open_file(images)
    if alone:
        return [images]  # type: ignore[list-item]
    if not isinstance(images, Iterable) or isinstance(images, bytes | bytearray | memoryview | Mapping):
        raise InputError(
            f"{type(images).__name__} is no image, nor many; give a path, an open file, a PIL image, an "
            "array, a tensor, or a list of them"
        )
    return images  # type: ignore[return-value]
