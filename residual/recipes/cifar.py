"""Section 4.2: the runs behind Table 6 and Figures 1 and 6.

Two recipes of a family differ only in the network and, for 110 layers, in the warm-up; those of the paper's
rivals, which have no BN, in the learning rate as well. The published test errors are in
``residual.reproduce.paper``.
"""

from .schema import Batch, ClassifierModel, Data, Optimizer, Recipe, Schedule, Warmup

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


#: Networks of others in Table 6, which only quotes them, and the rates at which they begin: without BN none
#: learns at 0.1. DSN's is its file's, which serves NIN, the same network, as well. Maxout's is what its file
#: comes to in its convolutions (0.17 times their own 0.05, a momentum of 0.5 in place of 0.9): at 0.01 it
#: diverges within 15 iterations on CIFAR-10. FitNet's is ours.
RIVALS = {"nin": 0.025, "dsn": 0.025, "maxout": 0.002, "fitnet19": 0.01}

#: Where ``cifar10-maxout`` leaves the teacher of ``cifar10-fitnet19-hints``.
TEACHER = "runs/cifar10-maxout"


def _rival(name: str, rate: float, teacher: str | None = None) -> Recipe:
    network, _, _ = name.partition("-")
    return Recipe(
        name=f"cifar10-{name}",
        description=f"{name} on CIFAR-10 by Section 4.2's recipe at a rate of {rate}",
        model=ClassifierModel(name=f"cifar_{network}", teacher=teacher),
        data=Data(dataset="cifar10"),
        schedule=Schedule(learning_rate=rate),
    )


def _published(
    name: str, rate: float, decay: float, batch: int, iterations: int, drops: tuple[float, ...]
) -> Recipe:
    """Return a rival's own settings, as far as its authors' files for CIFAR-10 say them and recipes can.

    Those files' images are whitened, and a layer has a rate of its own: neither is here.
    """
    return Recipe(
        name=f"cifar10-{name}-published",
        description=f"{name} on CIFAR-10 with the settings of its authors' file, without its whitening",
        model=ClassifierModel(name=f"cifar_{name}"),
        data=Data(dataset="cifar10", mean="per-channel", std=True),
        batch=Batch(size=batch, bn_group=batch // 2),
        optimizer=Optimizer(weight_decay=decay),
        schedule=Schedule(iterations=iterations, learning_rate=rate, drops=drops),
    )


CIFAR10 = [
    *(_cifar10(kind, depth) for kind in ("plain", "resnet") for depth in DEPTHS),
    # The paper's rival (Table 6), which it only quotes, under its own recipe.
    *(_cifar10("highway", depth) for depth in (19, 32)),
    *(_rival(name, rate) for name, rate in RIVALS.items()),
    _rival("fitnet19-hints", RIVALS["fitnet19"], TEACHER),
    _published("nin", 0.1, 1e-4, 128, 120_000, (5 / 6,)),
    _published("dsn", 0.025, 5e-4, 100, 50_000, ()),
]
