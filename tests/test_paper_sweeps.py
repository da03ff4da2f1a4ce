"""sweeps/paper.*.yaml: parsed; checked with the real model's shape and no weights; run with a tiny model on a sample.

The hub cannot be asked here: its datasets are stood in for by files with their columns, the model by its shape alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mtselect import preflight, resolve
from mtselect.config import load
from mtselect.training.device import Memory

ROOT = Path(__file__).parents[1]
LANGUAGES = {"zh": "Chinese", "de": "German"}
# https://huggingface.co/Qwen/Qwen2.5-0.5B, config.json
QWEN = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936,
        "max_position_embeddings": 32768, "tie_word_embeddings": True, "hidden_act": "silu", "rms_norm_eps": 1e-6}


def stood_in(lab: Any, language: str, **changes: Any) -> list[str]:
    """Its sources as files with the hub's columns and the tsv that its comment makes; the command's arguments."""
    for role in ("pool", "seeds", "dev", "test"):
        rows = [json.loads(line) for line in (lab.folder / "data" / f"{role}.jsonl").read_text().splitlines()]
        if role == "test":
            lines = [f"translation.{language}\ttranslation.en", *(f"{row['src']}\t{row['tgt']}" for row in rows)]
            (lab.folder / "paper.tsv").write_text("\n".join(lines) + "\n")
        else:
            nested = [{"translation": {language: row["src"], "en": row["tgt"]}} for row in rows]
            (lab.folder / f"paper.{role}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in nested))
    fields = {"data.pool": "paper.pool.jsonl", "data.seeds": "paper.seeds.jsonl", "data.dev": "paper.dev.jsonl",
              "data.test": "paper.tsv", **changes}
    given = [part for path, value in fields.items() for part in (f"--experiment.{path}", str(value))]
    return [str(ROOT / "sweeps" / f"paper.{language}-en.yaml"), *given, "--tracking.uri", f"sqlite:///{lab.folder}/mlflow.db",
            "--experiment.evaluation.metrics", "[chrf]", "--study.objectives", "[eval/chrf]"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_they_say_what_the_paper_did(language: str) -> None:
    sweep = load(ROOT / "sweeps" / f"paper.{language}-en.yaml", [])
    assert sweep.experiment.data.src_lang == LANGUAGES[language]
    assert sweep.experiment.data.seeds.endswith(":train[:256]")
    assert sweep.experiment.evaluation.metrics[0] == "comet" and sweep.study.objectives == ["eval/comet"]
    budgets = sweep.search["selection.budget"].choices
    assert budgets is not None and (min(budgets), max(budgets)) == (1000, 64000)
    assert "paper" in sweep.study.baselines


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_real_shape_is_checked_without_weights(language: str, make_lab: Callable[..., Any],
                                                   monkeypatch: pytest.MonkeyPatch,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    """With the memory of the GPU that the sweep is for."""
    for module in (preflight, resolve):
        monkeypatch.setattr(module, "device_memory", lambda device: Memory(total=80 * 10**9, free=79 * 10**9))
    lab = make_lab(database=False)
    shape = lab.folder / "qwen"
    shape.mkdir()
    (shape / "config.json").write_text(json.dumps(QWEN))
    sizes = ["--search.selection.budget", "{choices: [10, 20]}", "--search.selection.n_clusters", "{choices: [1, 4]}",
             "--experiment.adequacy.encoder", "usem3"]
    assert lab.run("check", *stood_in(lab, language, **{"model.name": shape}), *sizes) == 0
    said = capsys.readouterr().out
    assert "168" in said, "24 layers of seven"
    assert not list(lab.folder.rglob("*.safetensors"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_they_run_with_a_tiny_model(language: str, warm_lab: Callable[..., Any]) -> None:
    lab = warm_lab(stages=())
    model = yaml.safe_load((lab.folder / "sweep.yaml").read_text())["experiment"]["model"]
    tiny = {f"model.{name}": json.dumps(value) for name, value in model.items()}
    arguments = stood_in(lab, language, **tiny, **{"model.name": "null", "finetune.steps": 2, "finetune.batch_size": 8,
                                                   "evaluation.max_new_tokens": 4, "attribution.curvature_rows": 40})
    small = ["--runtime.threads", "1", "--search.selection.budget", "{choices: [10, 20]}",
             "--search.selection.n_clusters", "{choices: [1, 4]}",
             "--study.n_trials", "2", "--study.finetune_seeds", "1", "--study.baselines",
             "[untuned, few-shot, pool, paper]"]
    assert lab.run("sweep", *arguments, *small) == 0
    children = lab.children(f"paper.{language}-en")
    assert {"untuned", "few-shot", "t000", "t001"} <= children.keys()
