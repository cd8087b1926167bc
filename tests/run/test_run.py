"""Whole runs as real processes: killed, stopped, broken, continued, and shared by two ranks."""

import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import termios
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from conftest import (
    CPU,
    TINY,
    Call,
    Command,
    Refused,
    Shown,
    assert_same_run,
    command_line,
    environment,
    metrics_of,
    results_of,
    sentence_of,
    set_options,
    signalled_after,
    start,
    torchrun,
    wait_for,
)

from residual import run
from residual.device import arithmetic
from residual.errors import Interrupted
from residual.recipes import DetectionRecipe, find, read
from residual.run.classification import ClassificationTask
from residual.run.run import resume_command, troubles
from residual.training.checkpoint import list_checkpoints, load_checkpoint
from residual.training.folder import RunFolder


def lines(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, call: Call) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert call("train", *TINY, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed when it had two checkpoints."""
    out = tmp_path_factory.mktemp("killed") / "run"
    signalled_after("checkpoint", 50, signal.SIGKILL, "train", *TINY, "--out", out)
    return out


def test_a_run_leaves_everything_behind(uninterrupted: Path) -> None:
    assert {p.name for p in uninterrupted.iterdir()} >= {
        "recipe.yaml",
        "environment.json",
        "metrics.jsonl",
        "results.json",
        "weights",
    }
    results = results_of(uninterrupted)
    assert results["iterations"] == 240
    assert results["train"]["images"] == 1438
    assert results["test"]["images"] == 359
    assert results["test"]["top1_error"] < 15
    measured = metrics_of(uninterrupted)
    assert [line["iteration"] for line in measured] == list(range(10, 241, 10))
    # The curve ends with the reported number: final iteration, averaged statistics.
    assert measured[-1]["test"]["top1_error"] == results["test"]["top1_error"]
    assert all(line["train"]["images"] == 640 for line in measured)
    (session,) = json.loads((uninterrupted / "environment.json").read_text())
    assert session["versions"]["torch"] == torch.__version__
    assert session["departures"] == []


@pytest.mark.long
def test_killed_at_several_points_and_resumed(uninterrupted: Path, tmp_path: Path, shown: Shown) -> None:
    out = tmp_path / "killed"
    arguments: list[str | Path] = ["train", *TINY, "--out", out]
    # Before the first checkpoint; right after a line, some iterations after one; right after a later one.
    moments: list[tuple[Literal["line", "checkpoint"], int]] = [
        ("line", 10),
        ("line", 90),
        ("checkpoint", 150),
    ]
    for point, moment in enumerate(moments):
        signalled_after(*moment, signal.SIGKILL, *arguments, *(["--resume"] if point else []))
        assert not (out / "results.json").exists()
        assert len(list_checkpoints(out)) == (0, 2, 2)[point]
    shown(*arguments, "--resume")
    assert_same_run(out, uninterrupted)
    assert len(json.loads((out / "environment.json").read_text())) == 4


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(
    number: signal.Signals, uninterrupted: Path, tmp_path: Path, shown: Shown
) -> None:
    out = tmp_path / "stopped"
    errors = signalled_after("line", 40, number, "train", *TINY, "--out", out).stderr
    assert f"continue with: residual train --resume --out {out}" in errors
    assert "Traceback" not in errors
    _, progress = load_checkpoint(list_checkpoints(out)[-1])
    assert f"stopped at iteration {progress.iteration:,}" in errors
    shown("train", "--resume", "--out", out)
    assert_same_run(out, uninterrupted)


@pytest.mark.long
def test_a_closed_terminal_writes_a_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "closed"
    terminal, inside = os.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(inside, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command_line("train", *TINY, "--out", out),
        stdin=inside,
        stdout=inside,
        stderr=inside,
        env=environment(),
        preexec_fn=take_terminal,
    )
    os.close(inside)
    while lines(out) < 4:
        os.read(terminal, 10_000)
        assert process.poll() is None
    os.close(terminal)
    assert process.wait(timeout=60) == 128 + signal.SIGHUP
    assert load_checkpoint(list_checkpoints(out)[-1])[1].iteration >= 40


def test_a_signal_between_two_bn_groups_leaves_the_iteration(
    tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [*TINY, *set_options(["batch.size=32", "batch.bn_group=8", "schedule.iterations=30"])]
    assert call("train", *groups, "--out", tmp_path / "whole") == 0
    heard = iter([*[False] * 67, True])

    def check() -> None:
        if next(heard):
            raise Interrupted("stop", signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("residual.signals.check", check)
        stopped = ("--out", tmp_path / "stopped", "--device", "cpu", "--deterministic")
        assert call("train", *groups, *stopped) == 128 + signal.SIGTERM
    # What the run folder does not know is said again.
    again = f"continue with: residual train --resume --out {stopped[1]} --device cpu --deterministic"
    assert again in capsys.readouterr().err
    # 16 iterations of four groups, and three groups of another.
    newest = list_checkpoints(tmp_path / "stopped")[-1]
    assert load_checkpoint(newest)[1].iteration == 16
    assert call("train", "--resume", "--out", tmp_path / "stopped") == 0
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.long
def test_a_signal_ends_an_evaluation_which_the_resumed_run_does(
    uninterrupted: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, calls = ClassificationTask.evaluate, iter(range(100))

    def stopped(task: ClassificationTask) -> Any:
        if next(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(task)

    def killed_in_the_next(task: ClassificationTask) -> Any:
        if next(calls) > 4:
            raise RuntimeError("killed")
        return evaluate(task)

    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "evaluate", stopped)
        assert call("train", *TINY, "--out", tmp_path / "stopped") == 128 + signal.SIGTERM
    assert lines(tmp_path / "stopped") == 3
    assert load_checkpoint(list_checkpoints(tmp_path / "stopped")[-1])[1].iteration == 40
    # The resumed run does it, and is killed at once: that line is not to be there twice.
    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "evaluate", killed_in_the_next)
        assert call("train", "--resume", "--out", tmp_path / "stopped") == 70
    assert lines(tmp_path / "stopped") == 4
    assert call("train", "--resume", "--out", tmp_path / "stopped") == 0
    assert_same_run(tmp_path / "stopped", uninterrupted)


def test_a_run_stopped_in_its_last_tests_says_what_is_left(
    tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    short = [*TINY, "--set", "schedule.iterations=30", "--out", tmp_path]
    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "keep", stopped)
        assert call("train", *short) == 128 + signal.SIGINT
    said = "stopped; training is complete and only the last tests are left, do them with: residual train"
    assert f"{said} --resume --out {tmp_path}\n" in capsys.readouterr().err
    monkeypatch.setattr("residual.run.run._page", stopped)
    monkeypatch.setattr("residual.training.sgd.SGD.step", stopped)
    assert call("train", "--resume", "--out", tmp_path) == 128 + signal.SIGINT
    said = "stopped; the run is complete, but its page was not written; make it with: residual report"
    assert f"{said} {tmp_path}\n" in capsys.readouterr().err
    assert results_of(tmp_path)["iterations"] == 30


@pytest.mark.long
def test_when_the_time_is_over_a_checkpoint_is_written(tmp_path: Path, residual: Command) -> None:
    out = tmp_path / "limited"
    long = [*TINY, "--set", "schedule.iterations=1000000", "--set", "checkpoint_every=1000000"]
    done = residual("train", *long, "--minutes", "0.25", "--out", out)
    assert done.returncode == 128 + signal.SIGALRM, done.stderr
    assert "the time of --minutes is over: a checkpoint is written" in done.stderr
    (checkpoint,) = list_checkpoints(out)
    _, progress = load_checkpoint(checkpoint)
    # 75,002 parameters and their velocities, in float32, and the BN statistics.
    at = f"stopped at iteration {progress.iteration:,} with a checkpoint of 0.6 MB; continue with: residual"
    assert at in done.stderr
    assert progress.iteration > 0


def test_resuming_a_complete_run_changes_nothing(uninterrupted: Path, shown: Shown) -> None:
    before = {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*") if p.name != ".lock"}
    (uninterrupted / ".report.7.new.html").write_text("half, as the run was killed after its last result")
    assert "240 iterations" in shown("train", "--resume", "--out", uninterrupted).out
    assert {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*") if p.name != ".lock"} == before


def test_a_run_is_never_overwritten(uninterrupted: Path, refused: Refused) -> None:
    said = refused("train", *TINY, "--out", uninterrupted)
    assert "holds a run already; continue it with --resume" in said


def test_torchrun_goes_on_with_its_own_run_alone(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, its processes are started anew: the run that lies there is not theirs."""
    out = shutil.copytree(uninterrupted, tmp_path / "run")
    sessions = json.loads((out / "environment.json").read_text())
    recipe = read(out / "recipe.yaml")
    monkeypatch.setattr("residual.torchrun.restarts", lambda: 1)
    monkeypatch.setattr("residual.distributed.launcher", lambda: "this")
    for launcher in ("this", "another"):
        sessions[-1]["launcher"] = launcher
        (out / "environment.json").write_text(json.dumps(sessions))
        if launcher == "this":
            assert run.train(recipe, out, device="cpu") == results_of(out)
        else:
            assert "holds a run already" in sentence_of(lambda: run.train(recipe, out, device="cpu"))


def test_torchruns_runs_go_on_under_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task: Any = SimpleNamespace(command=("residual", "train"))
    go_on = f"residual train --resume --out {tmp_path}"
    assert resume_command(task, tmp_path, None) == go_on
    for name, value in (("TORCHELASTIC_RUN_ID", "a"), ("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    assert resume_command(task, tmp_path, None) == f"torchrun --nproc-per-node=4 -m {go_on}"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert resume_command(task, tmp_path, None) == f"torchrun ... -m {go_on}"


def test_what_is_for_classifiers_is_not_silently_left_out_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("residual.run.run.pick_device", lambda _: torch.device("cuda"))
    recipe = find("voc-finetune", DetectionRecipe)
    said = sentence_of(lambda: run.train(recipe, tmp_path / "run", device="cpu", deterministic=True))
    assert "deterministic is for classifiers" in said
    assert not (tmp_path / "run").exists()


def test_a_new_run_inside_of_another_ones_folder_does_not_take_its_images(
    trained_on_images: Path, tmp_path: Path, refused: Refused
) -> None:
    outer = Path(shutil.copytree(trained_on_images, tmp_path / "outer"))
    inner = outer / "inner"
    assert "name the folder that holds train/" in refused("train", "imagenet-resnet18", "--out", inner)
    assert not inner.exists()


def test_a_changed_recipe_is_not_resumed(uninterrupted: Path, refused: Refused) -> None:
    said = refused("train", *TINY, "--set", "seed=5", "--resume", "--out", uninterrupted)
    assert "seed: 0 -> 5" in said


def test_a_diverging_run_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path, refused: Refused) -> None:
    out = tmp_path / "diverged"
    said = refused(
        *("train", *TINY, "--out", out, "--set", "schedule.learning_rate=1e6"),
        *("--set", "schedule.warmup.iterations=60", "--set", "schedule.warmup.learning_rate=0.01"),
    )
    assert "the loss is not finite at iteration 65;" in said
    assert "try a lower schedule.learning_rate" in said
    newest = list_checkpoints(out)[-1]
    assert str(newest) in said
    tensors, progress = load_checkpoint(newest)
    assert progress.iteration == 50
    assert all(torch.isfinite(t).all() for t in tensors.values())


@pytest.mark.long
def test_a_full_disk_loses_nothing(
    uninterrupted: Path, killed: Path, tmp_path: Path, residual: Command, shown: Shown
) -> None:
    out = Path(shutil.copytree(killed, tmp_path / "full"))
    kept = {p: p.read_bytes() for p in list_checkpoints(out)}

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    done = residual("train", "--resume", "--out", out, preexec_fn=small_disk)
    assert done.returncode == 2
    assert f"{out} cannot be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert {p: p.read_bytes() for p in list_checkpoints(out)} == kept
    shown("train", "--resume", "--out", out)
    assert_same_run(out, uninterrupted)


@pytest.mark.long
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_works(
    uninterrupted: Path, killed: Path, tmp_path: Path, shown: Shown, refused: Refused
) -> None:
    out = Path(shutil.copytree(killed, tmp_path / "damaged"))
    newest = list_checkpoints(out)[-1]
    os.truncate(newest, newest.stat().st_size // 2)
    assert f"{newest} is damaged (" in refused("train", "--resume", "--out", out)
    newest.unlink()
    shown("train", "--resume", "--out", out)
    assert_same_run(out, uninterrupted)


@pytest.mark.long
def test_two_processes_do_not_share_a_run_folder(tmp_path: Path, refused: Refused) -> None:
    out = tmp_path / "run"
    process = start("train", *TINY, "--set", "schedule.iterations=1000000", "--out", out, cwd=tmp_path)
    wait_for(process, lambda: lines(out) >= 1)
    said = refused("train", "--resume", "--out", out)
    process.kill()
    process.communicate()
    assert "another process is working on this run" in said


@pytest.mark.long
def test_two_ranks_compute_what_one_process_computes(tmp_path: Path, shown: Shown) -> None:
    """A batch of 128 in BN groups of 64: in turn in one process, or one group in each of two."""
    settings = ["batch.size=128", "schedule.iterations=30", "evaluate_every=5", "data.pad=1"]
    arguments = [*TINY, *set_options(settings)]
    one, two = tmp_path / "one", tmp_path / "two"
    shown("train", *arguments, "--out", one)
    done = subprocess.run(
        torchrun("train", *arguments, "--out", two),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    single, double = metrics_of(one), metrics_of(two)
    assert [line["iteration"] for line in single] == [line["iteration"] for line in double]
    for a, b in zip(single, double, strict=True):
        for part in ("train", "test"):
            assert a[part]["images"] == b[part]["images"]
            assert a[part]["loss"] == pytest.approx(b[part]["loss"], rel=1e-3)
    results = [results_of(run) for run in (one, two)]
    for part in ("train", "test"):
        assert results[0][part]["images"] == results[1][part]["images"]
        assert results[0][part]["loss"] == pytest.approx(results[1][part]["loss"], rel=1e-3)
    assert json.loads((two / "environment.json").read_text())[0]["ranks"] == 2
    assert done.stdout.count("everything is in") == 1


def test_what_the_system_refused_is_said_of_the_file_that_it_was(tmp_path: Path) -> None:
    def said(error: OSError) -> str:
        def fail() -> None:
            with troubles("mine", RunFolder(tmp_path / "run"), CPU, "residual train --resume"):
                raise error

        return sentence_of(fail)

    absent = OSError(errno.ENOENT, "No such file or directory", "/data/1.png")
    assert said(absent) == "/data/1.png: No such file or directory; continue with: residual train --resume"
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "run" / "metrics.jsonl"))
    assert said(full).startswith(
        f"{tmp_path / 'run'} cannot be written: No space left on device; what was there"
    )


def test_what_has_no_kernel_that_repeats_is_said_of_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a run as on a GPU, whose arithmetic is put back when it fails."""

    def refuse(*_: object) -> None:
        raise RuntimeError(
            "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but"
        )

    monkeypatch.setattr(ClassificationTask, "place", refuse)
    monkeypatch.setattr(
        "residual.run.run.arithmetic", lambda _, *chosen: arithmetic(torch.device("cuda:0"), *chosen)
    )

    def train(deterministic: bool) -> None:
        out = tmp_path / str(deterministic)
        run.train(find("digits-resnet20"), out, device="cpu", deterministic=deterministic)

    with pytest.raises(RuntimeError, match=r"^adaptive"):
        train(deterministic=False)
    said = sentence_of(lambda: train(deterministic=True))
    assert said.startswith("digits-resnet20: --deterministic: adaptive_avg_pool2d_backward_cuda does not")
    assert not torch.are_deterministic_algorithms_enabled()
