"""What people call from Python: `mtselect.select`, `mtselect.score`, `mtselect.load_set`. Each gives a `datasets.Dataset`.

They are the commands' stages and store: what a command, a sweep or an earlier call has computed is not computed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mtselect import cli
from mtselect.config import DataConfig, Experiment, RuntimeConfig, Sweep, cross_faults, validated, with_fields
from mtselect.config.section import raise_faults
from mtselect.errors import ConfigError
from mtselect.inputs import Pairs, as_source

if TYPE_CHECKING:
    from datasets import Dataset

    from mtselect.stages.lineage import Lineage
    from mtselect.stages.scores import Signal

SIGNALS: tuple[Signal, ...] = ("benefits", "losses", "pmi", "tokens", "adequacy", "seeded_losses", "set")


def select(pool: Pairs, seeds: Pairs, *, model: str | Path | None = None, budget: float | None = None,
           src_lang: str | None = None, tgt_lang: str | None = None, dev: Pairs | None = None, test: Pairs | None = None,
           settings: Mapping[str, object] | None = None, workdir: str | Path = "mlruns", verbose: bool = False) -> Dataset:
    """The pairs of a pool that are worth finetuning on.

    Args:
        pool: candidates, noisy ones too. A source as a sweep file names it (`crawl.de-en`, `crawl.tsv.gz`, `hub:...`), a path,
            a data frame, a `datasets.Dataset`, or rows.
        seeds: some hundred trusted pairs like those that are to be translated well; in any of these forms.
        model: the language model that is to be finetuned: a name on the Hugging Face hub, or a folder. Null builds a small one.
        budget: number of pairs; below 1 a share of the pool. Null: a third.
        src_lang: name of the source language. Null: as the sources' names end (`crawl.de-en`), else guessed from the seeds.
        tgt_lang: the target language, likewise.
        dev: pairs that will be scored; no sentence of theirs may be in pool or seeds.
        test: likewise.
        settings: any other field of a sweep file by its dotted name: `{"selection.gate": None, "runtime.batch_size": 64}`.
        workdir: folder of the stage store.
        verbose: show how far the work is, on stderr.

    Returns:
        In the pool's order: `id` (hash of the pair), `src`, `tgt`, the selector's columns, and `gate` if there is one.

    Raises:
        UserError: of its kinds (`mtselect.errors`), saying what is wrong and what to do.
    """
    cli.before_torch()
    from datasets import Dataset

    from mtselect.stages.selection import select_pairs

    sweep = _sweep(pool, seeds, model, src_lang, tgt_lang, dev, test, {"selection.budget": budget}, settings, Path(workdir))
    with _lineage(sweep, "select", verbose) as lineage:
        rows = [pair.row() for pair in select_pairs(lineage).pairs]
    return Dataset.from_list(rows) if rows else Dataset.from_dict({"id": [], "src": [], "tgt": []})


def score(pool: Pairs, seeds: Pairs, *, signals: Sequence[Signal] = SIGNALS, model: str | Path | None = None,
          src_lang: str | None = None, tgt_lang: str | None = None, dev: Pairs | None = None, test: Pairs | None = None,
          settings: Mapping[str, object] | None = None, workdir: str | Path = "mlruns", verbose: bool = False) -> Dataset:
    """All that is known of every pair of a pool.

    Args:
        pool: as for `select`, as are all others but
        signals: what to look at. `benefits` (a gradient pass): `z`, `benefit`, `benefit_share`, `raw_share`, `gradient_norm`;
            `losses`, `pmi` (forward passes): `loss`, `pmi`; `tokens`; `adequacy` (a sentence encoder): `cosine`, `overlap`;
            `seeded_losses` (a short training on the seeds, a forward pass): `seeded_loss`; `set` (what the selector needs):
            whether `select` takes the pair with the same settings, `selected`, its `rank`, and `why` in a line; and what is not
            looked at unless it is named, `drops` (that training): `loss_drop`, and `kiwi` (COMET).

    Returns:
        A row for each candidate, in the pool's order: `id`, `src`, `tgt`, these columns, and if there is a gate
        (`selection.gate`) its score `gate` and whether it lets the pair through, `passed`. Memory-mapped: it takes no memory.

    Raises:
        UserError: as for `select`.
    """
    cli.before_torch()
    from mtselect.stages.scores import open_scores, scores_stage

    stage = scores_stage(signals)
    sweep = _sweep(pool, seeds, model, src_lang, tgt_lang, dev, test, {}, settings, Path(workdir))
    with _lineage(sweep, "score", verbose) as lineage:
        return open_scores(lineage.path(stage))


def load_set(name: str, *, uri: str | None = None) -> Dataset:
    """A promoted set, or a trial's.

    Args:
        name: of the study and, behind @, `champion` (the default) or `challenger`, or behind / a version's number:
            `crawl-de-en@champion`, `crawl-de-en/3`. Or as MLflow has it: `models:/mtselect.crawl-de-en@champion`, or
            `runs:/RUN/selected.jsonl` with a run's id.
        uri: MLflow server; null takes MLflow's own (MLFLOW_TRACKING_URI, else sqlite:///mlflow.db).

    Returns:
        The rows of its `selected.jsonl`.

    Raises:
        DataError: there is no such set.
        StorageError: MLflow does not answer.
    """
    from mtselect.tracking.fetch import fetch_selected, set_address

    return fetch_selected(set_address(name), uri)


def _sweep(pool: Pairs, seeds: Pairs, model: str | Path | None, src_lang: str | None, tgt_lang: str | None, dev: Pairs | None,
           test: Pairs | None, own: Mapping[str, object], settings: Mapping[str, object] | None, workdir: Path) -> Sweep:
    """What a sweep file would say. Raises ConfigError, Faults or DataError."""
    given = {"pool": pool, "seeds": seeds, "dev": dev, "test": test}
    sources = {f"data.{role}": None if pairs is None else as_source(role, pairs, workdir) for role, pairs in given.items()}
    asked = {**own, "model.name": None if model is None else str(model), "data.src_lang": src_lang, "data.tgt_lang": tgt_lang}
    set_ones = {name.removeprefix("experiment."): value for name, value in (settings or {}).items()}
    fields = {**sources, **{name: value for name, value in asked.items() if value is not None}, **set_ones}
    runtime = {name.removeprefix("runtime."): value for name, value in fields.items() if name.startswith("runtime.")}
    experiment = with_fields(Experiment(), {name: value for name, value in fields.items() if not name.startswith("runtime.")})
    missing = [side for side in ("src_lang", "tgt_lang") if f"data.{side}" not in fields]
    if missing:
        languages = dict(zip(("src_lang", "tgt_lang"), _languages(experiment.data), strict=True))
        experiment = with_fields(experiment, {f"data.{side}": languages[side] for side in missing})
    sweep = Sweep(experiment=experiment, runtime=validated(RuntimeConfig, {"workdir": str(workdir), **runtime}))
    if found := cross_faults(sweep):
        raise_faults(found)
    return sweep


def _languages(data: DataConfig) -> tuple[str, str]:
    """Names of both. Raises ConfigError where nothing tells them."""
    from mtselect.data.languages import guessed_languages, named_languages

    named = next((named for source in (data.pool, data.seeds) if (named := named_languages(source))), None)
    if (found := named or guessed_languages(data)) is None:
        raise ConfigError("src_lang and tgt_lang must be given where neither a source's name ends in languages (crawl.de-en) "
                          "nor the seeds tell, got None: name them, as src_lang='German', tgt_lang='English'")
    return found


@contextmanager
def _lineage(sweep: Sweep, task: str, verbose: bool) -> Iterator[Lineage]:
    """The experiment's entries, while progress is shown or not."""
    from rich.console import Console

    from mtselect.progress import SilentProgress

    bench = cli.make_bench(sweep.runtime, Console(stderr=True, highlight=False))
    if not verbose:
        bench = replace(bench, progress=SilentProgress())
    with bench.progress.task(task, 1) as advance:
        yield cli.lineage_of(sweep, bench)
        advance(1)
