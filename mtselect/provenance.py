"""What a run was given and what it ended with, for trackers: datasets by the hash of their pairs, models by their stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtselect.data.corpus import ROLES
from mtselect.data.rows import Role
from mtselect.hub import is_local
from mtselect.stages.corpus import CORPUS, corpus_of, load_digests, scored_part
from mtselect.stages.finetune import FINETUNE, start_model, weights_folder
from mtselect.stages.lineage import Lineage
from mtselect.stages.selection import Selection
from mtselect.stages.trial import TrialResult
from mtselect.tracking.base import DatasetInput


def corpus_inputs(lineage: Lineage) -> list[DatasetInput]:
    """The sources that an experiment has: pool, seeds, dev and test."""
    return [part_input(lineage, role) for role in reversed(ROLES) if getattr(lineage.experiment.data, role) is not None]


def part_input(lineage: Lineage, role: Role) -> DatasetInput:
    """A part of the corpus, without what was dropped of its source; of dev, what is scored."""
    data, table = lineage.experiment.data, scored_part(getattr(corpus_of(lineage), role), role, lineage.experiment)
    digest = table.digest if role == "dev" else lineage.open(CORPUS, load_digests)[role]
    return DatasetInput(name=role, digest=digest, n_rows=len(table), data=data,
                        columns={data.src_column: str, data.tgt_column: str})


def selected_input(selection: Selection) -> DatasetInput:
    """What a trial was finetuned on."""
    columns = {name: type(value) for name, value in selection.pairs[0].row().items()}
    return DatasetInput(name="selected", digest=selection.digest, n_rows=len(selection.pairs), columns=columns)


def model_tags(results: Sequence[TrialResult]) -> dict[str, str]:
    """Which model a trial ended with at some finetuning seeds: at each the folder of the weights and the key of their stage;
    where nothing was selected, the model as it was.

    The folders are there as long as `runtime.keep_models` is true and `mtselect.prune` finds a study that refers to them.
    """
    selection, first = results[0].selection, results[0].lineage
    tags = {"mtselect.selected": selection.digest}
    if not selection.pairs:
        name = start_model(first.experiment).read(first).name
        weights = str(Path(name).resolve()) if is_local(name) else name
        return {**tags, "mtselect.weights": weights}
    for lineage in (result.lineage for result in results):
        seed = lineage.experiment.finetune.seed
        tags |= {f"mtselect.finetune.{seed}": lineage.key(FINETUNE), f"mtselect.weights.{seed}": str(weights_folder(lineage))}
    return tags
