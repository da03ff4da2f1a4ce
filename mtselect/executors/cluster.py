"""The Ray cluster: reached, looked at, and how many pieces of work it has room for.

Before any work a task on every node writes into `runtime.workdir`, which this machine reads back, and says what is installed
there: the nodes share one folder and have the same packages, or a line says which does not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mtselect
from mtselect.config import RuntimeConfig
from mtselect.errors import ClusterError, ConfigError, Faults
from mtselect.remote import first_line
from mtselect.training.device import require_devices

_ANSWER_SECONDS = 5.0  # a head has to accept a connection
_LOOK_SECONDS = 90.0  # a node starts a first process of Python in this time, also a busy one
_PACKAGES = ("torch", "transformers", "numpy")  # whose versions decide results


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a piece of work takes, and how many there is room for.

    Args:
        gpus: of a piece (but for the share of `scorer`); 0 where it computes on cores.
        cores: of a piece; also its threads.
        pieces: at a time, over all nodes.
        about: the cluster in words.
    """

    gpus: int
    cores: int
    pieces: int
    about: str


def look_at_cluster(runtime: RuntimeConfig) -> str:
    """What there is, in words. A cluster of one's own is only started when there is work, and not looked at before.

    Raises:
        ClusterError: Ray is not installed here, the head is away, or nothing fits the nodes.
        ConfigError: no node has so many devices.
        Faults: nodes that cannot do the work, a line each.
    """
    if _head(runtime) is None:
        _require_ray()
        require_devices(runtime.accelerator, runtime.devices_per_trial)
        return "Ray on this machine, started for the sweep"
    with connected(runtime) as (room, training):
        return room.about if training == room else f"{room.about}, or {training.pieces} trainings"


