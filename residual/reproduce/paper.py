"""The paper's published numbers. Nothing here was measured by us."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CifarError:
    """A row of Table 6.

    Attributes:
        method: the system's name.
        layers: None where the table gives none.
        parameters: in millions, None where the table gives none.
        error: test error on CIFAR-10 in percent, as printed: "6.43 (6.61 ± 0.16)" is the best of five runs,
            their mean and deviation.
        mean: the number to compare a mean over seeds with.
    """

    method: str
    layers: int | None
    parameters: float | None
    error: str
    mean: float


#: Table 6, the systems of others; ``reproduce table6 --rivals`` trains them under Section 4.2's recipe.
TABLE6_OTHERS = (
    CifarError("Maxout", None, None, "9.38", 9.38),
    CifarError("NIN", None, None, "8.81", 8.81),
    CifarError("DSN", None, None, "8.22", 8.22),
    CifarError("FitNet", 19, 2.5, "8.39", 8.39),
    CifarError("Highway", 19, 2.3, "7.54 (7.72 ± 0.16)", 7.72),
    CifarError("Highway", 32, 1.25, "8.80", 8.80),
)

#: Table 6, the residual networks, by depth.
TABLE6 = {
    20: CifarError("ResNet", 20, 0.27, "8.75", 8.75),
    32: CifarError("ResNet", 32, 0.46, "7.51", 7.51),
    44: CifarError("ResNet", 44, 0.66, "7.17", 7.17),
    56: CifarError("ResNet", 56, 0.85, "6.97", 6.97),
    110: CifarError("ResNet", 110, 1.7, "6.43 (6.61 ± 0.16)", 6.61),
    1202: CifarError("ResNet", 1202, 19.4, "7.93", 7.93),
}


@dataclass(frozen=True)
class NetworkComplexity:
    """A network of Table 1, Figure 3 or Section 4.1, for one image of 224 x 224.

    Attributes:
        method: as the paper calls it.
        network: in ``build_model``.
        shortcut: of a residual network.
        multiply_adds: "FLOPs" in 10^9, as printed; None where the paper gives none.
    """

    method: str
    network: str
    shortcut: str | None
    multiply_adds: str | None


#: The paper's networks, and those that it compares with. Table 1 does not say which shortcuts it counts: here
#: those of Table 2 for 18 and 34 layers, option B for more.
COMPLEXITY = (
    NetworkComplexity("VGG-16", "vgg16", None, "15.3"),
    NetworkComplexity("VGG-19", "vgg19", None, "19.6"),
    NetworkComplexity("GoogLeNet", "googlenet", None, None),
    NetworkComplexity("BN-inception", "bn_inception", None, None),
    NetworkComplexity("PReLU-net A", "prelu_net", None, None),
    NetworkComplexity("plain-18", "plain18", None, "1.8"),
    NetworkComplexity("plain-34", "plain34", None, "3.6"),
    NetworkComplexity("ResNet-18", "resnet18", "A", "1.8"),
    NetworkComplexity("ResNet-34", "resnet34", "A", "3.6"),
    NetworkComplexity("ResNet-50", "resnet50", "B", "3.8"),
    NetworkComplexity("ResNet-101", "resnet101", "B", "7.6"),
    NetworkComplexity("ResNet-152", "resnet152", "B", "11.3"),
)
#: "Only 18 % of VGG-19" (Section 3.3): the 34-layer networks.
OF_VGG19 = 18


@dataclass(frozen=True)
class ImageNetErrors:
    """A row of Tables 2 to 5: errors on ImageNet in percent, None where the table gives none.

    Attributes:
        method: as the table calls it.
        network: of our recipe ``imagenet-NETWORK``; None for what we have none for.
        top1, top5: on the validation set, unless ``note`` says otherwise.
        quoted: whether it is a system of others, which is trained where it is asked for.
        same: whether ours is the same network on the same images, so that the two differ in training alone.
    """

    method: str
    network: str | None
    top1: float | None
    top5: float | None
    note: str = ""
    quoted: bool = False
    same: bool = True


#: Table 2, ten-crop testing: top-1 errors alone.
TABLE2 = (
    ImageNetErrors("plain-18", "plain18", 27.94, None),
    ImageNetErrors("plain-34", "plain34", 28.54, None),
    ImageNetErrors("ResNet-18", "resnet18", 27.88, None),
    ImageNetErrors("ResNet-34", "resnet34-a", 25.03, None),
)

#: PReLU-net [12] has its errors of its largest model.
PRELU_NET = "its authors' model C; ours would be the smaller model A"

#: Table 3, ten-crop testing.
TABLE3 = (
    ImageNetErrors("VGG-16", "vgg16", 28.07, 9.33, "its authors' weights, tested by the paper's", True),
    ImageNetErrors("GoogLeNet", "googlenet", None, 9.15, quoted=True),
    ImageNetErrors("PReLU-net", "prelu_net", 24.27, 7.38, PRELU_NET, True, same=False),
    ImageNetErrors("plain-34", "plain34", 28.54, 10.02),
    ImageNetErrors("ResNet-34 A", "resnet34-a", 25.03, 7.76),
    ImageNetErrors("ResNet-34 B", "resnet34-b", 24.52, 7.46),
    ImageNetErrors("ResNet-34 C", "resnet34-c", 24.19, 7.40),
    ImageNetErrors("ResNet-50", "resnet50", 22.85, 6.71),
    ImageNetErrors("ResNet-101", "resnet101", 21.75, 6.05),
    ImageNetErrors("ResNet-152", "resnet152", 21.43, 5.71),
)

#: Table 4, single models, multi-scale testing. VGG's errors of v5 are of its 19 layers.
TABLE4 = (
    ImageNetErrors("VGG (ILSVRC'14)", None, None, 8.43, "on the test set", True),
    ImageNetErrors("GoogLeNet (ILSVRC'14)", "googlenet", None, 7.89, quoted=True),
    ImageNetErrors("VGG (v5)", "vgg16", 24.4, 7.1, "its 19 layers; ours would be 16", True, same=False),
    ImageNetErrors("PReLU-net", "prelu_net", 21.59, 5.71, PRELU_NET, True, same=False),
    ImageNetErrors("BN-inception", "bn_inception", 21.99, 5.81, quoted=True),
    ImageNetErrors("ResNet-34 B", "resnet34-b", 21.84, 5.71),
    ImageNetErrors("ResNet-34 C", "resnet34-c", 21.53, 5.60),
    ImageNetErrors("ResNet-50", "resnet50", 20.74, 5.25),
    ImageNetErrors("ResNet-101", "resnet101", 19.87, 4.60),
    ImageNetErrors("ResNet-152", "resnet152", 19.38, 4.49),
)

#: Table 5, ensembles: all on the test set, which only the challenge's server can score.
TABLE5 = (
    ImageNetErrors("VGG (ILSVRC'14)", None, None, 7.32, "on the test set", True),
    ImageNetErrors("GoogLeNet (ILSVRC'14)", None, None, 6.66, "on the test set", True),
    ImageNetErrors("VGG (v5)", None, None, 6.8, "on the test set", True),
    ImageNetErrors("PReLU-net", None, None, 4.94, "on the test set", True),
    ImageNetErrors("BN-inception", None, None, 4.82, "on the test set", True),
    ImageNetErrors(
        *("ResNet (ILSVRC'15)", None, None, 3.57, "on the test set; ours on the validation set"), same=False
    ),
)


@dataclass(frozen=True)
class DetectionAP:
    """A number of Tables 7 to 12: mean average precision (mAP) in percent, of a detector on a dataset.

    Attributes:
        method: as the table calls it.
        recipe: the detection recipe whose run is to give it; "" where the paper quotes another system.
        tested: the data that it is on.
        ap50: mAP@.5 (of Tables 7, 10 and 11 VOC's own mAP, of Table 12 ImageNet's).
        ap: mAP@[.5, .95], None where the table gives none.
        refine, multi_scale: the improvements at test time (appendix B); they add up from row to row.
        members: how many detectors it is of.
        classes: the average precision of each class, of Tables 10 and 11.
    """

    method: str
    recipe: str
    tested: str
    ap50: float
    ap: float | None = None
    refine: bool = False
    multi_scale: bool = False
    members: int = 1
    classes: dict[str, float] = field(default_factory=dict)


#: Table 7, trained on 07+12 and on 07++12. The objects of VOC 12 test are known to its server only.
TABLE7 = (
    DetectionAP("VGG-16", "voc07+12-vgg16", "VOC 07 test", 73.2),
    DetectionAP("ResNet-101", "voc07+12-resnet101", "VOC 07 test", 76.4),
    DetectionAP("VGG-16", "voc07++12-vgg16", "VOC 12 test", 70.4),
    DetectionAP("ResNet-101", "voc07++12-resnet101", "VOC 12 test", 73.8),
)

#: Table 8, trained on COCO train.
TABLE8 = (
    DetectionAP("VGG-16", "coco-vgg16", "COCO val", 41.5, 21.2),
    DetectionAP("ResNet-101", "coco-resnet101", "COCO val", 48.4, 27.2),
)

#: Table 9. On val trained on COCO train, on test-dev on COCO trainval; the objects of test-dev are known to
#: its server only.
TABLE9 = (
    DetectionAP("baseline, VGG-16", "coco-vgg16", "COCO val", 41.5, 21.2),
    DetectionAP("baseline, ResNet-101", "coco-resnet101", "COCO val", 48.4, 27.2),
    DetectionAP("+ box refinement", "coco-resnet101", "COCO val", 49.9, 29.9, True),
    DetectionAP("+ context", "coco-resnet101-context", "COCO val", 51.1, 30.0, True),
    DetectionAP("+ multi-scale testing", "coco-resnet101-context", "COCO val", 53.8, 32.5, True, True),
    DetectionAP("+ context", "coco-resnet101-context", "COCO test-dev", 53.3, 32.2, True),
    DetectionAP("+ multi-scale testing", "coco-resnet101-context", "COCO test-dev", 55.7, 34.9, True, True),
    DetectionAP("ensemble", "coco-resnet101-context", "COCO test-dev", 59.0, 37.4, True, True, 3),
)

#: The average precision of each of VOC's 20 classes, as its annotations name them: of Table 10's three
#: detectors, then of Table 11's.
VOC_BY_CLASS = {
    "aeroplane": (76.5, 79.8, 90.0, 84.9, 86.5, 92.1),
    "bicycle": (79.0, 80.7, 89.6, 79.8, 81.6, 88.4),
    "bird": (70.9, 76.2, 87.8, 74.3, 77.2, 84.8),
    "boat": (65.5, 68.3, 80.8, 53.9, 58.0, 75.9),
    "bottle": (52.1, 55.9, 76.1, 49.8, 51.0, 71.4),
    "bus": (83.1, 85.1, 89.9, 77.5, 78.6, 86.3),
    "car": (84.7, 85.3, 89.9, 75.9, 76.6, 87.8),
    "cat": (86.4, 89.8, 89.6, 88.5, 93.2, 94.2),
    "chair": (52.0, 56.7, 75.5, 45.6, 48.6, 66.8),
    "cow": (81.9, 87.8, 90.0, 77.1, 80.4, 89.4),
    "diningtable": (65.7, 69.4, 80.7, 55.3, 59.0, 69.2),
    "dog": (84.8, 88.3, 89.6, 86.9, 92.1, 93.9),
    "horse": (84.6, 88.9, 90.3, 81.7, 85.3, 91.9),
    "motorbike": (77.5, 80.9, 89.1, 80.9, 84.8, 90.9),
    "person": (76.7, 78.4, 88.7, 79.6, 80.7, 89.6),
    "pottedplant": (38.8, 41.7, 65.4, 40.1, 48.1, 67.9),
    "sheep": (73.6, 78.6, 88.1, 72.6, 77.3, 88.2),
    "sofa": (73.9, 79.8, 85.6, 60.9, 66.5, 76.8),
    "train": (83.0, 85.3, 89.0, 81.2, 84.7, 90.3),
    "tvmonitor": (72.6, 72.0, 86.8, 61.5, 65.6, 80.0),
}


def _by_class(detector: int) -> dict[str, float]:
    return {name: numbers[detector] for name, numbers in VOC_BY_CLASS.items()}


#: Table 10 (appendix B), VOC 07 test by class: Table 7's detectors trained on 07+12, and "baseline+++", which
#: starts from COCO's detector and has all improvements of Table 9.
TABLE10 = (
    DetectionAP("baseline, VGG-16", "voc07+12-vgg16", "VOC 07 test", 73.2, classes=_by_class(0)),
    DetectionAP("baseline, ResNet-101", "voc07+12-resnet101", "VOC 07 test", 76.4, classes=_by_class(1)),
    DetectionAP(
        *("baseline+++, ResNet-101", "voc07+12-resnet101-coco", "VOC 07 test", 85.6, None, True, True),
        classes=_by_class(2),
    ),
)

#: Table 11 (appendix B), VOC 12 test by class, trained on 07++12.
TABLE11 = (
    DetectionAP("baseline, VGG-16", "voc07++12-vgg16", "VOC 12 test", 70.4, classes=_by_class(3)),
    DetectionAP("baseline, ResNet-101", "voc07++12-resnet101", "VOC 12 test", 73.8, classes=_by_class(4)),
    DetectionAP(
        *("baseline+++, ResNet-101", "voc07++12-resnet101-coco", "VOC 12 test", 83.8, None, True, True),
        classes=_by_class(5),
    ),
)

#: Table 12 (appendix B), ImageNet's detection task: trained on its training set and val1, with all
#: improvements of Table 9. The objects of its test set are known to its server only.
TABLE12 = (
    DetectionAP("GoogLeNet (ILSVRC'14)", "", "DET test", 43.9),
    DetectionAP("single model", "imagenet-det-resnet101", "DET val2", 60.5, None, True, True),
    DetectionAP("ensemble", "imagenet-det-resnet101", "DET val2", 63.6, None, True, True, 3),
    DetectionAP("single model", "imagenet-det-resnet101", "DET test", 58.8, None, True, True),
    DetectionAP("ensemble", "imagenet-det-resnet101", "DET test", 62.1, None, True, True, 3),
)


@dataclass(frozen=True)
class PublishedLocalization:
    """A row of appendix C's table: top-5 localization error on ImageNet's validation set, in percent.

    Attributes:
        method, testing, classes: as the table has them; "true" is the ground-truth class.
        measured: what a localizer's results.json calls it, None for what is not here.
        scales: whether "dense" is at several scales, where ours is at one, and so are the classes.
        note: why not.
        rcnn: whether the localizer has the second stage.
    """

    method: str
    testing: str
    classes: str
    error: float
    measured: str | None = None
    note: str = ""
    scales: bool = False
    rcnn: bool = False


#: Appendix C. The R-CNN stage is trained on the proposals of the rows above it.
LOCALIZATION = (
    PublishedLocalization("VGG's, VGG-16", "1-crop", "true", 33.1, note="quoted, not reproduced"),
    PublishedLocalization("PCR, ResNet-101", "1-crop", "true", 13.3, "test"),
    PublishedLocalization("PCR, ResNet-101", "dense", "true", 11.7, "dense", scales=True),
    PublishedLocalization("PCR, ResNet-101", "dense", "ResNet-101's five", 14.4, "guessed", scales=True),
    PublishedLocalization(
        "PCR + R-CNN, ResNet-101", "dense", "ResNet-101's five", 10.6, "guessed", scales=True, rcnn=True
    ),
    PublishedLocalization(
        "PCR + R-CNN, ensemble", "dense", "an ensemble's five", 8.9, note="ensembles are not here"
    ),
)
