"""The executor that `runtime.executor` names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mtselect.config import RuntimeConfig
from mtselect.executors.base import Executor
from mtselect.executors.local import Local
from mtselect.stages.lineage import Bench
from mtselect.training.device import require_devices


@contextmanager
def open_executor(bench: Bench) -> Iterator[Executor]:
    """The executor of a study, which is let go when the block ends.

    Raises:
        ClusterError: the cluster cannot be used.
        ConfigError: no node, or not this machine, has `runtime.devices_per_trial` devices.
        Faults: nodes of it, a line each.
    """
    if bench.runtime.executor == "local":
        yield Local(bench)
        return
    from mtselect.executors.cluster import connected
    from mtselect.executors.ray import Ray

    with connected(bench.runtime) as rooms:
        yield Ray(bench, *rooms)


def look_at_executor(runtime: RuntimeConfig) -> str | None:
    """Who will do the work, in words, if that is not this process; asks the cluster. Raises as `open_executor`."""
    if runtime.executor == "local":
        require_devices(runtime.accelerator, runtime.devices_per_trial)
        return None
    from mtselect.executors.cluster import look_at_cluster

    return look_at_cluster(runtime)
