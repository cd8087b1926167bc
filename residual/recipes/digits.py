"""Degradation and its cure within two minutes on two cores: handwritten digits of 8 x 8 pixels.

Not in the paper. The networks are those of Section 4.2 on maps of 8, 4 and 2 pixels a side. The learning
rate and the length were chosen on the training error, so that ResNet-56 converges; no augmentation, since
a flipped digit is another sign and a shift by a pixel is large here.
"""

from .schema import Batch, ClassifierModel, Data, Recipe, Schedule


def _digits(kind: str, depth: int) -> Recipe:
    return Recipe(
        name=f"digits-{kind}{depth}",
        description=f"{kind}-{depth} on handwritten digits: 600 iterations, under a minute on two cores",
        model=ClassifierModel(name=f"cifar_{kind}{depth}"),
        data=Data(dataset="digits", pad=0, flip=False),
        batch=Batch(size=64),
        # Highway networks have no BN: half of the rate.
        schedule=Schedule(iterations=600, learning_rate=0.025 if kind == "highway" else 0.05),
        # About an epoch (23 iterations), and a whole number of times in the run.
        evaluate_every=25,
        checkpoint_every=200,
    )


#: Of the plain and the residual networks.
DEPTHS = (8, 20, 32, 44, 56)

DIGITS = [
    *(_digits(kind, depth) for kind in ("plain", "resnet") for depth in DEPTHS),
    _digits("highway", 19),
]
