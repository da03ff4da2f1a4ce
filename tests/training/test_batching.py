"""Right-padded batches and their shifted targets; every row once per epoch; shuffling that is seeded and differs."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mtselect.data.examples import Example, ExampleTable, lengths_of, write_examples
from mtselect.training.batching import collate, loader, shuffled_batches, sorted_batches

PAD = 99
EXAMPLES = [Example([1, 5], [6, 7, 2]), Example([1, 5, 8, 9], [2]), Example([1, 3, 4], [8, 2])]


def test_collate_pads_right_and_shifts_the_targets() -> None:
    batch = collate([2, 0, 1], EXAMPLES, PAD)
    _, x = PAD, -100
    assert batch.rows.tolist() == [2, 0, 1]
    assert batch.input_ids.tolist() == [[1, 3, 4, 8, 2], [1, 5, 6, 7, 2], [1, 5, 8, 9, 2]]
    assert collate([0], [Example([1], [2])], PAD).input_ids.tolist() == [[1, 2]]
    assert batch.mask.all()
    assert batch.targets.tolist() == [[x, x, 8, 2, x], [x, 6, 7, 2, x], [x, x, x, 2, x]]


def test_a_target_is_the_next_token(tiny: SimpleNamespace) -> None:
    examples = tiny.examples(20)
    for rows in sorted_batches(lengths_of(examples, range(len(examples))), 6):
        batch = collate(rows, examples, PAD)
        wanted = batch.targets[:, :-1] != -100
        assert torch.equal(batch.input_ids[:, 1:][wanted], batch.targets[:, :-1][wanted])
        assert (batch.targets[:, -1] == -100).all()
        assert wanted.sum(1).tolist() == [len(examples[row].target) for row in rows]
        assert batch.mask.sum(1).tolist() == [len(examples[row]) for row in rows]


def test_a_pad_token_inside_a_sentence_is_not_padding() -> None:
    """GPT-2 pads with EOS: the mask counts positions, not ids."""
    batch = collate([0, 1], [Example([1, 2], [2, 2]), Example([1], [2])], pad_id=2)
    assert batch.mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert batch.targets.tolist() == [[-100, 2, 2, -100], [2, -100, -100, -100]]


def test_a_batch_moves_whole() -> None:
    moved = collate([0, 1], EXAMPLES, PAD).to("meta")
    assert {getattr(moved, name).device.type for name in ("rows", "input_ids", "mask", "targets")} == {"meta"}


@pytest.mark.parametrize("size", [1, 4, 7, 23, 50])
def test_every_row_comes_once_per_epoch(size: int, tiny: SimpleNamespace) -> None:
    examples = tiny.examples(23)
    lengths = lengths_of(examples, range(len(examples)))
    for batches in (sorted_batches(lengths, size), shuffled_batches(lengths, size, np.random.default_rng(0))):
        assert sorted(row for rows in batches for row in rows) == list(range(23))
        assert len(batches) == -(-23 // size)
        assert max(map(len, batches)) <= size


def test_sorted_batches_begin_with_the_longest(tiny: SimpleNamespace) -> None:
    examples = tiny.examples(23)
    lengths = [len(examples[row]) for rows in sorted_batches(lengths_of(examples, range(len(examples))), 4) for row in rows]
    assert lengths == sorted(lengths, reverse=True)


def test_shuffling_is_seeded_and_differs_between_epochs(tiny: SimpleNamespace) -> None:
    examples = tiny.examples(23)

    def epochs(seed: int) -> list[list[list[int]]]:
        made = loader(examples, 4, PAD, np.random.default_rng(seed))
        return [[batch.rows.tolist() for batch in made] for _ in range(2)]

    one, again, other = epochs(0), epochs(0), epochs(1)
    assert one == again
    assert one[0] != one[1]
    assert one != other


def test_a_shuffled_batch_holds_like_lengths(tiny: SimpleNamespace) -> None:
    """Sorted within stretches of 20 batches: far less padding than batches drawn at random."""
    examples, rng = tiny.examples(400, longest=30), np.random.default_rng(0)

    def padding(batches: list[list[int]]) -> int:
        return sum(int((~collate(rows, examples, PAD).mask).sum()) for rows in batches)

    at_random = rng.permutation(400).reshape(-1, 8).tolist()
    ratio = padding(shuffled_batches(lengths_of(examples, range(len(examples))), 8, rng)) / padding(at_random)
    assert ratio < 0.7, f"{ratio:.2f} of the padding of random batches"


def test_examples_on_disk_make_the_same_batches(tiny: SimpleNamespace, tmp_path: Path) -> None:
    examples = tiny.examples(50, longest=30)
    write_examples(examples, tmp_path)
    table = ExampleTable(tmp_path)
    rows = np.array([7, 3, 40, 40, 0])
    for some, on_disk in ((examples, table), ([examples[row] for row in rows], table.take(rows))):
        assert list(on_disk) == some
        assert on_disk.lengths.tolist() == [len(one) for one in some]
        assert on_disk.target_lengths.tolist() == [len(one.target) for one in some]
        for seed in (None, 0):
            rngs = [None if seed is None else np.random.default_rng(seed) for _ in range(2)]
            for one, other in zip(loader(some, 4, PAD, rngs[0]), loader(on_disk, 4, PAD, rngs[1]), strict=True):
                assert one.rows.tolist() == other.rows.tolist()
                assert torch.equal(one.input_ids, other.input_ids) and torch.equal(one.targets, other.targets)
        part = [batch.rows.tolist() for batch in loader(on_disk, 2, PAD, rows=range(1, 4))]
        assert part == [batch.rows.tolist() for batch in loader(some, 2, PAD, rows=range(1, 4))]
        assert sorted(row for rows_ in part for row in rows_) == [1, 2, 3]


def test_another_process_is_sent_the_place_of_examples_on_disk(tiny: SimpleNamespace, tmp_path: Path) -> None:
    write_examples(tiny.examples(2000), tmp_path)
    table = ExampleTable(tmp_path)
    sent = pickle.dumps(table.take(np.arange(5)[::-1])), pickle.dumps(table)
    assert [list(pickle.loads(one)) for one in sent] == [list(table.take(np.arange(5)[::-1])), list(table)]
    assert max(map(len, sent)) < 1000


@pytest.mark.parametrize("start", [None, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_of_a_batch_are_the_batch(count: int, start: int | None, tiny: SimpleNamespace) -> None:
    """Each as large, so that devices do the same number of passes: some rows stand there twice, without targets."""
    examples = tiny.examples(4, start=start)
    batch = collate(range(4), examples, PAD)
    shares = [batch.share(rank, count) for rank in range(count)]
    assert {len(share.rows) for share in shares} == {-(-4 // count)}
    counted = []
    for share in shares:
        for part in share.parts(1):
            (row,) = part.rows.tolist()
            whole = collate([row], examples, PAD)
            assert part.input_ids.tolist() == whole.input_ids.tolist()
            if (part.targets != -100).any():
                counted.append(row)
                assert part.targets.tolist() == whole.targets.tolist()
    assert sorted(counted) == [0, 1, 2, 3]


def test_a_loader_without_generator_repeats_itself(tiny: SimpleNamespace) -> None:
    made = loader(tiny.examples(10), 4, PAD)
    one, two = ([batch.rows.tolist() for batch in made] for _ in range(2))
    assert one == two
    assert len(made) == len(one) == 3
