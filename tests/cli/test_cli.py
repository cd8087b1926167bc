"""The command: one sentence with exit code 2 for every wrong input."""

import errno
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from conftest import (
    TINY,
    Call,
    Command,
    Refused,
    Shown,
    command_line,
    environment,
    save_network,
    set_options,
    smooth_image,
)

from residual import __version__
from residual.cli import app
from residual.cli.output import in_order
from residual.errors import InputError


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A network for the digits, not trained."""
    return save_network(tmp_path / "weights-of-digits", classes="0123456789", mean=torch.zeros(1, 8, 8))


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command that there is."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("words", commands(typer.main.get_command(app)), ids=" ".join)
def test_help_has_examples(words: tuple[str, ...], call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*words, "--help") == 0
    shown = capsys.readouterr().out
    assert "Examples:" in shown
    assert f"\n    residual {' '.join(words)}" in shown


@pytest.mark.parametrize("words", [(), *commands(typer.main.get_command(app))], ids=" ".join)
def test_help_is_in_a_users_words(
    words: tuple[str, ...], call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    call(*words, "--help")
    shown = capsys.readouterr().out
    assert "list[" not in shown
    assert "[more]" not in shown
    assert "--help" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "cifar10-resnet21"], ["no recipe 'cifar10-resnet21'", "cifar10-resnet20"]),
        (["train", "nowhere.yaml"], ["nowhere.yaml", "there is no file"]),
        (["train"], ["name a recipe"]),
        (["train", "--resume"], ["--resume --out FOLDER"]),
        (["train", "--resume", "--out", "nothing"], ["nothing holds no run to resume"]),
        ([*("train", "digits-resnet20"), *("--set", "sed=1")], ["no key 'sed'", "seed"]),
        ([*("train", "digits-resnet20"), *("--set", "model.name=resnet19")], ["resnet19", "18, 34, 50"]),
        (
            [*("train", "digits-resnet20"), *("--set", "model.name=cifar_resnet21")],
            ["6n+2", "cifar_resnet20", "cifar_resnet26"],
        ),
        (
            [*("train", "digits-plain20"), *("--set", "model.shortcut=A")],
            ["cifar_plain20 has no option 'shortcut'"],
        ),
        ([*("train", "digits-resnet20"), *("--set", "model.name=vgg16")], ["vgg16", "8 x 8", "too small"]),
        ([*("train", "digits-resnet20"), *("--set", "data.validation=1438")], ["1,438"]),
        (["train", "digits-resnet20", "--device", "tpu"], ["--device tpu", "cpu"]),
        (["train", "digits-resnet20", "--out", "a-file/run"], ["a-file/run", "cannot write"]),
        (["train", "digits-resnet20", "--out", "full"], ["full is not an empty folder"]),
        (["train", "cifar10-resnet20", "--data-dir", "nowhere"], ["nowhere"]),
        (["train", "cifar10-resnet20", "--data-dir", "truncated"], ["data_batch_2.bin", "30,730,000"]),
        (["train", "digits-resnet20", "--data-dir", "full"], ["nothing would be read from --data-dir"]),
        (
            [*("train", "digits-resnet20", "--dataset", "digits"), *("--set", "data.dataset=cifar10")],
            ["--dataset and --set data.dataset=cifar10 say the same"],
        ),
        (
            ["evaluate", "weights-of-digits", "--dataset", "digits", "--data-dir", "full"],
            ["nothing would be read from --data-dir"],
        ),
        (
            ["locate", "evaluate", "nowhere", "--no-guesses", "--views", "center"],
            ["--views are about guessed classes"],
        ),
        (["evaluate", "nowhere"], ["nowhere"]),
        (["evaluate", "full"], ["full"]),
        (
            ["evaluate", "full", "--views", "tencrop"],
            ["'--views': 'tencrop' is not one of"],
        ),
        (["evaluate", "weights-of-digits"], ["--dataset"]),
        (["evaluate", "weights-of-digits", "--dataset", "cifar100"], ["cifar100", "cifar10"]),
        (
            ["evaluate", "weights-of-digits", "--dataset", "cifar10", "--data-dir", "zeros"],
            ["1 channels", "3"],
        ),
        (["recipes", "nothing-like-it"], ["no recipe"]),
        (["complexity", "resnet51"], ["resnet51"]),
        (["complexity", "vgg16", "--shortcut", "A"], ["vgg16 has no option 'shortcut'"]),
        (["complexity", "resnet50", "--variant", "v2"], ["v2", "v1.5"]),
        (["complexity", "resnet50", "--clases", "3"], ["--clases"]),
        (["complexity", "resnet50", "--classes", "1000000000000000"], ["'--classes'"]),
        (["complexity", "resnet50", "--channels", "1000000000000"], ["'--channels'"]),
        (["import", "nowhere.pth"], ["there is no file nowhere.pth"]),
        (["import", "nowhere.pth", "--model", "resnet50", "--out", "full"], ["no file nowhere.pth"]),
        (["import", "resnet18.pth"], ["say which network resnet18.pth is of", "--model (as resnet18)"]),
        (["import", "a-file", "--model", "resnet18", "--out", "w", "--mean", "a,b"], ["--mean a,b"]),
        (["export", "weights-of-digits", "--torchvision", "a-file"], ["a-file"]),
        (["export", "weights-of-digits"], ["--onnx FILE or --torchvision FILE"]),
    ],
    ids=lambda value: "-".join(value)[:50] if isinstance(value, list) else None,
)
def test_wrong_input(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Refused,
) -> None:
    (tmp_path / "a-file").write_text("precious")
    (tmp_path / "resnet18.pth").write_text("precious")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    for folder, sizes in (("truncated", (30_730_000, 12_345)), ("zeros", (30_730_000,) * 5)):
        batches = tmp_path / folder / "cifar-10-batches-bin"
        batches.mkdir(parents=True)
        for number, size in enumerate(sizes, start=1):
            with (batches / f"data_batch_{number}.bin").open("wb") as file:
                file.truncate(size)  # sparse: takes no room
        with (batches / "test_batch.bin").open("wb") as file:
            file.truncate(30_730_000)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size < 1_000_000}
    # In this process: importing PyTorch anew for every case would take minutes.
    monkeypatch.chdir(tmp_path)
    said = refused(*arguments)
    for word in words:
        assert word in said
    assert {path: path.read_bytes() for path in before} == before


def test_weights_of_another_number_of_classes(tmp_path: Path, refused: Refused) -> None:
    weights = save_network(tmp_path / "seven", classes="ABCDEFG", mean=torch.zeros(1))
    assert "has 7 classes and digits has 10" in refused("evaluate", weights, "--dataset", "digits")


def test_wrong_input_of_the_real_command(residual: Command) -> None:
    done = residual("train", "cifar10-resnet21")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("residual: there is no recipe 'cifar10-resnet21'; did you mean")
    assert done.stderr.count("\n") == 1


def test_no_gpu(tmp_path: Path, refused: Refused) -> None:
    said = refused("train", "digits-resnet20", "--device", "cuda", "--out", tmp_path / "run")
    assert "sees no GPU here; use --device cpu" in said


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.92 GB, other allocations: 160.00 MB)."),
    ],
    ids=["allocator", "driver", "apple"],
)
def test_a_gpu_whose_memory_runs_out_is_a_sentence(
    error: RuntimeError, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("residual.inference.classifier.load", full)
    smooth_image().save(tmp_path / "a.png")
    said = refused("predict", tmp_path, tmp_path / "a.png")
    assert "the GPU's memory ran out" in said
    assert "--device cpu" in said


@pytest.mark.parametrize("taken", [2**60, 2**70], ids=["allocator", "python"])
def test_a_cpu_whose_memory_runs_out_is_a_sentence(
    taken: int, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What PyTorch raises there itself, and what Python does."""

    def full(*_: object, **__: object) -> None:
        if taken < 2**63:
            torch.empty(taken, dtype=torch.uint8)
        raise MemoryError

    monkeypatch.setattr("residual.inference.classifier.load", full)
    smooth_image().save(tmp_path / "a.png")
    said = refused("predict", tmp_path, tmp_path / "a.png")
    assert said.startswith("residual: the memory ran out; take fewer images or smaller ones")
    assert "--device" not in said


