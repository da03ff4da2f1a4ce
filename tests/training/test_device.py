"""Which device will be used, and how much memory it has for this process."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mtselect.training import device
from mtselect.training.device import compute_device, device_memory


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 1,000 bytes, 600 of them free."""
    monkeypatch.setattr(device.psutil, "virtual_memory", lambda: SimpleNamespace(total=1000, available=600))


def group(folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str, used: str) -> None:
    (folder / "max").write_text(f"{limit}\n")
    (folder / "current").write_text(f"{used}\n")
    (folder / "stat").write_text("anon 20\ninactive_file 30\nactive_file 5\n")
    here = (str(folder / "max"), str(folder / "current"), str(folder / "stat"), "inactive_file")
    monkeypatch.setattr(device, "_CGROUPS", ((str(folder / "none"), "", "", ""), here))


@pytest.mark.parametrize(("limit", "used", "total", "free"), [
    ("max", "700", 1000, 600), ("9223372036854771712", "700", 1000, 600), ("500", "100", 500, 430), ("900", "100", 900, 600)])
def test_memory_is_what_the_control_group_grants(limit: str, used: str, total: int, free: int, tmp_path: Path, host: None,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    group(tmp_path, monkeypatch, limit, used)
    found = device_memory(torch.device("cpu"))
    assert (found.total, found.free) == (total, free)


def test_the_accelerator_that_was_asked_for_is_asked(monkeypatch: pytest.MonkeyPatch, host: None) -> None:
    """With `runtime.accelerator: cpu` nothing looks at a GPU, though there is one."""
    monkeypatch.setattr(device, "_CGROUPS", ())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (7, 80))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda where: 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda where: 30)
    assert compute_device("cpu").type == "cpu"
    assert device_memory(compute_device("cpu")).free == 600
    for accelerator in ("auto", "gpu", "cuda"):
        assert compute_device(accelerator).type == "cuda"
        assert device_memory(compute_device(accelerator)) == device.Memory(total=80, free=27)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert compute_device("auto").type == "cpu"
