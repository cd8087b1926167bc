"""A network's depth, parameters, multiply-adds and activations, counted stage by stage (Tables 1 and 6).

The count reads one pass of the network itself over an image without memory (PyTorch's meta device), so it
knows no architecture, and a network of 1202 layers or of 144 million parameters takes a second or two.
"""

import copy
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models.packed import PackedConv2d

if TYPE_CHECKING:
    from ..models import Classifier

#: What is counted, a field of StageComplexity and a property of Complexity each.
QUANTITIES = ("layers", "parameters", "multiply_adds", "activations")


#: Parts of a layer's name that say that it is on no main path: projections and gates.
SIDEWAYS = {"downsample", "gate"}


@dataclass(frozen=True)
class StageComplexity:
    """One row of Table 1, or one fully connected layer.

    Attributes:
        name: conv1, conv2_x, ... as the network's ``features`` calls it; fc, or fc6, fc7, fc8.
        output_size: (C, H, W).
        layers: weighted layers: convolutions and fully connected layers, projections and gates aside.
        parameters: weights and biases, BN's scales and shifts, projections included.
        multiply_adds: of one image, in convolutions and fully connected layers, projections included;
            the zeros around a map count like pixels; biases, BN, ReLU, addition and pooling do not count.
        activations: elements that those convolutions and fully connected layers put out for one image.
    """

    name: str
    output_size: tuple[int, ...]
    layers: int
    parameters: int
    multiply_adds: int
    activations: int


@dataclass(frozen=True)
class Complexity:
    """A network's stages in order, for images of ``input_size`` (C, H, W); the totals are their sums."""

    input_size: tuple[int, int, int]
    stages: tuple[StageComplexity, ...]

    @property
    def layers(self) -> int:
        return sum(stage.layers for stage in self.stages)

    @property
    def parameters(self) -> int:
        return sum(stage.parameters for stage in self.stages)

    @property
    def multiply_adds(self) -> int:
        return sum(stage.multiply_adds for stage in self.stages)

    @property
    def activations(self) -> int:
        return sum(stage.activations for stage in self.stages)


def complexity(model: "Classifier", input_size: tuple[int, int, int]) -> Complexity:
    """Count a classifier's layers, parameters, multiply-adds and activations, exactly.

    Args:
        model: left as it is; stages followed by fully connected layers.
        input_size: (C, H, W) of the images.

    Raises:
        InputError: when the network cannot take images of this size, or was made ready to be used.
    """
    if any(isinstance(module, PackedConv2d) for module in model.modules()):
        raise InputError(
            "of a network that was made ready to be used, BN is no layer and convolutions are packed; count "
            "the one that residual.models.weights.load_weights gives"
        )
    network = _without_memory(model)
    layers = {m: name for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    activations: Counter[nn.Module] = Counter()

    def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        activations[layer] += output[0].numel()

    def stage(name: str, output_size: tuple[int, ...], parameters: set[Tensor]) -> StageComplexity:
        here = [layer for layer in layers if layer.weight in parameters]
        return StageComplexity(
            name,
            output_size,
            layers=sum(SIDEWAYS.isdisjoint(layers[layer].split(".")) for layer in here),
            parameters=sum(parameter.numel() for parameter in parameters),
            # Each element that a layer puts out is one sum over a filter, which is one row of its weight.
            multiply_adds=sum(activations[layer] * layer.weight[0].numel() for layer in here),
            activations=sum(activations[layer] for layer in here),
        )

    for layer in layers:
        layer.register_forward_hook(record)
    try:
        with torch.enable_grad():
            maps = network.features(torch.empty(1, *input_size, device="meta"))
    except RuntimeError as error:
        size = " x ".join(map(str, input_size))
        raise InputError(f"the network cannot take images of {size} (C x H x W): {error}") from None

    # A parameter belongs to the first stage whose output depends on it.
    seen: set[Any] = set()
    stages = [stage(name, tuple(x.shape[1:]), set(_dependencies(x, seen))) for name, x in maps.items()]

    # What features() leaves out is the classifier. Fully connected, it sees one position of any image; as a
    # convolution (NIN) it gives scores at each position of the last map, of which the mean is taken.
    classifier = [layer for layer in layers if layer not in activations]
    follows = _slopes_after(network, classifier)
    for number, layer in enumerate(classifier, start=len(stages) + 1):
        name = "fc" if len(classifier) == 1 else f"fc{number}"
        at = stages[-1].output_size[1:] if isinstance(layer, nn.Conv2d) else (1, 1)
        activations[layer] = layer.weight.shape[0] * math.prod(at)
        stages.append(stage(name, (layer.weight.shape[0], *at), set(layer.parameters()) | follows[layer]))
    return Complexity(input_size, tuple(stages))


def _slopes_after(network: nn.Module, layers: Sequence[nn.Module]) -> dict[nn.Module, set[Tensor]]:
    """Return what PReLUs learn that come after each of the layers and before the next one."""
    found: dict[nn.Module, set[Tensor]] = {layer: set() for layer in layers}
    last = None
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            last = module
        elif isinstance(module, nn.PReLU) and last in found:
            found[last] |= set(module.parameters())
    return found


def _without_memory(model: "Classifier") -> "Classifier":
    """Copy a network to the meta device, in evaluation mode, without copying its weights on the way."""
    memo: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta")) for p in model.parameters()
    }
    return copy.deepcopy(model, memo).to("meta").eval()


def _dependencies(output: Tensor, seen: set[Any]) -> Iterator[Tensor]:
    """Walk autograd's graph back from ``output`` to its parameters, past the nodes already ``seen``."""
    nodes = [output.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        nodes += [parent for parent, _ in node.next_functions]


def default_input_size(model_name: str, in_channels: int) -> tuple[int, int, int]:
    """Return the (C, H, W) that the paper uses for a network: 32 x 32 for CIFAR's, else 224 x 224."""
    side = 32 if model_name.startswith("cifar_") else 224
    return in_channels, side, side


def to_json(counted: Complexity) -> dict[str, Any]:
    """Return the exact counts: the input size, the totals, and a dictionary for each stage."""
    totals = {quantity: getattr(counted, quantity) for quantity in QUANTITIES}
    return {"input_size": counted.input_size, **totals, "stages": [asdict(stage) for stage in counted.stages]}


def headings() -> list[str]:
    """Return what stands above the columns of ``rows``."""
    return ["stage", "output", *(quantity.replace("_", "-") for quantity in QUANTITIES)]


def rows(counted: Complexity) -> list[list[str]]:
    """Return the counts as text: a row for each stage, and the last one for the network."""
    stages = [(stage.name, " x ".join(map(str, stage.output_size)), stage) for stage in counted.stages]
    return [
        [name, output, *(_cell(quantity, getattr(part, quantity)) for quantity in QUANTITIES)]
        for name, output, part in [*stages, ("total", "", counted)]
    ]


def _cell(quantity: str, number: int) -> str:
    """Write layers and parameters in full, the rest in the paper's units: 3.86 G is 3.86 x 10^9."""
    if quantity in ("layers", "parameters"):
        return f"{number:,}"
    for unit, size in {"G": 10**9, "M": 10**6, "k": 10**3}.items():
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)
