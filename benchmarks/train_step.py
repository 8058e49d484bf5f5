"""Measures training steps at the default configuration, beside a peer that a person could install.

    pip install -e '.[bench]'
    python -m benchmarks.train_step --peer=transformers

The peer is GPT-2 of Hugging Face's transformers: the same sizes, batch, text and AdamW. Each has a
process of its own, set up as its users have it, and all take turns. The limit is the time that the
matrix products of a step alone would take at the rate that this processor reaches with large ones.
Beside steps, it measures how fast a validation runs, and which share of training goes into anything
but forward, backward and the optimizer.
"""

import argparse
import contextlib
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from benchmarks.contestants import Contestant, serve
from benchmarks.harness import arguments, matrix_rate, median_ratio, print_result, take_turns, world
from benchmarks.peer import gpt2
from lm_core.compute import DTYPES
from lm_core.config.training_config import TrainingConfig
from lm_core.costs import flops_a_step
from lm_core.data.corpus import load_corpus
from lm_core.data.splitting import split_corpus
from lm_core.data.token_store import encode_split
from lm_core.data.tokenizer import build_tokenizer
from lm_core.evaluation import Evaluator
from lm_core.machine import SETTINGS_OF_THREADS, keep_freed_memory
from lm_core.model import dropout as dropout_module
from lm_core.model import linear as linear_module
from lm_core.model.transformer import Transformer
from lm_core.progress import training_progress
from lm_core.record import RunDirectory
from lm_core.training.trainer import Trainer

REPETITIONS = 9
# So many steps of a contestant count in each turn.
STEPS_A_TURN = 3
DROPOUTS = (0.1, 0.0)
LAB = "lm_core"
PEERS = ("none", "transformers")
# Steps of a real run, with its record and progress, whose parts are timed.
STEPS_OF_A_RUN = 30
PROFILED_STEPS = 10
MICROSECONDS = 1e6
KINDS_OF_OPERATIONS = {
    "products of linear layers": ("mm", "addmm", "mkldnn::_linear_pointwise", "_LinearBackward"),
    "products of attention": ("bmm", "baddbmm_"),
    "attention in compiled loops": ("_InBlocks", "_InBlocksBackward"),
    "GELU": ("gelu", "gelu_backward", "_Elementwise", "_ElementwiseBackward"),
    "softmax of attention, and its masks": ("_InStrips", "_InStripsBackward"),
    "LayerNorm": ("_Norm", "_NormBackward"),
    "drawing masks": ("keep_mask",),
    "masks of the residual stream": (
        "_Masked",
        "_MaskedBackward",
        "_AddedMasked",
        "_AddedMaskedBackward",
    ),
    "copies to other layouts and dtypes": ("copy_",),
    "adding and scaling": ("add", "add_", "mul", "mul_"),
    "sums of gradients of biases": ("sum", "sum_of_rows"),
    "the loss": ("_log_softmax", "_log_softmax_backward_data"),
    "the optimizer": ("_fused_adamw_",),
}
# Those of them that PyTorch does not know of.
RECORDED_FUNCTIONS = ((dropout_module, "keep_mask"), (linear_module, "sum_of_rows"))
# Windows of the validation that is timed.
VALIDATION_WINDOWS = 64
SIZES = ("n_layers", "d_model", "n_heads", "d_ff", "max_seq_len")


