"""How many bytes curvature and seeds take, from the layers' shapes alone; which layers and which rank of the seeds fit.

    curvature   bases [I, I] and [O, O] and eigenvalues [O, I] of a layer, float32; fitted some at a time, read one by one
    dense       [Q, O, I] of every layer, float32 or bfloat16
    rank r      U [Q, O, r], V [Q, r, I] and the mean [O, I]; for scoring U and V again, side by side, and a remainder [O, I]

Shapes: Q seeds; I inputs, O outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mtselect.attribution.gradients import SEED_BUFFER_BYTES

Shapes = Mapping[str, tuple[int, int]]  # layer -> (O, I)

_FLOAT = 4
PLANNED_BATCH = 32  # seeds at a time, whatever `runtime.batch_size`: what is chosen may not depend on it
_TEMPORARIES = 6  # of some seeds' [C, O, I] at one layer, while they are preconditioned and truncated
_DECOMPOSING = 8  # squares of a factor's width, while LAPACK finds its eigenvectors


def curvature_bytes(shapes: Shapes) -> int:
    """Of the layers, fitted."""
    return _FLOAT * sum(n_out**2 + n_in**2 + n_out * n_in for n_out, n_in in shapes.values())


def fitting_bytes(shapes: Shapes) -> int:
    """Of the layers while they are fitted: bases, eigenvalues and their sums, and a factor that is being decomposed."""
    widest = max(max(shape) for shape in shapes.values())
    return curvature_bytes(shapes) + _FLOAT * (tracked_parameters(shapes) + _DECOMPOSING * widest**2)


def layer_groups(shapes: Shapes, room: int) -> list[list[str]]:
    """The layers in their order, as many at a time as are fitted in so many bytes; one at least."""
    groups: list[list[str]] = []
    for name in shapes:
        if groups and fitting_bytes({one: shapes[one] for one in [*groups[-1], name]}) <= room:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def seed_bytes(n_seeds: int, shapes: Shapes, rank: int | None, statistics: torch.dtype) -> int:
    """Of the seeds at all layers while candidates are scored: dense where the rank is null, else once in float32 and once in
    what scores are multiplied in."""
    if rank is None:
        return statistics.itemsize * n_seeds * tracked_parameters(shapes)
    sides = sum(min(rank, n_out, n_in) * (n_out + n_in) for n_out, n_in in shapes.values())
    return (_FLOAT + statistics.itemsize) * (n_seeds * sides + tracked_parameters(shapes))


def seed_pass_bytes(n_seeds: int, shapes: Shapes, rank: int | None, batch_size: int, *, curved: bool, statistics: torch.dtype
                    ) -> int:
    """Most of what is there at once, from the seeds' pass to the last candidate: the seeds, and beside them one layer's
    curvature and the gradients of some seeds at it.

    Args:
        n_seeds: Q.
        shapes: of the tracked layers.
        rank: of the seeds; null is dense.
        batch_size: seeds at a time.
        curved: whether there is a curvature (not with the identity).
        statistics: what scores are multiplied in.
    """
    largest = _FLOAT * max(n_out * n_in for n_out, n_in in shapes.values())
    some = max(largest, min(largest * min(batch_size, n_seeds), SEED_BUFFER_BYTES))
    curvature = max(curvature_bytes({name: shape}) for name, shape in shapes.items()) if curved else 0
    return seed_bytes(n_seeds, shapes, rank, statistics) + curvature + _TEMPORARIES * some


def fitting_rank(n_seeds: int, shapes: Shapes, room: int, statistics: torch.dtype) -> int | None:
    """The seeds' rank for so many bytes: null (dense) where that fits, else the largest power of two that does; 0 if none.

    Powers of two, since a rank is part of a stage's key: a little more memory should not make another one of it.
    """
    def fits(rank: int | None) -> bool:
        return seed_pass_bytes(n_seeds, shapes, rank, PLANNED_BATCH, curved=True, statistics=statistics) <= room

    if fits(None):
        return None
    rank = 1 << max(min(shape) for shape in shapes.values()).bit_length()
    while rank and not fits(rank):
        rank //= 2
    return rank


def tracked_parameters(shapes: Shapes) -> int:
    """Of all layers."""
    return sum(n_out * n_in for n_out, n_in in shapes.values())
