"""Processes that train together leave nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import environment

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
