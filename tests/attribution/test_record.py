"""A recorded pass: the same tokens again, from memory and from the file; EK-FAC as from passes of their own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mtselect.attribution.kfac import Covariances, EigenvalueRefit
from mtselect.attribution.record import Record, fit
from mtselect.training.language_model import tracked_layers

# The same float32 products; sums in another order, and seeds that are turned back or not.
ROUNDING = 1e-4
EVERYTHING = 2**40
DAMPING = 0.1


def taken(tiny: SimpleNamespace, pattern: str, memory: int, count: int = 30, dtype: Any = torch.float32) -> Record:
    lm, record = tiny.model("llama", dtype=dtype), Record(memory)
    tiny.run(lm, tracked_layers(lm.model, pattern), tiny.examples(count, 1), record)
    return record


def contents(record: Record) -> list[torch.Tensor]:
    return [x for group in record.groups() for batch in record.batches(group) for pair in batch.layers.values() for x in pair]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory", [0, 20_000])
def test_the_file_holds_what_memory_would(memory: int, dtype: torch.dtype, tiny: SimpleNamespace, pattern: str) -> None:
    one, two = taken(tiny, pattern, EVERYTHING, dtype=dtype), taken(tiny, pattern, memory, dtype=dtype)
    assert one.groups() == two.groups()
    assert len(contents(one)) == len(contents(two)) > 100
    assert all(x.dtype == dtype and torch.equal(x, y) for x, y in zip(contents(one), contents(two), strict=True))


def test_an_input_that_layers_share_is_kept_once(tiny: SimpleNamespace, pattern: str) -> None:
    record = taken(tiny, pattern, EVERYTHING, count=3)
    shared = [group for group in record.groups() if len(group) == 3]
    assert [name.rsplit(".", 1)[1] for name in shared[0]] == ["q_proj", "k_proj", "v_proj"]
    batch = next(record.batches(shared[0]))
    assert len({id(a) for a, _ in batch.layers.values()}) == 1


@pytest.mark.parametrize("memory", [0, 20_000, EVERYTHING])
def test_fits_ekfac_as_two_passes_do(memory: int, tiny: SimpleNamespace, pattern: str, relative: Any) -> None:
    lm, examples = tiny.trained, tiny.examples(80, 3)
    layers = tracked_layers(lm.model, pattern)
    kfac = tiny.run(lm, layers, examples, Covariances(), 8).eigenbasis()
    expected = tiny.run(lm, layers, examples, EigenvalueRefit(kfac), 8).curvature()
    fitted = dict(fit(tiny.run(lm, layers, examples, Record(memory), 8)))
    assert list(fitted) == [name for group in tiny.run(lm, layers, examples, Record(), 8).groups() for name in group]
    for name, layer in fitted.items():
        v = torch.randn(expected[name].eigenvalues.shape, generator=torch.Generator().manual_seed(0))
        ratio = relative(layer.solve(v, DAMPING), expected[name].solve(v, DAMPING))
        assert ratio < ROUNDING, f"{name}: relative error {ratio:.1e}"
