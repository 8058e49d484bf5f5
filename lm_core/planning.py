"""What a run would take, told before it is started: parameters, arithmetic, memory, disk, time."""

import json
import math
import os
import statistics
import time
from pathlib import Path
from typing import Any

from lm_core.assembly import Data, build_trainer, completed, load_data
from lm_core.config.resolution import ResolvedConfig, resolve
from lm_core.config.training_config import TrainingConfig
from lm_core.costs import (
    MemoryEstimate,
    checkpoint_bytes,
    estimate_memory,
    flops_a_step,
    parameters_by_part,
)
from lm_core.evaluation import Evaluator
from lm_core.generation import SAMPLES_AT_ONCE
from lm_core.hooks import check_hooks
from lm_core.machine import most_memory
from lm_core.memory import memory_explained
from lm_core.output import print_table
from lm_core.progress import duration
from lm_core.request import Request
from lm_core.sampling import Sampler
from lm_core.training.schedule import planned_rates
from lm_core.training.trainer import Trainer

# Steps that are measured, after a first one that nobody counts.
_MEASURED_STEPS = 10
# Where so many steps take longer, those that are done in this time are enough.
_MEASURED_SECONDS = 10.0
# What is measured of an evaluation: this many windows of the validation part, one batch of them.
_MEASURED_WINDOWS = 16
# What is measured of a sample: this many of its tokens.
_MEASURED_TOKENS = 16
# What Python and PyTorch hold after their start, where the system does not tell.
_TYPICAL_PROGRAM = 240 * 2**20
# The unit in which people read bytes.
_MEBIBYTE = 2**20
# The learning rate is drawn at so many steps, or at all where there are fewer.
_DRAWN_STEPS = 40
# Letters for heights from nothing to all.
_HEIGHTS = "▁▂▃▄▅▆▇█"
# The units in which people read arithmetic, the largest first.
_ARITHMETIC = ((10**12, "TFLOP"), (10**9, "GFLOP"), (10**6, "MFLOP"))


def plan(request: Request) -> None:
    """Prints what the run that is asked for would take, after a few steps of it; writes nothing.

    Raises:
        LabError: The configuration, the text or the machine is not up to it.
    """
    config = completed(resolve(request.config, check_hooks))
    data = load_data(config, verify_corpus=request.verify_corpus)
    values, vocab_size = config.values, data.tokenizer.vocab_size
    with memory_explained():
        memory = estimate_memory(values, vocab_size, program=_resident_bytes())
    available = most_memory()
    fits = available is None or memory.total <= available
    document = {
        "parameters": _parameters(values, vocab_size),
        **({} if data.initial is None else {"init_from": data.initial.record}),
        "step": {
            "tokens": values.batch_size * values.max_seq_len,
            "flops": flops_a_step(values, vocab_size),
        },
        "run": _run(values, data),
        "learning_rate": _learning_rates(values),
        "memory": {**memory._asdict(), "total": memory.total, "available": available},
        "disk": _disk(values, vocab_size),
        "seconds": _measured(config, data) if fits else None,
    }
    if request.format == "json":
        print(json.dumps(document, indent=2))
    else:
        print_table(_lines(document, data, values))


def _resident_bytes() -> int:
    """Bytes of memory that this process holds now."""
    try:
        n_pages = int(Path("/proc/self/statm").read_text().split()[1])
        return n_pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return _TYPICAL_PROGRAM


def _parameters(values: TrainingConfig, vocab_size: int) -> dict[str, int]:
    parts = parameters_by_part(values, vocab_size)
    return {**parts, "total": sum(parts.values())}


def _run(values: TrainingConfig, data: Data) -> dict[str, Any]:
    n_tokens = values.max_steps * values.batch_size * values.max_seq_len
    return {
        "steps": values.max_steps,
        "tokens": n_tokens,
        "passes": n_tokens / len(data.training),
        "evaluations": 1 + _times(values.max_steps, values.eval_cadence),
        "samples": (values.sampling_cadence is not None)
        + _times(values.max_steps, values.sampling_cadence),
        "samples_each_time": values.sampling_num_samples,
    }


