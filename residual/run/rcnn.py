"""What a run of a localizer's second stage has of its own: an R-CNN on a trained localizer's proposals."""

import sys
from pathlib import Path

import torch

from ..data.identity import identity_of
from ..errors import InputError
from ..files import damaged
from ..localization.rcnn import RCNN, AnyLocalizer
from ..localization.regions import REMEDY, Proposals, RegionBatches, load_proposals, save_proposals
from ..localization.testing import View, propose_images
from ..localization.weights import LocalizerWeightsConfig, build_rcnn, read_localizer
from ..models.inference import fold_batchnorm
from ..randomness import Stream, mix
from ..recipes.localization import Localizer
from ..recipes.schema import settings_of
from ..training.folder import RunFolder
from .localization import LocalizationTask


class RCNNTask(LocalizationTask):
    """A recipe's R-CNN on the proposals of a localizer; see ``Task``.

    The trained localizer is a part of the network, which stays as it is: from the first checkpoint on a run
    goes on without its folder, and the weights at the end are all that localizing a class needs.
    """

    def check_start(self) -> None:
        assert self.recipe.rcnn
        if self.recipe.rcnn.localizer is None:
            raise InputError(
                f"{self.recipe.name} is about the proposals of a trained localizer; name it with --weights"
            )
        super().check_start()

    def begin(self) -> tuple[AnyLocalizer, str]:
        recipe, stage = self.recipe, self.recipe.rcnn
        assert stage
        assert stage.localizer
        stored = read_localizer(Path(stage.localizer))
        self._check_fits(stage.localizer, stored.config)
        try:
            network, preprocessing = self.classifier()
        except InputError as error:
            raise InputError(
                f"an R-CNN starts from the classifier that its localizer was trained from: {error}; say "
                "where it is with --set localizer.backbone.weights=CLASSIFIER"
            ) from None
        first = stored.model.localizer if isinstance(stored.model, RCNN) else stored.model
        torch.manual_seed(mix(recipe.seed, Stream.WEIGHTS))
        model = build_rcnn(stage, first, network, preprocessing, recipe.data.size)
        started = f"the localizer {stage.localizer} and the classifier {recipe.localizer.backbone.weights}"
        return model, started

    def make_batches(self) -> RegionBatches:
        recipe, data = self.recipe, self.recipe.data
        return RegionBatches(
            self.train.boxes,
            data.size,
            recipe.batch.size,
            data.flip,
            recipe.seed,
            self.world.rank,
            self.world.size,
            data.damaged,
        )

    def prepare(self, folder: RunFolder) -> None:
        """Have this localizer's proposals of these training images in the folder, where they are not yet."""
        assert isinstance(self.batches, RegionBatches)
        assert isinstance(self.localizer, RCNN)
        assert self.recipe.rcnn
        file = folder.proposals_file
        first = [tensor.cpu() for tensor in self.localizer.localizer.state_dict().values()]
        identity = identity_of([str(self.recipe.rcnn.proposals), self.train.boxes.content()], first)
        proposals = load_proposals(file, identity) if file.is_file() else None
        if self.world.any(proposals is None, self.device):
            proposals, unusable = self._propose()
            self.batches.unreadable |= unusable
            if self.world.is_main:
                save_proposals(file, proposals, identity)
        assert proposals is not None
        if len(proposals) != self.images:
            raise damaged(file, f"it is of {len(proposals):,} images, not of {self.images:,}", REMEDY)
        self.batches.proposals = proposals

    def _propose(self) -> tuple[Proposals, dict[str, str]]:
        dataset, data, stage = self.train.boxes, self.recipe.data, self.recipe.rcnn
        assert stage
        assert isinstance(self.localizer, RCNN)
        view = View(data.size, dense=True)
        if self.world.is_main:
            print(f"{self.recipe.name}: proposals on {len(dataset):,} images, {view}", file=sys.stderr)
        with self.showing("proposals", len(dataset)) as show:
            localizer, most = fold_batchnorm(self.localizer.localizer), stage.proposals
            return propose_images(
                localizer, dataset, view, most, self.world, damaged=data.damaged, progress=show
            )

    def _check_fits(self, path: str, config: LocalizerWeightsConfig) -> None:
        """Raise an InputError for a localizer of other classes, or other layers than the recipe says."""
        if tuple(config.classes) != self.train.index.classes:
            raise InputError(
                f"{path} locates other classes than there are in {self.train.index.name}; name a localizer "
                "that was trained on these images"
            )
        theirs = settings_of(Localizer.model_validate(config.localizer))
        ours = settings_of(self.recipe.localizer)
        pairs = [(f"localizer.{key}", theirs[key], ours[key]) for key in ours if key != "backbone.weights"]
        for key, their, our in [*pairs, ("data.size", config.size, self.recipe.data.size)]:
            if their != our:
                raise InputError(f"{path} has {key} {their} and the recipe {our}; leave it to --weights")
