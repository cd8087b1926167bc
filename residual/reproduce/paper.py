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