def _learning_rates(values: TrainingConfig) -> list[dict[str, float]]:
    """The learning rates at steps up to the last."""
    stride = -(-values.max_steps // _DRAWN_STEPS)
    # The last one is always among them.
    steps = range(values.max_steps % stride or stride, values.max_steps + 1, stride)
    rates = planned_rates(values, steps)
    return [
        dict(zip(("step", *rates), point, strict=True))
        for point in zip(steps, *rates.values(), strict=True)
    ]


def _drawn(rates: list[dict[str, float]], full: float) -> str:
    """A curve as a line of letters, a full learning rate as high as they are."""
    highest = len(_HEIGHTS) - 1
    return "".join(_HEIGHTS[round(highest * p["learning_rate"] / full)] for p in rates)


def _times(max_steps: int, cadence: int | None) -> int:
    """How often something that has a cadence happens before the last step."""
    return 0 if cadence is None else (max_steps - 1) // cadence


def _disk(values: TrainingConfig, vocab_size: int) -> dict[str, int]:
    """The size of a checkpoint, and how many there are at the most: at every evaluation too.

    Where not all are kept, one more than are kept is there while it is written.
    """
    cadences = (values.checkpoint_cadence, values.eval_cadence)
    n_checkpoints = 1 + _times(values.max_steps, values.checkpoint_cadence)
    if None not in cadences:
        n_checkpoints += _times(values.max_steps, values.eval_cadence)
        n_checkpoints -= _times(values.max_steps, math.lcm(*cadences))
    elif values.early_stopping_evaluations is not None:
        # The best is saved in any case.
        n_checkpoints += _times(values.max_steps, values.eval_cadence)
    if values.keep_checkpoints is not None:
        n_best = int(values.eval_cadence is not None)
        n_checkpoints = min(n_checkpoints, values.keep_checkpoints + n_best + 1)
    size = checkpoint_bytes(values, vocab_size)
    return {"checkpoint": size, "checkpoints": n_checkpoints, "total": size * n_checkpoints}


def _measured(config: ResolvedConfig, data: Data) -> dict[str, float]:
    """Seconds of a step, an evaluation, the samples of a step, and of the whole run."""
    trainer = build_trainer(config, data)
    values = config.values
    with memory_explained():
        step = _seconds_a_step(trainer)
        evaluation = _seconds_an_evaluation(trainer, data)
        is_sampled = values.sampling_cadence is not None
        sample = _seconds_of_samples(trainer, data, values) if is_sampled else 0
    run = _run(values, data)
    total = run["steps"] * step + run["evaluations"] * evaluation + run["samples"] * sample
    return {"step": step, "evaluation": evaluation, "sample": sample, "run": total}


def _seconds_a_step(trainer: Trainer) -> float:
    """The median of a few steps, without the first, which starts everything up."""
    trainer.model.train()
    trainer.train_step()
    seconds: list[float] = []
    while len(seconds) < _MEASURED_STEPS and sum(seconds) < _MEASURED_SECONDS:
        start = time.perf_counter()
        trainer.train_step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _seconds_an_evaluation(trainer: Trainer, data: Data) -> float:
    length = trainer.model.max_seq_len
    tokens = data.validation[: _MEASURED_WINDOWS * length + 1]
    evaluate = Evaluator(trainer.model, tokens, data.tokenizer, trainer.precision)
    evaluate()  # The first starts everything up.
    start = time.perf_counter()
    evaluate()
    return (time.perf_counter() - start) * (len(data.validation) - 1) / (len(tokens) - 1)


def _seconds_of_samples(trainer: Trainer, data: Data, values: TrainingConfig) -> float:
    """All samples of a step: from a part of their tokens, and from one batch of them."""
    n_tokens = min(values.sampling_max_length, _MEASURED_TOKENS)
    n_samples = min(values.sampling_num_samples, SAMPLES_AT_ONCE)
    sampler = Sampler(trainer.model, data.tokenizer, max_length=n_tokens, num_samples=n_samples)
    sampler()  # The first compiles what is not compiled yet.
    start = time.perf_counter()
    sampler()
    n_batches = -(-values.sampling_num_samples // n_samples)
    return (time.perf_counter() - start) * n_batches * values.sampling_max_length / n_tokens


def _lines(plan: dict[str, Any], data: Data, values: TrainingConfig) -> list[tuple[str, ...]]:
    """The plan as people read it, one row for each fact."""
    step, run, memory, disk = plan["step"], plan["run"], plan["memory"], plan["disk"]
    parts = dict(plan["parameters"])
    available = memory["available"]
    full, has_muon = values.learning_rate, values.optimizer == "muon"
    passes = f"{run['passes']:.3g} passes over the training part of {data.corpus.description}"
    of = "" if available is None else f"of {available / _MEBIBYTE:,.0f} MiB that there are"
    begun = plan.get("init_from")
    return [
        *([("begins with", f"step {begun['step']:,}", f"of {begun['path']}")] if begun else []),
        ("parameters", f"{parts.pop('total'):,}", ""),
        *((f"  {part}", f"{count:,}", "") for part, count in parts.items()),
        ("tokens a step", f"{step['tokens']:,}", ""),
        ("arithmetic a step", _arithmetic(step["flops"]), "matrix products"),
        ("steps", f"{run['steps']:,}", ""),
        ("tokens in all", f"{run['tokens']:,}", passes),
        ("learning rate", f"{full:.3g}", f"at most; {_drawn(plan['learning_rate'], full)}"),
        *([("  of Muon", f"{values.muon_learning_rate:.3g}", "likewise")] if has_muon else []),
        ("peak of memory", _mebibytes(memory["total"]), f"estimated, {of}".rstrip(", ")),
        *((f"  {name}", _mebibytes(memory[name]), "") for name in MemoryEstimate._fields),
        ("a checkpoint", _mebibytes(disk["checkpoint"]), ""),
        (
            "checkpoints",
            _mebibytes(disk["total"]),
            f"{disk['checkpoints']:,} of them at the most",
        ),
        *_time_lines(plan),
    ]


def _time_lines(plan: dict[str, Any]) -> list[tuple[str, ...]]:
    seconds, run = plan["seconds"], plan["run"]
    if seconds is None:
        return [("time", "not measured", "it does not fit into the memory of this machine")]
    tokens_per_second = plan["step"]["tokens"] / seconds["step"]
    lines = [
        ("a step", f"{seconds['step']:.3g} s", f"{tokens_per_second:,.0f} tokens/s, measured"),
        ("an evaluation", f"{seconds['evaluation']:.3g} s", f"{run['evaluations']:,} of them"),
    ]
    if run["samples"]:
        n = run["samples_each_time"]
        what, times = ("a sample", "of them") if n == 1 else (f"{n:,} samples", "times")
        lines.append((what, f"{seconds['sample']:.3g} s", f"{run['samples']:,} {times}"))
    return [*lines, ("the whole run", duration(seconds["run"]), "without saving checkpoints")]


def _mebibytes(n_bytes: int) -> str:
    return f"{n_bytes / _MEBIBYTE:,.1f} MiB"


def _arithmetic(flops: int) -> str:
    unit, name = next((pair for pair in _ARITHMETIC if flops >= pair[0]), _ARITHMETIC[-1])
    return f"{flops / unit:,.1f} {name}"