class Setting:
    """The default configuration, its text, and what is trained with it."""

    def __init__(self) -> None:
        self.config = TrainingConfig()
        corpus = load_corpus()
        self.tokenizer = build_tokenizer(split_corpus(corpus))
        self.tokens, self.held_out = encode_split(split_corpus(corpus), self.tokenizer)

    @property
    def n_tokens(self) -> int:
        """Tokens of a step."""
        return self.config.batch_size * self.config.max_seq_len

    def trainer(self, precision: str, dropout: float, **options: Any) -> Trainer:
        """A trainer of the lab."""
        sizes = {name: getattr(self.config, name) for name in SIZES}
        model = Transformer(self.tokenizer.vocab_size, **sizes, dropout=dropout).train()
        return Trainer(model, self.tokens, precision=precision, seed=1, **options)

    def step_of(self, name: str, precision: str, dropout: float) -> Callable[[], None]:
        """A step of a contestant, in a process that is set up for it."""
        if name != LAB:
            return self.peer_step(precision, dropout)
        keep_freed_memory()
        return self.trainer(precision, dropout).train_step

    def peer_step(self, precision: str, dropout: float) -> Callable[[], None]:
        """A step of the peer, as its documentation has people write it."""
        values = self.config
        model = gpt2(values, self.tokenizer.vocab_size, dropout).train()
        betas = values.beta1, values.beta2
        optimizer = torch.optim.AdamW(model.parameters(), values.learning_rate, betas, fused=True)
        generator = np.random.default_rng(0)
        length = values.max_seq_len

        def step() -> None:
            starts = generator.integers(0, len(self.tokens) - length, (values.batch_size, 1))
            batch = torch.from_numpy(self.tokens[starts + np.arange(length)].astype(np.int64))
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                loss = model(input_ids=batch, labels=batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss.item()

        return step


def step_rows(setting: Setting, peer: str, repetitions: int) -> list[dict[str, Any]]:
    """A row for each dropout, precision and contestant."""
    names = [LAB] if peer == "none" else [LAB, peer]
    keys = list(itertools.product(DROPOUTS, DTYPES, names))
    with contextlib.ExitStack() as contestants:
        cases = {
            (name, dropout, precision): contestants.enter_context(
                Contestant(
                    "benchmarks.train_step",
                    ["--serve", name, str(dropout), precision],
                    SETTINGS_OF_THREADS if name == LAB else {},
                )
            )
            for dropout, precision, name in keys
        }
        seconds = take_turns(cases, repetitions)
    flops = flops_a_step(setting.config, setting.tokenizer.vocab_size)
    limits = {name: flops / matrix_rate(dtype) for name, dtype in DTYPES.items()}
    rows = []
    for (name, dropout, precision), taken in seconds.items():
        median = statistics.median(taken)
        row = {
            "trained by": name,
            "dropout": str(dropout),
            "precision": precision,
            "ms a step": 1e3 * median,
            "tokens/s": setting.n_tokens / median,
            "share of the limit": f"{limits[precision] / median:.0%}",
        }
        for other in DTYPES if peer != "none" else ():
            ratio = median_ratio(seconds[peer, dropout, other], taken)
            row[f"times the peer in {other}"] = ratio
        rows.append(row)
    products = {name: 1e3 * limit for name, limit in limits.items()}
    rows += [
        {
            **dict.fromkeys(rows[0]),
            "trained by": "the products alone",
            "precision": name,
            "ms a step": milliseconds,
        }
        for name, milliseconds in products.items()
    ]
    return rows


def validation_ratio(setting: Setting, precision: str, repetitions: int) -> float:
    """How many times more tokens a second a validation sees than training."""
    trainer = setting.trainer(precision, setting.config.dropout)
    length = setting.config.max_seq_len
    tokens = setting.held_out[: VALIDATION_WINDOWS * length + 1]
    evaluate = Evaluator(trainer.model, tokens, setting.tokenizer, precision)
    cases = {"step": trainer.train_step, "validation": evaluate}
    seconds = take_turns(cases, repetitions)
    ratio = median_ratio(seconds["step"], seconds["validation"])
    return ratio * (len(tokens) - 1) / setting.n_tokens


def share_of_the_loop(setting: Setting, precision: str) -> float:
    """Which share of training is neither forward nor backward nor the optimizer."""
    trainer = setting.trainer(
        precision, setting.config.dropout, max_steps=STEPS_OF_A_RUN, checkpoint_cadence=None
    )
    starts: list[float] = []
    parts: list[tuple[float, float]] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*positional: Any, **named: Any) -> Any:
            start = time.perf_counter()
            result = function(*positional, **named)
            parts.append((start, time.perf_counter() - start))
            return result

        return measured

    def step() -> None:
        starts.append(time.perf_counter())
        Trainer.train_step(trainer)

    trainer.train_step = step
    trainer.model.forward = timed(trainer.model.forward)
    trainer._optimizer.step = timed(trainer._optimizer.step)
    backward = torch.Tensor.backward
    torch.Tensor.backward = timed(backward)
    try:
        with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
            run = RunDirectory.create(Path(folder) / "run", "", "", {"corpus": {"sha256": ""}})
            trainer.train(run, training_progress(1, STEPS_OF_A_RUN, nowhere))
    finally:
        torch.Tensor.backward = backward
    # From the start of the second step, when all is warm, to that of the last.
    first, last = starts[1], starts[-1]
    inside = sum(seconds for start, seconds in parts if first <= start < last)
    return 1 - inside / (last - first)


