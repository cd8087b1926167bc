"""``residual reproduce table7`` to ``table9``: the paper's experiments on detection."""

from pathlib import Path
from typing import Annotated

import typer

from .detect import BoxesDir, Scales, shorter_sides
from .options import Device, Settings
from .reproduce import DETECTION_STUDY as STUDY
from .reproduce import NoTrain, StudyFolder, app
from .reproduce_imagenet import More, names_of

VGG16 = Annotated[
    Path | None,
    typer.Option("--weights-vgg16", help="ImageNet's VGG-16: a weights folder or run folder to start from."),
]
ResNet101 = Annotated[
    Path | None,
    typer.Option(
        "--weights-resnet101", help="ImageNet's ResNet-101: a weights folder or run folder to start from."
    ),
]
Networks = Annotated[
    list[str] | None,
    typer.Option("--networks", metavar="NAME...", help="Train only these recipes, as --networks coco-vgg16."),
]
Ensemble = Annotated[
    int, typer.Option(min=1, help="Detectors with context to train for the ensemble (the paper: 3).")
]

EXAMPLES = """\b
Examples:
  residual reproduce {0} --data-dir ~/{1} \\
    --weights-vgg16 weights/vgg16 --weights-resnet101 weights/resnet101
  residual reproduce {0} --networks {2} --data-dir ~/{1} \\
    --weights-resnet101 weights/resnet101
  residual reproduce {0} --no-train
  residual reproduce {0} --data-dir ~/cells --out runs/cells --weights-resnet101 weights/resnet101 \\
    --set data.layout=voc --set data.train=train --set data.test=test --set schedule.iterations=2000

An interrupted study goes on with the same command. Runs of residual detect train (under torchrun, say) count
as well where they are in OUT/RECIPE/seed0, as runs/detection/coco-resnet101/seed0.
"""


def _table(number: int, text: str, folder: str, recipe: str) -> None:
    def command(
        more: More = None,
        networks: Networks = None,
        weights_vgg16: VGG16 = None,
        weights_resnet101: ResNet101 = None,
        out: StudyFolder = STUDY,
        data_dir: BoxesDir = None,
        settings: Settings = None,
        device: Device = "auto",
        no_train: NoTrain = False,
    ) -> None:
        from ..reproduce import detection

        weights = _weights(weights_vgg16, weights_resnet101)
        study = detection.Study(out, weights, settings or [], data_dir, device, not no_train)
        detection.table(study, number, names_of(networks, more))

    name = f"table{number}"
    app.command(name, help=text, epilog=EXAMPLES.format(name, folder, recipe))(command)


_table(7, "Table 7: detection on PASCAL VOC 2007 and 2012.", "VOCdevkit", "voc07+12-resnet101")
_table(8, "Table 8: detection on COCO's validation set.", "coco", "coco-resnet101")


@app.command(epilog=EXAMPLES.format("table9", "coco", "coco-resnet101-context"))
def table9(
    more: More = None,
    networks: Networks = None,
    weights_vgg16: VGG16 = None,
    weights_resnet101: ResNet101 = None,
    ensemble: Ensemble = 1,
    scales: Scales = None,
    out: StudyFolder = STUDY,
    data_dir: BoxesDir = None,
    settings: Settings = None,
    device: Device = "auto",
    no_train: NoTrain = False,
) -> None:
    """Table 9: improvements of detection on COCO.

    Box refinement, global context, multi-scale testing, ensemble.
    """
    from ..detection.improvements import SCALES
    from ..reproduce import detection

    sides = shorter_sides(scales) if scales else SCALES
    weights = _weights(weights_vgg16, weights_resnet101)
    study = detection.Study(out, weights, settings or [], data_dir, device, not no_train)
    detection.table(study, 9, names_of(networks, more), members=ensemble, scales=sides)


def _weights(vgg16: Path | None, resnet101: Path | None) -> dict[str, Path]:
    named = {"vgg16": vgg16, "resnet101": resnet101}
    return {name: path for name, path in named.items() if path}
