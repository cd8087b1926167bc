"""The second stage of localization (appendix C): an R-CNN [8] on the proposals of per-class regression.

"The image region is cropped from a proposal, warped to 224 x 224 pixels, and fed into the classification
network as in R-CNN [8]. The outputs of this network consist of two sibling fc layers for cls and reg, also
in a per-class form." In testing "the RPN generates the highest scored 200 proposals for each predicted class,
and the R-CNN network is used to update these proposals' scores and box positions".

Shapes: N images of any sizes, T classes that are asked for of each; R regions; D numbers that describe one;
K classes. Boxes are (x1, y1, x2, y2) in the image's pixels.
"""

from collections.abc import Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from ..data.box_batches import TrainingImage
from ..data.threads import in_threads
from ..detection.faster_rcnn import ROI_BETA, ROI_CODER
from ..detection.targets import smooth_l1
from ..device import send, sums_dtype
from ..models import last_layer
from ..models.classifier import Classifier
from ..models.preprocessing import Preprocessing
from .model import PerClassRegression
from .regions import warp, whole_pixels

#: Regions that go through the network together in testing.
AT_ONCE = 64


class RCNN(nn.Module):
    """A localizer of two stages: a trained one, which stays as it is, and what looks at its proposals.

    Args:
        localizer: the first stage.
        network: a classifier, BN already fixed; two layers take the place of its last one.
        preprocessing: from uint8 squares (R, 3, S, S) to the network's input.
        side: S, of the squares that regions are warped to.
        proposals: of a class on an image, the highest scored, at most.
    """

    def __init__(
        self,
        localizer: PerClassRegression,
        network: Classifier,
        preprocessing: Preprocessing,
        *,
        side: int,
        proposals: int = 200,
    ) -> None:
        super().__init__()
        self.localizer = localizer.requires_grad_(False)
        self.classes = localizer.classes
        self.side, self.proposals = side, proposals
        self.preprocessing = preprocessing
        name = last_layer(network)
        last = network.get_submodule(name)
        assert isinstance(last, nn.Linear), "what a localizer is made of ends in a fully connected layer"
        network.set_submodule(name, nn.Identity())
        self.network = network
        self.cls_score = nn.Linear(last.in_features, self.classes)
        self.bbox_pred = nn.Linear(last.in_features, 4 * self.classes)
        for layer, deviation in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.cls_score.weight.device

    def predict(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (logits) (R,) and box outputs (R, 4) of regions, each for its class.

        Args:
            x: preprocessed squares, (R, 3, S, S).
            labels: int64 (R,).
        """
        features = self.network(x)
        scores = self.cls_score(features).gather(1, labels[:, None])[:, 0]
        outputs = self.bbox_pred(features).unflatten(1, (self.classes, 4))
        return scores.float(), outputs[torch.arange(len(labels), device=labels.device), labels].float()

    def forward(self, images: Sequence[TrainingImage]) -> Tensor:
        """Return the sums over regions of the two losses (``model.LOSSES``), (2,).

        A region tells of its image's class alone: whether it is on an object of it, and if so, where that is.

        Args:
            images: regions, as ``RegionBatches`` gives them.
        """
        x = self.preprocessing(torch.stack([image.image for image in images]))
        labels = torch.stack([image.whole[0] for image in images])
        scores, outputs = self.predict(x, labels)
        square = send(torch.tensor([[0.0, 0.0, self.side, self.side]]), x.device)
        boxes = torch.cat([image.boxes if len(image.boxes) else square for image in images])
        there = send(torch.tensor([len(image.boxes) > 0 for image in images]), x.device)
        classified = F.binary_cross_entropy_with_logits(scores, there.float(), reduction="sum")
        # To the coder only the ratios count: the square is the region in its own pixels.
        targets = ROI_CODER.encode_single(boxes, square.expand_as(boxes))
        losses = torch.stack([classified, smooth_l1(outputs, targets, there, ROI_BETA)])
        return losses.to(sums_dtype(x.device))

    def refine(
        self, images: Sequence[Tensor], proposals: Sequence[Tensor], labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return where each of some classes is on images: boxes (N, T, 4) and scores in [0, 1], (N, T).

        It is the new box of the proposal whose new score is highest, cut at the image's edge; on the CPU.

        Args:
            images: uint8 (3, H, W) each, on the CPU.
            proposals: for each image and each of its classes, in this order, (R, 4), on the CPU.
            labels: int64 (N, T).
        """
        asked = labels.shape[1]
        sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
        regions = [
            whole_pixels(boxes, sizes[n // asked][1], sizes[n // asked][0])
            for n, boxes in enumerate(proposals)
        ]
        counts = [len(boxes) for boxes in regions]
        names = labels.flatten().repeat_interleave(torch.tensor(counts))
        places = ((images[n // asked], box) for n, boxes in enumerate(regions) for box in boxes)
        warped = in_threads(lambda place: warp(*place, self.side), places)
        scores, outputs = [], []
        for part in names.split(AT_ONCE):
            squares = torch.stack(list(islice(warped, len(part))))
            x = self.preprocessing(send(squares, self.device))
            score, output = self.predict(x, send(part, self.device))
            scores.append(score.sigmoid().cpu())
            outputs.append(output.cpu())
        moved = ROI_CODER.decode_single(torch.cat(outputs), torch.cat(regions))
        best, boxes = [], []
        for n, (score, box) in enumerate(
            zip(torch.cat(scores).split(counts), moved.split(counts), strict=True)
        ):
            first = score.argmax()
            best.append(score[first])
            boxes.append(clip_boxes_to_image(box[first][None], sizes[n // asked])[0])
        return torch.stack(boxes).view(*labels.shape, 4), torch.stack(best).view(labels.shape)


#: A localizer of one stage or of two.
AnyLocalizer = PerClassRegression | RCNN
