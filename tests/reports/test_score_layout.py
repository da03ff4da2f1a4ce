"""Where the pictures of scores have what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtselect.reports.score_layout import ScoreLayout, level_label, score_layout
from tests.reports.given import rows


def a_layout(given: Any, metric: str = "chrf") -> ScoreLayout:
    return score_layout(rows(given), metric)


def sizes_of(layout: ScoreLayout) -> Any:
    return np.array([row["pairs"] for row in layout.points])


def test_the_front_is_of_trials_that_none_beats_with_as_few_pairs() -> None:
    given = rows([("gdig", 100, 20.0), ("gdig", 100, 22.0), ("gdig", 200, 21.0), ("gdig", 300, 25.0), ("gdig", 400, 25.0),
                  ("random", 50, 30.0)])
    layout = score_layout(given, "chrf")
    assert [layout.points[i]["name"] for i in layout.front] == ["gdig1", "gdig3"]
    errors = score_layout([{**row, "value": -row["value"]} for row in given], "ter")
    assert [errors.points[i]["name"] for i in errors.front] == ["gdig1", "gdig3"], "less is better"


def test_points_of_equal_size_stand_side_by_side_and_sizes_stay_apart() -> None:
    layout = a_layout([("gdig", 100, float(i)) for i in range(40)] + [("gdig", 120, 1.0), ("random", 200, 2.0)])
    sizes = sizes_of(layout)
    assert len(set(layout.place.tolist())) == 42
    assert layout.place[sizes == 100].max() < layout.place[sizes == 120].min()
    assert layout.ticks == {100: "100", 120: "120", 200: "200"}


def test_marks_keep_their_distance_and_stay_where_their_sizes_are() -> None:
    rng = np.random.default_rng(0)
    layout = a_layout([("gdig", int(size), 1.0) for size in rng.integers(1000, 3000, 20)] + [("pool", 3500, 2.0)] * 3)
    gaps, span = np.diff(layout.place), np.ptp(sizes_of(layout))
    assert gaps.min() == pytest.approx(0.5 / 23 * span)
    assert (np.diff(sizes_of(layout)) >= 0).all() and abs(layout.place - sizes_of(layout)).max() < 0.1 * span
    alone = a_layout([("gdig", 1000, 1.0), ("gdig", 2000, 1.0), ("gdig", 3000, 1.0)])
    assert alone.place.tolist() == [1000, 2000, 3000]


def test_sizes_that_differ_fourfold_are_on_a_log_scale() -> None:
    layout = a_layout([("gdig", 100, 1.0), ("gdig", 1000, 2.0), ("gdig", 10000, 3.0)])
    assert layout.place == pytest.approx([2, 3, 4])
    assert list(layout.ticks.values()) == ["100", "1,000", "10,000"]
    assert a_layout([("gdig", 100, 1.0), ("gdig", 399, 1.0)]).place.tolist() == [100, 399]
    crowded = a_layout([("gdig", 900 + i, 1.0) for i in range(0, 200, 20)] + [("pool", 12000, 2.0)])
    assert list(crowded.ticks.values()) == ["1,000", "2,000", "5,000", "10,000"]
    assert list(crowded.ticks) == pytest.approx(np.log10([1000, 2000, 5000, 10000]))


def test_the_pool_is_a_point_and_nothing_trained_is_a_level() -> None:
    layout = a_layout([("gdig", 100, 40.0), ("gdig", 200, 42.0), ("untuned", 0, 1.0), ("pool", 9000, 43.0)])
    assert layout.scores[0] > 38, "a level far away does not flatten the picture"
    assert layout.scores[1] > 43
    assert [row["name"] for row in layout.points] == ["gdig0", "gdig1", "pool3"]
    assert [level_label(row, layout.scores) for row in layout.lines] == ["untuned2 1.0 (below)"]


def test_names_of_close_levels_do_not_overlap() -> None:
    layout = a_layout([("gdig", 100, 40.0), ("gdig", 200, 40.0), ("untuned", 0, 40.0), ("few-shot", 0, 40.01)])
    assert layout.heights[1] - layout.heights[0] >= 0.05 * (layout.scores[1] - layout.scores[0])


def test_every_kind_of_run_has_its_mark_and_colour() -> None:
    names = ["random", "filter-random", "loss", "pool", "pool-epochs", "pool-cost", "laser", "less", "borda"]
    layout = a_layout([("gdig", 100, 40.0), ("gdig", 200, 40.0), ("random", 200, 31.0), *((name, 200, 30.0) for name in names)])
    labels = [group.label.partition(":")[0] for group in layout.groups]
    assert labels == ["trials (2)", "random (2)", *names[1:6], "borda", "laser", "less"]
    assert len({(group.marker, group.colour) for group in layout.groups}) == 10
    assert sorted(i for group in layout.groups for i in group.rows) == list(range(len(layout.points)))


def test_trials_of_one_size_are_no_curve() -> None:
    given = [("gdig", 1000 + i, float(i)) for i in range(50)]
    given += [("random", 1000, 49.5), ("pool", 9000, -3.0), ("untuned", 0, -99.0)]
    layout = a_layout(given)
    assert not layout.is_curve and not layout.front and not layout.lines
    names = [row["name"] for row in layout.points]
    assert names == ["random50", *(f"gdig{i}" for i in range(49, 29, -1)), "pool51", "untuned52"]  # twenty trials, all rivals
    assert layout.place.tolist() == list(layout.ticks) == list(range(23)) and layout.left_out == 30
    assert [group.label for group in layout.groups] == ["trials (20)", "random", "pool: all, as many steps", "untuned"]
    *labels, last = layout.ticks.values()
    assert last == "untuned52 -99.0 (below)" and labels == names[:-1]
    assert a_layout([*given, ("gdig", 900, 1.0)]).is_curve
    fewest = score_layout(rows([("gdig", 10, 1.0), ("gdig", 10, 2.0)]), "ter")
    assert [row["name"] for row in fewest.points] == ["gdig0", "gdig1"], "less is better"
