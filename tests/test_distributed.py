"""Processes that train together: restarts and several nodes give the same numbers; nothing is left behind."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from conftest import (
    TINY,
    assert_same_run,
    environment,
    metrics_of,
    results_of,
    sentence_of,
    set_options,
    torchrun,
    wait_for,
)

from residual import distributed
from residual.__main__ import main as program
from residual.distributed import World

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


def test_the_other_ranks_are_about_as_far() -> None:
    assert [World(1, 4).about_done(done, 10) for done in (0, 2, 3)] == [0, 8, 10]


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="what threads there are is read from /proc")
@pytest.mark.parametrize("how", ["ends", "fails"])
def test_no_thread_of_the_group_outlives_the_work(how: str) -> None:
    """Threads that see the interpreter taken apart abort the process now and then, after all is done."""
    about = {"TORCHELASTIC_RUN_ID": "test", "RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
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


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that torchrun has started, as far as it can tell."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setattr(dist, "rendezvous", lambda *_, **__: iter([(dist.HashStore(), 0, 1)]))
    for name in ("get_rank", "get_world_size"):
        monkeypatch.setattr(dist, name, lambda: 1)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells")
def test_processes_of_one_torchrun_know_it_through_a_script(tmp_path: Path) -> None:
    """Started anew, a script between the two is another process; another torchrun is another."""
    told = "import residual.distributed as d; print(d.launcher())"
    script = tmp_path / "script.sh"
    script.write_text(f"{sys.executable} -c '{told}'; true\n")
    agent = tmp_path / "torchrun"
    code = f"import subprocess\nfor _ in range(2): subprocess.run(['sh', {str(script)!r}])\n"
    agent.write_text(code)
    env = environment() | {"TORCHELASTIC_RUN_ID": "none"}
    found = [
        subprocess.run([sys.executable, agent], capture_output=True, text=True, env=env, timeout=120).stdout
        for _ in range(2)
    ]
    (first, again), (other, _) = (said.split() for said in found)
    assert first == again != other
    assert distributed.launcher() is None


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize(("device", "backend"), [("cuda:1", "nccl"), ("cpu", "gloo")])
def test_a_process_says_which_gpu_is_its_own(
    device: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it NCCL guesses, and warns that it does."""
    asked: list[Any] = []
    current: list[torch.device] = []
    monkeypatch.setattr(dist, "init_process_group", lambda kind, **how: asked.append((kind, how)))
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    distributed.join(torch.device(device))
    ((kind, how),) = asked
    assert kind == backend
    assert current == ([torch.device(device)] if backend == "nccl" else [])
    assert how["device_id"] == (torch.device(device) if backend == "nccl" else None)


@pytest.mark.usefixtures("started")
def test_two_processes_on_one_gpu_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise dist.DistBackendError("NCCL error in: NCCLUtils.cpp:94\nDuplicate GPU : rank 0 and 1\n")

    monkeypatch.setattr(dist, "init_process_group", refuse)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    said = sentence_of(lambda: distributed.join(torch.device("cuda:0")))
    assert "cannot exchange anything (Duplicate GPU : rank 0 and 1); each needs a GPU of its own" in said


@pytest.mark.parametrize(("backend", "leaves"), [("nccl", False), ("gloo", True)])
def test_a_rank_that_has_failed_does_not_wait_for_those_that_wait_for_it(
    backend: str, leaves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL's group is left by all ranks together; a process that cannot leave it ends without."""
    here = [True]
    monkeypatch.setattr(dist, "is_initialized", lambda: here[0])
    monkeypatch.setattr(dist, "get_backend", lambda: backend)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: here.__setitem__(0, False))
    ends: list[object] = []
    monkeypatch.setattr(os, "_exit", ends.append)

    def fail() -> None:
        with distributed.left():
            raise SystemExit(2)

    monkeypatch.setattr("residual.cli.main", fail)
    with pytest.raises(SystemExit) as ended:
        program()
    assert ended.value.code == 2
    assert here == [not leaves]
    assert ends == ([] if leaves else [2])
    here[0] = True
    with distributed.left():
        pass
    assert here == [False]


@pytest.mark.gpu
@pytest.mark.parametrize("processes", [1, 2])
def test_processes_train_on_a_gpu_each(processes: int, tmp_path: Path) -> None:
    if torch.cuda.device_count() < processes:
        pytest.skip("each process needs a GPU of its own")
    out = tmp_path / "run"
    command = torchrun("train", *ARGUMENTS, "--device", "cuda", "--out", out, processes=processes)
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=110)
    assert done.returncode == 0, done.stderr
    for told in ("recording failed", "device_id", "destroy_process_group", "Traceback"):
        assert told not in done.stderr
    assert [line["iteration"] for line in metrics_of(out)] == [20, 40, 60, 80, 100]
    assert results_of(out)["test"]["images"] == 359


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
