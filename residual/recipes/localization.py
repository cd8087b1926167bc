"""Appendix C: the runs behind the table of ImageNet localization, and the same on Tiny ImageNet.

Two for each: per-class regression, and then an R-CNN on its proposals.

The published errors are in ``residual.reproduce.paper``.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .detection import DetectionBatch, Lists, check_anchors
from .schema import Model, Part, Schedule, ShorterSide, Side, TrainingRecipe, at_most, following_sides


class Localizer(Lists):
    """Per-class regression (PCR) on the map of a classifier that the paper's detectors share, conv4's."""

    #: A classifier with its weights: localization is learned from what classification has learned.
    backbone: Model
    #: Square roots of the anchors' areas in pixels of the input, and ratios of height to width.
    anchor_sizes: tuple[float, ...] = (64.0, 128.0, 256.0)
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    #: Anchors that are learned from in an image at most, a half of them objects.
    samples: Annotated[int, at_most(10**4, "a map has no more anchors")] = Field(8, ge=2)

    @model_validator(mode="after")
    def _possible(self) -> "Localizer":
        if ":" in self.backbone.name:
            raise ValueError(f"backbone.name {self.backbone.name!r} is no network of a localizer")
        check_anchors(self.anchor_sizes, self.aspect_ratios)
        return self


class SecondStage(Part):
    """An R-CNN on the proposals of a trained localizer, which the recipe's other parts then describe."""

    #: The localizer, a run or weights folder: --weights names it.
    localizer: str | None = None
    #: The highest scored of a class on an image, in training and in testing.
    proposals: Annotated[int, at_most(1000, "those of all training images are in memory")] = Field(200, ge=1)


class BoxedCrops(Lists):
    """How images become the network's input: random crops in training, "as in classification"."""

    #: Side of the square that the network sees; regions are warped to it.
    size: Side = Field(224, ge=32)
    #: The shorter side is sampled in this range, and a square cropped anywhere; regions are cropped from the
    #: image as it is. null: 256/224 and 480/224 of ``size``.
    shorter_side: tuple[ShorterSide, ShorterSide] | None = (256, 480)
    flip: bool = True
    #: An image that cannot be read is skipped, named and counted, or ends the run.
    damaged: Literal["skip", "fatal"] = "skip"

    @model_validator(mode="after")
    def _room_for_the_crop(self) -> "BoxedCrops":
        low, high = self.sides
        if not self.size <= low <= high:
            raise ValueError(
                f"shorter_side {[low, high]} is not a range of sides that hold a crop of size {self.size}"
            )
        return self

    @property
    def sides(self) -> tuple[int, int]:
        """The range of shorter sides."""
        return self.shorter_side or following_sides(self.size)


class LocalizationRecipe(TrainingRecipe):
    """One training run of a localizer: of per-class regression, or of an R-CNN on its proposals."""

    localizer: Localizer
    rcnn: SecondStage | None = None
    data: BoxedCrops = BoxedCrops()
    batch: DetectionBatch = DetectionBatch(size=256, at_once=64)
    schedule: Schedule

    @model_validator(mode="after")
    def _possible(self) -> "LocalizationRecipe":
        if self.schedule.plateau:
            raise ValueError("schedule.plateau is for classification; give schedule.drops")
        return self


#: What is trained on ImageNet, and on Tiny ImageNet, where sizes are to 64 as ImageNet's to 224.
RESNET101 = Localizer(backbone=Model(name="resnet101", shortcut="B", variant="v1", pool="caffe"))
RESNET18 = Localizer(
    backbone=Model(name="resnet18", shortcut="A", pool="caffe"), anchor_sizes=(16.0, 32.0, 64.0)
)

LOCALIZATION: dict[str, LocalizationRecipe] = {
    recipe.name: recipe
    for recipe in [
        # "A mini-batch of 256 images", "8 anchors are randomly sampled for each image"; rates and length are
        # not given. Ours: 544,546 images with boxes are 2,128 iterations an epoch.
        LocalizationRecipe(
            name="imagenet-localization-resnet101",
            description="per-class regression with resnet101 on ImageNet's CLS-LOC (appendix C)",
            localizer=RESNET101,
            schedule=Schedule(epochs=20, learning_rate=0.01, drops=(0.5, 0.8)),
            checkpoint_every=1000,
        ),
        # "A mini-batch size of 256 in the RoI-centric fashion"; R-CNN's rate [8]. A test of 200 regions a
        # class takes long: there is one, at the end.
        LocalizationRecipe(
            name="imagenet-localization-rcnn-resnet101",
            description="R-CNN with resnet101 on a localizer's proposals, on ImageNet's CLS-LOC (appendix C)",
            localizer=RESNET101,
            rcnn=SecondStage(),
            data=BoxedCrops(shorter_side=None),
            schedule=Schedule(epochs=20, learning_rate=0.001, drops=(0.5, 0.8)),
            evaluate_epochs=20,
            checkpoint_every=1000,
        ),
        # Crops and batches as in tiny-imagenet-resnet18.
        LocalizationRecipe(
            name="tiny-imagenet-localization-resnet18",
            description="per-class regression with resnet18 on Tiny ImageNet, 64 x 64 pixels, for 6 epochs",
            localizer=RESNET18,
            data=BoxedCrops(size=64, shorter_side=(64, 88)),
            batch=DetectionBatch(size=128, at_once=128),
            schedule=Schedule(epochs=6, learning_rate=0.01, drops=(0.5, 0.8)),
            checkpoint_every=200,
        ),
        LocalizationRecipe(
            name="tiny-imagenet-localization-rcnn-resnet18",
            description="R-CNN with resnet18 on a localizer's proposals, on Tiny ImageNet, for 6 epochs",
            localizer=RESNET18,
            rcnn=SecondStage(),
            data=BoxedCrops(size=64, shorter_side=None),
            batch=DetectionBatch(size=128, at_once=128),
            schedule=Schedule(epochs=6, learning_rate=0.01, drops=(0.5, 0.8)),
            evaluate_epochs=6,
            checkpoint_every=200,
        ),
    ]
}
