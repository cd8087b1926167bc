"""Table 1 and Figure 3: how much the networks compute, beside those that the paper compares with."""

from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from pathlib import Path

import torch

from ..analysis.complexity import Complexity
from ..analysis.complexity import complexity as count
from ..models import build_model
from ..table import Table, TableRow
from ..terminal import say
from .paper import COMPLEXITY, OF_VGG19, NetworkComplexity

SIZE = (3, 224, 224)
HEADINGS = ("network", "layers", "parameters", "mult-adds, 10^9", "paper", "agrees", "of VGG-19")


def complexity(out: Path) -> None:
    """Print the table, and write it as complexity.json and complexity.md.

    Raises:
        InputError: when it cannot be written.
    """
    counted = {row.method: counted_of(row) for row in COMPLEXITY}
    vgg19 = counted["VGG-19"].multiply_adds
    rows, content = [], []
    for row in COMPLEXITY:
        found = counted[row.method]
        part = 100 * found.multiply_adds / vgg19
        rows.append(
            TableRow(
                [
                    row.method,
                    str(found.layers),
                    f"{found.parameters:,}",
                    f"{found.multiply_adds / 1e9:.3f}",
                    row.multiply_adds or "",
                    agreement(found.multiply_adds, row.multiply_adds) if row.multiply_adds else "",
                    f"{part:.1f} %",
                ]
            )
        )
        content.append(
            {
                "network": row.method,
                "parameters": found.parameters,
                "multiply_adds": found.multiply_adds,
                "activations": found.activations,
                "of_vgg19": part,
                "printed": row.multiply_adds,
            }
        )
    caption = (
        "One image of 3 x 224 x 224, 1000 classes; projections and fully connected layers included. Layers "
        "side by side (GoogLeNet, BN-inception) count one by one. Agrees: whether the paper's number is "
        "ours rounded, or cut off after its last digit."
    )
    title = "Complexity (Table 1, Figure 3)"
    Table(title, HEADINGS, rows, caption).publish(out, "complexity", {"input_size": SIZE}, content)
    plain34 = 100 * counted["plain-34"].multiply_adds / vgg19
    deepest, vgg16 = counted["ResNet-152"].multiply_adds, counted["VGG-16"].multiply_adds
    say(
        f"plain-34 is {plain34:.1f} % of VGG-19 (the paper: {OF_VGG19} %)",
        f"ResNet-152 has {'lower' if deepest < vgg16 else 'NOT lower'} complexity than VGG-16 and -19 (the "
        "paper: lower)",
    )


def counted_of(row: NetworkComplexity) -> Complexity:
    """Return the exact counts of a network."""
    with torch.device("meta"):
        options = {"shortcut": row.shortcut} if row.shortcut else {}
        return count(build_model(row.network, **options), SIZE)


def agreement(exact: int, printed: str) -> str:
    """Say whether a printed number of 10^9 is the exact one "rounded", "cut off", both ("yes") or "no"."""
    number, places = Decimal(exact) / 10**9, Decimal(printed)
    rounded = number.quantize(places, ROUND_HALF_UP) == places
    cut = number.quantize(places, ROUND_DOWN) == places
    return "yes" if rounded and cut else "rounded" if rounded else "cut off" if cut else "no"
