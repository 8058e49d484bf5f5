"""Measures what several processes gain, what exact_reduction costs, and what bounds a cluster.

    python -m benchmarks.scaling --config=default.yaml

Each case is a group of processes with a model of its own, which waits while the others have their
turn, and takes the same steps on the same batches. Beside each ratio stand the quartiles of what
the turns have shown. Messages between processes are measured apart.

From both follows what a step would take on more machines: its computation divided by their number,
as if small shares took no longer than their share of the time, and a message as long as the
gradient, which each sends and gets twice, but for its own share, in rings (Patarasu and Yuan 2009,
"Bandwidth optimal all-reduce algorithms", section 4).
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.harness import (
    arguments,
    median_ratio,
    print_result,
    print_table,
    quartile_ratios,
    take_turns,
    world,
)
from lm_core.config.resolution import ConfigSources, FileArgument, resolve
from lm_core.config.training_config import TrainingConfig
from lm_core.costs import count_parameters, model_arguments
from lm_core.machine import set_up_process
from lm_core.model.transformer import Transformer
from lm_core.parallel.group import Group
from lm_core.parallel.world import World
from lm_core.training.trainer import Trainer

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
REPETITIONS = 9
VOCAB_SIZE = 128
STEPS_A_TURN = 3
# All-reduces of a message in a turn: those of a number are over in a moment.
MESSAGES_A_TURN = 20
FLOAT_BYTES = 4
# What connects machines, in bytes a second: Ethernet of 1, 10 and 100 Gbit/s.
NETWORKS = {"1 Gbit/s": 1.25e8, "10 Gbit/s": 1.25e9, "100 Gbit/s": 1.25e10}
# As many as there may be, each with a sequence of the batch.
MACHINES = (2, 4, 8, 16, 32, 64)
CONTEXT = multiprocessing.get_context("spawn")


class Case(NamedTuple):
    """A group of processes: how many, with how many threads each, and how they share the work."""

    n_processes: int
    n_threads: int
    settings: dict[str, Any]


def cases(n_cores: int) -> dict[str, Case]:
    """What is compared, by name."""
    exact = {"exact_reduction": True}
    return {
        "1 process, 1 thread": Case(1, 1, {}),
        f"1 process, {n_cores} threads": Case(1, n_cores, {}),
        "2 processes, ddp": Case(2, 1, {"parallelism": "ddp"}),
        "2 processes, fsdp": Case(2, 1, {"parallelism": "fsdp"}),
        "1 process, exact": Case(1, 1, exact),
        "2 processes, exact": Case(2, 1, exact),
    }


def connected(case: Case, rank: int, port: int) -> Group:
    """The group of a process, connected where there are others."""
    group = Group(World(rank, case.n_processes, rank, case.n_processes))
    if not group.is_alone:
        store = torch.distributed.TCPStore("localhost", port, None, rank == 0)
        torch.distributed.init_process_group(
            "gloo", store=store, rank=rank, world_size=case.n_processes
        )
    return group


def work(
    pipe: Connection, case: Case, rank: int, port: int, values: dict[str, Any], n_numbers: int
) -> None:
    """A process of a case: does what it is told and tells how long it took, until there is None."""
    torch.set_num_threads(case.n_threads)
    group = connected(case, rank, port)
    config = TrainingConfig(**values)
    model = Transformer(VOCAB_SIZE, **model_arguments(config), seed=1).train()
    tokens = np.random.default_rng(0).integers(0, VOCAB_SIZE, 10**6).astype(np.uint8)
    names = ("batch_size", "accumulation_steps", "optimizer", "precision", "max_grad_norm")
    settings = {name: getattr(config, name) for name in names} | case.settings
    trainer = Trainer(model, tokens, seed=1, group=group, **settings)
    messages = {"number": torch.zeros(1), "gradient": torch.zeros(n_numbers)}
    while (task := pipe.recv()) is not None:
        start = time.perf_counter()
        if task == "step":
            for _ in range(STEPS_A_TURN):
                trainer.train_step()
        else:
            for _ in range(MESSAGES_A_TURN):
                torch.distributed.all_reduce(messages[task])
        pipe.send(time.perf_counter() - start)


class Workers:
    """The processes of a case, which wait for what to do."""

    def __init__(self, case: Case, port: int, values: dict[str, Any], n_numbers: int) -> None:
        os.environ["OMP_NUM_THREADS"] = str(case.n_threads)
        pairs = [CONTEXT.Pipe() for _ in range(case.n_processes)]
        self._pipes = [ours for ours, _ in pairs]
        for rank, (_, theirs) in enumerate(pairs):
            parts = theirs, case, rank, port, values, n_numbers
            CONTEXT.Process(target=work, args=parts, daemon=True).start()

    def __call__(self, task: str) -> float:
        """Seconds that a task takes the slowest of them."""
        for pipe in self._pipes:
            pipe.send(task)
        return max(pipe.recv() for pipe in self._pipes)

    def close(self) -> None:
        """Lets them end."""
        for pipe in self._pipes:
            pipe.send(None)


def predicted(
    seconds: float, n_bytes: int, latency: float, bandwidth: float, n_machines: int
) -> float:
    """Seconds of a step on several machines, each of which computes a share of the batch.

    Args:
        seconds: What the whole batch takes one machine.
        n_bytes: Of the gradient.
        latency: Seconds until a message begins to arrive.
        bandwidth: Bytes a second that a machine sends, and gets at the same time.
        n_machines: How many there are.
    """
    n_messages = 2 * (n_machines - 1)
    return seconds / n_machines + n_messages * (n_bytes / n_machines / bandwidth + latency)


def table_of_clusters(
    seconds: float, n_bytes: int, latency: float, batch_size: int
) -> list[dict[str, str]]:
    """The efficiency of clusters, in shares of what as many machines would do without messages."""
    machines = [n for n in MACHINES if n <= batch_size]
    rows = []
    for name, bandwidth in NETWORKS.items():
        row = {"network": name}
        for n in machines:
            taken = predicted(seconds, n_bytes, latency, bandwidth, n)
            row[f"{n} machines"] = f"{seconds / n / taken:.0%}"
        rows.append(row)
    return rows


def rows_of(taken: dict[str, list[float]], n_tokens: int) -> list[dict[str, Any]]:
    """The table of the cases, against the first two of them."""
    one, all_cores = list(taken)[:2]
    return [
        {
            "case": name,
            "ms a step": 1e3 * statistics.median(seconds) / STEPS_A_TURN,
            "tokens/s": n_tokens * STEPS_A_TURN / statistics.median(seconds),
            f"against {one}": median_ratio(taken[one], seconds),
            "quartiles": quartile_ratios(taken[one], seconds),
            f"against {all_cores}": median_ratio(taken[all_cores], seconds),
            "and quartiles": quartile_ratios(taken[all_cores], seconds),
        }
        for name, seconds in taken.items()
    ]


def turns(workers: dict[str, Workers], task: str) -> dict[str, Callable[[], float]]:
    """A turn of each case."""
    return {name: lambda own=own: own(task) for name, own in workers.items()}


def free_ports(n: int) -> Sequence[int]:
    """Ports that nobody listens at."""
    stores = [torch.distributed.TCPStore("localhost", 0, 1, True) for _ in range(n)]
    return [store.port for store in stores]


def main() -> None:
    """Measures and prints."""
    parser = arguments(__doc__, REPETITIONS)
    parser.add_argument("--config", default="default.yaml", help="whose steps to take")
    given = parser.parse_args()
    set_up_process()
    files = [FileArgument("--config", given.config)]
    config = resolve(ConfigSources(files=files, yaml_folders=[CONFIGS])).values
    if given.repetitions < 2:
        parser.error("--repetitions: quartiles need two turns at least")
    if config.batch_size < 2:
        parser.error(f"{given.config}: batch_size 1 is too small for two processes")
    n_numbers = count_parameters(config, VOCAB_SIZE)
    compared = cases(os.cpu_count() or 1)
    ports = free_ports(len(compared))
    values = config.to_dict()
    workers = {
        name: Workers(case, port, values, n_numbers)
        for (name, case), port in zip(compared.items(), ports, strict=True)
    }
    taken = take_turns(turns(workers, "step"), given.repetitions)
    pair = workers["2 processes, ddp"]
    messages = take_turns(
        {task: lambda task=task: pair(task) for task in ("number", "gradient")}, given.repetitions
    )
    latency, transfer = (
        statistics.median(messages[task]) / MESSAGES_A_TURN for task in ("number", "gradient")
    )
    # A ring of two passes a number on twice.
    latency /= 2
    whole_step = statistics.median(list(taken.values())[1]) / STEPS_A_TURN
    n_bytes = FLOAT_BYTES * n_numbers
    facts = {
        "configuration": given.config,
        "efficiency of 2 processes": median_ratio(
            taken["1 process, 1 thread"], taken["2 processes, ddp"]
        )
        / 2,
        "cost of exact_reduction, 1 process": median_ratio(
            taken["1 process, exact"], taken["1 process, 1 thread"]
        ),
        "cost of exact_reduction, 2 processes": median_ratio(
            taken["2 processes, exact"], taken["2 processes, ddp"]
        ),
        "bytes of a gradient": f"{n_bytes:,}",
        "ms to add up a gradient here": 1e3 * transfer,
        "ms from process to process": 1e3 * latency,
    }
    print_result(world(), rows_of(taken, config.batch_size * config.max_seq_len), given.json, facts)
    if not given.json:
        print("\nThe same step on such machines, of the speed without messages, calculated:\n")
        print_table(table_of_clusters(whole_step, n_bytes, latency, config.batch_size))
    for own in workers.values():
        own.close()


if __name__ == "__main__":
    main()
