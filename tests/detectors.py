"""Detectors that tests are quick with: a small one, and some whose outputs can be computed by hand."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from residual.data.box_batches import TrainingImage
from residual.detection.backbones import Backbone, make_backbone, measure_batch_norm
from residual.detection.faster_rcnn import FasterRCNN, RPNOutput
from residual.models import build_model
from residual.models.frozen import freeze_batch_norm
from residual.models.preprocessing import Preprocessing

NO_BOXES = torch.empty(0, 4)


def small_detector(name: str = "cifar_resnet8", **options: object) -> FasterRCNN:
    torch.manual_seed(0)
    network = build_model(name)
    measure_batch_norm(network, [torch.randn(4, 3, 64, 64)])
    backbone = make_backbone(network)
    freeze_batch_norm(backbone)
    numbers = {"anchor_sizes": (12, 24), "min_size": 2.0, "proposals": (60, 20), "regions": 16} | options
    model = FasterRCNN(backbone, 3, Preprocessing(torch.full((3,), 0.5)), **numbers)  # type: ignore[arg-type]
    return model.to(memory_format=torch.channels_last)


def training_image(seed: int, height: int = 40, width: int = 48, objects: int = 1) -> TrainingImage:
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.tensor([[4.0, 6, 20, 20], [20, 10, 40, 34]])[:objects]
    labels = torch.tensor([1, 2])[:objects]
    pixels = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
    return TrainingImage(pixels, boxes, labels, NO_BOXES, seed)


class Eye(Backbone):
    """A backbone whose map is its input at stride 1, and whose description of a region is its mean."""

    channels, stride, roi_size, width = 3, 1, 2, 3

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def freeze(self, stages: int) -> None:
        """There are none."""

    def shared(self, x: Tensor) -> Tensor:
        return x

    def head_maps(self, parts: Sequence[Tensor]) -> Tensor:
        return parts[0]


def eye(**options: object) -> FasterRCNN:
    torch.manual_seed(0)
    detector = FasterRCNN(Eye(), 2, Preprocessing(torch.zeros(3)), anchor_sizes=(8,), **options)  # type: ignore[arg-type]
    return detector.eval()


class Scripted(FasterRCNN):
    """The eye, told what to propose and what to find there, look after look.

    Args:
        proposals: (R, 4), on every image.
        looks: the R regions' probabilities (R, 3), background first, their boxes in each class, (R, 2, 4) or,
            where both are the same, (R, 4), and the regions that these follow from, (R, 4).
    """

    def __init__(self, proposals: Tensor, *looks: tuple[Tensor, Tensor, Tensor]) -> None:
        super().__init__(Eye(), 2, Preprocessing(torch.zeros(3)), anchor_sizes=(8,))
        self.script = proposals, list(looks)
        self.eval()

    def run_rpn(self, maps: Sequence[Tensor], sizes: list[tuple[int, int]]) -> RPNOutput:
        return replace(super().run_rpn(maps, sizes), proposals=[self.script[0]] * len(maps))

    def predict(self, features: Tensor) -> tuple[Tensor, Tensor]:
        probabilities, boxes, regions = self.script[1].pop(0)
        assert len(features) == len(probabilities)
        boxes = boxes if boxes.ndim == 3 else boxes[:, None].expand(-1, 2, -1)
        # What R-CNN's head says of a box, with the usual factors of 10 and 5.
        start, end = regions[:, None, :2], regions[:, None, 2:]
        moved = (boxes[..., :2] + boxes[..., 2:] - start - end) / 2 / (end - start)
        grown = ((boxes[..., 2:] - boxes[..., :2]) / (end - start)).log()
        return probabilities.log(), torch.cat([10 * moved, 5 * grown], dim=-1)