def test_the_others_end_is_no_fault_of_residual(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call, capsys: Any
) -> None:
    """Of processes that train together one was refused, and says why; the others hear that it has gone."""

    def lost(*_: object, **__: object) -> None:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection closed by peer [127.0.0.1]:29151")

    monkeypatch.setattr("residual.inference.classifier.load", lost)
    smooth_image().save(tmp_path / "a.png")
    assert call("predict", tmp_path, tmp_path / "a.png") == 1
    assert "another of the processes that train together has ended" in capsys.readouterr().err


@pytest.mark.long
def test_a_run_goes_on_whose_lines_nobody_reads(tmp_path: Path) -> None:
    """As one whose connection is lost, or behind ``2>&1 | tee log`` where Ctrl-C has ended tee as well."""
    out = tmp_path / "run"
    short = set_options(["schedule.iterations=4", "evaluate_every=4"])
    words = command_line("train", *TINY, *short, "--out", out)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment())
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(120) == 0
    assert (out / "results.json").is_file()
    # What is wrong has its exit code though nobody reads the sentence.
    again = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment())
    assert again.stderr is not None
    again.stderr.close()
    assert again.wait(120) == 2


def test_a_reader_that_goes_away_is_no_error() -> None:
    """As in ``residual recipes | head -n 1``."""
    process = subprocess.Popen(
        command_line("recipes"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.wait(60)


def test_the_version(shown: Shown) -> None:
    assert shown("--version").out == f"residual {__version__}\n"


def test_every_rank_finishes_a_run_that_was_stopped(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait for each other: one that is left out would be waited for."""
    finished = []

    def finish(out: Path, **_: object) -> dict[str, object]:
        finished.append(out)
        return {"iterations": 1, "of_iterations": 2}

    monkeypatch.setattr("residual.run.finish", finish)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    assert call("finish", tmp_path) == 0
    assert finished == [tmp_path]


def test_a_rank_that_is_not_torchruns_is_none(
    weights: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clusters and job scripts set such variables for purposes of their own."""
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    assert json.loads(shown("complexity", "cifar_resnet8", "--json").out)["layers"] == 8
    about = json.loads(shown("evaluate", weights, "--dataset", "digits", "--json").out)["environment"]
    assert about["ranks"] == 1


def test_finish_tells_what_a_run_of_each_kind_measures(
    tmp_path: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, told in (("top1_error", "top-1"), ("ap50", "mAP"), ("localization_error", "localization")):
        results = {"iterations": 1, "of_iterations": 2, "test": {key: 41.5, "images": 8}}
        monkeypatch.setattr("residual.run.finish", lambda _, found=results, **__: found)
        *_, last = shown("finish", tmp_path).out.splitlines()
        assert last.split() == [
            "test",
            *told.split(),
            *(["error"] * (key != "ap50")),
            "41.50",
            "%",
            "8",
            "images",
        ]


def test_a_folder_that_nobody_may_look_into_is_named() -> None:
    """Python's own tests of paths raise there; root, as which these tests may run, may look anywhere."""
    denied = PermissionError(errno.EACCES, "Permission denied", "/root/flowers")
    with pytest.raises(InputError, match=r"^/root/flowers: Permission denied$"), in_order():
        raise denied


@pytest.mark.parametrize("minutes", ["inf", "1e17", "-1"])
def test_minutes_that_no_clock_counts(minutes: str, tmp_path: Path, call: Call) -> None:
    assert call("train", "digits-resnet20", "--minutes", minutes, "--out", tmp_path / "run") == 2
    assert not (tmp_path / "run").exists()
