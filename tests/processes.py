"""Several real processes, connected by gloo, that run one function together."""

import multiprocessing
import pickle
import traceback
from multiprocessing.connection import wait

# Seconds after which processes that wait for each other are given up.
PATIENCE = 120
CONTEXT = multiprocessing.get_context("forkserver")
# What is imported once, by the process that all others are forks of.
CONTEXT.set_forkserver_preload(["tests.tiny_trainer", "torch.distributed.fsdp"])


def together(n_processes, function, *arguments):
    """What a function returns in each of several processes that train together.

    Args:
        n_processes: How many.
        function: Of a module, called with a ``Group`` and the arguments.
        *arguments: For all processes alike.

    Returns:
        A list by rank. What one of them raises is raised here.
    """
    port = CONTEXT.Queue()
    pipes = [CONTEXT.Pipe(duplex=False) for _ in range(n_processes)]
    processes = [
        CONTEXT.Process(target=_run, args=(sender, port, rank, n_processes, function, arguments))
        for rank, (_, sender) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    try:
        return _results([receiver for receiver, _ in pipes])
    finally:
        for process in processes:
            process.kill()
            process.join()


def _results(receivers):
    results, n_processes = {}, len(receivers)
    while len(results) < n_processes:
        waiting = [r for rank, r in enumerate(receivers) if rank not in results]
        ready = wait(waiting, PATIENCE)
        if not ready:
            raise TimeoutError(f"only {sorted(results)} of {n_processes} processes came to an end")
        for receiver in ready:
            rank, result, problem = pickle.loads(receiver.recv_bytes())  # noqa: S301 -- its own
            if problem:
                raise AssertionError(f"process {rank} of {n_processes}:\n{problem}")
            results[rank] = result
    return [results[rank] for rank in range(n_processes)]


def _run(sender, port, rank, n_processes, function, arguments):
    import numba
    import torch

    from lm_core.parallel.group import Group
    from lm_core.parallel.world import World

    torch.set_num_threads(1)
    numba.set_num_threads(1)
    try:
        if rank == 0:
            store = torch.distributed.TCPStore("localhost", 0, is_master=True)
            for _ in range(n_processes - 1):
                port.put(store.port)
        else:
            store = torch.distributed.TCPStore("localhost", port.get(timeout=PATIENCE))
        torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=n_processes)
        result = function(Group(World(rank, n_processes, rank, n_processes)), *arguments)
        torch.distributed.barrier()
        # Tensors by their content: their memory ends with the process.
        sender.send_bytes(pickle.dumps((rank, result, None)))
    except BaseException:
        sender.send_bytes(pickle.dumps((rank, None, traceback.format_exc())))
