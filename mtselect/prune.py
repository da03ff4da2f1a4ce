"""python -m mtselect.prune [SWEEP.yaml] [--dry-run] [--forget STUDY] [--FIELD VALUE ...]

Deletes from the stage store what no study refers to: models and scores of studies that are gone, stages of an earlier version,
sets that only `select` asked for; and what `mtselect.select` and its like were given in memory more than a day ago, unless a
study names it (given again, it is written again). What a study's trials would ask for again stays. Studies are those in the
journal files under `runtime.workdir`, and in the database of `study.storage`; MLflow's records are not touched. --dry-run only
says what would go.
--forget STUDY takes a study for gone whose storage or data cannot be read any more.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR
from typing import TYPE_CHECKING, Any

from mtselect import cli
from mtselect.config import Experiment, Sweep, validated
from mtselect.errors import StorageError, UserError
from mtselect.hub import is_local
from mtselect.inputs import inputs_of, remove_input

if TYPE_CHECKING:
    from rich.console import Console

    from mtselect.stages.lineage import Bench

_ABANDONED_SECONDS = 24 * 3600  # after which an unfinished entry, or an input, that nobody wrote to is nobody's any more


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = cli.FieldsParser("prune", str(__doc__))
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--forget", action="append", default=[])
    arguments, fields = parser.parse_known_args(argv)
    return cli.run(lambda console: prune(cli.read_arguments(fields, checked=False), arguments.forget, console,
                                         dry_run=arguments.dry_run))


def prune(sweep: Sweep, forgotten: Sequence[str], console: Console, *, dry_run: bool) -> None:
    """Find what every study refers to but those that are `forgotten`, and delete the rest; of the sweep `runtime.workdir` and
    `study.storage` count.

    Raises:
        StorageError: a study that was run here cannot be read, so that nobody knows what it refers to; nothing is deleted then.
    """
    bench = cli.make_bench(sweep.runtime, console)
    from mtselect.data.corpus import ROLES
    from mtselect.search.question import begun_experiment, refuse_other_content
    from mtselect.search.storage import forget_studies, read_studies

    old = time.time() - _ABANDONED_SECONDS
    there = {*bench.store.entries(), *_abandoned(bench.store.root, old)}  # first: what is finished from now on is not looked at
    kept: set[Path] = set()
    sources: set[str] = set()
    for name, study in read_studies(sweep, forgotten):
        begun = study.user_attrs.get("sweep")
        if begun is None:
            continue
        try:
            base = validated(Experiment, begun_experiment(begun), lenient=True)
            refuse_other_content(base, begun)
            for experiment in _experiments(base, study):
                kept |= referenced(bench, experiment)
                sources |= {str(getattr(experiment.data, role)) for role in ROLES}
        except (UserError, KeyError, TypeError, AttributeError) as error:  # the last ones: what was kept of it is damaged
            raise StorageError(f"study {name!r} cannot be read ({error}); nothing was deleted: bring back what is missing, or "
                               f"let the study go with --forget {name}") from error
        console.print(f"study {name}: {sum('row' in trial.user_attrs for trial in study.get_trials(deepcopy=False))} runs",
                      style="dim", highlight=False)
    inputs, unused = inputs_of(Path(sweep.runtime.workdir), sources, old)
    gone = sorted(there - kept)
    sizes = {path: _size(path) for path in (*gone, *unused)}
    _show(there, {path: sizes[path] for path in gone}, console)
    if not dry_run:
        stuck = [path for path in gone if not bench.store.remove(path)]
        stuck += [path for path in unused if not remove_input(path)]
        forget_studies(sweep, forgotten)
        if stuck:
            raise StorageError(f"{len(stuck)} of {len(sizes)} entries cannot be deleted, such as {stuck[0]}: they are another "
                               "user's, or the folder may not be written to")
    done = "would be deleted" if dry_run else "deleted"
    if inputs:
        console.print(f"{len(unused):,} of {len(inputs):,} inputs given in memory, {_gigabytes(sizes, unused)}, {done}; the "
                      "others are younger than a day, or a study names them", highlight=False)
    console.print(f"{len(gone):,} of {len(there):,} entries, {_gigabytes(sizes, gone)}, {done}"
                  + ("; next: the same command without --dry-run" if dry_run else ""), highlight=False)


def referenced(bench: Bench, experiment: Experiment) -> set[Path]:
    """The entries that a trial asks for, whether they are there or not.

    Raises:
        DataError, StorageError: its sources, its model or its corpus are not there, so that nobody can tell.
    """
    from mtselect.stages.corpus import CORPUS
    from mtselect.stages.lineage import Lineage
    from mtselect.stages.trial import all_stages
    from mtselect.store import NotStored

    lineage = Lineage(bench.looking(), experiment)
    name = experiment.model.name
    if name is not None and "@" not in name and not is_local(name):
        raise StorageError(f"its model {name!r} is no folder any more")
    try:
        lineage.entry(CORPUS)
    except NotStored:
        raise StorageError("its corpus is not in the store, as after an update of mtselect: run its sweep once") from None
    found = set()
    for stage in all_stages(experiment):
        with suppress(NotStored):  # where its key hashes what was not computed
            found.add(bench.store.where(lineage.recipe(stage)))
    return found


def _experiments(base: Experiment, study: Any) -> Iterator[Experiment]:
    """Of the study itself, and of every trial and baseline, also one that is running."""
    from mtselect.search.study import experiments_of

    yield base
    for trial in study.get_trials(deepcopy=False):
        if trial.params or "baseline" in trial.user_attrs:
            yield from experiments_of(base, trial)


def _abandoned(root: Path, old: float) -> list[Path]:
    """Unfinished entries that a killed process left."""
    folders = [path for path in root.glob("*/*") if path.is_dir() and (
        ".part-" in path.name or not (path / "manifest.json").is_file())]
    return [path for path in folders if max((stat.st_mtime for stat in _stats(path)), default=old) < old]


def _gigabytes(sizes: Mapping[Path, int], paths: Iterable[Path]) -> str:
    return f"{sum(sizes[path] for path in paths) / 1e9:.2f} GB"


def _size(folder: Path) -> int:
    return sum(stat.st_size for stat in _stats(folder) if not S_ISDIR(stat.st_mode))


def _stats(folder: Path) -> Iterator[os.stat_result]:
    """Of a folder and all in it; a worker may rename or remove some meanwhile."""
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):
            yield path.stat()


def _show(there: set[Path], gone: dict[Path, int], console: Console) -> None:
    from rich import box
    from rich.table import Column, Table

    numbers = (Column(heading, justify="right") for heading in ("entries", "unreferenced", "GB"))
    table = Table("stage", *numbers, box=box.SIMPLE_HEAD, pad_edge=False)
    count, unreferenced = Counter(path.parent.name for path in there), Counter(path.parent.name for path in gone)
    for stage in sorted(count):
        size = sum(size for path, size in gone.items() if path.parent.name == stage)
        table.add_row(stage, f"{count[stage]:,}", f"{unreferenced[stage]:,}", f"{size / 1e9:.2f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
