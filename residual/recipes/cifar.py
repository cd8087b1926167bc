"""Section 4.2: the runs behind Table 6 and Figures 1 and 6.

Two recipes of a family differ only in the network and, for 110 layers, in the warm-up. The published test
errors are in ``residual.reproduce.paper``.
"""

from .schema import ClassifierModel, Data, Recipe, Schedule, Warmup

DEPTHS = (20, 32, 44, 56, 110, 1202)


def _cifar10(kind: str, depth: int) -> Recipe:
    return Recipe(
        name=f"cifar10-{kind}{depth}",
        description=f"{kind}-{depth} on CIFAR-10 as in Section 4.2: 64k iterations, 128 images each",
        model=ClassifierModel(name=f"cifar_{kind}{depth}"),
        data=Data(dataset="cifar10"),
        # "In this case [110 layers], we find that the initial learning rate of 0.1 is slightly too large to
        # start converging." The 1202-layer network "is trained as described above". Highway networks have no
        # BN, and start at the rate of their authors' files.
        schedule=Schedule(
            learning_rate=0.025 if kind == "highway" else 0.1, warmup=Warmup() if depth >= 110 else None
        ),
    )


CIFAR10 = [
    *(_cifar10(kind, depth) for kind in ("plain", "resnet") for depth in DEPTHS),
    # The paper's rival (Table 6), which it only quotes, under its own recipe.
    *(_cifar10("highway", depth) for depth in (19, 32)),
]