@contextlib.contextmanager
def connected(runtime: RuntimeConfig) -> Iterator[tuple[Room, Room]]:
    """Connect to the cluster, or start one of this machine alone, and look at every node; the block may run pieces there, for
    which there is the first room, and such as train, for which there is the second.

    Raises:
        ClusterError, ConfigError, Faults: as `look_at_cluster`.
    """
    _require_ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported: it would call home
    import ray

    head = _head(runtime)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if head is not None:
            _require_answer(head)
        ray.init(address=head or "local", include_dashboard=False if head is None else None, log_to_driver=False,
                 logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ClusterError(f"the Ray cluster {f'at {head} ' if head else ''}cannot be used ({first_line(error)}): start its "
                           "head with `ray start --head`, join this machine with `ray start --address`, correct "
                           "runtime.address, or set runtime.executor to local") from error
    finally:
        if threading.current_thread() is threading.main_thread():  # Ray's own would end this process at once
            signal.signal(signal.SIGTERM, handler)
    try:
        _check_nodes(_working_nodes(), Path(runtime.workdir).absolute())
        nodes = [node["Resources"] for node in _working_nodes()]
        yield find_room(runtime, nodes), find_room(runtime, nodes, runtime.devices_per_trial)
    finally:
        ray.shutdown()


def _head(runtime: RuntimeConfig) -> str | None:
    return runtime.address or os.environ.get("RAY_ADDRESS") or None  # what `ray job submit` sets


def _require_ray() -> None:
    if find_spec("ray") is None:
        raise ClusterError("runtime.executor is 'ray', and Ray is not installed: pip install 'mtselect[ray]', or set "
                           "runtime.executor to local")


def _require_answer(head: str) -> None:
    """Ray itself tries for a minute and writes a page about it."""
    host, _, port = head.rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()


def find_room(runtime: RuntimeConfig, nodes: Sequence[Mapping[str, float]], devices: int = 1) -> Room:
    """A GPU for each device of a piece where there are GPUs, else `runtime.threads` cores, at least one for each.

    Args:
        runtime: its accelerator and threads count.
        nodes: of each its resources, as Ray has them.
        devices: of a piece, all on one node.

    Raises:
        ClusterError: no piece fits a node.
        ConfigError: no node has so many devices.
    """
    gpus, cores = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("GPU", "CPU"))
    about = f"Ray, {len(nodes)} node{'s' * (len(nodes) > 1)} with {gpus} GPUs and {cores} cores"
    wants_gpu = runtime.accelerator in ("gpu", "cuda") or (runtime.accelerator == "auto" and gpus > 0)
    most = int(max((node.get("GPU" if wants_gpu else "CPU", 0) for node in nodes), default=0))
    if 0 < most < devices:
        raise ConfigError(f"runtime.devices_per_trial must be at most {most}, the {'GPUs' if wants_gpu else 'cores'} of the "
                          f"largest node ({about}), got {devices}: lower it")
    if wants_gpu:
        share = min((int(node["CPU"] // node["GPU"]) for node in nodes if node.get("GPU", 0) >= 1), default=1)
        each_gpus, each_cores = devices, runtime.threads or devices * max(1, share)
    else:
        each_gpus, each_cores = 0, max(devices, runtime.threads or 1)
    pieces = sum(int(min(node["CPU"] // each_cores, node.get("GPU", 0) // each_gpus if each_gpus else node["CPU"]))
                 for node in nodes)
    if not pieces:
        raise ClusterError(f"no node has room for a piece of work, which takes {each_gpus} GPUs and {each_cores} cores "
                           f"({about}): lower runtime.threads, or set runtime.accelerator to cpu")
    return Room(gpus=each_gpus, cores=each_cores, pieces=pieces, about=f"{about}: {pieces} pieces at a time")


def _check_nodes(nodes: list[dict[str, Any]], workdir: Path) -> None:
    """Raise Faults with a line for each node that cannot do the work. One that died is noticed late, and is none by then."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    word = uuid.uuid4().hex
    workdir.mkdir(parents=True, exist_ok=True)
    ours = {"mtselect": mtselect.__version__, **{name: version(name) for name in _PACKAGES}}
    look = ray.remote(num_cpus=0, max_retries=0)(_looker())
    traces = [workdir / f".node-{word}-{node['NodeID']}" for node in nodes]
    pinned = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    asked = [look.options(scheduling_strategy=place).remote(str(trace), list(_PACKAGES))
             for place, trace in zip(pinned, traces, strict=True)]
    answered, _ = ray.wait(asked, num_returns=len(asked), timeout=_LOOK_SECONDS)
    faults = []
    for node, asking, trace in zip(nodes, asked, traces, strict=True):
        name = node["NodeManagerAddress"]
        try:
            if asking not in answered:
                raise RayError(f"no answer within {_LOOK_SECONDS:.0f} s")
            failed, theirs = ray.get(asking)
        except RayError as error:
            if node["NodeID"] in [one["NodeID"] for one in _working_nodes()]:
                faults.append(f"node {name} does not answer ({first_line(error)}): look at Ray's logs there, or stop Ray there")
            continue
        for package, wanted in ours.items():
            if theirs[package] != wanted:
                there = f"{package} {theirs[package]}" if theirs[package] else f"no {package}"
                faults.append(f"node {name} has {there}, this machine {wanted}: install the same there")
        if not trace.exists():
            faults.append(f"node {name} does not share runtime.workdir {str(workdir)!r} with this machine"
                          f"{failed and f' ({failed})'}: mount one folder of all nodes there, and set runtime.workdir to it")
        trace.unlink(missing_ok=True)
    if faults:
        raise Faults(*faults)


def _looker() -> Callable[[str, list[str]], tuple[str, dict[str, str | None]]]:
    """The look, as a function that Ray sends by its code: a node may have no mtselect to find it in."""
    def look(trace: str, packages: list[str]) -> tuple[str, dict[str, str | None]]:
        """Why the file could not be written, if so; and the versions found."""
        import contextlib
        import importlib.metadata
        import pathlib

        found: dict[str, str | None] = dict.fromkeys(["mtselect", *packages])
        for name in packages:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[name] = importlib.metadata.version(name)
        with contextlib.suppress(ImportError):
            import mtselect

            found["mtselect"] = mtselect.__version__
        try:
            pathlib.Path(trace).write_text("", encoding="utf-8")
        except OSError as error:
            return str(error), found
        return "", found

    return look


def _working_nodes() -> list[dict[str, Any]]:
    """Those that have a core."""
    import ray

    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in found if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
