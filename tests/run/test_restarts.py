"""Torchrun's restarts, and its agents on several nodes: the same numbers as if nothing had happened."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, assert_same_run, environment, metrics_of, results_of, set_options, wait_for

#: Some ten processes, each of which loads PyTorch.
pytestmark = pytest.mark.slow

#: Two BN groups of 64: one in each of two ranks.
ARGUMENTS = [*TINY, *set_options(["batch.size=128", "schedule.iterations=100", "evaluate_every=20"])]


def agent(out: Path, *options: str) -> "subprocess.Popen[str]":
    """Start an agent of torchrun that trains into a folder."""
    command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "residual", "train", *ARGUMENTS]
    return subprocess.Popen(
        [*command, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )


def output_of(process: "subprocess.Popen[str]") -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two agents with a process each, as on two nodes."""
    out = tmp_path_factory.mktemp("runs") / "two-nodes"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    options = ("--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}")
    agents = [agent(out, *options, "--rdzv-id=two-nodes") for _ in range(2)]
    said = [output_of(one) for one in agents]
    assert "".join(said).count("everything is in") == 1
    return out


def test_two_nodes_train_as_one_process_does(two_nodes: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    command = [sys.executable, "-m", "residual", "train", *ARGUMENTS, "--out", str(one)]
    subprocess.run(command, check=True, capture_output=True, env=environment(), timeout=300)
    for a, b in zip(metrics_of(one), metrics_of(two_nodes), strict=True):
        for part in ("train", "test"):
            assert a[part]["images"] == b[part]["images"]
            assert a[part]["loss"] == pytest.approx(b[part]["loss"], rel=5e-3)
    assert results_of(one)["test"]["images"] == results_of(two_nodes)["test"]["images"]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_run_goes_on_by_itself_after_a_rank_has_died(two_nodes: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    process = agent(out, "--standalone", "--nproc-per-node=2", "--max-restarts=3")
    wait_for(process, lambda: any(out.glob("checkpoint-*25.safetensors")))
    ranks = [int(pid) for pid in children_of(process.pid)]
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    said = output_of(process)
    assert "continuing at iteration" in said
    # One restart was enough: the dead process's address was not called.
    assert "connectFullMesh" not in said
    assert_same_run(out, two_nodes)


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
