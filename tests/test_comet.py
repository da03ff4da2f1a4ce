"""COMET through its own environment: installing it, and scores equal to its own, whatever happens to its process.

The models are real COMET checkpoints, tiny and random, made in that environment. The first run installs it (minutes).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from mtselect.config import load
from mtselect.errors import CometError
from mtselect.metrics._comet.client import CometScorer
from mtselect.metrics._comet.install import MARKER, REQUIREMENTS, environment, install, is_installed, python
from mtselect.progress import SilentProgress
from mtselect.stages.corpus import POOL
from mtselect.stages.lineage import Bench, Lineage
from mtselect.stages.selection import select_pairs
from mtselect.store import Store

pytestmark = pytest.mark.timeout(3600)  # the first test waits for the installation

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "mtselect.comet"]
WORDS = ["ein", "Haus", "steht", "am", "Fluss", "über", "dem", "Wald", "la", "maison", "天气", "good", "\u2028", "new\nline"]
SOURCES = [" ".join(WORDS[(7 * i + j * j) % len(WORDS)] for j in range(1 + (5 * i) % 19)) for i in range(23)]
HYPOTHESES = [" ".join(WORDS[(3 * i + j) % len(WORDS)] for j in range(1 + (3 * i) % 11)) for i in range(23)]
REFERENCES = [" ".join(WORDS[(5 * i + 2 * j) % len(WORDS)] for j in range(1 + (7 * i) % 13)) for i in range(23)]
MODELS = {"with": "RegressionMetric", "without": "ReferencelessRegression"}  # references

# Runs in COMET's environment: saves a model of each kind and what its own `predict` says.
ORACLE = """
import json, pathlib, sys, comet.models, sentencepiece, torch, yaml, pytorch_lightning
from transformers import XLMRobertaConfig, XLMRobertaTokenizerFast
folder = pathlib.Path(sys.argv[1])
given = json.loads((folder / "given.json").read_text())
columns = given["columns"]
sentences = [sentence for column in columns.values() for sentence in column]
encoder = folder / "encoder"
encoder.mkdir()
sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(sentences), model_prefix=str(encoder / "sentencepiece.bpe"),
                                         vocab_size=60, model_type="bpe", minloglevel=2)
tokenizer = XLMRobertaTokenizerFast(str(encoder / "sentencepiece.bpe.model"))
tokenizer.save_pretrained(encoder)
XLMRobertaConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
                 max_position_embeddings=130, pad_token_id=tokenizer.pad_token_id).save_pretrained(encoder)
torch.manual_seed(0)
scores = {}
for name, kind in given["models"].items():
    model = getattr(comet.models, kind)(pretrained_model=str(encoder), load_pretrained_weights=False, local_files_only=True,
                                        hidden_sizes=[16], validation_data=["dev"])
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    trainer = pytorch_lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(folder / name / "checkpoints" / "model.ckpt")
    (folder / name / "hparams.yaml").write_text(yaml.dump(dict(model.hparams)))
    model = comet.models.load_from_checkpoint(folder / name / "checkpoints" / "model.ckpt")
    rows = [dict(zip(columns, row)) for row in zip(*columns.values())]
    scores[name] = model.predict(rows, batch_size=4, gpus=0, progress_bar=False)["scores"]
