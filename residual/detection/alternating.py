"""The four steps of Faster R-CNN's alternating training (Ren et al. [32], Section 3.2).

1. The proposal network learns, from the classifier's layers.
2. A second network learns to detect in those proposals, from the classifier's layers again.
3. The second network's shared layers stay fixed; the proposal network's own layers learn on them.
4. They still stay fixed; the head's own layers learn, in the new proposals.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..data.box_batches import TrainingImage
from ..training.sgd import SGD
from .faster_rcnn import FasterRCNN
from .steps import HEAD_STEPS


class AlternatingRCNN(nn.Module):
    """A detector in training, and the first step's proposal network beside it.

    Args:
        detector: as joint training would have it at its beginning; it is what the training makes.

    Attributes:
        step: 0 to 3; set by ``begin``.
    """

    def __init__(self, detector: FasterRCNN) -> None:
        super().__init__()
        self.proposer = copy.deepcopy(detector)
        self.detector = detector
        self.losses = detector.losses
        self.step = -1
        #: What joint training would train; the steps choose from these.
        self._learned = {name for name, p in self.named_parameters() if p.requires_grad}

    def begin(self, step: int, anew: bool, optimizer: SGD) -> None:
        """Make a step's layers the ones that learn.

        Args:
            anew: whether the step begins, not just goes on after a resumption.
        """
        self.step = step
        if anew:
            for velocity in optimizer.velocities.values():
                velocity.zero_()
            if step in (1, 2):
                # What step 3 begins with is there in step 2 already: a detector tested then proposes by it.
                self.detector.rpn_head.load_state_dict(self.proposer.rpn_head.state_dict())
        proposing = _ids(self.detector.rpn_head)
        learning = (
            _ids(self.proposer.rpn_head, *self.proposer.backbone.shared_layers()),
            _ids(self.detector) - proposing,
            proposing,
            _ids(self.detector) - proposing - _ids(*self.detector.backbone.shared_layers()),
        )[step]
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in self._learned and id(parameter) in learning)

    def forward(self, images: Sequence[TrainingImage]) -> Tensor:
        """Return the sums over the images of the four losses (``LOSSES``), zero where a step has none."""
        proposer = self.proposer if self.step < 2 else self.detector
        if self.step not in HEAD_STEPS:
            losses, _ = proposer.rpn_losses(images, proposer.training_maps(images))
            return torch.cat([losses, torch.zeros_like(losses)])
        with torch.no_grad():
            maps = proposer.training_maps(images)
            proposals = proposer.run_rpn(maps, [image.height_width for image in images]).proposals
        if self.step == 1:
            maps = self.detector.training_maps(images)
        losses = self.detector.roi_losses(images, maps, proposals)
        return torch.cat([torch.zeros_like(losses), losses])


def _ids(*modules: nn.Module) -> set[int]:
    return {id(parameter) for module in modules for parameter in module.parameters()}
