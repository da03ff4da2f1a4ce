"""The sweep file: what loads, and the one line that is said of everything that does not."""

from __future__ import annotations

import dataclasses
import inspect
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from mtselect.config import (
    AttributionConfig,
    DataConfig,
    EvaluationConfig,
    Experiment,
    FinetuneConfig,
    ModelConfig,
    Range,
    RuntimeConfig,
    SelectionConfig,
    StudyConfig,
    Sweep,
    TrainConfig,
    WarmupConfig,
    cross_faults,
    field_type,
    load,
    parse,
    range_type,
    to_yaml,
    validated,
    with_fields,
)
from mtselect.config.schema import json_schema
from mtselect.errors import ConfigError, Faults

SWEEP = """
experiment:
  seed: 7
  model: {name: null, lora_rank: 4}
  warmup: {epochs: 2, rows: 500, exclude: true, learning_rate: 1e-3}
  selection: {budget: 300, n_clusters: 16}
  evaluation: {metrics: [chrf]}
search:
  selection.budget: {low: 100, high: 1000, log: true}
  selection.rank: {choices: [benefit, benefit_per_norm]}
study: {name: small, n_trials: 3}
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "sweep.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_file_and_overrides_load(write: Any) -> None:
    sweep = load(write(SWEEP), ["--experiment.selection.budget", "400", "--runtime.batch_size=8",
                                "--experiment.data.src_lang", "Czech"])
    experiment = sweep.experiment
    assert experiment.seed == 7
    assert experiment.model.lora_rank == 4
    assert experiment.model.name is None
    assert experiment.warmup == WarmupConfig(epochs=2, rows=500, exclude=True, learning_rate=1e-3)
    assert experiment.selection == SelectionConfig(budget=400, n_clusters=16)
    assert experiment.data == DataConfig(src_lang="Czech")
    assert experiment.attribution == AttributionConfig()
    assert sweep.search == {"selection.budget": Range(low=100, high=1000, log=True),
                            "selection.rank": Range(choices=["benefit", "benefit_per_norm"])}
    assert (sweep.study.name, sweep.study.n_trials, sweep.runtime.batch_size) == ("small", 3, 8)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}"])
def test_an_empty_file_is_all_defaults(text: str, write: Any) -> None:
    assert load(write(text), []) == parse("", [])
    assert parse("", []).experiment == Experiment()


def test_numbers_take_the_fields_type(write: Any) -> None:
    """`damping: 1` and `damping: 1.0` are the same work and must have the same key."""
    damping = load(write("experiment: {attribution: {damping: 1}}"), []).experiment.attribution.damping
    assert type(damping) is float


def test_a_files_dates_are_text_and_exponents_numbers(write: Any) -> None:
    sweep = load(write("experiment: {finetune: {learning_rate: 1e-5}}\nstudy: {name: 2024-01-01}"), [])
    assert (sweep.experiment.finetune.learning_rate, sweep.study.name) == (1e-5, "2024-01-01")


WRONG_FILES = [
    ("experiment: {selection: {bugdet: 1}}", "unknown field 'experiment.selection.bugdet': did you mean "
                                             "'experiment.selection.budget'?"),
    ("experiment: {selektion: {budget: 1}}", "unknown field 'experiment.selektion': did you mean "
                                             "'experiment.selection'?"),
    ("seach: {}", "unknown field 'seach': did you mean 'search'?"),
    ("zzz: {}", "unknown field 'zzz': `--help` lists every field"),
    ("experiment: {warmup: {start: base}}", "unknown field 'experiment.warmup.start': did you mean"),
    ("experiment: 3", "experiment must be a mapping of fields, got 3"),
    ("experiment:\n  finetune:\n", "experiment.finetune must be a mapping of fields, got None"),
    ("- a", "sweep file must be a mapping of fields, got ['a']"),
    ("a: [", "is not YAML: while parsing a flow node"),
    ("experiment: {selection: {budget: ten}}", "experiment.selection.budget must be a number, got 'ten'"),
    ("study: {random_seeds: 2}", "unknown field 'study.random_seeds': random baselines are drawn anew for each of "
                                 "study.finetune_seeds"),
    ("experiment: {seed: 1.5}", "experiment.seed must be a whole number, got 1.5"),
    ("experiment: {seed: true}", "experiment.seed must be a whole number, got True"),
    ("experiment: {warmup: {exclude: 1}}", "experiment.warmup.exclude must be true or false, got 1"),
    ("experiment: {data: {pool: 3}}", "experiment.data.pool must be a text, got 3"),
    ("experiment: {model: {dtype: float64}}", "experiment.model.dtype must be auto, float32 or bfloat16, got 'float64'"),
    ("experiment: {attribution: {seed_rank: some}}",
     "experiment.attribution.seed_rank must be a whole number (at least 1), auto or null, got 'some'"),
    ("experiment: {attribution: {damping: .inf}}", "experiment.attribution.damping must be a finite number, got inf"),
    ("study: {objectives: [3]}", "study.objectives must be a text, got 3"),
    ("study: {objectives: eval/chrf}", "study.objectives must be a list of texts (at least one value), got 'eval/chrf'"),
    ("search: {1: {low: 1, high: 2}}", "search.1.[key] must be a text, got 1"),
    ("1: {}", "unknown field '1': "),
    ("experiment: {data: {pool: null}}", "experiment.data.pool must be a text, got None"),
    ("experiment: {selection: {method: gdgi}}", "got 'gdgi': did you mean 'gdig'?"),
    ("experiment: {evaluation: {metrics: [blue]}}", "got 'blue': did you mean 'bleu'?"),
    ("experiment: {finetune: {epochs: -1}}", "finetune.epochs must be at least 0, got -1"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_FILES)
def test_a_wrong_file_is_told_in_one_line(text: str, message: str, write: Any) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        load(write(text), [])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("option", "text", "value"), [
    ("experiment.model.name", "007", "007"), ("experiment.model.name", "null", None),
    ("study.name", "null", "null"), ("study.name", "2024-01-01", "2024-01-01"),
    ("experiment.data.pool", "a: [b", "a: [b"), ("experiment.data.label_column", "", ""),
    ("experiment.warmup.rows", "null", None), ("experiment.warmup.learning_rate", "1e-3", 1e-3),
    ("experiment.seed", "-1", -1), ("experiment.data.drop_leaked", "true", True),
    ("study.objectives", "[eval/bleu]", ["eval/bleu"]), ("experiment.selection.options", "{a: 1}", {"a": 1}),
    ("experiment.selection.options.share.of", "0.3", {"share.of": 0.3}),
    ("search.selection.budget", "{low: 1, high: 2}", {"selection.budget": Range(low=1, high=2)}),
    ("search", "{seed: {choices: [1]}}", {"seed": Range(choices=[1])}),
])
def test_an_override_is_yaml_but_for_texts(option: str, text: str, value: Any) -> None:
    value_at: Any = parse("", [f"--{option}", text])
    assert value_at == parse("", [f"--{option}={text}"])
    for name in option.removesuffix(".share.of").removesuffix(".selection.budget").split("."):
        value_at = getattr(value_at, name)
    assert value_at == value


@pytest.mark.parametrize(("override", "message"), [
    ("--experiment.data={pool: a}", "unknown option '--experiment.data': did you mean '--experiment.data."),
    ("--study.n_tri=3", "unknown option '--study.n_tri': did you mean '--study.n_trials'?"),
    ("--study.n-trials=3", "unknown option '--study.n-trials': did you mean '--study.n_trials'?"),
    ("--study.n_trials", "option '--study.n_trials' needs a value: write --study.n_trials VALUE"),
    ("other.yaml", "unknown argument 'other.yaml': give one sweep file, then fields as --FIELD VALUE"),
    ("--experiment.selection.bugdet=3", "unknown option '--experiment.selection.bugdet': did you mean "
                                        "'--experiment.selection.budget'?"),
    ("--experiment.selection.budget=ten", "experiment.selection.budget must be a number, got 'ten'"),
    ("--experiment.selection.budget=1.5", "selection.budget must be a whole number of pairs, or between 0 and 1 a share of"),
])
def test_a_wrong_override_is_told_in_one_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        parse("", [override])
    assert "\n" not in str(caught.value)


def test_faults_of_another_process_are_lines_as_well() -> None:
    found = pickle.loads(pickle.dumps(Faults("one", "another")))
    assert found.lines == ["one", "another"] and str(found) == "one\nanother"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    with pytest.raises(ConfigError, match=rf"sweep file '{path}' does not exist: check the path, or start from "
                                          "sweeps/quickstart.yaml"):
        load(path, [])


def test_a_file_in_another_encoding_is_no_yaml(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_bytes("experiment: {data: {src_lang: Čeština}}".encode("utf-16"))
    with pytest.raises(ConfigError, match="is not YAML: 'utf-8' codec"):
        load(path, [])


OUT_OF_RANGE: list[tuple[Any, dict[str, Any], str]] = [
    (DataConfig, {"max_chars": 0}, "data.max_chars must be at least 1, got 0"),
    (DataConfig, {"max_unusable_share": 1.1}, "data.max_unusable_share must be between 0 and 1, got 1.1"),
    (ModelConfig, {"prompt": "{source}"}, "model.prompt must be a template that holds {src}, got '{source}'"),
    (ModelConfig, {"hidden_size": 0}, "model.hidden_size must be at least 1, got 0"),
    (ModelConfig, {"n_layers": 0}, "model.n_layers must be at least 1, got 0"),
    (ModelConfig, {"n_heads": 0}, "model.n_heads must be at least 1, got 0"),
    (ModelConfig, {"max_tokens": 0}, "model.max_tokens must be at least 1, got 0"),
    (ModelConfig, {"vocab_size": 299}, "model.vocab_size must be at least 300, got 299: 256 bytes come first"),
    (ModelConfig, {"hidden_size": 100}, "model.hidden_size must be a multiple of twice model.n_heads (8), got 100"),
    (RuntimeConfig, {"record_gb": -1.0}, "runtime.record_gb must be at least 0, got -1.0"),
    (RuntimeConfig, {"memory_gb": 0.0}, "runtime.memory_gb must be above 0 or null, got 0.0: null takes what is free"),
    (ModelConfig, {"lora_rank": -1}, "model.lora_rank must be at least 0, got -1"),
    (ModelConfig, {"quantize": "nf4"}, "model.quantize must be null where model.lora_rank is 0, got 'nf4'"),
    (WarmupConfig, {"epochs": -1}, "warmup.epochs must be at least 0, got -1"),
    (FinetuneConfig, {"learning_rate": 0.0}, "finetune.learning_rate must be above 0, got 0.0"),
    (FinetuneConfig, {"batch_size": 0}, "finetune.batch_size must be at least 1, got 0"),
    (FinetuneConfig, {"steps": 0}, "finetune.steps must be at least 1 or null, got 0: null trains for finetune.epochs"),
    (FinetuneConfig, {"seed": -1}, "finetune.seed must be between 0 and 4294967295, got -1"),
    (WarmupConfig, {"ramp_share": 1.5}, "warmup.ramp_share must be between 0 and 1, got 1.5"),
    (FinetuneConfig, {"max_grad_norm": 0.0}, "finetune.max_grad_norm must be above 0, got 0.0"),
    (WarmupConfig, {"rows": 0}, "warmup.rows must be at least 1 or null, got 0: null takes all"),
    (WarmupConfig, {"exclude": True}, "warmup.exclude must be false when warmup.rows is null, got True: no candidate"),
    (AttributionConfig, {"damping": 0.0}, "attribution.damping must be above 0, got 0.0: 0.1 is a good start"),
    (AttributionConfig, {"sketch_rank": -1}, "attribution.sketch_rank must be at least 0 or auto, got -1"),
    (AttributionConfig, {"statistics": "float16"}, "attribution.statistics must be auto, float32 or bfloat16, got 'float16'"),
    (AttributionConfig, {"seed_rank": 0}, "attribution.seed_rank must be at least 1, auto or null, got 0"),
    (AttributionConfig, {"seed_rank": 16, "curvature": "identity"},
     "attribution.seed_rank must be null where attribution.curvature is identity, got 16"),
    (AttributionConfig, {"curvature_rows": 0}, "attribution.curvature_rows must be at least 1 or null, got 0: null takes all"),
    (SelectionConfig, {"n_clusters": 0}, "selection.n_clusters must be at least 1, got 0"),
    (SelectionConfig, {"threshold": 1.01}, "selection.threshold must be between 0 and 1, got 1.01"),
    (SelectionConfig, {"budget": 10, "n_clusters": 64}, "selection.budget must be at least selection.n_clusters (64), got 10: "
                                                        "lower n_clusters or raise the budget"),
    (SelectionConfig, {"gate_keeps": 0.0}, "selection.gate_keeps must be above 0 and at most 1, got 0.0"),
    (EvaluationConfig, {"metrics": ["bleu", "bleu"]}, "evaluation.metrics must be different metrics, got ['bleu', 'bleu']"),
    (StudyConfig, {"baselines": ["rand"]}, "study.baselines must be of few-shot, pool-epochs, "),
    (SelectionConfig, {"near_duplicates": 0.0}, "selection.near_duplicates must be"),
    (SelectionConfig, {"method": "gdgi"}, "selection.method must be of "),
    (StudyConfig, {"finetune_seeds": 0}, "study.finetune_seeds must be between 1 and 100, got 0"),
    (RuntimeConfig, {"processes": 0}, "runtime.processes must be between 1 and 1024 or null, got 0"),
    (EvaluationConfig, {"metrics": []}, "evaluation.metrics must be at least one value, got []: name one, such as chrf"),
    (EvaluationConfig, {"num_beams": 0}, "evaluation.num_beams must be at least 1, got 0"),
    (EvaluationConfig, {"max_new_tokens": 0}, "evaluation.max_new_tokens must be at least 1, got 0"),
    (EvaluationConfig, {"dev_rows": 0}, "evaluation.dev_rows must be at least 1 or null, got 0: null takes all"),
    (EvaluationConfig, {"repetition_penalty": 0.0}, "evaluation.repetition_penalty must be above 0, got 0.0: 1 is none"),
    (EvaluationConfig, {"no_repeat_ngram_size": -1}, "evaluation.no_repeat_ngram_size must be at least 0, got -1"),
    (EvaluationConfig, {"stop": ""}, "evaluation.stop must be a text of at least one character, or null, got ''"),
    (EvaluationConfig, {"bootstrap": 99}, "evaluation.bootstrap must be between 100 and 100000, got 99"),
    (Range, {}, "range must be either low and high, or choices, got"),
    (Range, {"low": 1}, "range must be either low and high, or choices, got"),
    (Range, {"low": 1, "high": 2, "choices": [1]}, "range must be either low and high, or choices, got"),
    (Range, {"low": 3, "high": 2}, "range.low must be at most high (2.0), got 3.0"),
    (Range, {"low": 0, "high": 2, "log": True}, "range.low must be above 0 on a log scale, got 0.0"),
    (Range, {"choices": []}, "range.choices must be at least one value or null, got []"),
    (Range, {"low": 1, "high": 2, "step": 0}, "range.step must be above 0 or null, got 0"),
    (Range, {"low": 1, "high": 2, "step": 1, "log": True}, "range.step must be null on a log scale, got 1.0"),
    (StudyConfig, {"name": "a/b"}, "study.name must be a name of letters, digits, '-', '_' and '.', got 'a/b': it"),
    (StudyConfig, {"name": ""}, "study.name must be a name of letters, digits, '-', '_' and '.', got ''"),
    (StudyConfig, {"n_trials": 0}, "study.n_trials must be at least 1, got 0"),
    (SelectionConfig, {"seed": -1}, "selection.seed must be between 0 and 4294967295, got -1"),
    (SelectionConfig, {"method": "random", "budget": 0},
     "selection.budget must be a whole number of pairs, or between 0 and 1 a share of the pool, got 0"),
    (RuntimeConfig, {"accelerator": "warp"}, "runtime.accelerator must be auto, cpu, gpu or cuda, got 'warp'"),
    (StudyConfig, {"storage": "sqlite:///:memory:"},
     "study.storage must be a database that outlives its process, or null for a journal file, got 'sqlite:///:memory:'"),
    (StudyConfig, {"objectives": []}, "study.objectives must be at least one value, got []: name one, such as eval/chrf"),
    (StudyConfig, {"objectives": ["a", "b"], "pruner": "median"},
     "study.pruner must be none when there are several objectives, got 'median'"),
    (RuntimeConfig, {"executor": "dask"}, "runtime.executor must be local or ray, got 'dask'"),
    (RuntimeConfig, {"executor": "ray", "address": "ray://head:10001"},
     "runtime.address must be the HOST:PORT that `ray start --head` printed, or null, got 'ray://head:10001'"),
    (RuntimeConfig, {"address": "head:6379"},
     "runtime.address must be null where runtime.executor is local, got 'head:6379': set runtime.executor to ray"),
    (RuntimeConfig, {"batch_size": 0}, "runtime.batch_size must be at least 1, got 0"),
    (RuntimeConfig, {"micro_batch": 0}, "runtime.micro_batch must be at least 1 or null, got 0"),
    (RuntimeConfig, {"devices_per_trial": 0}, "runtime.devices_per_trial must be between 1 and 64, got 0"),
    (RuntimeConfig, {"strategy": "fsdp"},
     "runtime.strategy must be ddp where runtime.devices_per_trial is 1, got 'fsdp': raise that"),
    (RuntimeConfig, {"threads": 0}, "runtime.threads must be between 1 and 1024 or null, got 0: null takes all cores"),
]


@pytest.mark.parametrize(("section", "values", "message"), OUT_OF_RANGE, ids=lambda x: str(x)[:30])
def test_a_value_out_of_range_is_told(section: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        section(**values)


def test_every_check_has_a_message_test() -> None:
    """A bound of a field, or a conflict of fields, without a row above fails here."""
    sections = {section for section, *_ in OUT_OF_RANGE} | {TrainConfig}
    checked = {(section, name) for section in sections for name, info in section.__pydantic_fields__.items()
               if name in section.__annotations__ and (info.metadata or "Annotated" in str(info.annotation))}
    checked |= {(section, name) for section in sections if "conflicts" in vars(section)
                for name in re.findall(r'yield \(?"(\w*)"', inspect.getsource(section.conflicts))}
    told = {(section, *re.findall(r"^\w+\.(\w+) must", message)) for section, _, message in OUT_OF_RANGE}
    told |= {(Range, "")} | {(TrainConfig, *name) for section, *name in told if issubclass(section, TrainConfig)}
    assert len(checked) > 40
    assert not checked - told, f"no row in OUT_OF_RANGE for {checked - told}"


def test_a_budget_below_the_clusters_matters_only_where_there_are_clusters() -> None:
    assert SelectionConfig(method="random", budget=10, n_clusters=64).budget == 10


def test_all_that_is_wrong_is_told_at_once(write: Any) -> None:
    with pytest.raises(Faults) as caught:
        load(write("experiment: {seed: x, selection: {n_cluster: 2, threshold: 7}, data: {dev: a, test: a, pool: a}}\n"
                   "study: {trials: 3}\nsearch: {selection.budget: {low: 2}}"), ["--runtime.threads", "0"])
    assert [re.split(" must|: did", line)[0] for line in caught.value.lines] == [
        "experiment.seed", "experiment.data.dev", "experiment.data.pool", "experiment.data.pool",
        "experiment.selection.threshold", "unknown field 'experiment.selection.n_cluster'", "search.selection.budget",
        "unknown field 'study.trials'", "runtime.threads"][:len(caught.value.lines)]
    assert len(caught.value.lines) == 9


def test_plain_values_of_an_older_version_are_a_section() -> None:
    """Fields that it lacks take their defaults; those that are gone are left out, if that is asked for."""
    old = {"seed": 3, "gone": 1, "model": {"hidden_size": 320, "gone_too": {}}}
    assert validated(Experiment, old, lenient=True) == with_fields(Experiment(), {"seed": 3, "model.hidden_size": 320})
    with pytest.raises(Faults, match="unknown field 'gone'"):
        validated(Experiment, old)


def test_defaults_are_valid() -> None:
    assert validated(Sweep, dataclasses.asdict(Sweep())) == Sweep()


def test_the_schema_for_editors_is_that_of_the_code() -> None:
    path = Path(__file__).parents[1] / "docs" / "sweep.schema.json"
    assert json.loads(path.read_text(encoding="utf-8")) == json_schema(), f"python -m mtselect.config > {path}"
    for name, section in json_schema()["$defs"].items():
        undescribed = [field for field, node in section["properties"].items() if not {"description", "$ref"} & node.keys()]
        assert section["description"] and not undescribed, (name, undescribed)


WRONG_SEARCHES = [
    ("selection.bugdet: {low: 100, high: 200}", "search: unknown field 'selection.bugdet': did you mean "
                                                "'selection.budget'?"),
    ("selection: {choices: [1]}", "search: 'selection' is a section, not a field: name one of its fields"),
    ("selection.method: {low: 1, high: 2}", "search.selection.method needs choices: an interval fits only numbers"),
    ("selection.budget: {lo: 100, high: 200}", "unknown field 'search.selection.budget.lo': did you mean "
                                               "'search.selection.budget.low'?"),
    ("selection.budget: 100", "search.selection.budget must be a mapping of fields, got 100"),
    ("selection.budget: {low: 1}", "search.selection.budget must be either low and high, or choices, got"),
    ("selection.budget: {low: 20, high: 2}", "search.selection.budget.low must be at most high (2.0), got 20.0"),
    ("selection.budget: {low: 10, high: 2000}\n  selection.n_clusters: {low: 1, high: 64}",
     "selection.budget must be at least selection.n_clusters (64), got 10"),
    ("selection.budget: {low: 0.5, high: 100}", "search.selection.budget must be whole numbers of pairs, or between 0 and 1 "
                                                "shares of the pool, got [0.5, 100.0]: what lies between the ends is neither"),
    ("selection.budget: {low: 0.1, high: 1, step: 0.1}", "shares of the pool, got [0.1, 1.0, 0.1]"),
    ("selection.n_clusters: {choices: [8, 5000]}\n  selection.budget: {choices: [100, 1000]}",
     "selection.budget must be at least selection.n_clusters (5000), got"),
    ("selection.threshold: {low: 0.5, high: 2}", "selection.threshold must be between 0 and 1, got 2.0"),
    ("selection.method: {choices: [gdgi]}", "got 'gdgi': did you mean 'gdig'?"),
    ("finetune.learning_rate: {choices: [high]}", "finetune.learning_rate must be a number (above 0), got 'high'"),
    ("finetune.learning_rate: {low: 0, high: 1}", "finetune.learning_rate must be above 0, got 0.0"),
    ("finetune.epochs: {choices: [1, 2.5]}", "finetune.epochs must be a whole number (at least 0), got 2.5"),
    ("warmup.exclude: {choices: [1]}", "warmup.exclude must be true or false, got 1"),
    ("warmup.rows: {choices: [100, many]}", "warmup.rows must be a whole number (at least 1) or null, got 'many'"),
    ("evaluation.metrics: {choices: [[bleu], [ters]]}", "evaluation.metrics must be of bleu, chrf, "),
]


@pytest.mark.parametrize(("space", "message"), WRONG_SEARCHES)
def test_a_wrong_search_stops_before_any_work(space: str, message: str, write: Any) -> None:
    with pytest.raises((ConfigError, Faults), match=re.escape(message)):
        load(write(f"search:\n  {space}\n"), [])


@pytest.mark.parametrize("space", [
    "selection.budget: {low: 64, high: 2000, step: 8}", "selection.threshold: {choices: [0, 0.5, 1]}",
    "warmup.rows: {choices: [100, null]}", "evaluation.metrics: {choices: [[chrf], [bleu, chrf]]}",
    "selection.n_clusters: {low: 1, high: 1000}\n  selection.budget: {low: 1000, high: 2000}",
    "finetune.start: {choices: [base, warmup]}", "seed: {choices: [1, 2]}",
])
def test_a_valid_search_loads(space: str, write: Any) -> None:
    assert load(write(f"search:\n  {space}\n"), []).search


def test_with_fields_replaces_and_checks_again() -> None:
    before = Experiment()
    after = with_fields(before, {"selection.budget": 10, "selection.n_clusters": 5, "seed": 3, "model.dtype": "float32"})
    assert (after.selection.budget, after.selection.n_clusters, after.seed, after.model.dtype) == (10, 5, 3, "float32")
    assert before == Experiment()
    assert after.finetune == before.finetune
    assert with_fields(before, {}) == before
    with pytest.raises(ConfigError, match=r"selection.budget must be at least selection.n_clusters \(64\), got 10"):
        with_fields(before, {"selection.budget": 10, "selection.n_clusters": 64})


@pytest.mark.parametrize(("space", "kind"), [
    (Range(low=0.2, high=0.4), float), (Range(low=100, high=1000), int), (Range(low=100, high=1000, step=50), int)])
def test_a_budget_is_searched_as_pairs_or_as_a_share(space: Range, kind: type) -> None:
    assert range_type("selection.budget", space) is kind
    assert range_type("selection.threshold", space) is float


def test_clusters_want_sketches() -> None:
    experiment = with_fields(Experiment(), {"attribution.sketch_rank": 0})
    assert cross_faults(Sweep(experiment=experiment)) == []
    found = cross_faults(Sweep(experiment=experiment, search={"selection.n_clusters": Range(low=1, high=8)}))
    assert found == ["attribution.sketch_rank must be at least 1 where selection.n_clusters is 8, got 0: raise it, or ask "
                     "for 1 cluster"]


def test_an_objective_is_scored_in_every_trial() -> None:
    search = {"evaluation.metrics": Range(choices=[["bleu"], ["bleu", "chrf"]])}
    assert cross_faults(Sweep(search=search, study=StudyConfig(objectives=["eval/bleu"]))) == []
    assert cross_faults(Sweep(search=search, study=StudyConfig(objectives=["eval/chrf"]))) == [
        "study.objectives must be of eval/bleu, select/pairs, select/noise_share, got 'eval/chrf': no other metric decides"]


def test_4_bits_want_one_device() -> None:
    experiment = with_fields(Experiment(), {"model.lora_rank": 2, "model.quantize": "nf4"})
    assert cross_faults(Sweep(experiment=experiment)) == []
    assert cross_faults(Sweep(experiment=experiment, runtime=RuntimeConfig(devices_per_trial=2))) == [
        "runtime.devices_per_trial must be 1 where model.quantize is nf4, got 2: 4-bit weights train on one device alone"]


def test_field_type_follows_the_dots() -> None:
    assert field_type("selection.n_clusters") is int
    assert field_type("seed") is int
    assert field_type("finetune.learning_rate") is float
    with pytest.raises(ConfigError, match=r"search: unknown field 'seed\.x'"):
        field_type("seed.x")


def test_an_experiment_written_as_yaml_loads_back_equal(write: Any) -> None:
    experiment = with_fields(Experiment(), {
        "data.src_lang": "Ж: # x", "data.label_column": "", "model.prompt": "{src}\n\t'\"{tgt_lang}: ", "warmup.rows": 5,
        "finetune.learning_rate": 1e-5, "evaluation.metrics": ["chrf"], "data.pool": "null", "model.name": "007"})
    assert load(write(to_yaml(experiment, "experiment")), []).experiment == experiment
    assert "experiment" not in to_yaml(experiment)