(folder / "scores.json").write_text(json.dumps(scores))
"""

# A process that has scored and then waits for ever; the worker it keeps must not outlive it.
PARENT = """
import sys, time
from mtselect.metrics._comet.client import CometScorer
scorer = CometScorer()
scorer.score(sys.argv[1], ["a"], ["b"], ["c"])
print(scorer._process.pid, flush=True)
time.sleep(600)
"""


@dataclass(frozen=True)
class Oracle:
    """Where the tiny models are, and the scores that COMET's own `predict` gives."""

    folder: Path
    scores: dict[str, list[float]]

    def model(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture(scope="session")
def comet() -> Path:
    """COMET's environment, made if it is not there."""
    ran = subprocess.run([*COMMAND, "install"], cwd=ROOT, capture_output=True, text=True, check=False)
    if ran.returncode and "package index is out of reach" in ran.stderr:
        pytest.skip("COMET is not installed and there is no package index to install it from")
    assert ran.returncode == 0, ran.stderr
    return environment()


@pytest.fixture(scope="session")
def oracle(comet: Path, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    folder = tmp_path_factory.mktemp("comet")
    given = {"models": MODELS, "columns": {"src": SOURCES, "mt": HYPOTHESES, "ref": REFERENCES}}
    (folder / "given.json").write_text(json.dumps(given))
    ran = subprocess.run([python(comet), "-I", "-c", ORACLE, str(folder)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return Oracle(folder, json.loads((folder / "scores.json").read_text()))


@pytest.fixture(scope="session")
def scorer(comet: Path) -> Iterator[CometScorer]:
    with contextlib.closing(CometScorer()) as scorer:
        yield scorer


def score(scorer: CometScorer, oracle: Oracle, name: str = "with", **options: Any) -> list[float]:
    references = REFERENCES if name == "with" else None
    return scorer.score(oracle.model(name), SOURCES, HYPOTHESES, references, batch_size=4, **options)


def process_of(scorer: CometScorer) -> psutil.Process:
    assert scorer._process is not None
    return psutil.Process(scorer._process.pid)


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_comets_own_in_the_order_of_the_sentences(scorer: CometScorer, oracle: Oracle, name: str) -> None:
    steps: list[int] = []
    scores = score(scorer, oracle, name, advance=steps.append)
    assert scores == pytest.approx(oracle.scores[name], abs=1e-5)
    assert len({round(value, 3) for value in scores}) > 15, "scores that are all alike show no order"
    assert steps == [4, 4, 4, 4, 4, 3]


def test_one_process_serves_all_models(scorer: CometScorer, oracle: Oracle) -> None:
    score(scorer, oracle, "with")
    before = process_of(scorer)
    score(scorer, oracle, "without")
    assert process_of(scorer) == before


def test_any_batch_size_gives_the_same_scores(scorer: CometScorer, oracle: Oracle) -> None:
    for size in (1, 100):
        model = oracle.model("with") + "/checkpoints/model.ckpt"
        scores = scorer.score(model, SOURCES, HYPOTHESES, REFERENCES, batch_size=size)
        assert scores == pytest.approx(oracle.scores["with"], abs=1e-5)


def test_a_model_that_compares_says_so(scorer: CometScorer, oracle: Oracle) -> None:
    assert scorer.requires_references(oracle.model("with"))
    assert not scorer.requires_references(oracle.model("without"))
    with pytest.raises(CometError, match=r"with/checkpoints/model.ckpt' compares with references and was given none: give ref"):
        scorer.score(oracle.model("with"), SOURCES, HYPOTHESES, None)
    assert score(scorer, oracle) == pytest.approx(oracle.scores["with"], abs=1e-5), "an error does not shift the answers"


def test_models_that_cannot_be_had(scorer: CometScorer, oracle: Oracle, tmp_path: Path,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(CometError, match="'Nobody/no-such-comet' cannot be downloaded, the model hub is out of reach"):
        scorer.score("Nobody/no-such-comet", ["a"], ["b"], ["c"])
    with pytest.raises(CometError, match=r"'\./none' has no file none: give a folder with checkpoints/model.ckpt"):
        scorer.score("./none", ["a"], ["b"], ["c"])
    with pytest.raises(CometError, match=r"has no file .*/checkpoints/model.ckpt"):
        scorer.score(str(tmp_path), ["a"], ["b"], ["c"])
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "model.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(CometError, match=r"hparams.yaml file is missing from"):
        scorer.score(str(tmp_path), ["a"], ["b"], ["c"])
    monkeypatch.chdir(oracle.folder)
    first = scorer.score("with", SOURCES[:1], HYPOTHESES[:1], REFERENCES[:1])  # a folder below the working directory
    assert first == pytest.approx(oracle.scores["with"][:1], abs=1e-5)


def test_what_the_hub_refuses(comet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's own answers, from a server here."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            gated = "gated" in self.path
            self.send_response(403 if gated else 404)
            self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, value in {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0",
                            "HF_HOME": str(tmp_path), "HOME": str(tmp_path), "no_proxy": "127.0.0.1"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MTSELECT_COMET_ENV", str(comet))
        with contextlib.closing(CometScorer()) as scorer:
            with pytest.raises(CometError, match=r"'some/gated' is gated: accept its terms .* `hf auth login` or set HF_TOKEN"):
                scorer.score("some/gated", ["a"], ["b"], ["c"])
            with pytest.raises(CometError, match="there is no 'some/other' on the model hub, or it is private: check the name"):
                scorer.score("some/other", ["a"], ["b"], ["c"])
        server.shutdown()


def test_unequal_columns_are_refused(scorer: CometScorer, oracle: Oracle) -> None:
    with pytest.raises(ValueError, match="equally many"):
        scorer.score(oracle.model("with"), SOURCES, HYPOTHESES, REFERENCES[:-1])


def test_an_interruption_leaves_no_answer_for_the_next_request(scorer: CometScorer, oracle: Oracle) -> None:
    def interrupt(n: int) -> None:
        assert os.getpgid(process_of(scorer).pid) != os.getpgid(0), "Ctrl-C must not reach it"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(scorer, oracle, "without", advance=interrupt)
    assert score(scorer, oracle) == pytest.approx(oracle.scores["with"], abs=1e-5)


def test_a_killed_process_is_started_again_once(scorer: CometScorer, oracle: Oracle) -> None:
    """Killed in a request, which costs no score; then between two requests and again in the second."""
    columns = [column * 20 for column in (SOURCES, HYPOTHESES, REFERENCES)]  # so many that a kill comes in the midst
    score(scorer, oracle)
    first, steps = process_of(scorer), list[int]()

    def kill_once(n: int) -> None:
        steps.append(n)
        if len(steps) == 2:
            first.kill()

    scores = scorer.score(oracle.model("with"), *columns, batch_size=1, advance=kill_once)
    assert scores == pytest.approx(oracle.scores["with"] * 20, abs=1e-5)
    assert process_of(scorer) != first
    assert sum(steps) == len(scores) and min(steps) > 0, "what was reported before the kill is not reported again"
    process_of(scorer).kill()
    killed = set()

    def kill(n: int) -> None:
        killed.add(process_of(scorer).pid)
        process_of(scorer).kill()

    with pytest.raises(CometError, match=r"died twice while it scored with .*signal 9; its last lines:"):
        scorer.score(oracle.model("with"), *columns, batch_size=1, advance=kill)
    assert len(killed) == 1, "one more start, not two"


def test_the_process_ends_with_its_parent(oracle: Oracle) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, oracle.model("with")], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        assert worker.is_running()
        parent.kill()
    wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, seconds=10)


def test_score_command(oracle: Oracle, tmp_path: Path) -> None:
    columns = [[" ".join(sentence.split()) for sentence in column] for column in (SOURCES, HYPOTHESES, REFERENCES)]
    for name, column in zip("smr", columns, strict=True):
        (tmp_path / name).write_text("\n".join(column) + "\n", encoding="utf-8")
    command = [*COMMAND, "score", "--model", oracle.model("without")]
    ran = run_command([*command, *(str(tmp_path / name) for name in "smr")])
    assert ran.returncode == 0, ran.stderr
    mean = sum(oracle.scores["without"]) / len(SOURCES)
    assert float(ran.stdout.splitlines()[-1].split()[1]) == pytest.approx(mean, abs=0.02), "white space is a little of it"
    (tmp_path / "r").write_text("one line\n", encoding="utf-8")
    ran = run_command([*command, *(str(tmp_path / name) for name in "smr")])
    assert ran.returncode == 2 and "equally many lines" in ran.stderr and "r has 1" in ran.stderr


@pytest.mark.parametrize("gate", [None, "seed_loss"])
def test_the_selector_takes_what_it_scores_highest(gate: str | None, scorer: CometScorer, oracle: Oracle,
                                                   warm_lab: Callable[..., Any]) -> None:
    from mtselect.resolve import resolve
    from mtselect.stages.kiwi import KIWI

    lab = warm_lab()
    with contextlib.chdir(lab.folder):
        sweep = load("sweep.yaml", ["--experiment.adequacy.kiwi", oracle.model("without"), "--experiment.selection.method",
                                    "comet_kiwi", "--experiment.selection.budget", "20", "--experiment.selection.gate",
                                    gate or "null", "--experiment.selection.n_clusters", "1"])
        bench = Bench(store=Store(lab.store), runtime=sweep.runtime, progress=SilentProgress())
        lineage = Lineage(bench, resolve(sweep.experiment, sweep.runtime))
        chosen = {pair.id: pair.scores["kiwi"] for pair in select_pairs(lineage).pairs}
        rows = np.load(lineage.path(KIWI) / "rows.npy")
        pairs = POOL.read(lineage).take(rows)[:]
        scores = scorer.score(oracle.model("without"), [pair.src for pair in pairs], [pair.tgt for pair in pairs], None)
    assert len(chosen) == 20
    for pair, score in zip(pairs, scores, strict=True):
        if pair.id in chosen:
            assert chosen[pair.id] == pytest.approx(score, abs=1e-5)
        elif gate is None:
            assert score <= min(chosen.values()) + 1e-5


def test_a_sweep_that_asks_for_it_is_told_before_any_work(make_lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
                                                          tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MTSELECT_COMET_ENV", str(tmp_path / "none"))
    lab = make_lab(database=False, study__baselines=["comet_kiwi"])
    assert lab.run("sweep", "sweep.yaml") == 2
    assert "COMET is not installed in" in capsys.readouterr().err and not lab.manifests()


def test_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTSELECT_COMET_ENV", str(tmp_path / "none"))
    with pytest.raises(CometError, match=r"COMET is not installed in .*/none: run `python -m mtselect.comet install`"):
        CometScorer().score("Unbabel/wmt22-comet-da", ["a"], ["b"], ["c"])


def test_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MTSELECT_COMET_ENV", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert environment() == tmp_path / ".cache" / "mtselect" / "comet"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert environment() == tmp_path / "cache" / "mtselect" / "comet"
    monkeypatch.setenv("MTSELECT_COMET_ENV", "~/own")
    assert environment() == tmp_path / "own"


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(CometError, match="holds other files: choose an empty or a new folder"):
        install(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_install_is_whole_or_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed, then failing, then finishing, then there; with empty packages of the right names."""
    wheels, path = tmp_path / "wheels", tmp_path / "comet"
    pins = [line.split()[0].split("==") for line in REQUIREMENTS.read_text("utf-8").splitlines() if line and line[0] != "#"]
    pins.append(["torch", version("torch").partition("+")[0]])
    wheels.mkdir()
    for name, number in pins:
        write_wheel(wheels, name, number, module="comet" if name == "unbabel-comet" else f"empty_{len(name)}_{name[0]}")
    variables = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
    command = [*COMMAND, "install", "--path", str(path)]

    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **variables}) as killed:
        wait_for(python(path).exists, seconds=120)
        killed.kill()
    assert (path / MARKER).read_text() == "" and not is_installed(path)
    (path / "left").mkdir()

    lost = next(wheels.glob("sacrebleu*"))
    lost.rename(tmp_path / lost.name)
    ran = run_command(command, variables)
    assert ran.returncode == 2 and not is_installed(path)
    assert ran.stderr.startswith("error: COMET was not installed")
    assert "No matching distribution found for sacrebleu" in ran.stderr
    assert ran.stderr.splitlines()[-1] == "mend what pip names above and run the same command again"
    assert not (path / "left").exists()

    (tmp_path / lost.name).rename(lost)
    ran = run_command(command, variables)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [f"COMET is now installed in {path}", f"next: export MTSELECT_COMET_ENV={path}"]
    assert is_installed(path)

    before = (path / MARKER).stat().st_mtime_ns
    ran = run_command(command, variables)
    assert ran.stdout.startswith(f"COMET is already installed in {path}")
    assert (path / MARKER).stat().st_mtime_ns == before

    (path / "lib").rename(tmp_path / "lib")  # it cannot import comet any more: both starts fail, and the error says why
    (path / MARKER).write_text(REQUIREMENTS.read_text("utf-8"))
    monkeypatch.setenv("MTSELECT_COMET_ENV", str(path))
    with pytest.raises(CometError, match=r"(?s)died twice.*exit code 1.*No module named .*remove .* and run `python -m"):
        CometScorer().score("Unbabel/wmt22-comet-da", ["a"], ["b"], ["c"])


def test_no_package_index(tmp_path: Path) -> None:
    variables = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "1",
                 "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}
    ran = run_command([*COMMAND, "install", "--path", str(tmp_path / "comet")], variables)
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1].startswith("the package index is out of reach: connect, or set pip's proxy")


def run_command(command: list[str], variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **(variables or {})}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def write_wheel(folder: Path, name: str, number: str, module: str) -> None:
    """A package with one empty module."""
    stem = f"{name.replace('-', '_')}-{number}"
    files = {f"{module}.py": "", f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n",
             f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
        wheel.writestr(f"{stem}.dist-info/RECORD", "".join(f"{file},,\n" for file in [*files, f"{stem}.dist-info/RECORD"]))


# --- in a sweep ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(oracle: Oracle, warm_lab: Callable[..., Any]) -> Any:
    """A sweep that COMET decides."""
    lab = warm_lab(search={"selection.seed": {"choices": [0]}}, study__n_trials=1, study__finetune_seeds=1,
                   study__baselines=["random", "pool"], study__objectives=["eval/comet"], experiment__evaluation__dev_rows=8,
                   experiment__evaluation__metrics=["chrf", "comet"],
                   experiment__evaluation__comet_model=oracle.model("with"),
                   experiment__selection={"budget": 20, "n_clusters": 4, "threshold": 0.3})
    assert lab.run("sweep", "sweep.yaml") == 0
    return lab


def test_a_sweep_is_scored_and_decided_by_comet(scored: Any, swept: Any, scorer: CometScorer, oracle: Oracle) -> None:
    for name, run in scored.children().items():
        metrics = run.data.metrics
        assert metrics["eval/comet_low"] <= metrics["eval/comet"] <= metrics["eval/comet_high"], name
        assert run.data.tags["mtselect.signature.comet"].startswith(f"model:{oracle.model('with')}|comet:2.2.7|bs:100|seed:")
    expected = []
    for folder in (path.parent for path in scored.store.glob("evaluation/*/manifest.json")):
        rows = [json.loads(line) for line in (folder / "hypotheses.jsonl").read_text(encoding="utf-8").splitlines()]
        values = scorer.score(oracle.model("with"), [row["src"] for row in rows], [row["hyp"] for row in rows],
                              [row["ref"] for row in rows])
        assert np.load(folder / "statistics.npz")["comet"][:, 0] == pytest.approx(values, abs=1e-5)
        expected.append(100 * sum(values) / len(values))
    assert len(expected) == 4  # the trial, it again, a random set, the pool
    recorded = sorted(run.data.metrics["eval/comet"] for run in scored.children().values())
    assert recorded == pytest.approx(sorted(expected), abs=1e-3)
    assert not any("eval/comet" in run.data.metrics for run in swept.children().values()), "only where COMET scored"


def test_promotion_compares_by_comet(scored: Any) -> None:
    assert scored.run("promote", "tiny", "--force") == 0
    metrics = scored.children()["t000"].data.metrics
    assert metrics["test/comet_low"] <= metrics["test/comet"] <= metrics["test/comet_high"]
    (version,) = scored.client().search_model_versions("name = 'mtselect.tiny'")
    assert float(version.tags["mtselect.test.comet"]) == pytest.approx(metrics["test/comet"], abs=1e-3)


def test_a_sweep_without_comet_installed_ends_before_the_work(warm_lab: Callable[..., Any], oracle: Oracle, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MTSELECT_COMET_ENV", str(tmp_path / "none"))
    lab = warm_lab(stages=("corpus", "base"), experiment__evaluation__metrics=["chrf", "comet"],
                   experiment__evaluation__comet_model=oracle.model("with"))
    assert lab.run("sweep", "sweep.yaml") == 2
    assert "COMET is not installed in" in capsys.readouterr().err
    assert not lab.manifests("warmup")
