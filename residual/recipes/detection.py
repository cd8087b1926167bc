"""Section 4.3 and the appendices: the runs behind Tables 7 to 12, and detectors for boxes of one's own.

Two recipes of a dataset differ only in the network. The published precisions are in
``residual.reproduce.paper``.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ..class_names import ClassName
from .schema import (
    Images,
    Iterations,
    MiniBatch,
    Model,
    Optimizer,
    Part,
    Schedule,
    Seed,
    Side,
    TrainingRecipe,
    Warmup,
    at_most,
    check_drops,
)

#: Average precision by VOC's rule of 2007, of 2010 and later, or by ImageNet's.
APRule = Literal["11 points", "area", "imagenet"]
#: Pixels of an image's longer side in the network.
LONGEST = 1 << 14
#: Boxes of an image that are looked at one by one.
Regions = Annotated[int, at_most(10**5, "all of them are in memory at a time")]


class Lists(Part):
    """A part whose lists may be written as YAML has them, and a list of one name as the name."""

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        types = {name: str(field.annotation) for name, field in cls.model_fields.items()}
        names = {name for name, of in types.items() if "tuple" in of and "str" in of}
        return {
            key: tuple(item)
            if isinstance(item, list)
            else ((item,) if key in names and isinstance(item, str) else item)
            for key, item in value.items()
        }


def check_anchors(anchor_sizes: tuple[float, ...], aspect_ratios: tuple[float, ...]) -> None:
    """Raise a ValueError where there is no anchor, or one that no image has room for."""
    for key, values in (("anchor_sizes", anchor_sizes), ("aspect_ratios", aspect_ratios)):
        if not values or min(values) <= 0:
            raise ValueError(f"{key} are positive numbers, one at least")
        if len(values) > 32 or max(values) > 8192:
            raise ValueError(f"{key} are at most 32 numbers of at most 8,192: no image is larger")


class Detector(Lists):
    """Faster R-CNN around a network; the numbers of the Faster R-CNN paper that one may want to change."""

    #: A classifier, or with its weights a detector to start from. Without weights it starts from scratch,
    #: normalised by BN statistics that are measured once at the beginning.
    backbone: Model
    pooling: Literal["pool", "align"] = "pool"
    #: Side of pooled regions; None for the network's own, 14 (7 for VGG). Less is for CPUs.
    roi_size: Annotated[int, at_most(64, "every region has a map of that side")] | None = Field(None, ge=2)
    global_context: bool = False
    #: 3 scales, the square roots of the anchors' areas in pixels of the input, and 3 ratios of height to
    #: width.
    anchor_sizes: tuple[float, ...] = (128.0, 256.0, 512.0)
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    #: Leave anchors that reach over the image's edge out of training.
    ignore_cross_boundary_anchors: bool = True
    #: Proposals in training and in testing.
    train_proposals: Regions = Field(2000, ge=1)
    proposals: Regions = Field(300, ge=1)
    #: Detections of an image, the best first; COCO's average precision counts 100 of each class at most.
    max_detections: Regions = Field(100, ge=1)
    #: Least side of a proposal, in pixels of the input.
    min_size: Annotated[float, at_most(8192, "no image is that long")] = Field(16.0, ge=0)
    #: Regions of an image that the head learns from, a quarter of them objects at most.
    regions: Regions = Field(128, ge=4)
    #: Learn and give each object's mask as well, by the head of Mask R-CNN.
    masks: bool = False
    #: Stages of the network that are not trained: conv1 and conv2_x, as in Fast R-CNN.
    freeze: Annotated[int, at_most(10, "no network has so many stages")] = Field(2, ge=0)

    @model_validator(mode="after")
    def _a_backbone_of_ours(self) -> "Detector":
        # Only classifiers are built by files of one's own: a name here never runs code.
        if ":" in self.backbone.name:
            raise ValueError(f"backbone.name {self.backbone.name!r} is no network of a detector")
        return self

    @model_validator(mode="after")
    def _some_anchors(self) -> "Detector":
        check_anchors(self.anchor_sizes, self.aspect_ratios)
        return self


class Boxes(Lists):
    """The annotated images."""

    layout: Literal["voc", "coco", "yolo", "imagenet-det"]
    #: Splits, several together: "2007/trainval" in a VOCdevkit, "trainval" in a folder like one of its
    #: years, "train2014" for COCO, "train" for YOLO, "val1" for ImageNet DET.
    train: tuple[str, ...]
    #: What is evaluated; empty for nothing, as where the annotations are not public.
    test: tuple[str, ...] = ()
    #: A share of the training images, between 0 and 1, that is held out for choosing and evaluated in place
    #: of ``test``, which is then not looked at; 0 for none.
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    #: Seed of that split; apart from ``seed`` so that several runs share one split.
    split_seed: Seed = Field(0, ge=0)
    #: Names of the classes; empty for those that the training annotations name.
    classes: tuple[ClassName, ...] = ()
    #: Average precision by 11 points (VOC 2007), by area (VOC 2010 and later), or by area with the matching
    #: of ImageNet's detection task.
    ap_rule: APRule = "area"
    shorter_side: Side = Field(600, ge=16)
    longer_side: Side = Field(1000, ge=16)
    #: In training both are multiplied by a number that is drawn from this range for each image.
    scale_range: tuple[float, float] = (1.0, 1.0)
    flip: bool = True
    #: Learn and ask for objects that are marked as difficult; VOC does neither.
    use_difficult: bool = False
    #: An image that cannot be read is skipped, named and counted, or ends the run.
    damaged: Literal["skip", "fatal"] = "skip"

    @model_validator(mode="after")
    def _sides(self) -> "Boxes":
        if not self.train:
            raise ValueError("train names one split at least, as [trainval]")
        if twice := next((name for name in self.classes if self.classes.count(name) > 1), None):
            raise ValueError(f"classes has {twice!r} twice; name each class once")
        low, high = self.scale_range
        if not 0.1 <= low <= high <= 10:
            raise ValueError("scale_range is two rising numbers from 0.1 to 10")
        if (longest := self.longer_side * high) > LONGEST:
            raise ValueError(
                f"scale_range and longer_side make images of {longest:,.0f} pixels; {LONGEST:,} is the most"
            )
        if self.longer_side < self.shorter_side:
            raise ValueError(
                f"longer_side {self.longer_side} is less than shorter_side {self.shorter_side}; set both"
            )
        return self


class DetectionBatch(MiniBatch):
    """How many images make up the mini-batch, and how many of them are in memory at a time."""

    #: Images that go through the network together; gradients of the parts add up.
    at_once: Images = Field(1, ge=1)


class Steps(Lists):
    """The four steps of alternating training: in 1 and 3 the proposals are learned, in 2 and 4 the head."""

    #: How long they are, relative to each other: a shortened run has its steps in the same places.
    lengths: tuple[Iterations, Iterations, Iterations, Iterations] = (80_000, 60_000, 80_000, 60_000)
    #: Mini-batches that make up an iteration of the head's steps.
    head_batches: Annotated[int, at_most(1024, "they are read one after the other")] = Field(2, ge=1)
    #: ``schedule.drops`` of the head's steps.
    head_drops: tuple[float, ...] = (0.5,)

    @model_validator(mode="after")
    def _possible(self) -> "Steps":
        if min(self.lengths) < 1:
            raise ValueError("lengths are four positive numbers")
        check_drops("head_drops", self.head_drops)
        return self


class DetectionRecipe(TrainingRecipe):
    """One training run of a detector."""

    detector: Detector
    data: Boxes
    #: "joint": proposals and head learn at once, the gradient through the proposals' corners left out
    #: ("approximate joint training"); "alternating": the four steps of Faster R-CNN, one after the other.
    training: Literal["joint", "alternating"] = "joint"
    #: Of alternating training, where null stands for the default; ``schedule`` and ``batch`` are those of the
    #: proposals' steps.
    steps: Steps | None = None
    batch: DetectionBatch = DetectionBatch()
    #: Fast R-CNN's.
    optimizer: Optimizer = Optimizer(weight_decay=5e-4)
    schedule: Schedule

    @property
    def may_have_masks(self) -> bool:
        """Whether a detector can learn masks so."""
        return self.training == "joint" and self.data.layout != "imagenet-det"

    @model_validator(mode="before")
    @classmethod
    def _alternating_has_steps(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("training") == "alternating" and value.get("steps") is None:
            return value | {"steps": {}}
        return value

    @model_validator(mode="after")
    def _possible(self) -> "DetectionRecipe":
        if self.detector.masks and not self.may_have_masks:
            raise ValueError(
                "detector.masks is for joint training, and ImageNet DET has no masks; set training=joint or "
                "another data.layout"
            )
        if self.schedule.plateau:
            raise ValueError("schedule.plateau is for classification; give schedule.drops")
        if self.training == "joint":
            if self.steps:
                raise ValueError("steps are for alternating training; set steps=null")
        elif self.schedule.warmup:
            raise ValueError("schedule.warmup is for joint training; set schedule.warmup=null")
        elif self.schedule.epochs:
            # The head's steps see more images in an iteration.
            raise ValueError("schedule.epochs is for joint training; set schedule.iterations")
        return self


#: How the names of recipes end that start from a detector of COCO.
FROM_COCO = "-coco"


def starts_from_coco(name: str) -> bool:
    """Whether a recipe of that name starts from a detector of COCO, not from a classifier."""
    return name.endswith(FROM_COCO)


#: Both backbones start from classifiers that the command is given with --weights. Their max pooling is that
#: of the authors' files, as in the recipes that train them.
BACKBONES = {
    "resnet101": Model(name="resnet101", shortcut="B", variant="v1", pool="caffe"),
    "vgg16": Model(name="vgg16", pool="caffe"),
}


def _voc(train: str, backbone: str, training: Literal["joint", "alternating"] = "joint") -> DetectionRecipe:
    """VOC 2007 test is for "07+12", 2012 test, whose annotations are not public, for "07++12"."""
    parts = {
        "07+12": ("2007/trainval", "2012/trainval"),
        "07++12": ("2007/trainval", "2007/test", "2012/trainval"),
    }
    steps = Steps() if training == "alternating" else None
    return DetectionRecipe(
        name=f"voc{train}-{backbone}" + ("-4step" if training == "alternating" else ""),
        description=f"Faster R-CNN with {backbone} on VOC {train} (Table 7)"
        + (", four-step alternating training" if training == "alternating" else ""),
        # The authors' mini-batch of the head: 128 regions of two images.
        detector=Detector(backbone=BACKBONES[backbone], regions=64 if steps else 128),
        data=Boxes(
            layout="voc",
            train=parts[train],
            test=("2007/test",) if train == "07+12" else (),
            ap_rule="11 points" if train == "07+12" else "area",
        ),
        training=training,
        steps=steps,
        # The authors' steps for 07+12: 80,000 iterations of an image for the proposals, 60,000 of two for the
        # head. At once: as their next detector (R-FCN) is trained on 07+12, 110,000 iterations of two.
        batch=DetectionBatch(size=1 if steps else 2),
        # 0.001, divided by 10 after 3/4 of the run; the head's steps after half of them.
        schedule=Schedule(
            iterations=sum(steps.lengths) if steps else 110_000, learning_rate=0.001, drops=(0.75,)
        ),
        # Of four steps after the second: in the first one the proposals alone learn.
        evaluate_every=140_000 if steps else 27_500,
        checkpoint_every=2_500,
    )


def _coco(backbone: str, context: bool = False) -> DetectionRecipe:
    """80k training images, tested on 40k of val; 240k iterations at 0.001, 80k at 0.0001.

    An iteration of the authors' is 8 images for the proposals and 16 for the head; joint training has 16 for
    both. For COCO they add anchors of 64 pixels ([32]'s longer version, Section 4.2).
    """
    return DetectionRecipe(
        name=f"coco-{backbone}" + ("-context" if context else ""),
        description=f"Faster R-CNN with {backbone} on COCO (Table 8)"
        + (", global context (Table 9)" if context else ""),
        detector=Detector(
            backbone=BACKBONES[backbone],
            global_context=context,
            anchor_sizes=(64.0, 128.0, 256.0, 512.0),
            regions=64,
        ),
        data=Boxes(layout="coco", train=("train2014",), test=("val2014",)),
        batch=DetectionBatch(size=16),
        schedule=Schedule(iterations=320_000, learning_rate=0.001, drops=(0.75,)),
        evaluate_every=80_000,
        checkpoint_every=2_500,
    )


def _voc_from_coco(train: str) -> DetectionRecipe:
    """Appendix B's "baseline+++": the detector with global context that was trained on COCO, fine-tuned.

    How long and at which rate the paper does not say: as VOC's baseline.
    """
    like = _voc(train, "resnet101")
    theirs = _coco("resnet101", context=True).detector
    table = 10 if train == "07+12" else 11
    return like.model_copy(
        update={
            "name": f"{like.name}{FROM_COCO}",
            "description": f"COCO's detector with resnet101 and global context: VOC {train} (Table {table})",
            "detector": theirs.model_copy(update={"regions": like.detector.regions}),
        }
    )


def _imagenet_det() -> DetectionRecipe:
    """COCO's algorithm of Table 9 (appendix B), trained on the training set and val1, tested on val2.

    Of the training set: the images that have all boxes of the classes that they are listed for, as R-CNN [8],
    whose division of the validation set the paper follows; not those with some (train_part) or none
    (train_neg).
    """
    like = _coco("resnet101", context=True)
    return like.model_copy(
        update={
            "name": "imagenet-det-resnet101",
            "description": "Faster R-CNN with resnet101 and global context on ImageNet DET (Table 12)",
            "data": Boxes(layout="imagenet-det", train=("train", "val1"), test=("val2",), ap_rule="imagenet"),
        }
    )


#: The recipe for boxes of one's own; the others are the paper's.
OWN_BOXES = "voc-finetune"

DETECTION: dict[str, DetectionRecipe] = {
    recipe.name: recipe
    for recipe in [
        *(_voc(train, backbone) for train in ("07+12", "07++12") for backbone in BACKBONES),
        *(_voc("07+12", backbone, "alternating") for backbone in BACKBONES),
        *(_coco(backbone) for backbone in BACKBONES),
        _coco("resnet101", context=True),
        *(_voc_from_coco(train) for train in ("07+12", "07++12")),
        _imagenet_det(),
        # Not in the paper: a user's own boxes, in VOC's layout; --set data.layout=coco for a JSON.
        DetectionRecipe(
            name=OWN_BOXES,
            description="trained weights (--weights) on your own images with boxes: 24 epochs",
            detector=Detector(
                backbone=Model(name="weights"),
                pooling="align",
                anchor_sizes=(32.0, 64.0, 128.0, 256.0, 512.0),
                ignore_cross_boundary_anchors=False,
                min_size=0.0,
            ),
            # Shorter sides from 480 to 800.
            data=Boxes(layout="voc", train=("trainval",), test=("test",), scale_range=(0.8, 4 / 3)),
            batch=DetectionBatch(size=2),
            schedule=Schedule(
                epochs=24,
                learning_rate=0.005,
                drops=(0.75, 0.92),
                warmup=Warmup(learning_rate=0.0005, shape="linear", iterations=200),
            ),
            evaluate_epochs=4,
            checkpoint_every=500,
        ),
    ]
}


def has_large_regions(recipe: DetectionRecipe) -> bool:
    """Whether a detector of one's own boxes looks at as many and as large regions as the paper's."""
    detector, papers = recipe.detector, DETECTION.keys() - {OWN_BOXES}
    # Of the networks of ImageNet but VGG the regions have 14 x 14 cells where nothing else is asked for.
    large = detector.roi_size is None and detector.backbone.name.startswith(("resnet", "plain"))
    return recipe.name not in papers and large and detector.regions >= 128
