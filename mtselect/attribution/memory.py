"""How many bytes curvature and seeds take, from the layers' shapes alone; which rank of the seeds fits.

    curvature   bases [I, I] and [O, O] and eigenvalues [O, I] of every layer, float32
    dense       [Q, O, I] of every layer
    rank r      U [Q, O, r], V [Q, r, I] and the mean [O, I]; for scoring U and V again, side by side, and a remainder [O, I]

Shapes: Q seeds; I inputs, O outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, int]]  # layer -> (O, I)

_FLOAT = 4
PLANNED_BATCH = 32  # seeds at a time, whatever `runtime.batch_size`: what is chosen may not depend on it
_TEMPORARIES = 6  # of a batch's [B, O, I] at one layer, while seeds are preconditioned and truncated


def curvature_bytes(shapes: Shapes, *, fitting: bool) -> int:
    """Of all layers; `fitting` in two passes, where sums stand beside bases, and the refit's beside eigenvalues."""
    squares = sum(n_out**2 + n_in**2 for n_out, n_in in shapes.values())
    return _FLOAT * (2 if fitting else 1) * (squares + tracked_parameters(shapes))


def seed_bytes(n_seeds: int, shapes: Shapes, rank: int | None) -> int:
    """Of the seeds at all layers while candidates are scored: dense where the rank is null."""
    if rank is None:
        return _FLOAT * n_seeds * tracked_parameters(shapes)
    sides = sum(min(rank, n_out, n_in) * (n_out + n_in) for n_out, n_in in shapes.values())
    return _FLOAT * (2 * n_seeds * sides + 2 * tracked_parameters(shapes))


def seed_pass_bytes(n_seeds: int, shapes: Shapes, rank: int | None, batch_size: int, *, curved: bool) -> int:
    """Most of what is there at once, from the seeds' pass to the last candidate: the seeds, and beside them the curvature and
    one layer's gradients of a batch.

    Args:
        n_seeds: Q.
        shapes: of the tracked layers.
        rank: of the seeds; null is dense.
        batch_size: seeds at a time.
        curved: whether there is a curvature (not with the identity).
    """
    largest = max(n_out * n_in for n_out, n_in in shapes.values())
    batch = _FLOAT * _TEMPORARIES * min(batch_size, n_seeds) * largest
    return seed_bytes(n_seeds, shapes, rank) + (curvature_bytes(shapes, fitting=False) if curved else 0) + batch


def fitting_rank(n_seeds: int, shapes: Shapes, room: int) -> int | None:
    """The seeds' rank for so many bytes: null (dense) where that fits, else the largest power of two that does; 0 if none.

    Powers of two, since a rank is part of a stage's key: a little more memory should not make another one of it.
    """
    def fits(rank: int | None) -> bool:
        return seed_pass_bytes(n_seeds, shapes, rank, PLANNED_BATCH, curved=True) <= room

    if fits(None):
        return None
    rank = 1 << max(min(shape) for shape in shapes.values()).bit_length()
    while rank and not fits(rank):
        rank //= 2
    return rank


def tracked_parameters(shapes: Shapes) -> int:
    """Of all layers."""
    return sum(n_out * n_in for n_out, n_in in shapes.values())
