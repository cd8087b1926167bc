"""State dicts of other libraries as files: what is never executed, and what is refused."""

import os
import pickle
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest
import torch
from conftest import sentence_of
from safetensors.torch import save_file
from torch import Tensor, nn

from residual import build_model
from residual.models.statedict import read_foreign_state, read_state, write_state
from residual.models.weights import import_weights


class Malicious:
    """Unpickling it creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_pickled_code_is_not_executed(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    saved = {"state_dict": build_model("cifar_resnet20").state_dict(), "args": Malicious(target)}
    torch.save(saved, tmp_path / "new.pth")
    torch.save(saved, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Malicious(target), protocol=2))
    for name in ("new.pth", "old.pth", "bare.pt"):
        file = tmp_path / name
        message = sentence_of(lambda file=file: import_weights(file, "cifar_resnet20", tmp_path / "out"))
        assert message.startswith(f"{file} holds pickled code (posix.mkdir), which is never executed here")
        assert not target.exists()
    # The files are what they should be: read carelessly, they do execute.
    pickle.loads((tmp_path / "bare.pt").read_bytes())
    assert target.exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("part", [0, 0.001, 0.5, 0.99])
def test_truncated_foreign_files(tmp_path: Path, suffix: str, part: float) -> None:
    file = tmp_path / f"a.{suffix}"
    if suffix == "pth":
        torch.save(build_model("cifar_resnet20").state_dict(), file)
    else:
        save_file(build_model("cifar_resnet20").state_dict(), file)
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    message = sentence_of(lambda: import_weights(file, "cifar_resnet20", tmp_path / "out"))
    assert message.startswith(f"{file} is damaged or no ")
    assert "\n" not in message


def test_files_without_a_state_dict(tmp_path: Path) -> None:
    def message(file: Path) -> str:
        return sentence_of(lambda: import_weights(file, "cifar_resnet20", tmp_path / "out"))

    assert message(tmp_path / "no.pth") == f"there is no file {tmp_path}/no.pth"
    for content, expected in [
        ({"epoch": 3, "lr": 0.1}, "holds no state dict, only epoch, lr; save"),
        ({"state_dict": {"model": {"epoch": 3}}}, "holds no state dict, only epoch; save"),
        ({}, "holds no state dict; save"),
        ({"state_dict": {}}, "holds no state dict; save"),
        (torch.zeros(3), "holds no state dict; save"),
    ]:
        file = tmp_path / "a.pth"
        torch.save(content, file)
        assert message(file).startswith(f"{file} {expected}")


def test_the_suffix_tells_the_format_however_it_is_written(tmp_path: Path) -> None:
    layer = nn.Linear(3, 2)
    write_state(layer, tmp_path / "a.SAFETENSORS")
    (tmp_path / "a.SAFETENSORS").rename(tmp_path / "a.safetensors")
    assert torch.equal(read_state(tmp_path / "a.safetensors")["weight"], layer.weight)
    (tmp_path / "a.safetensors").rename(tmp_path / "b.SafeTensors")
    assert torch.equal(read_state(tmp_path / "b.SafeTensors")["weight"], layer.weight)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_the_content_tells_the_format_whatever_the_suffix(zipped: bool, tmp_path: Path) -> None:
    layer = nn.Linear(3, 2)
    torch.save(layer.state_dict(), tmp_path / "a.safetensors", _use_new_zipfile_serialization=zipped)
    assert torch.equal(read_state(tmp_path / "a.safetensors")["weight"], layer.weight)
    save_file(layer.state_dict(), tmp_path / "b.bin")
    assert torch.equal(read_state(tmp_path / "b.bin")["weight"], layer.weight)


# --- what training scripts save ---


def plain_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(build_model("cifar_resnet8").state_dict())


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "compiled and parallel": lambda state: prefixed("_orig_mod.module.", state),
    "parallel twice": lambda state: prefixed("module.module.", state),
    "averaged": lambda state: prefixed("module.", state) | {"n_averaged": torch.tensor(5)},
    "lightning": lambda state: {"state_dict": prefixed("model.", state), "epoch": 3, "loops": {"fit": {}}},
    "lightning, net": lambda state: {"state_dict": prefixed("net._orig_mod.", state)},
    "model_state_dict": lambda state: {"epoch": 3, "model_state_dict": state, "optimizer": {"lr": 0.1}},
    "nested": lambda state: {"model": {"state_dict": prefixed("backbone.", state)}},
    "thop": lambda state: state | {"total_ops": torch.zeros(1), "conv1.total_params": torch.zeros(1)},
    "numbers among them": lambda state: state | {"epoch": 3, "note": "best"},
    "numpy": lambda state: {
        "net": state,
        "acc": np.float64(91.7),
        "best": np.int64(3),
        "curve": np.arange(3.0),
        "when": [datetime.now(UTC), datetime.now(), date(2024, 2, 29), time(12)],
    },
    "arguments": lambda state: {
        "model": state,
        "args": Namespace(lr=0.1, out=PosixPath("x"), seed=np.int32(1)),
    },
}


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_a_wrapped_state_dict_is_the_plain_one(kind: str, zipped: bool, tmp_path: Path) -> None:
    state = plain_state()
    torch.save(WRAPPED[kind](state), tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    found = read_foreign_state(tmp_path / "a.pth")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_prefixes_in_safetensors(tmp_path: Path) -> None:
    state = plain_state()
    save_file(prefixed("_orig_mod.module.", state), tmp_path / "a.safetensors")
    assert read_foreign_state(tmp_path / "a.safetensors").keys() == state.keys()


def test_what_is_inert_brings_no_code_along(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    saved = {"state_dict": plain_state(), "args": Namespace(hidden=Malicious(target))}
    torch.save(saved, tmp_path / "a.pth")
    said = sentence_of(lambda: read_foreign_state(tmp_path / "a.pth"))
    assert "holds pickled code (posix.mkdir), which is never executed here" in said
    assert not target.exists()


def test_what_a_program_has_allowed_itself_stays_allowed(tmp_path: Path) -> None:
    torch.save({"state_dict": plain_state(), "args": Namespace(epochs=3)}, tmp_path / "a.pth")
    before = torch.serialization.get_safe_globals()
    with torch.serialization.safe_globals([Namespace]):
        read_foreign_state(tmp_path / "a.pth")
        assert torch.load(tmp_path / "a.pth")["args"] == Namespace(epochs=3)
    assert set(torch.serialization.get_safe_globals()) == set(before)


def test_threads_read_side_by_side(tmp_path: Path) -> None:
    torch.save({"state_dict": plain_state(), "args": Namespace(epochs=3)}, tmp_path / "a.pth")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read_foreign_state, [tmp_path / "a.pth"] * 40))
    assert len(found) == 40


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*is deprecated:FutureWarning")
def test_programs_are_named(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(3, 2)).save(str(tmp_path / "a.pt"))
    said = sentence_of(lambda: read_state(tmp_path / "a.pt"))
    assert said == (
        f"{tmp_path / 'a.pt'} is of TorchScript, a program, which is not run here; save its weights: "
        "torch.save(torch.jit.load('a.pt').state_dict(), 'weights.pth')"
    )
    torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.zeros(1, 3),)), tmp_path / "b.pt2")
    assert "b.pt2 is of torch.export, a program" in sentence_of(lambda: read_state(tmp_path / "b.pt2"))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            lambda tensor: tensor.fill_(float("nan")),
            "layer1.0.conv1.weight holds numbers that are not finite",
        ),
        (
            lambda tensor: tensor.double().mul(1e300),
            "layer1.0.conv1.weight holds numbers that are not finite",
        ),
        (
            lambda tensor: tensor.to(torch.int8),
            "layer1.0.conv1.weight is of int8, and weights are of floating",
        ),
        (lambda tensor: tensor.to_sparse(), "layer1.0.conv1.weight is a sparse tensor"),
        (lambda tensor: tensor.to("meta"), "layer1.0.conv1.weight is a meta tensor"),
        (
            lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
            "layer1.0.conv1.weight is a quantised tensor",
        ),
    ],
    ids=["nan", "overflow", "int8", "sparse", "meta", "quantised"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_no_weights_are_named(
    wrong: Callable[[Tensor], Tensor], sentence: str, tmp_path: Path
) -> None:
    state = plain_state()
    state["layer1.0.conv1.weight"] = wrong(state["layer1.0.conv1.weight"].clone())
    torch.save(state, tmp_path / "a.pth")
    mean, std = [0.5] * 3, [0.25] * 3
    said = sentence_of(
        lambda: import_weights(tmp_path / "a.pth", "cifar_resnet8", tmp_path / "out", mean=mean, std=std)
    )
    assert sentence in said
    assert not (tmp_path / "out").exists()


def test_half_precision_is_taken(tmp_path: Path) -> None:
    state = {
        name: tensor.bfloat16() if tensor.is_floating_point() else tensor
        for name, tensor in plain_state().items()
    }
    torch.save(state, tmp_path / "a.pth")
    mean, std = [0.5] * 3, [0.25] * 3
    weights = import_weights(tmp_path / "a.pth", "cifar_resnet8", tmp_path / "out", mean=mean, std=std)
    assert torch.equal(weights.model.conv1.weight, state["conv1.weight"].float())


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("net.onnx", b"anything", "is a network of ONNX, which is written here and not read"),
        ("net.pth", b"\x08\x0a\x12\x07pytorch\x1a\x06", "is a network of ONNX"),
        ("config.json", b'{"format": "residual weights"}', "is a text (JSON), not weights"),
        ("net.pth", b"\n [1, 2]", "is a text (JSON), not weights"),
        ("net.safetensors", b"\x08\x0a\x12\0\0\0\0\0{", "is damaged or no file of safetensors"),
        ("net.safetensors", b"[ \0\0\0\0\0\0{", "is damaged or no file of safetensors"),
        ("net.pth", b"nothing of any kind", "is damaged or no file of torch.save"),
    ],
)
def test_what_lies_beside_weights_is_called_what_it_is(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in sentence_of(lambda: read_state(tmp_path / name))
