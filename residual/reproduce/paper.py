"""The paper's published numbers. Nothing here was measured by us."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
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


#: Table 6, the systems of others: quoted, not reproduced.
TABLE6_OTHERS = (
    Published("Maxout", None, None, "9.38", 9.38),
    Published("NIN", None, None, "8.81", 8.81),
    Published("DSN", None, None, "8.22", 8.22),
    Published("FitNet", 19, 2.5, "8.39", 8.39),
    Published("Highway", 19, 2.3, "7.54 (7.72 ± 0.16)", 7.72),
    Published("Highway", 32, 1.25, "8.80", 8.80),
)

#: Table 6, the residual networks, by depth.
TABLE6 = {
    20: Published("ResNet", 20, 0.27, "8.75", 8.75),
    32: Published("ResNet", 32, 0.46, "7.51", 7.51),
    44: Published("ResNet", 44, 0.66, "7.17", 7.17),
    56: Published("ResNet", 56, 0.85, "6.97", 6.97),
    110: Published("ResNet", 110, 1.7, "6.43 (6.61 ± 0.16)", 6.61),
    1202: Published("ResNet", 1202, 19.4, "7.93", 7.93),
}


@dataclass(frozen=True)
class Errors:
    """A row of Tables 2 to 5: errors on ImageNet in percent, None where the table gives none.

    Attributes:
        method: as the table calls it.
        network: of our recipe ``imagenet-NETWORK``; None for a system that is only quoted.
        top1, top5: on the validation set, unless ``note`` says otherwise.
    """

    method: str
    network: str | None
    top1: float | None
    top5: float | None
    note: str = ""


#: Table 2, ten-crop testing: top-1 errors alone.
TABLE2 = (
    Errors("plain-18", "plain18", 27.94, None),
    Errors("plain-34", "plain34", 28.54, None),
    Errors("ResNet-18", "resnet18", 27.88, None),
    Errors("ResNet-34", "resnet34-a", 25.03, None),
)

#: Table 3, ten-crop testing.
TABLE3 = (
    Errors("VGG-16", None, 28.07, 9.33),
    Errors("GoogLeNet", None, None, 9.15),
    Errors("PReLU-net", None, 24.27, 7.38),
    Errors("plain-34", "plain34", 28.54, 10.02),
    Errors("ResNet-34 A", "resnet34-a", 25.03, 7.76),
    Errors("ResNet-34 B", "resnet34-b", 24.52, 7.46),
    Errors("ResNet-34 C", "resnet34-c", 24.19, 7.40),
    Errors("ResNet-50", "resnet50", 22.85, 6.71),
    Errors("ResNet-101", "resnet101", 21.75, 6.05),
    Errors("ResNet-152", "resnet152", 21.43, 5.71),
)

#: Table 4, single models, multi-scale testing.
TABLE4 = (
    Errors("VGG (ILSVRC'14)", None, None, 8.43, "on the test set"),
    Errors("GoogLeNet (ILSVRC'14)", None, None, 7.89),
    Errors("VGG (v5)", None, 24.4, 7.1),
    Errors("PReLU-net", None, 21.59, 5.71),
    Errors("BN-inception", None, 21.99, 5.81),
    Errors("ResNet-34 B", "resnet34-b", 21.84, 5.71),
    Errors("ResNet-34 C", "resnet34-c", 21.53, 5.60),
    Errors("ResNet-50", "resnet50", 20.74, 5.25),
    Errors("ResNet-101", "resnet101", 19.87, 4.60),
    Errors("ResNet-152", "resnet152", 19.38, 4.49),
)

#: Table 5, ensembles: all on the test set, which only the challenge's server can score.
TABLE5 = (
    Errors("VGG (ILSVRC'14)", None, None, 7.32, "on the test set"),
    Errors("GoogLeNet (ILSVRC'14)", None, None, 6.66, "on the test set"),
    Errors("VGG (v5)", None, None, 6.8, "on the test set"),
    Errors("PReLU-net", None, None, 4.94, "on the test set"),
    Errors("BN-inception", None, None, 4.82, "on the test set"),
    Errors("ResNet (ILSVRC'15)", "ensemble", None, 3.57, "on the test set; ours on the validation set"),
)


@dataclass(frozen=True)
class Precision:
    """A number of Tables 7 to 9: mean average precision (mAP) in percent, of one detector on one data set.

    Attributes:
        method: as the table calls it.
        recipe: the detection recipe whose run is to give it.
        tested: the data that it is on.
        ap50: mAP@.5 (of Table 7 VOC's own mAP).
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
    Precision("VGG-16", "voc07+12-vgg16", "VOC 07 test", 73.2),
    Precision("ResNet-101", "voc07+12-resnet101", "VOC 07 test", 76.4),
    Precision("VGG-16", "voc07++12-vgg16", "VOC 12 test", 70.4),
    Precision("ResNet-101", "voc07++12-resnet101", "VOC 12 test", 73.8),
)

#: Table 8, trained on COCO train.
TABLE8 = (
    Precision("VGG-16", "coco-vgg16", "COCO val", 41.5, 21.2),
    Precision("ResNet-101", "coco-resnet101", "COCO val", 48.4, 27.2),
)

#: Table 9. On val trained on COCO train, on test-dev on COCO trainval; the objects of test-dev are known to
#: its server only.
TABLE9 = (
    Precision("baseline, VGG-16", "coco-vgg16", "COCO val", 41.5, 21.2),
    Precision("baseline, ResNet-101", "coco-resnet101", "COCO val", 48.4, 27.2),
    Precision("+ box refinement", "coco-resnet101", "COCO val", 49.9, 29.9, True),
    Precision("+ context", "coco-resnet101-context", "COCO val", 51.1, 30.0, True),
    Precision("+ multi-scale testing", "coco-resnet101-context", "COCO val", 53.8, 32.5, True, True),
    Precision("+ context", "coco-resnet101-context", "COCO test-dev", 53.3, 32.2, True),
    Precision("+ multi-scale testing", "coco-resnet101-context", "COCO test-dev", 55.7, 34.9, True, True),
    Precision("ensemble", "coco-resnet101-context", "COCO test-dev", 59.0, 37.4, True, True, 3),
)
