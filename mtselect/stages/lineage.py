"""What a stage is, and the lineage of one experiment: which entry of the store each stage has there.

`Stage.reads` and `Stage.inputs` are hashed into the key *and* are all that `run` is given, so that nothing can be read that
was not hashed. A lineage computes each key once, and keeps open what `Lineage.open` was asked for, as corpus and selected set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Generic, Protocol, TypeVar, cast

from mtselect.config import Experiment, RuntimeConfig
from mtselect.metrics.base import Metrics
from mtselect.progress import OnEpoch, Progress
from mtselect.store import Entry, LookingStore, Recipe, Store

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What every stage works with and none depends on for its result.

    Args:
        store: of all outputs.
        runtime: how the work is done.
        progress: shows how far it is.
        metrics: of this process.
        part: k and n: of a stage that has parts this process writes the k-th of n; whoever gave it that sees to the others.
    """

    store: Store
    runtime: RuntimeConfig
    progress: Progress
    metrics: Metrics = field(default_factory=Metrics)
    part: tuple[int, int] = (0, 1)

    def looking(self) -> Bench:
        """The same, where what is not in the store is not computed: it raises NotStored."""
        return replace(self, store=LookingStore(self.store.root))


class Input(Protocol[T_co]):
    """What a stage is given beside its fields."""

    def stages(self, experiment: Experiment) -> Sequence[Stage]:
        """Those whose output it is or holds."""

    def key(self, lineage: Lineage) -> str:
        """What is hashed: of an entry its key, of a part of one its content."""

    def read(self, lineage: Lineage) -> T_co:
        """What the stage is given; computes it if it is not in the store."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """A part of the work whose output is kept.

    Args:
        name: also the folder's in the store.
        version: raised whenever the same fields and inputs would give another output; `tests/stages` pins both together.
        reads: dotted fields of the experiment, or whole sections (`model`, `data.src_lang`).
        inputs: what it is given, which may depend on the fields it reads.
        run: writes the output into `Work.out`.
        constants: what tells stages of one name apart.
        sources: files it reads, as hashes of their content.
        parts: given a lineage, and how many processes there is room for, in how many parts they may write its entry, which a
            killed one's successor goes on with; none where one process writes it whole.
        trains: it takes `runtime.devices_per_trial` devices.
    """

    name: str
    version: int
    reads: tuple[str, ...]
    run: Callable[[Work], None]
    inputs: Callable[[Experiment], Sequence[Input[object]]] = lambda experiment: ()
    constants: Mapping[str, str] = field(default_factory=dict)
    sources: Callable[[Experiment], Sequence[str]] = lambda experiment: ()
    parts: Callable[[Lineage, int], int] | None = None
    trains: bool = False


@dataclass(frozen=True, kw_only=True)
class Output(Generic[T_co]):
    """The input that is another stage's whole output: what `opens` makes of its folder, or the folder."""

    stage: Stage
    opens: Callable[[Path], T_co] = Path  # type: ignore[assignment]

    def stages(self, experiment: Experiment) -> Sequence[Stage]:
        return [self.stage]

    def key(self, lineage: Lineage) -> str:
        return lineage.key(self.stage)

    def read(self, lineage: Lineage) -> T_co:
        """Opened anew each time."""
        return self.opens(lineage.path(self.stage))


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that a stage is given when it runs.

    Args:
        stage: itself.
        experiment: the fields it declared; any other raises AttributeError.
        bench: runtime, progress, metrics; nothing of it may change the output.
        out: the folder it writes to.
        recipe: of the entry.
        on_epoch: called with (epoch, dev loss) while a finetuning computes; may raise to stop.
        began: when it did, in monotonic seconds.
    """

    stage: Stage
    experiment: Experiment
    bench: Bench
    out: Path
    recipe: Recipe
    on_epoch: OnEpoch | None
    began: float = field(default_factory=time.monotonic)
    _lineage: Lineage

    def read(self, given: Input[T]) -> T:
        """An input. Raises AttributeError if the stage did not declare it."""
        if given not in self.stage.inputs(self.experiment):
            raise AttributeError(f"stage {self.stage.name!r} reads {given} and does not declare it: add it to its inputs")
        return given.read(self._lineage)


def ancestors(stage: Stage, experiment: Experiment) -> list[Stage]:
    """The stages that a stage needs, each after those it needs itself, and the stage last."""
    found: dict[Stage, None] = {}

    def visit(one: Stage) -> None:
        for given in one.inputs(view(experiment, one)):
            for before in given.stages(experiment):
                visit(before)
        found.setdefault(one)

    visit(stage)
    return list(found)


def depends_on(stage: Stage, experiment: Experiment, path: str) -> bool:
    """Whether the stage or one that it needs reads this dotted field."""
    return any(f"{path}.".startswith(f"{read}.") for one in ancestors(stage, experiment) for read in one.reads)


class Lineage:
    """The entries of one experiment.

    Args:
        bench: store, runtime, progress.
        experiment: with everything decided (`resolve.resolve`).
        on_epoch: called with (epoch, dev loss) while a finetuning computes; may raise to stop.
    """

    def __init__(self, bench: Bench, experiment: Experiment, on_epoch: OnEpoch | None = None) -> None:
        self.bench, self.experiment = bench, experiment
        self._on_epoch = on_epoch
        self._recipes: dict[Stage, Recipe] = {}
        self._keys: dict[object, str] = {}
        self._entries: dict[Stage, Entry] = {}
        self._opened: dict[tuple[object, object], object] = {}

    def recipe(self, stage: Stage) -> Recipe:
        """What decides a stage's output; may compute a stage of whose output a part is hashed."""
        if stage not in self._recipes:
            seen = view(self.experiment, stage)
            fields = {path: attrgetter(path)(self.experiment) for path in stage.reads}
            upstream = [*stage.sources(seen), *(self.input_key(given) for given in stage.inputs(seen))]
            self._recipes[stage] = Recipe(stage=stage.name, version=stage.version, section={**fields, **stage.constants},
                                          upstream=upstream)
        return self._recipes[stage]

    def key(self, stage: Stage) -> str:
        """Of its entry."""
        return self.recipe(stage).key

    def input_key(self, given: Input[object]) -> str:
        """Of an input."""
        if given not in self._keys:
            self._keys[given] = given.key(self)
        return self._keys[given]

    def entry(self, stage: Stage) -> Entry:
        """The entry, computed if it is not in the store."""
        if stage not in self._entries:
            recipe, store = self.recipe(stage), self.bench.store

            def run(out: Path) -> None:
                stage.run(Work(stage=stage, experiment=view(self.experiment, stage), bench=self.bench, out=out, recipe=recipe,
                               on_epoch=self._on_epoch, _lineage=self))

            self._entries[stage] = (store.share(recipe, run, alone=self.bench.part == (0, 1)) if stage.parts else
                                    store.fetch(recipe, run))
        return self._entries[stage]

    def path(self, stage: Stage) -> Path:
        """The folder of its entry, computed if it is not in the store."""
        return self.entry(stage).path

    def open(self, stage: Stage, reader: Callable[[Path], T]) -> T:
        """What a reader makes of the folder, once."""
        if (stage, reader) not in self._opened:
            self._opened[stage, reader] = reader(self.path(stage))
        return cast(T, self._opened[stage, reader])

    def discard(self, stage: Stage) -> None:
        """Remove its entry from the store; the next call computes it again."""
        self.bench.store.discard(self.recipe(stage))
        self._entries.pop(stage, None)
        for opened in [one for one in self._opened if one[0] is stage]:
            del self._opened[opened]


def view(experiment: Experiment, stage: Stage) -> Experiment:
    """The experiment as a stage may see it: other fields raise AttributeError."""
    return cast(Experiment, _View(experiment, tuple(stage.reads), "", stage.name))


class _View:
    def __init__(self, section: object, reads: tuple[str, ...], prefix: str, stage: str) -> None:
        self._section, self._reads, self._prefix, self._stage = section, reads, prefix, stage

    def __getattr__(self, name: str) -> object:
        path = f"{self._prefix}{name}"
        if path in self._reads:
            return getattr(self._section, name)
        if any(read.startswith(f"{path}.") for read in self._reads):
            return _View(getattr(self._section, name), self._reads, f"{path}.", self._stage)
        raise AttributeError(f"stage {self._stage!r} reads {path} and does not declare it: add it to its fields")
