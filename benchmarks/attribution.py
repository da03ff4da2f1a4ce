"""Cost of EK-FAC influence and of a sketch index, ours and the peers', as ratios to plain training.

    python benchmarks/attribution.py                    ours, and each peer that is installed
    python benchmarks/attribution.py --size quickstart  another workload; they are in `SIZES`
    python benchmarks/attribution.py --install all      make the peers' environments under benchmarks/.peers first
    python benchmarks/attribution.py --device cuda      the same of a 0.5B model in bfloat16 on a GPU, ours only

Workloads from seeds alone: random models of a shape, and random tokens. `base` is a Llama (hidden 256, 6 layers, intermediate
688, vocabulary 4,096, float32), 512 candidates and 32 seeds of 24 to 64 tokens of which the first 30 to 60 % are a prompt, all
18 MLP layers tracked, factors of all candidates. `quickstart` is what the quickstart does: its model, 128 seeds, its `o_proj`
layers, factors of a twelfth of the candidates; `quickstart all` tracks all 14 layers, the default. `gemma` is Gemma 3 270M with
the study's trimmed vocabulary, every other down projection, 128 seeds. Loss: summed over target tokens. Factors: reference
targets, all tokens; damping 0.1 of each layer's mean eigenvalue.

The floor is forward + backward over the candidates with every weight gradient, batch 16 in the order given, no optimiser:
what one epoch of training costs. It is measured in the contestant's own process before and after its stages, and the
smallest time divides. Each contestant runs alone in its own process on one thread; the clock is CPU seconds of the process
(on a GPU, seconds), the median of the repeats. Peak memory is the process's, reset before each stage; it includes
interpreter, torch and two copies of the model.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's large pages, for the floor and for every contestant

import numpy as np
import torch
from torch import nn

PEERS = Path(__file__).parent / ".peers"
REQUIREMENTS = {"kronfluence": ["kronfluence==1.0.1", "transformers", "scipy"], "bergson": ["bergson==2.5.1"],
                "dattri-llm": ["dattri==0.3.0", "dattri-llm==0.1.0", "transformers"]}
TORCH = "torch==2.13.0"
DAMPING, SKETCH_RANK, IGNORE = 0.1, 16, -100


# --- the workload -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of the model and the data."""

    hidden: int = 256
    intermediate: int = 688
    layers: int = 6
    heads: int = 4
    vocabulary: int = 4096
    candidates: int = 512
    seeds: int = 32
    shortest: int = 24
    longest: int = 64
    batch: int = 16
    tracked: str = r"\.mlp\."
    fitted: int = 1  # every so-many-th candidate enters the factors
    gemma: bool = False


_QUICKSTART = Size(hidden=160, intermediate=416, layers=2, vocabulary=2048, candidates=2400, seeds=128, shortest=13, longest=35,
                   batch=128, tracked="o_proj", fitted=12)
SIZES = {"base": Size(), "tiny": Size(hidden=32, intermediate=48, layers=2, heads=2, vocabulary=128, candidates=48, seeds=6),
         "quickstart": _QUICKSTART, "quickstart all": replace(_QUICKSTART, tracked=r"\.(mlp|self_attn)\."),
         "gemma": Size(hidden=640, intermediate=2048, layers=18, vocabulary=65_979, candidates=256, seeds=128, shortest=20,
                       longest=85, tracked=r"layers\.\d*[13579]\.mlp\.down_proj", gemma=True),
         # 0.5B parameters, as Qwen2.5-0.5B
         "gpu": Size(hidden=896, intermediate=4864, layers=24, heads=14, vocabulary=151_936, candidates=4096, seeds=64)}


@dataclass(frozen=True)
class Row:
    """One example: token ids, of which the first `prompt` carry no loss."""

    ids: list[int]
    prompt: int

    @property
    def labels(self) -> list[int]:
        """As transformers wants them."""
        return [IGNORE] * self.prompt + self.ids[self.prompt :]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a contestant is given."""

    size: Size
    model: Any
    candidates: list[Row]
    fitted: list[Row]
    seeds: list[Row]
    layers: list[str]
    folder: Path
    device: str


def build(size: Size, device: str) -> Any:
    """The model, seeded."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    heads = {"num_key_value_heads": 1, "head_dim": 256, "query_pre_attn_scalar": 256} if size.gemma else {}
    config = AutoConfig.for_model("gemma3_text" if size.gemma else "llama", vocab_size=size.vocabulary, hidden_size=size.hidden,
                                  intermediate_size=size.intermediate, num_hidden_layers=size.layers,
                                  num_attention_heads=size.heads, max_position_embeddings=4096, pad_token_id=0,
                                  bos_token_id=1, eos_token_id=2, use_cache=False, **heads)
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return model.to(device, torch.bfloat16 if device == "cuda" else torch.float32).eval()


