"""Per-class regression (appendix C): a proposal network whose two heads are per class.

Shapes: N images (3, H, W) of one size at which the network sees them; C channels of the map (h, w) that the
paper's detectors share, conv4's, and its stride s; A anchors at each position of it; K classes, of which T
are asked for an image. Boxes are (x1, y1, x2, y2) in the network's input, continuous coordinates.

"The cls layer has a 1000-d output, and each dimension is binary logistic regression for predicting being or
not being an object class; the reg layer has a 1000 x 4-d output": for A anchors that is 5KA numbers at every
position. What is known or guessed of an image are a few of its classes, so only theirs are computed: in
training the image's own, in testing one or five.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import clip_boxes_to_image

from ..data.box_batches import TrainingImage
from ..detection.backbones import Backbone
from ..detection.faster_rcnn import (
    PRE_NMS_TOP_N,
    RPN_CHANNELS,
    RPN_CODER,
    anchor_losses,
    best_regions,
    grid_anchors,
)
from ..device import sums_dtype
from ..models.preprocessing import Preprocessing

#: From what overlap on an anchor is positive is not said. From 0.5 on a guess is right, and there are about
#: as many such anchors as are wanted of an image; from a proposal network's 0.7 on there is hardly one.
POSITIVE_IOU = 0.5
#: Names of the two losses.
LOSSES = ("class", "box")


class PerClassHead(nn.Module):
    """A 3x3 convolution, then for each class and anchor one score and four box outputs.

    Args:
        channels: C.
        classes: K.
        anchors: A.
    """

    def __init__(self, channels: int, classes: int, anchors: int) -> None:
        super().__init__()
        self.classes, self.anchors = classes, anchors
        self.conv = nn.Conv2d(channels, RPN_CHANNELS, 3, padding=1)
        self.cls_logits = nn.Conv2d(RPN_CHANNELS, classes * anchors, 1)
        self.bbox_pred = nn.Conv2d(RPN_CHANNELS, 4 * classes * anchors, 1)
        for layer in (self.conv, self.cls_logits, self.bbox_pred):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (logits) (N, T, h*w*A) and box outputs (N, T, h*w*A, 4), a position's together.

        Args:
            x: (N, C, h, w).
            labels: the classes that are asked for, int64 (N, T).
        """
        x = F.relu_(self.conv(x)).flatten(2).transpose(1, 2)  # (N, h*w, channels)
        scores = self._of_classes(x, self.cls_logits, labels, 1)
        return scores[..., 0], self._of_classes(x, self.bbox_pred, labels, 4)

    def _of_classes(self, x: Tensor, layer: nn.Conv2d, labels: Tensor, numbers: int) -> Tensor:
        """Return what a 1x1 convolution makes of positions (N, h*w, c) for some classes: (N, T, h*w*A, n)."""
        assert layer.bias is not None
        count, asked = labels.shape
        shape = self.classes, self.anchors * numbers
        weight = layer.weight.reshape(*shape, -1)[labels].flatten(1, 2)  # (N, T*A*n, c)
        bias = layer.bias.view(shape)[labels].flatten(1)[:, None]
        found = x @ weight.transpose(1, 2) + bias
        found = found.view(count, -1, asked, self.anchors, numbers).transpose(1, 2)
        return found.reshape(count, asked, -1, numbers).float()