def profile_rows(setting: Setting) -> list[dict[str, Any]]:
    """Where the time of a step goes, by kind of operation, in each precision."""
    with contextlib.ExitStack() as recording:
        for module, name in RECORDED_FUNCTIONS:
            recording.enter_context(recorded(module, name))
        of_precisions = {precision: profile(setting, precision) for precision in DTYPES}
    return [
        {"operation": kind}
        | {
            f"{what} in {precision}": shown
            for precision, seconds in of_precisions.items()
            for what, shown in (
                ("ms", 1e3 * seconds[kind]),
                ("share", f"{seconds[kind] / sum(seconds.values()):.0%}"),
            )
        }
        for kind in [*KINDS_OF_OPERATIONS, "everything else"]
    ]


@contextlib.contextmanager
def recorded(module: ModuleType, name: str) -> Iterator[None]:
    """Lets PyTorch's profiler know of a function."""
    function = getattr(module, name)

    def shown(*arguments: Any) -> Any:
        with torch.profiler.record_function(name):
            return function(*arguments)

    setattr(module, name, shown)
    try:
        yield
    finally:
        setattr(module, name, function)


def profile(setting: Setting, precision: str) -> dict[str, float]:
    """Seconds of a step by kind of operation."""
    trainer = setting.trainer(precision, setting.config.dropout)
    trainer.train_step()
    start = time.perf_counter()
    for _ in range(PROFILED_STEPS):
        trainer.train_step()
    total = time.perf_counter() - start
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(PROFILED_STEPS):
            trainer.train_step()
    seconds = dict.fromkeys(KINDS_OF_OPERATIONS, 0.0)
    for event in profiler.key_averages():
        name = event.key.removeprefix("aten::")
        for kind, names in KINDS_OF_OPERATIONS.items():
            if name in names:
                seconds[kind] += event.self_cpu_time_total / MICROSECONDS
    seconds["everything else"] = max(total - sum(seconds.values()), 0.0)
    return {kind: taken / PROFILED_STEPS for kind, taken in seconds.items()}


def main() -> None:
    """Measures and prints."""
    parser = arguments(__doc__, REPETITIONS)
    parser.add_argument("--peer", choices=PEERS, default="none", help="whom to compare with")
    parser.add_argument("--profile", action="store_true", help="print where a step spends its time")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    given: argparse.Namespace = parser.parse_args()
    setting = Setting()
    if given.serve:
        name, dropout, precision = given.serve
        serve(setting.step_of(name, precision, float(dropout)), STEPS_A_TURN)
        return
    keep_freed_memory()
    precision = setting.trainer("auto", 0.0).precision
    if given.profile:
        print_result(world(), profile_rows(setting), given.json)
        return
    facts: dict[str, Any] = {
        "configuration": "default.yaml on the built-in corpus",
        "precision: auto": precision,
    }
    rows = step_rows(setting, given.peer, given.repetitions)
    facts["validation"] = (
        f"{validation_ratio(setting, precision, given.repetitions):.2f} times the tokens a second "
        f"of training ({precision})"
    )
    facts["outside forward, backward and optimizer"] = (
        f"{share_of_the_loop(setting, precision):.1%} of the time of training ({precision})"
    )
    print_result(world(), rows, given.json, facts)


if __name__ == "__main__":
    main()