def rows(size: Size, count: int, seed: int) -> list[Row]:
    """Random token ids of random length."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        length = int(rng.integers(size.shortest, size.longest + 1))
        made.append(Row(rng.integers(3, size.vocabulary, length).tolist(), max(1, int(length * rng.uniform(0.3, 0.6)))))
    return made


def collate(batch: list[Row]) -> dict[str, torch.Tensor]:
    """Padded to the right."""
    width = max(len(row.ids) for row in batch)
    ids, labels, mask = (torch.full((len(batch), width), fill) for fill in (0, IGNORE, 0))
    for i, row in enumerate(batch):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        labels[i, : len(row.ids)] = torch.tensor(row.labels)
        mask[i, : len(row.ids)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Summed over the target tokens of the batch."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch["labels"][:, 1:].flatten(), ignore_index=IGNORE,
                                       reduction="sum")


def floor(model: Any, work: Work) -> None:
    """Plain forward and backward, every weight gradient."""
    for i in range(0, len(work.candidates), work.size.batch):
        batch = {name: x.to(work.device) for name, x in collate(work.candidates[i : i + work.size.batch]).items()}
        loss(model, batch).backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)


# --- contestants ------------------------------------------------------------------------------------------------------


class Contestant:
    """Stages by name; `influence` gives [N, Q], `sketch` [N, R], `fit` is there if it is a stage of its own."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def stages(self) -> dict[str, Callable[[], Any]]:
        """In the order in which they run."""
        raise NotImplementedError


class Ours(Contestant):
    """One pass of the model over the candidates, recorded, serves fit and influence."""

    statistics = torch.float32

    def __init__(self, work: Work) -> None:
        from types import SimpleNamespace

        from mtselect.data.examples import Example
        from mtselect.training.gradient_module import run_gradient_pass
        from mtselect.training.language_model import LanguageModel, tracked_layers

        super().__init__(work)
        self.run_gradient_pass = run_gradient_pass
        self.lm = LanguageModel(model=work.model, tokenizer=SimpleNamespace(pad_token_id=0, eos_token_id=2))
        self.layers = tracked_layers(work.model, work.size.tracked)
        self.candidates, self.fitted, self.seeds = ([Example(row.ids[: row.prompt], row.ids[row.prompt :]) for row in some]
                                                    for some in (work.candidates, work.fitted, work.seeds))
        assert list(self.layers) == work.layers

    def stages(self) -> dict[str, Callable[[], Any]]:
        """Fit and influence are one."""
        return {"both": self.influence, "sketch": self.sketch}

    def run(self, examples: Any, consumer: Any) -> Any:
        """The project's gradient pass."""
        self.run_gradient_pass(self.lm, self.layers, examples, consumer, batch_size=max(32, self.work.size.batch),
                               accelerator="gpu" if self.work.device == "cuda" else "cpu", advance=lambda n: None)
        return consumer

    def influence(self) -> Any:
        """Factors of the workload's sample."""
        return self.scored(self.fitted)

    def scored(self, fitted: list[Any]) -> Any:
        """What the stages do: curvature of some rows from a recorded pass, a pass over the seeds, one over the candidates."""
        from mtselect.attribution.influence import PoolScorer, SeedGradients
        from mtselect.attribution.record import fit

        curvature = dict(fit(self.run(fitted, self.record()), statistics=self.statistics))
        seeds = self.run(self.seeds, SeedGradients(len(self.seeds), curvature, DAMPING, self.statistics))
        benefits = np.zeros((len(self.candidates), len(self.seeds)), np.float32)
        self.run(self.candidates, PoolScorer(seeds.preconditioned, benefits=benefits, norms={}))
        return benefits

    def record(self) -> Any:
        """64 MiB in memory, the rest in a file."""
        from mtselect.attribution.record import Record

        return Record(2**26, self.work.folder)

    def sketch(self) -> Any:
        """Random projections, 16 by 16 numbers a layer."""
        from mtselect.attribution.gradients import layer_shape
        from mtselect.attribution.sketch import Sketcher, random_projections

        projections = random_projections({name: layer_shape(layer) for name, layer in self.layers.items()}, SKETCH_RANK,
                                         torch.Generator().manual_seed(0))
        sketches = np.zeros((len(self.candidates), projections.width), np.float16)
        norms = np.zeros(len(self.candidates), np.float32)
        self.run(self.candidates, Sketcher(projections, sketches=sketches, sketch_norms=norms))
        return sketches * norms[:, None]