class PerClassRegression(nn.Module):
    """A localizer of K classes: the layers that the paper's detectors share, and the per-class head.

    Args:
        backbone: BN already fixed; what runs for each region is taken off.
        classes: K.
        preprocessing: from uint8 images (N, 3, H, W) to the backbone's input.
        anchor_sizes: square roots of the anchors' areas.
        aspect_ratios: heights over widths.
        samples: anchors that are learned from in an image at most, a half of them objects.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        preprocessing: Preprocessing,
        *,
        anchor_sizes: Sequence[float] = (64, 128, 256),
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        samples: int = 8,
    ) -> None:
        super().__init__()
        backbone.take_off_head()
        self.backbone = backbone
        self.classes, self.samples = classes, samples
        self.preprocessing = preprocessing
        self.anchors = AnchorGenerator((tuple(anchor_sizes),), (tuple(aspect_ratios),))
        self.head = PerClassHead(backbone.channels, classes, len(anchor_sizes) * len(aspect_ratios))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.head.conv.weight.device

    def run_head(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores (N, T, B) and box outputs (N, T, B, 4) of the B = h*w*A anchors (B, 4).

        Args:
            x: preprocessed images, (N, 3, H, W).
            labels: int64 (N, T).
        """
        map = self.backbone.shared(x)
        anchors = grid_anchors(self.anchors, map.shape[2], map.shape[3], self.backbone.stride, map.device)
        return *self.head(map, labels), anchors

    def locate(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return where each of some classes is on images: boxes (N, T, 4) and their scores in [0, 1], (N, T).

        It is the box of the anchor with the class's highest score, cut at the image's edge. Fully
        convolutional: images may be of any size.

        Args:
            images: uint8 (N, 3, H, W), on the localizer's device.
            labels: int64 (N, T).
        """
        scores, outputs, anchors = self.run_head(self.preprocessing(images), labels)
        best, index = scores.max(dim=2)
        chosen = outputs.gather(2, index[..., None, None].expand(-1, -1, 1, 4)).flatten(0, 2)
        boxes = RPN_CODER.decode_single(chosen, anchors[index.flatten()])
        height, width = images.shape[2:]
        return clip_boxes_to_image(boxes, (height, width)).view(*labels.shape, 4), best.sigmoid()

    def propose(self, images: Tensor, labels: Tensor, most: int) -> list[Tensor]:
        """Return where each of some classes may be: for each image and class, in this order, (R, 4).

        The best ones first, which begin with that of ``locate`` if it has an area; as of any proposal
        network, of two that overlap by more than 0.7 the surer one.

        Args:
            images, labels: as of ``locate``.
            most: proposals of a class on an image.
        """
        scores, outputs, anchors = self.run_head(self.preprocessing(images), labels)
        count = labels.numel()
        size = (int(images.shape[2]), int(images.shape[3]))
        return best_regions(
            list(scores.flatten(0, 1)),
            list(outputs.flatten(0, 1)),
            [anchors] * count,
            [size] * count,
            PRE_NMS_TOP_N[False],
            most,
        )

    def forward(self, images: Sequence[TrainingImage]) -> Tensor:
        """Return the sums over the images of the two losses (``LOSSES``), (2,).

        An image tells of its own class alone: whether an anchor is on one of its objects, and where that is.
        Of the sampled anchors as many are positive as negative, so a part without an object teaches nothing.

        Args:
            images: parts of images of one class each, of one size.
        """
        x = self.preprocessing(torch.stack([image.image for image in images]))
        labels = torch.stack([image.whole[0] for image in images])
        scores, outputs, anchors = self.run_head(x, labels[:, None])
        losses = [
            torch.stack(
                anchor_losses(
                    image,
                    None,
                    score[0],
                    output[0],
                    anchors,
                    self.samples,
                    self.samples // 2,
                    True,
                    POSITIVE_IOU,
                )
            )
            for image, score, output in zip(images, scores, outputs, strict=True)
        ]
        return torch.stack(losses).to(sums_dtype(x.device)).sum(dim=0)


def head_memory(model: PerClassRegression, images: int, size: int) -> str:
    """Say what the per-class head takes of memory, in training by batches of squares of a size."""
    parameters = sum(parameter.numel() for parameter in model.head.parameters())
    positions = (-(-size // model.backbone.stride)) ** 2
    numbers = 5 * model.head.anchors * positions
    # In training a parameter is there three times: itself, its gradient, its velocity. Outputs are there with
    # their gradients.
    every, own = (2 * 4 * images * numbers * classes for classes in (model.classes, 1))
    return (
        f"the head for {model.classes:,} classes and {model.head.anchors} anchors has {parameters:,} "
        f"parameters ({_bytes(3 * 4 * parameters)} with gradients and velocities); its outputs for {images} "
        f"images are {_bytes(own)}, since only the image's own class is computed: of all classes they would "
        f"be {_bytes(every)}"
    )


def _bytes(count: float) -> str:
    unit, size = next(
        pair for pair in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if count >= pair[1] or pair[1] == 1e3
    )
    return f"{count / size:.1f} {unit}"
