"""A stand-in for ``run.py``: its search is the real one, and a trial is a formula, not a training.

``python tests/stand_in.py --mode=search ...`` starts its trials with itself. What a trial leaves is
what a run leaves: metrics, a manifest, an exit code. The environment says what befalls it:

  STAND_IN_SECONDS   how long a step takes
  STAND_IN_0003      what happens to trial 3 after its first evaluation: an exit code, ``kill``, or
                     ``stop``, as if somebody stopped it
"""

import fcntl
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

# Where the formula has its optimum.
BEST_RATE, BEST_DROPOUT = 3e-3, 0.1


def loss_of(values, step):
    """Falls with the steps to a bowl around the optimum."""
    off = math.log10(values["learning_rate"] / BEST_RATE) ** 2
    off += 4 * (values["dropout"] - BEST_DROPOUT) ** 2
    return 1 + off + 2 / step


def values_of(arguments):
    """The configuration of a trial. The lab's own reader would take longer than all the rest."""
    given = dict(word.removeprefix("--").split("=", 1) for word in arguments if "=" in word)
    lines = Path(given["config"]).read_text().splitlines()
    values = dict(line.split(": ", 1) for line in lines if ": " in line and line[0] != "#")
    for word in arguments:
        if word.startswith("--gin_bindings="):
            name, value = word.split("=", 1)[1].split(" = ")
            values[name.split(".")[1]] = value
    numbers = ("learning_rate", "dropout", "max_steps", "eval_cadence")
    return Path(given["run_dir"]), {name: json.loads(values[name]) for name in numbers}


def trial(arguments):
    """Does the steps that are left, and returns the exit code."""
    run_dir, values = values_of(arguments)
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = (run_dir / ".lock").open("a")
    with Path("starts.txt").open("a") as starts:
        starts.write(f"{run_dir.name} {os.getpid()}\n")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with Path("doubled.txt").open("a") as doubled:
            doubled.write(f"{run_dir.name}\n")
        return 2
    stops = []
    signal.signal(signal.SIGTERM, lambda number, frame: stops.append(number))
    metrics = run_dir / "metrics.jsonl"
    done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    fate = os.environ.get(f"STAND_IN_{run_dir.name}", "")
    for step in range(done + 1, values["max_steps"] + 1):
        time.sleep(float(os.environ.get("STAND_IN_SECONDS", "0.001")))
        is_looked_at = step % values["eval_cadence"] == 0 or step == values["max_steps"]
        row = {"step": step} | ({"val_loss": loss_of(values, step)} if is_looked_at else {})
        with metrics.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        if is_looked_at and fate:
            time.sleep(0.3)
            return ended(run_dir, fate, step)
        if stops:
            return ended(run_dir, "stop", step)
    return ended(run_dir, "0", values["max_steps"])


def ended(run_dir, fate, step):
    """Notes how a trial ended, and returns the exit code of that."""
    outcomes = {"0": "completed", "3": "diverged", "stop": "stopped by SIGTERM"}
    if fate == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    manifest = {"outcome": outcomes.get(fate, "failed"), "last_step": step, "reason": "a formula"}
    (run_dir / "manifest.json").write_text(json.dumps(manifest))
    if fate not in outcomes:
        print(f"error: {fate} is its fate", flush=True)
    return 143 if fate == "stop" else int(fate)


if __name__ == "__main__":
    if "--mode=search" in sys.argv:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        import run

        sys.exit(run.main(sys.argv[1:]))
    sys.exit(trial(sys.argv[1:]))
