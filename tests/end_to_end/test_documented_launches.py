"""The launches that the pages show, for a few steps of a tiny model."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest

from tests.end_to_end.command_line import PROJECT, RUN, TINY, manifest
from tests.end_to_end.torchrun import PATIENCE, checkpoints, wait_for
from tests.pages import blocks

PAGE = "docs/scaling.md"
SMALL = [*TINY, "--gin.Trainer.batch_size=8", "--gin.Trainer.eval_cadence=None"]
LAUNCHES = [
    line.removeprefix("$ ")
    for page in (PAGE, "README.md")
    for language, lines in blocks(page)
    for line in lines
    if language != "bash" and line.startswith("torchrun ")
]


def words(line, *more):
    """The words of a shown launch, made small; the launcher is that of this Python."""
    first, *others = shlex.split(line)
    assert first == "torchrun"
    others[others.index("run.py")] = str(RUN)
    return [sys.executable, "-m", "torch.distributed.run", *others, *SMALL, *more]


def started(line, folder, *more):
    return subprocess.Popen(
        words(line, *more), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_page_shows_launches():
    assert len(LAUNCHES) >= 4
    assert sum("--standalone" in line for line in LAUNCHES) >= 3


ON_ONE_MACHINE = [line for line in LAUNCHES if "--standalone" in line]


@pytest.mark.parametrize(
    "line",
    [
        ON_ONE_MACHINE[0],
        *(pytest.param(line, marks=pytest.mark.exhaustive) for line in ON_ONE_MACHINE[1:]),
    ],
)
def test_a_launch_on_one_machine_works_as_shown(folder, line):
    process = started(line, folder, "--max_steps=3")
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert "processes: 2, by" in output
    assert "final validation loss" in output


@pytest.mark.exhaustive
@pytest.mark.parametrize("line", [line for line in LAUNCHES if "--nnodes" in line])
def test_a_launch_on_several_machines_works_as_shown(folder, line):
    (n_launchers,) = map(int, re.findall(r"--nnodes=(\d+)", line))
    here = line.replace("first-machine:29500", "localhost:29655").replace("node=4", "node=1")
    processes = [started(here, folder, "--max_steps=3") for _ in range(n_launchers)]
    outputs = [process.communicate(timeout=PATIENCE) for process in processes]
    assert [process.returncode for process in processes] == [0] * n_launchers, outputs
    assert "".join(output for output, _ in outputs).count("final validation loss") == 1
    assert manifest(folder / "runs" / "large")["processes"] == n_launchers


# What stands for Slurm: a job of one machine. A SIGTERM to its srun kills the tasks, and scancel
# signals everything in them (https://slurm.schedmd.com/scancel.html).
STAND_INS = {
    "srun": """[ "$SRUN_CPUS_PER_TASK" = 16 ] || exit 99
trap 'kill -KILL "$task"; exit 137' TERM HUP
"$@" & task=$!
echo "$task" > task
wait "$task\"""",
    "scancel": """[ "$*" = "--signal=TERM 7" ] || exit 99
kill -TERM "$(cat task)" $(ps -o pid= --ppid "$(cat task)")""",
    "scontrol": 'if [ "$1" = show ]; then echo localhost; else echo "$@" > requeued; fi',
}


@pytest.mark.exhaustive
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("is_saved", [True, False], ids=["saved", "not-saved"])
def test_the_job_for_slurm_saves_and_then_queues_itself_again(folder, is_saved):
    (script,) = ("\n".join(lines) for language, lines in blocks(PAGE) if language == "bash")
    script = script.replace("node=4", "node=2").replace("29500", "29656")
    more = shlex.join([*SMALL, "--gin.Trainer.checkpoint_cadence=10"])
    (folder / "job.sh").write_text(script.replace("--resume &", f"--resume {more} &"))
    (folder / "run.py").symlink_to(RUN)
    tools = folder / "bin"
    tools.mkdir()
    launcher = f'exec "{sys.executable}" -m torch.distributed.run "$@"'
    for name, body in {**STAND_INS, "torchrun": launcher}.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "here"}
    slurm["SLURM_CPUS_PER_TASK"] = "16"
    paths = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(PROJECT)}
    job = subprocess.Popen(["bash", "job.sh"], cwd=folder, env={**os.environ, **slurm, **paths})
    try:
        wait_for(lambda: checkpoints(folder / "runs" / "large"), "checkpoint")
        if not is_saved:
            (folder / "runs" / "large" / "checkpoints").rename(folder / "elsewhere")
            (folder / "runs" / "large" / "checkpoints").write_text("")
        job.send_signal(signal.SIGUSR1)
        assert job.wait(timeout=60) == 0
    finally:
        job.kill()
    assert (folder / "requeued").exists() == is_saved
    stopped = manifest(folder / "runs" / "large")["outcome"] == "stopped by SIGTERM"
    assert stopped == is_saved
