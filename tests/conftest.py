"""What several test files share: tiny models and random examples, and for the upper floors a whole tiny sweep.

The commands run for real: in this process (`Lab.run`) where the import of torch and MLflow would cost more than the test,
and in processes of their own (`Lab.start`) where something is killed or several work at once.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import runpy
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

# Before the imports that read them; GOMP_SPINCOUNT is what `cli` sets.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "50000")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of two workers (`pytest -n 2`) would wait for each other

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from mtselect.attribution.gradients import Captured, GradientConsumer, example_gradients
from mtselect.config import AttributionConfig
from mtselect.data.examples import Example
from mtselect.training.batching import collate
from mtselect.training.gradient_module import run_gradient_pass
from mtselect.training.language_model import LanguageModel, _train_tokenizer, target_logits, target_losses

torch.set_num_threads(1)

VOCAB, PAD, BOS, EOS = 40, 0, 1, 2
START = 3  # what decoders begin with
LLAMA_LIKE = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {**LLAMA_LIKE, "num_hidden_layers": 2},
    "mistral": {**LLAMA_LIKE, "num_hidden_layers": 2, "sliding_window": 4},
    "qwen2": {**LLAMA_LIKE, "num_hidden_layers": 2},
    "qwen3": {**LLAMA_LIKE, "num_hidden_layers": 2, "head_dim": 8},  # normalises queries and keys
    # Sliding windows in one layer, soft-capped attention scores and logits.
    "gemma2": {**LLAMA_LIKE, "num_hidden_layers": 2, "head_dim": 8, "attn_logit_softcapping": 5.0,
               "final_logit_softcapping": 3.0, "sliding_window": 4},
    "gemma3_text": {**LLAMA_LIKE, "num_hidden_layers": 2, "head_dim": 8, "sliding_window": 4},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},
}
BART_LIKE = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
             "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 20, "max_position_embeddings": 64,
             "decoder_start_token_id": START}
ENCODER_DECODERS: dict[str, dict[str, Any]] = {
    "marian": {**BART_LIKE, "scale_embedding": True},
    "mbart": BART_LIKE,
    "m2m_100": BART_LIKE,
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": START},
}


def build_model(architecture: str, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> LanguageModel:
    """A model with random weights, large enough (factor 4) that its predictions are far from uniform.

    `changes` are made to its config.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    common = {"vocab_size": VOCAB, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    config = AutoConfig.for_model(architecture, **{**common, **{**SHAPES, **ENCODER_DECODERS}[architecture], **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind = AutoModelForSeq2SeqLM if architecture in ENCODER_DECODERS else AutoModelForCausalLM
        network = kind.from_config(config)
        with torch.no_grad():
            for parameter in network.parameters():
                if not parameter.requires_grad:  # Marian's positions, which are never loaded
                    continue
                parameter.mul_(4 if parameter.ndim > 1 else 1)
                if parameter.ndim == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    tokenizer = SimpleNamespace(pad_token_id=PAD, eos_token_id=EOS)
    return LanguageModel(model=network.to(dtype).eval(), tokenizer=tokenizer)


def eos_tokenizer(texts: Sequence[str]) -> Any:
    """A byte-level tokenizer that closes texts with EOS, as Marian's and T5's do."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = _train_tokenizer(texts, 300)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tokenizer.eos_token_id)])
    return tokenizer


def random_examples(count: int, seed: int = 0, longest: int = 7, start: int | None = None) -> list[Example]:
    """Prompts and targets of 1 to `longest` random tokens; targets end in EOS. With a start they are an encoder-decoder's."""
    rng = np.random.default_rng(seed)

    def ids() -> list[int]:
        return rng.integers(3, VOCAB, rng.integers(1, longest + 1)).tolist()

    return [Example([BOS, *ids()], [*ids(), EOS], start) for _ in range(count)]


def trained_model() -> LanguageModel:
    """The small Llama after 40 steps of Adam on 60 random examples: some it knows, some it does not."""
    lm = build_model("llama")
    batch = collate(range(60), random_examples(60, seed=9), PAD)
    optimizer = torch.optim.Adam(lm.model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        target_losses(target_logits(lm.model, batch), batch.targets).mean().backward()
        optimizer.step()
    lm.model.requires_grad_(False).zero_grad()
    return lm


class Collector:
    """A GradientConsumer that keeps what it is given, row by row."""

    def __init__(self) -> None:
        self.gradients: dict[int, dict[str, Tensor]] = {}
        self.tokens: dict[int, int] = {}
        self.source_lengths: dict[str, list[int]] = {}

    def update(self, captured: Captured) -> None:
        self.tokens |= dict(zip(captured.rows.tolist(), captured.lengths, strict=True))
        self.source_lengths.update(captured.source_lengths)
        for name, (a, g) in captured.layers.items():
            lengths = captured.lengths_of(name)
            assert len(a) == len(g) == sum(lengths)
            for row, gradient in zip(captured.rows.tolist(), example_gradients(a, g, lengths), strict=True):
                self.gradients.setdefault(row, {})[name] = gradient


def run_pass(lm: LanguageModel, layers: Mapping[str, nn.Module], examples: list[Example], consumer: GradientConsumer,
             batch_size: int = 4, uniforms: Any = None) -> Any:
    """The project's gradient pass on the CPU; gives the consumer back."""
    run_gradient_pass(lm, layers, examples, consumer, batch_size=batch_size, accelerator="cpu", advance=lambda n: None,
                      uniforms=uniforms)
    return consumer


def plain_logits(lm: LanguageModel, example: Example) -> Tensor:
    """Logits [targets, V] of one example, without padding, by the model's own forward pass."""
    if example.start is None:
        logits: Tensor = lm.model(input_ids=torch.tensor([example.prompt + example.target])).logits[0]
        return logits[len(example.prompt) - 1 : -1]
    decoder_ids = torch.tensor([[example.start, *example.target[:-1]]])
    return lm.model(input_ids=torch.tensor([example.prompt]), decoder_input_ids=decoder_ids).logits[0]  # type: ignore[no-any-return]


def loop_gradients(lm: LanguageModel, layers: Mapping[str, nn.Module], example: Example,
                   target: list[int] | None = None) -> dict[str, Tensor]:
    """The oracle: autograd on unfrozen weights, one example, no padding, loss summed over target tokens and EOS."""
    weights = [layer.weight.requires_grad_() for layer in layers.values()]
    predicted = plain_logits(lm, example).log_softmax(-1)
    loss = -sum(predicted[i, token] for i, token in enumerate(target or example.target))
    gradients = torch.autograd.grad(loss, weights)
    lm.model.requires_grad_(False)
    return {name: gradient.T if type(layer).__name__ == "Conv1D" else gradient
            for (name, layer), gradient in zip(layers.items(), gradients, strict=True)}


@pytest.fixture
def stopping() -> SimpleNamespace:
    """An `on_epoch` that stops a training after its second epoch, with what it raises and the epochs that it saw."""
    class StopHereError(Exception):
        pass

    seen: list[int] = []

    def on_epoch(epoch: int, dev_loss: float) -> None:
        seen.append(epoch)
        if epoch == 1:
            raise StopHereError

    return SimpleNamespace(on_epoch=on_epoch, error=StopHereError, seen=seen)


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """`model`, `examples`, `Collector`, `run` (the gradient pass), `loop` (the autograd oracle), `trained` (a Llama)."""
    return SimpleNamespace(model=build_model, examples=random_examples, Collector=Collector, run=run_pass,
                           loop=loop_gradients, trained=trained_model(), pad=PAD, architectures=list(SHAPES),
                           logits=plain_logits, start=START, tokenizer=eos_tokenizer)


@pytest.fixture(scope="session")
def pattern() -> str:
    """The default of `attribution.layers`."""
    return AttributionConfig().layers


@pytest.fixture
def relative() -> Callable[[Any, Any], float]:
    """Largest absolute difference over the largest absolute expected value."""
    return relative_error


def relative_error(actual: Any, expected: Any) -> float:
    """Largest absolute difference, over the largest absolute expected value."""
    actual, expected = (torch.as_tensor(x).double() for x in (actual, expected))
    return float((actual - expected).abs().max() / expected.abs().max())


# --- the upper floors: a whole sweep -------------------------------------------------------------

ROOT = Path(__file__).parents[1]
STUDY = "tiny"
# All of it in about ten seconds on one core. One thread, since two processes of some tests share two cores.
SWEEP: dict[str, Any] = {
    "experiment": {
        "data": {"pool": "data/pool.jsonl", "seeds": "data/seeds.jsonl", "dev": "data/dev.jsonl", "test": "data/test.jsonl",
                 "label_column": "noise"},
        "model": {"hidden_size": 32, "n_layers": 1, "n_heads": 2, "vocab_size": 400, "prompt": "{src}\n", "max_tokens": 160,
                  "dtype": "float32"},
        "warmup": {"epochs": 1, "rows": 100, "exclude": True, "learning_rate": 0.01},
        "attribution": {"curvature_rows": 60, "sketch_rank": 4, "seed_rank": None, "statistics": "float32"},
        "selection": {"gate": None, "rank": "benefit_per_norm", "threshold_on": "raw_share"},
        "finetune": {"epochs": 1, "learning_rate": 0.01},
        "evaluation": {"max_new_tokens": 12, "bootstrap": 100},
    },
    "search": {"selection.n_clusters": {"low": 2, "high": 8}, "selection.threshold": {"low": 0.3, "high": 0.6},
               "selection.budget": {"choices": [20, 40]}},
    "study": {"name": STUDY, "n_trials": 3, "baselines": ["untuned", "random", "pool"], "finetune_seeds": 2},
    "runtime": {"threads": 1},
    "tracking": {"sample_sentences": 5},
}
ROWS = {"pool_rows": 300, "seed_rows": 16, "dev_rows": 12, "test_rows": 20}
# What a process of its own loads; it is loaded once and then forked, as the imports take ten seconds.
PRELOAD = ["matplotlib.figure", "mlflow", "mlflow.store.tracking.sqlalchemy_store", "optuna", "peft", "sklearn.cluster",
           "transformers.models.llama.modeling_llama", "mtselect.recording", "mtselect.stages.trial"]
DEADLINE = 60.0  # seconds; several times what any wait takes on a busy machine


@dataclass
class Lab:
    """A folder with data and a sweep file, in which commands are run as a person would.

    Args:
        folder: working directory of the commands.
        settings: the sweep file's content; `write` writes it again.
    """

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)

    def write(self, name: str = "sweep.yaml", **changes: Any) -> None:
        """Write the sweep file with dotted fields changed (`experiment__selection__budget=5`)."""
        settings = json.loads(json.dumps(self.settings))
        for path, value in changes.items():
            *heads, last = path.split("__")
            section = settings
            for head in heads:
                section = section.setdefault(head, {})
            section[last] = value
        (self.folder / name).write_text(yaml.safe_dump(settings), encoding="utf-8")

    def run(self, command: str, *arguments: str) -> int:
        """`python -m mtselect.<command>` in this process; its exit status."""
        import importlib

        with contextlib.chdir(self.folder):
            status: int = importlib.import_module(f"mtselect.{command}").main(list(arguments))
        return status

    def start(self, command: str, *arguments: str, log: str = "log.txt") -> BaseProcess:
        """The same as a process of its own; what it prints goes to a file in the folder."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        order = (str(self.folder), log, f"mtselect.{command}", *arguments)
        process = context.Process(target=runpy.run_path, args=(str(ROOT / "tests" / "run_command.py"), {"ORDER": order}))
        with contextlib.chdir(self.folder):
            process.start()
        return process

    def log(self, name: str = "log.txt") -> str:
        """What a process printed."""
        return (self.folder / name).read_text(encoding="utf-8")

    @property
    def store(self) -> Path:
        """The stage store."""
        return self.folder / "mlruns" / "store"

    def manifests(self, stage: str = "*") -> dict[str, int]:
        """Path -> time of change of every finished entry."""
        found = [path for path in self.store.glob(f"{stage}/*/manifest.json") if ".part-" not in path.parent.name]
        return {str(path.relative_to(self.store)): path.stat().st_mtime_ns for path in found}

    def client(self) -> Any:
        """MLflow's client of the folder."""
        import mlflow

        return mlflow.MlflowClient(tracking_uri=f"sqlite:///{self.folder}/mlflow.db")

    def runs(self, study: str = STUDY) -> list[Any]:
        """All MLflow runs of an experiment, parents too."""
        client = self.client()
        return list(client.search_runs([client.get_experiment_by_name(study).experiment_id], max_results=1000))

    def children(self, study: str = STUDY) -> dict[str, Any]:
        """Name -> run of the finished trials and baselines; each name once."""
        runs = [run for run in self.runs(study) if run.info.status == "FINISHED" and "mlflow.parentRunId" in run.data.tags]
        assert len({run.info.run_name for run in runs}) == len(runs), "a trial or baseline was recorded twice"
        return {run.info.run_name: run for run in runs}

    def artifact(self, run: Any, name: str) -> Path:
        """Where an artifact of a run lies."""
        return Path(str(run.info.artifact_uri).removeprefix("file://")) / name

    def lines(self, run: Any, name: str = "selected.jsonl") -> list[dict[str, Any]]:
        """A JSON-lines artifact."""
        return [json.loads(line) for line in self.artifact(run, name).read_text(encoding="utf-8").splitlines()]

    def selected(self, study: str = STUDY) -> dict[str, list[str]]:
        """Name -> selected ids of every finished trial and baseline."""
        return {name: [row["id"] for row in self.lines(run)] for name, run in self.children(study).items()}


@pytest.fixture(scope="session")
def make_lab(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Lab]:
    """Makes labs: with fresh data, and a migrated, empty MLflow database unless `database` is false (making one takes
    seconds); `store` copies finished stages from another lab."""
    from tools.quickstart import corpus as quickstart

    template = tmp_path_factory.mktemp("template")
    corpus = quickstart.generate(**ROWS, seed=1)
    (template / "data").mkdir()
    for split in ("pool", "seeds", "dev", "test"):
        rows = [json.dumps(row, ensure_ascii=False) + "\n" for row in getattr(corpus, split)]
        (template / "data" / f"{split}.jsonl").write_text("".join(rows), encoding="utf-8")
    _make_database(template)

    def make(store: Path | None = None, stages: Sequence[str] = (), database: bool = True, **changes: Any) -> Lab:
        lab = Lab(tmp_path_factory.mktemp("lab"), SWEEP)
        shutil.copytree(template / "data", lab.folder / "data")
        if database:
            shutil.copy(template / "mlflow.db", lab.folder)
        for stage in stages:
            assert store is not None
            shutil.copytree(store / stage, lab.store / stage)
        lab.write(**changes)
        return lab

    return make


def _make_database(folder: Path) -> None:
    import mlflow

    with contextlib.chdir(folder):
        mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db").search_experiments()
    with sqlite3.connect(folder / "mlflow.db") as connection:
        assert connection.execute("select count(*) from experiments").fetchone() == (1,)


@pytest.fixture(scope="session")
def swept(make_lab: Callable[..., Lab]) -> Lab:
    """A lab in which the tiny sweep was run once, from nothing. Tests may read it, not write to its study."""
    lab = make_lab()
    assert lab.run("sweep", "sweep.yaml") == 0
    return lab


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for Python's path in which mtselect is registered with the entry points that pyproject.toml has now; the
    environment has those from when it was installed."""
    folder = tmp_path_factory.mktemp("site")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    meta = folder / "mtselect-0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: mtselect\nVersion: 0\n", encoding="utf-8")
    (meta / "entry_points.txt").write_text("".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items()) for group, points in groups.items()),
        encoding="utf-8")
    return folder


@pytest.fixture
def known_to_mlflow(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's MLflow has what a process that begins now would find by our entry points."""
    import mlflow
    from mlflow.data import dataset_source_registry as registry
    from mlflow.utils.plugins import get_entry_points

    monkeypatch.syspath_prepend(str(registered))
    monkeypatch.setattr(registry._dataset_source_registry, "sources", list(registry.get_registered_sources()))
    registry._dataset_source_registry.register_entrypoints()
    for point in get_entry_points("mlflow.dataset_constructor"):
        monkeypatch.setattr(mlflow.data, point.name, point.load(), raising=False)


# What takes seconds: a sweep, a server, a browser, COMET's environment, trainings.
SLOW_FIXTURES = {"make_lab", "mlflow_server", "postgres_server", "chromium", "comet"}
SLOW_FILES = {"test_comet.py", "test_help.py", "test_server.py", "test_attribution.py", "test_mlflow.py", "test_ci.py",
              "test_encoder_decoder.py", "test_finetune.py", "test_study.py", "test_notebook.py", "test_precision.py",
              "test_api.py", "test_compose.py", "test_decode.py", "test_install.py", "test_devices.py",
              "test_docs.py", "test_contributing.py"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as fast what needs none of these: `pytest -m fast` is for between two edits. Of several workers, each begins with
    the files that are not, so that at the end none is left with a long one."""
    slow = set()
    for item in items:
        if (item.path.name in SLOW_FILES or SLOW_FIXTURES & set(getattr(item, "fixturenames", ()))
                or re.search("(another|second)_process", item.name)):
            slow.add(item.path)
        else:
            item.add_marker("fast")
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`pytest -n 2` gives a worker whole files, in the order above: what a file's tests share is made once."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


SHARED_STAGES = ("corpus", "base", "tokens", "warmup", "curvature", "gradients", "columns")


@pytest.fixture(scope="session")
def warm_lab(make_lab: Callable[..., Lab], swept: Lab) -> Callable[..., Lab]:
    """Makes labs that have the stages all trials share, so that a sweep costs its trials only."""
    def make(*, stages: Sequence[str] = SHARED_STAGES, **changes: Any) -> Lab:
        return make_lab(store=swept.store, stages=stages, **changes)

    return make


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., Any]:
    """Polls until a condition gives something true, and gives that back; fails at the deadline or when the process ended."""
    def wait(condition: Callable[[], Any], process: BaseProcess | None = None) -> Any:
        end = time.monotonic() + DEADLINE
        while not (found := condition()):
            assert time.monotonic() < end, "the moment did not come"
            assert process is None or process.is_alive(), f"the process ended before, with status {process.exitcode}"
            time.sleep(0.002)
        return found

    return wait


@pytest.fixture(autouse=True)
def children_end() -> Iterator[None]:
    """No process of a failed test outlives it."""
    yield
    for process in multiprocessing.active_children():
        process.kill()
        process.join()


# --- servers: MLflow's, and PostgreSQL -------------------------------------------------------------

SERVER_DEADLINE = 90.0  # seconds; an MLflow server needs about ten on two busy cores, most of it for its database


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@dataclass
class Server:
    """`mlflow server` with proxied artifacts, which can be killed and started again at the same address.

    Args:
        folder: its artifacts and its log.
        backend: URI of its database.
    """

    folder: Path
    backend: str
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
                   "--backend-store-uri", self.backend, "--artifacts-destination", f"{self.folder}/artifacts"]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.txt").open("a") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log,
                                            start_new_session=True)
        end = time.monotonic() + SERVER_DEADLINE
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return
            assert self.process.poll() is None and time.monotonic() < end, (self.folder / "server.txt").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL to it and its worker."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)  # its own session: the server and its worker, nothing else
        self.process.wait(20)


@pytest.fixture(scope="session")
def mlflow_server(make_lab: Callable[..., Lab]) -> Iterator[Server]:
    """An MLflow server on SQLite."""
    folder = make_lab().folder  # for its migrated database
    server = Server(folder, f"sqlite:///{folder}/mlflow.db")
    server.start()
    yield server
    server.kill()


@dataclass
class Postgres:
    """A PostgreSQL cluster of our own, on a port of its own, which can be stopped and started again.

    Args:
        folder: its files.
        programs: folder of initdb and pg_ctl.
    """

    folder: Path
    programs: Path
    password: str = "pg@Sekret/1"
    port: int = field(default_factory=free_port)

    def call(self, program: str, *arguments: str) -> str:
        """One of PostgreSQL's programs; as the user postgres where we are root, which it refuses."""
        become = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        environment = {**os.environ, "PGPASSWORD": self.password, "PGHOST": "127.0.0.1", "PGPORT": str(self.port),
                       "PGUSER": "lab"}
        # Not through a pipe: the server inherits it, and it would never end.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run([*become, str(self.programs / program), *arguments], cwd="/", stdout=output, stderr=output,
                                  env=environment, timeout=60)
            output.seek(0)
            text = output.read().decode()
        assert done.returncode == 0, text
        return text

    def url(self, database: str) -> str:
        """As SQLAlchemy writes it."""
        return f"postgresql+psycopg://lab:{quote(self.password, safe='')}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.call("pg_ctl", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log.txt", "-w", "-o", options, "start")

    def kill(self) -> None:
        """Stop it as a crash would."""
        self.call("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "stop")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL cluster with the empty databases `mlflow` and `optuna`."""
    pytest.importorskip("psycopg", reason="needs `pip install mtselect[postgres]`")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="mtselect-postgres-"))  # pytest's folders are closed to the user postgres
    cluster = Postgres(folder, found[-1].parent)
    try:
        (folder / "password").write_text(cluster.password)
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
            shutil.chown(folder / "password", "postgres")
        cluster.call("initdb", "-D", f"{folder}/data", "-U", "lab", "--auth=scram-sha-256", f"--pwfile={folder}/password",
                     "--no-sync", "--locale=C", "--encoding=UTF8")
        cluster.start()
        for database in ("mlflow", "optuna"):
            cluster.call("createdb", database)
        yield cluster
        cluster.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An MLflow server on PostgreSQL."""
    server = Server(tmp_path_factory.mktemp("server"), postgres.url("mlflow"))
    server.start()
    yield server
    server.kill()
