"""Processes that train together: restarts and several nodes give the same numbers; nothing is left behind."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, assert_same_run, environment, metrics_of, results_of, set_options, wait_for

#: A model that exchanges gradients, in a cycle of references as in a run; what is left when the process ends.
PROGRAM = """
import atexit, sys
from pathlib import Path

@atexit.register
def show():
    print(*sorted(file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")))

import torch
from torch.nn.parallel import DistributedDataParallel
from residual import distributed

def work():
    distributed.join(torch.device("cpu"))
    model = DistributedDataParallel(torch.nn.Linear(2, 2))
    model.cycle = [model]
    model(torch.ones(1, 2)).sum().backward()
    print(any("gloo" in file.read_text() for file in Path("/proc/self/task").glob("*/comm")))
    if sys.argv[1] == "fails":
        raise SystemExit(2)

with distributed.left():
    work()
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="what threads there are is read from /proc")
@pytest.mark.parametrize("how", ["ends", "fails"])
def test_no_thread_of_the_group_outlives_the_work(how: str) -> None:
    """Threads that see the interpreter taken apart abort the process now and then, after all is done."""
    about = {"TORCHELASTIC_RUN_ID": "test", "RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    port = str(20_000 + os.getpid() % 20_000)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        capture_output=True,
        text=True,
        env=environment() | about | {"MASTER_PORT": port},
        timeout=120,
    )
    assert done.returncode == (2 if how == "fails" else 0), done.stderr
    there, left = done.stdout.splitlines()
    assert there == "True"
    assert "gloo" not in left


# Some ten processes, each of which loads PyTorch: slow.

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


@pytest.mark.slow
def test_two_nodes_train_as_one_process_does(two_nodes: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    command = [sys.executable, "-m", "residual", "train", *ARGUMENTS, "--out", str(one)]
    subprocess.run(command, check=True, capture_output=True, env=environment(), timeout=300)
    for a, b in zip(metrics_of(one), metrics_of(two_nodes), strict=True):
        for part in ("train", "test"):
            assert a[part]["images"] == b[part]["images"]
            assert a[part]["loss"] == pytest.approx(b[part]["loss"], rel=5e-3)
    assert results_of(one)["test"]["images"] == results_of(two_nodes)["test"]["images"]


@pytest.mark.slow
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