class OursQuarter(Ours):
    """Factors fitted on every fourth candidate."""

    def stages(self) -> dict[str, Callable[[], Any]]:
        """As above, without the sketch."""
        return {"both": self.influence}

    def influence(self) -> Any:
        """As the default `attribution.curvature_rows` has it: a sample."""
        return self.scored(self.candidates[::4])


class OursBfloat16(Ours):
    """Covariances and scores multiplied in bfloat16 (`attribution.statistics`); the model is as before."""

    statistics = torch.bfloat16

    def stages(self) -> dict[str, Callable[[], Any]]:
        """As above, without the sketch, which is in float32."""
        return {"both": self.influence}


class RowSet(torch.utils.data.Dataset[Row]):
    """For the peers that want a data set."""

    def __init__(self, items: list[Row]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Row:
        return self.items[i]


def freeze(model: Any) -> None:
    """No weight gradients; the embedding's keeps the graph."""
    model.requires_grad_(False)
    model.get_input_embeddings().weight.requires_grad_(True)


class Kronfluence(Contestant):
    """Through its Analyzer; it has no sketch index."""

    def __init__(self, work: Work) -> None:
        import logging

        from kronfluence.analyzer import Analyzer, prepare_model
        from kronfluence.task import Task
        from kronfluence.utils.dataset import DataLoaderKwargs

        super().__init__(work)

        class Translation(Task):  # type: ignore[misc]
            def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> Any:
                return loss(model, batch)

            def compute_measurement(self, batch: Any, model: Any) -> Any:
                return loss(model, batch)

            def get_influence_tracked_modules(self) -> list[str]:
                return work.layers

            def get_attention_mask(self, batch: Any) -> Any:
                return batch["attention_mask"]

        task = Translation()
        self.analyzer = Analyzer("benchmark", prepare_model(work.model, task), task, cpu=True, log_level=logging.ERROR,
                                 disable_tqdm=True, disable_model_save=True, output_dir=str(work.folder))
        self.analyzer.set_dataloader_kwargs(DataLoaderKwargs(collate_fn=collate))

    def stages(self) -> dict[str, Callable[[], Any]]:
        """Fit, then influence."""
        return {"fit": self.fit, "influence": self.influence}

    def fit(self) -> None:
        """Empirical Fisher."""
        from kronfluence.arguments import FactorArguments

        self.analyzer.fit_all_factors("factors", RowSet(self.work.fitted), self.work.size.batch,
                                      factor_args=FactorArguments(strategy="ekfac", use_empirical_fisher=True),
                                      overwrite_output_dir=True)

    def influence(self) -> Any:
        """Its heuristic damping is 0.1 of the mean eigenvalue."""
        from kronfluence.arguments import ScoreArguments

        self.analyzer.compute_pairwise_scores("scores", "factors", RowSet(self.work.seeds), RowSet(self.work.candidates),
                                              per_device_query_batch_size=len(self.work.seeds),
                                              per_device_train_batch_size=self.work.size.batch,
                                              score_args=ScoreArguments(damping_factor=None), overwrite_output_dir=True)
        return self.analyzer.load_pairwise_scores("scores")["all_modules"].T.float().numpy()


class Bergson(Contestant):
    """Through the functions of its command line, with model and data in memory."""

    def __init__(self, work: Work) -> None:
        from datasets import Dataset, disable_progress_bars

        super().__init__(work)
        disable_progress_bars()
        freeze(work.model)
        self.pool, self.fitted, self.queries = (
            Dataset.from_dict({"input_ids": [row.ids for row in some], "labels": [row.labels for row in some],
                               "length": [len(row.ids) for row in some]})
            for some in (work.candidates, work.fitted, work.seeds))
        self.tokens = work.size.batch * work.size.longest
        self.targets = {name.removeprefix("model.") for name in work.layers}

    def stages(self) -> dict[str, Callable[[], Any]]:
        """All three."""
        return {"fit": self.fit, "influence": self.influence, "sketch": self.sketch}

    def config(self, name: str, **more: Any) -> Any:
        """An empty folder of its own for each step."""
        from bergson.config.config import IndexConfig

        made = IndexConfig(run_path=str(self.work.folder / name), precision="fp32", token_batch_size=self.tokens,
                           loss_reduction="sum", filter_modules=None if "self_attn" in str(self.targets) else "*self_attn*",
                           **more)
        shutil.rmtree(made.partial_run_path, ignore_errors=True)
        made.partial_run_path.mkdir(parents=True)
        return made

    def batches(self, data: Any) -> Any:
        """Of like length."""
        from bergson.data import allocate_batches

        return allocate_batches(list(data["length"]), self.tokens)

    def collect(self, data: Any, config: Any, scorer: Any = None) -> None:
        """A gradient pass."""
        from bergson.collection import collect_gradients
        from bergson.utils.worker_utils import processor_for

        processor = processor_for(config)
        processor.save(config.partial_run_path)
        collect_gradients(self.work.model, data, processor, config, batches=self.batches(data), target_modules=self.targets,
                          scorer=scorer)

    def fit(self) -> None:
        """EK-FAC with the references as targets."""
        from bergson.config.config import HessianConfig
        from bergson.hessians.hessian_approximations import fit_factored_hessians

        config = self.config("hessian")
        fit_factored_hessians(self.work.model, self.fitted, config,
                              HessianConfig(method="kfac", ev_correction=True, use_dataset_labels=True),
                              target_modules=self.targets, attention_cfgs={}, batches=self.batches(self.fitted),
                              path=str(config.partial_run_path), do_eigendecomposition=True)
        self.hessian = str(config.partial_run_path)

    def influence(self) -> Any:
        """Seeds' gradients, their preconditioning, the pool's scores."""
        from bergson.config.config import InversionConfig, PreprocessConfig, ScoreConfig
        from bergson.data import load_scores
        from bergson.hessians.apply_hessian import EkfacApplicator, EkfacConfig
        from bergson.score.score import create_scorer

        query = self.config("query")
        self.collect(self.queries, query)
        folder = self.work.folder / "preconditioned"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        EkfacApplicator(EkfacConfig(hessian_method_path=self.hessian, gradient_path=str(query.partial_run_path),
                                    run_path=str(folder), ev_correction=True, apply_batch_size=len(self.work.seeds)),
                        inversion_cfg=InversionConfig(inversion="damped_inverse", damping_factor=DAMPING),
                        ).compute_ivhp_sharded()
        config = self.config("scores")
        scorer = create_scorer(config.partial_run_path, self.pool, ScoreConfig(query_path=str(folder)), PreprocessConfig(),
                               torch.device("cpu"), torch.float32)
        self.collect(self.pool, config, scorer)
        scores = load_scores(config.partial_run_path)
        return np.stack([np.asarray(scores.get(slice(None), q)) for q in range(len(self.work.seeds))], 1)

    def sketch(self) -> Any:
        """16 by 16 numbers a layer."""
        from bergson.data import load_gradients

        config = self.config("index", projection_dim=SKETCH_RANK)
        self.collect(self.pool, config)
        return np.asarray(load_gradients(config.partial_run_path)).astype(np.float32)


class DattriLLM(Contestant):
    """Through its EK-FAC attributor, which runs the model anew for each pass."""

    def __init__(self, work: Work) -> None:
        import dattri_llm as library

        super().__init__(work)
        freeze(work.model)
        arguments = library.AttributionArguments(output_dir=str(work.folder), per_device_train_batch_size=work.size.batch,
                                                 per_device_eval_batch_size=work.size.batch, max_grad_norm=None, use_cpu=True)

        def streamer(data: Any, **options: Any) -> Any:
            options = {key: value for key, value in options.items() if value is not None}
            return library.GradientStreamer(work.model, data, arguments, batch_size=work.size.batch, loss_fn=loss,
                                            collate_fn=collate, **options)

        class Attributor(library.EKFACAttributor):  # type: ignore[misc]
            def generate_train_rep(self, data: Any, *, checkpoint_step: int = 0, hook_config: Any = None, **_: Any) -> Any:
                return streamer(data, checkpoint_step=checkpoint_step, config=hook_config)

            def generate_test_rep(self, data: Any, *, checkpoint_step: int = 0, hook_config: Any = None,
                                  hook_manager: Any = None, **_: Any) -> Any:
                return streamer(data, checkpoint_step=checkpoint_step, config=hook_config, hook_manager=hook_manager)

        self.library, self.streamer = library, streamer
        self.hooks = library.HookManagerConfig(hook_types=dict.fromkeys(work.layers, "linear_io"), include_frozen=True)
        self.attributor = Attributor(arguments, task=library.AttributionTask(loss, work.model))
        self.pool, self.fitted, self.queries = RowSet(work.candidates), RowSet(work.fitted), RowSet(work.seeds)
        self.fits = 0

    def stages(self) -> dict[str, Callable[[], Any]]:
        """All three."""
        return {"fit": self.fit, "influence": self.influence, "sketch": self.sketch}

    def fit(self) -> None:
        """It has no public call that only fits."""
        self.fits += 1
        self.attributor._set_options(DAMPING, "ignore", 4096, True, None, False)
        with self.attributor.generate_train_rep(self.fitted, hook_config=self.hooks) as stream:
            factors, fisher = self.attributor.fit_raw(stream)
        self.attributor.save_fisher(factors, self.factors(), fisher=fisher)

    def factors(self) -> str:
        """A folder for each fit."""
        return str(self.work.folder / f"fisher{self.fits}")

    def influence(self) -> Any:
        """With the fitted factors."""
        score = self.attributor.attribute(self.pool, self.queries, hook_config=self.hooks, damping=DAMPING,
                                          relative_damping=True, fisher_dir=self.factors(), covariances_at_capture=False,
                                          gradient_cache_residency=None)
        return score.agnostic_matrix()[1].float().numpy()

    def sketch(self) -> Any:
        """16 by 16 numbers a layer."""
        projection = {"style": "logra", "proj_dim": SKETCH_RANK, "proj_type": "normal", "proj_max_batch_size": 8}
        hooks = self.library.HookManagerConfig(hook_types=dict.fromkeys(self.work.layers, "linear_io"), include_frozen=True,
                                               capture_style="materialized", projection_kwargs={"__default__": projection})
        with self.streamer(self.pool, config=hooks) as stream:
            return torch.cat([torch.cat([block.data[name].flatten(1) for name in block.layer_names], 1)
                              for _, block, _ in stream]).float().numpy()


CONTESTANTS: dict[str, type[Contestant]] = {"mtselect": Ours, "mtselect, factors of a quarter": OursQuarter,
                                            "mtselect, bfloat16 statistics": OursBfloat16,
                                            "kronfluence": Kronfluence, "bergson": Bergson, "dattri-llm": DattriLLM}


# --- measuring --------------------------------------------------------------------------------------------------------


def clock(device: str) -> float:
    """CPU seconds of this process; on a GPU, seconds."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def peak_mib(device: str, reset: bool = False) -> float:
    """Largest memory since the last reset."""
    if device == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 2**20
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(name: str, size: Size, repeats: int, device: str, out: Path) -> dict[str, Any]:
    """All stages of one contestant, in this process."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = build(size, device)
        layers = [layer for layer, module in model.named_modules()
                  if isinstance(module, nn.Linear) and re.search(size.tracked, layer)]
        candidates = rows(size, size.candidates, 1)
        work = Work(size=size, model=model, candidates=candidates, fitted=candidates[:: size.fitted],
                    seeds=rows(size, size.seeds, 2), layers=layers, folder=Path(folder), device=device)
        untouched = build(size, device)
        floors: list[float] = []
        stages: dict[str, Any] = {}

        def take_floor() -> None:
            start = clock(device)
            floor(untouched, work)
            floors.append(clock(device) - start)

        floor(untouched, replace(work, candidates=candidates[: size.batch]))  # warm up
        contestant = CONTESTANTS[name](work)
        take_floor()
        for _ in range(repeats):
            for stage, run in contestant.stages().items():
                peak_mib(device, reset=True)
                start = clock(device)
                result = run()
                seconds = clock(device) - start
                kept = stages.setdefault(stage, {"seconds": [], "peak_mib": 0.0})
                kept["seconds"].append(seconds)
                kept["peak_mib"] = max(kept["peak_mib"], peak_mib(device))
                if stage in ("both", "influence"):
                    np.save(out / f"{name}.npy", np.asarray(result, np.float32))
                if stage == "sketch":
                    kept["width"] = result.shape[1]
            take_floor()
    tokens = sum(len(row.ids) for row in work.candidates)
    return {"name": name, "floor": min(floors), "floor_max": max(floors), "tokens": tokens, "stages": stages}


def table(results: list[dict[str, Any]], out: Path) -> Iterator[str]:
    """Markdown rows."""
    from scipy.stats import spearmanr

    scores = {result["name"]: np.load(out / f"{result['name']}.npy").ravel() for result in results}
    reference = "kronfluence" if "kronfluence" in scores else results[0]["name"]
    yield f"| contestant | floor s | fit | influence | both | sketch | peak MiB both / sketch | Spearman to {reference} |"
    yield "|---|---|---|---|---|---|---|---|"
    for result in results:
        ratio = {stage: statistics.median(kept["seconds"]) / result["floor"] for stage, kept in result["stages"].items()}
        peak = {stage: kept["peak_mib"] for stage, kept in result["stages"].items()}
        both = ratio.get("both") or ratio["fit"] + ratio["influence"]
        cells = [f"{ratio[stage]:.2f}" if stage in ratio else "-" for stage in ("fit", "influence")]
        sketch = [f"{ratio['sketch']:.2f}", f"{peak['sketch']:.0f}"] if "sketch" in ratio else ["-", "-"]
        most = max(peak[stage] for stage in ("both", "fit", "influence") if stage in peak)
        yield (f"| {result['name']} | {result['floor']:.1f} | {cells[0]} | {cells[1]} | **{both:.2f}** | {sketch[0]} | "
               f"{most:.0f} / {sketch[1]} | {spearmanr(scores[reference], scores[result['name']])[0]:.4f} |")
    if {"mtselect", "mtselect, bfloat16 statistics"} <= scores.keys():
        agreement = spearmanr(scores["mtselect"], scores["mtselect, bfloat16 statistics"])[0]
        yield f"\nbfloat16 statistics: Spearman {agreement:.6f} to ours in float32 (at least 0.999 is promised)"


def install(names: list[str]) -> None:
    """Each peer in an environment of its own; torch comes first and last, as some would change it."""
    for name in names:
        print(f"{name}: {PEERS / name}", flush=True)
        venv.create(PEERS / name, with_pip=True)
        for what in ([TORCH], REQUIREMENTS[name], [TORCH]):
            subprocess.run([PEERS / name / "bin" / "python", "-m", "pip", "install", "-q", *what], check=True)
        subprocess.run([PEERS / name / "bin" / "python", "-m", "pip", "uninstall", "-q", "-y", "torchvision", "torchaudio"],
                       check=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", nargs="+", choices=["all", *REQUIREMENTS], help="make these peers' environments, no more")
    parser.add_argument("--only", nargs="+", choices=list(CONTESTANTS), help="only these contestants")
    parser.add_argument("--size", choices=list(SIZES), help="of the workload (default: base, on a GPU gpu)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.install:
        install(list(REQUIREMENTS) if "all" in arguments.install else arguments.install)
        return 0
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: --device cuda has nothing to measure", file=sys.stderr)
        return 1
    size = arguments.size or ("gpu" if arguments.device == "cuda" else "base")
    names = arguments.only or [name for name in CONTESTANTS if arguments.device == "cpu" or name not in REQUIREMENTS]
    if arguments.out:  # a contestant's own process
        result = measure(names[0], SIZES[size], arguments.repeats, arguments.device, arguments.out)
        (arguments.out / "result.json").write_text(json.dumps(result))
        return 0
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            python = str(PEERS / name / "bin" / "python") if name in REQUIREMENTS else sys.executable
            if not Path(python).exists():
                print(f"{name}: not installed, left out: python benchmarks/attribution.py --install {name}")
                continue
            print(f"{name} ...", flush=True)
            done = subprocess.run([python, __file__, "--only", name, "--size", size, "--repeats", str(arguments.repeats),
                                   "--device", arguments.device, "--out", folder], capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{name}: failed\n{done.stderr[-2000:]}")
                continue
            results.append(json.loads((Path(folder) / "result.json").read_text()))
        if results:
            print("\n" + "\n".join(table(results, Path(folder))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
