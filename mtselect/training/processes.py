"""A process for each device of a training; Lightning connects them.

They are started from here and given a function, since Lightning's launcher of `ddp` would run the whole command once more.
Weights go there and back in shared memory (`/dev/shm`), which holds one copy for all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from typing import Any, TypeVar, cast

import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import spawn

from mtselect.errors import UserError
from mtselect.progress import Advance, OnEpoch

_LISTEN_SECONDS = 0.1
T = TypeVar("T")


def on_devices(count: int, work: Callable[[int, Advance, OnEpoch | None], T], advance: Advance, on_epoch: OnEpoch | None) -> T:
    """Do the same work in several processes, and return what the first of them does.

    Args:
        count: of processes, and of this machine's devices.
        work: called in each with its rank and, in the first, with what stands for the next two; can be pickled.
        advance: called in this process with the number of pairs done.
        on_epoch: called in this process with (epoch, dev loss), while the others wait; may raise to stop.

    Raises:
        UserError: whichever a process raised.
        torch.multiprocessing.ProcessRaisedException: with the traceback of anything else.
    """
    context = get_context("spawn")  # a fork has neither CUDA nor threads
    said, answers, result, done = context.SimpleQueue(), context.SimpleQueue(), cast(T, None), False
    torch.cuda.empty_cache()  # what this process keeps of a GPU, the first of the others lacks
    threads = max(1, torch.get_num_threads() // count)
    arguments = work, find_free_network_port(), threads, said, answers, on_epoch is not None
    processes: Any = spawn(_work, arguments, nprocs=count, join=False)  # type: ignore[no-untyped-call]
    try:
        while True:
            while not said.empty():
                match said.get():
                    case "pairs", n:
                        advance(n)
                    case "epoch", values:
                        assert on_epoch is not None
                        on_epoch(*values)
                        answers.put(None)
                    case "error", error:
                        raise error
                    case "result", value:
                        result = value
            if done:
                return result
            done = processes.join(timeout=_LISTEN_SECONDS)
    finally:
        for process in processes.processes:
            process.kill()  # Lightning takes a SIGTERM for a wish
            process.join()


def _work(rank: int, work: Callable[[int, Advance, OnEpoch | None], Any], port: int, threads: int,
          said: SimpleQueue[tuple[str, Any]], answers: SimpleQueue[None], asks: bool) -> None:
    """A process. With LOCAL_RANK among its variables Lightning starts no other."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "LOCAL_RANK": str(rank),
                   "OMP_NUM_THREADS": str(threads)}
    torch.set_num_threads(threads)

    def advance(count: int) -> None:
        said.put(("pairs", count))

    def on_epoch(epoch: int, dev_loss: float) -> None:
        said.put(("epoch", (epoch, dev_loss)))
        answers.get()

    try:
        if rank:
            work(rank, lambda _: None, None)
        else:
            said.put(("result", work(rank, advance, on_epoch if asks else None)))
    except UserError as error:
        said.put(("error", error))
