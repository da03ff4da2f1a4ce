"""The device that the work will be done on, and its memory."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from mtselect.config import AttributionConfig
from mtselect.errors import ConfigError, StorageError

# Share of a device's memory that is planned with: activations, batches and the allocator need some.
USED_MEMORY = 0.85
# This process's control group, version 2 and 1: its limit and its use in bytes; its statistics, and their name for what of the
# use are pages of files, which the kernel gives back when it is asked for memory.
_CGROUPS = (("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
             "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file"))

_SHARED = Path("/dev/shm")  # Linux's shared memory, as a file system


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of a device: all there are for this process, and those that are free now."""

    total: int
    free: int

    def at_most(self, gigabytes: float | None) -> Memory:
        """The same, of which no more than so much is planned with; null is all."""
        return self if gigabytes is None else replace(self, total=min(self.total, int(1e9 * gigabytes)))


def compute_device(accelerator: str) -> torch.device:
    """Where models run with `runtime.accelerator`: the first GPU that CUDA sees, unless it is `cpu`.

    Raises:
        ConfigError: a GPU is asked for, and there is none.
    """
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ConfigError(f"runtime.accelerator is {accelerator!r}, but CUDA sees no GPU here: set it to auto or cpu, or "
                          "install a torch with CUDA")
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def require_devices(accelerator: str, count: int) -> None:
    """Raise ConfigError if this machine has not so many GPUs; of a CPU a process is a device."""
    there = torch.cuda.device_count()
    if compute_device(accelerator).type == "cuda" and count > there:
        raise ConfigError(f"runtime.devices_per_trial must be at most {there}, the GPUs that CUDA sees here, got {count}: "
                          "lower it, or set runtime.executor to ray where another machine has more")


def require_shared_memory(needed: int) -> None:
    """Raise StorageError if the processes of a training (`processes.py`) cannot share so many bytes."""
    if _SHARED.is_dir() and needed > (free := shutil.disk_usage(_SHARED).free):
        raise StorageError(f"runtime.devices_per_trial above 1 takes {needed / 1e9:.1f} GB for the weights in {_SHARED}, of "
                           f"which {free / 1e9:.1f} GB are free: give a container more (docker run --shm-size), or set it "
                           "to 1")


def device_memory(device: torch.device) -> Memory:
    """Of a GPU, or of the host as far as the control group of this process lets it."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for this process
        return Memory(total=total, free=free + kept)
    host = psutil.virtual_memory()
    total, free = host.total, host.available
    for limit, used, statistics, name in _CGROUPS:
        if Path(limit).exists() and (text := Path(limit).read_text().strip()).isdecimal() and int(text) < total:
            lines = dict(line.split() for line in Path(statistics).read_text().splitlines())
            total = int(text)
            free = min(free, total - int(Path(used).read_text()) + int(lines.get(name, 0)))
    return Memory(total=total, free=free)


def device_dtype(device: torch.device) -> str:
    """`auto` of `model.dtype` and `attribution.statistics`: bfloat16 where the device multiplies in it, else float32."""
    capable = (torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda"
               else torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return "bfloat16" if capable else "float32"


def statistics_dtype(attribution: AttributionConfig) -> torch.dtype:
    """What covariances and scores are multiplied in, of a field that `resolve` has decided."""
    assert attribution.statistics != "auto", "an experiment is resolved before its stages run"
    return torch.bfloat16 if attribution.statistics == "bfloat16" else torch.float32


def device_name(device: torch.device) -> str:
    """As people call it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
