"""The paper's published numbers. Nothing here was measured by us."""

from dataclasses import dataclass


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
    """A number of Tables 7 to 9 and 12: mean average precision (mAP) in percent, of a detector on a dataset.

    Attributes:
        method: as the table calls it.
        recipe: the detection recipe whose run is to give it.
        tested: the data that it is on.
        ap50: mAP@.5 (of Table 7 VOC's own mAP, of Table 12 ImageNet's).
        ap: mAP@[.5, .95], None where the table gives none.
        refine, multi_scale: the improvements at test time (appendix B); they add up from row to row.
        members: how many detectors it is of.
    """

    method: str
    recipe: str
    tested: str
    ap50: float
    ap: float | None = None
    refine: bool = False
    multi_scale: bool = False
    members: int = 1


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

#: Table 12 (appendix B), ImageNet's detection task: trained on its training set and val1, with all
#: improvements of Table 9. The objects of its test set are known to its server only.
TABLE12 = (
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
