"""python -m mtselect.init FILE ... [--out SWEEP.yaml]

Writes a sweep file with comments from a look at your files: columns, languages, sizes and budgets. Files are pool, seeds, dev
and test; what each is, is told by its name (trusted.de-en, dev.jsonl) or by --pool, --seeds, --dev and --test. Two files of a
language each (crawl.de crawl.en) are one. Pool and seeds alone are enough for a set without a sweep (`mtselect select`). The
file passes `mtselect check` as it is.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtselect import cli
from mtselect.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from mtselect.look import Look

SCHEMA = "mtselect.schema.json"
_BATCH = 32  # finetune.batch_size
_MOST_STEPS, _LEAST_STEPS = 4000, 100
_MANY_PAIRS = 1_000_000  # of which nobody finetunes a tenth
_DEV_ROWS = 1000  # that tell trials apart


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = cli.Parser(prog="python -m mtselect.init", description=str(__doc__).split("\n\n", 1)[1],
                        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="pool, seeds, dev and test, in any form that a sweep reads")
    for role, about in (("pool", "noisy candidates"), ("seeds", "some hundred trusted pairs"),
                        ("dev", "pairs that decide between trials"), ("test", "pairs that are scored once, at promotion")):
        parser.add_argument(f"--{role}", metavar="FILE", help=about)
    parser.add_argument("--model", help="name on the Hugging Face hub, or folder, of the model to finetune (default: a small "
                        "one, built on the spot)")
    parser.add_argument("--out", metavar="SWEEP.yaml", type=Path, help="file to write (default: named as the pool is)")
    arguments = parser.parse_args(list(sys.argv[1:] if argv is None else argv))
    named = {role: getattr(arguments, role) for role in ("pool", "seeds", "dev", "test")}
    return cli.run(lambda console: init(arguments.files, named, arguments.model, arguments.out, console),
                   again="Nothing was written.")


def init(files: Sequence[str], named: dict[str, str | None], model: str | None, out: Path | None, console: Console) -> Path:
    """Look at files and write a sweep file, and the schema beside it that editors check it by.

    Raises:
        ConfigError: a role has no file, nothing tells columns or languages, or the file is there.
        DataError: a file cannot be read; Faults: several are wrong.
    """
    from mtselect.config.schema import json_schema
    from mtselect.data.languages import without_form
    from mtselect.look import assign_roles, look
    from mtselect.store import write_text_whole

    sources = assign_roles(files, named)
    name = re.sub(r"[^\w-]+", "-", without_form(Path(sources["pool"]).name)).strip("-") or "sweep"
    path = Path(f"{name}.yaml") if out is None else out
    if path.exists() or not path.parent.is_dir():
        raise ConfigError(f"--out must be a new file in a folder that exists, got {str(path)!r}: name another, or remove it")
    found = look(sources)
    text = "\n".join(_lines(found, name, model, path)) + "\n"
    schema = path.parent / SCHEMA
    write_text_whole(schema, json.dumps(json_schema(), indent=1) + "\n")
    write_text_whole(path, text)
    data = found.data
    console.print(f"{path} written: {found.rows['pool']:,} {data.src_lang}-{data.tgt_lang} pairs ({found.told_by})")
    console.print(f"next: {cli.program('mtselect')} check {path}", soft_wrap=True)
    return path


def _lines(found: Look, name: str, model: str | None, path: Path) -> Iterator[str]:
    """Of the sweep file."""
    data, rows, alone = found.data, found.rows, found.data.dev is None
    yield f"# yaml-language-server: $schema={SCHEMA}"
    yield "# Written by `mtselect init` from a look at the files. `mtselect sweep --help` says what every field is."
    yield f"#   mtselect check {path}      in seconds: what is wrong, what fits, what was chosen"
    if alone:
        yield f"#   mtselect select {path} --out selected.jsonl      the set; a sweep also needs dev and test"
    else:
        yield f"#   mtselect sweep {path}      the whole sweep; the same command goes on where it was stopped"
        yield f"#   mtselect promote {name}    the best set, checked again, as a version that the team loads by name"
    yield "experiment:"
    yield "  data:"
    for role, about in (("pool", "noisy candidates"), ("seeds", "trusted: what the set is chosen for"),
                        ("dev", "decides between trials"), ("test", "read once, by promote")):
        yield f"    {role}: {_text(getattr(data, role))}  # " + (f"{rows[role]:,} rows; " if role in rows else "") + about
    if (data.src_column, data.tgt_column) != ("src", "tgt"):
        yield f"    src_column: {_text(data.src_column)}"
        yield f"    tgt_column: {_text(data.tgt_column)}"
    if found.label is not None:
        column, share = found.label
        yield (f"    # label_column: {_text(column)}  # would tell the share of wrong pairs in every set; wrong: more there "
               f"than null, false or 0, as in {share:.0%} of the pool's first rows")
    yield f"    src_lang: {_text(data.src_lang)}  # {found.told_by}"
    yield f"    tgt_lang: {_text(data.tgt_lang)}"
    if not alone:
        yield "    drop_leaked: true  # what of pool and seeds is in dev or test, of dev in test; false stops the sweep instead"
        yield "    licence: null  # of the pool, its SPDX identifier (cc-by-4.0); promotion asks for it"
    yield from _model(model, rows["pool"])
    gate = list(_gate(found))
    if gate or alone:
        yield "  selection:"
        yield from gate
    if alone:
        yield "    budget: 0.33  # a share of the pool, or a number of pairs"
        yield f"study: {{name: {_text(name)}}}"
    else:
        yield from _sweep(found, name, model)


def _sweep(found: Look, name: str, model: str | None) -> Iterator[str]:
    """What finetunes, scores and searches."""
    data, rows = found.data, found.rows
    low, high = (10_000, 100_000) if rows["pool"] > _MANY_PAIRS else (0.1, 0.4)
    pairs = high if high > 1 else high * rows["pool"]
    steps = min(max(round(2 * pairs / _BATCH), _LEAST_STEPS), _MOST_STEPS)
    yield "  finetune:"
    yield f"    steps: {steps}  # for every set, whatever its size: two epochs of the largest"
    yield f"    learning_rate: {'1.0e-3' if model is None else '2.0e-4'}"
    if _needs_mecab(data.tgt_lang) or rows["dev"] > _DEV_ROWS:
        yield "  evaluation:"
        if _needs_mecab(data.tgt_lang):
            yield f"    metrics: [chrf]  # bleu for {data.tgt_lang} needs MeCab: pip install 'sacrebleu[ja]', or [ko]"
        if rows["dev"] > _DEV_ROWS:
            yield f"    dev_rows: {_DEV_ROWS}  # of dev's that decide between trials"
    yield "search:  # any field of the experiment by its dotted name"
    yield f"  selection.budget: {{low: {low}, high: {high}}}  # " + ("pairs" if high > 1 else "a share of the pool")
    yield "  selection.gate_keeps: {low: 0.8, high: 0.99}  # share of the seeds that the gate has to let through"
    yield "  selection.threshold: {low: 0.3, high: 0.55}  # share of the seeds for which a pair is above the pool's average"
    yield "study:"
    yield f"  name: {_text(name)}"
    yield "  n_trials: 12"
    yield "  objectives: [eval/chrf]"
    yield "tracking:"
    yield '  uri: null  # MLflow server, such as "http://mlflow.example:5000"; null is a file here, mlflow.db'


def _model(model: str | None, pool_rows: int) -> Iterator[str]:
    """Its section and the warm-up's."""
    yield "  model:"
    if model is None:
        yield "    name: null  # builds the small model below; name yours, such as Qwen/Qwen2.5-0.5B, and remove what follows"
        yield '    prompt: "{src}\\n"'
        yield "    hidden_size: 160"
        yield "    n_layers: 2"
        yield "    vocab_size: 2048"
    else:
        yield f"    name: {_text(model)}"
        yield "    lora_rank: 16  # 0 finetunes all weights"
    yield "  warmup:  # on the pool, before gradients are taken"
    yield f"    epochs: {3 if model is None else 1}"
    if pool_rows > 50_000:
        yield "    rows: 50000"
    yield f"    learning_rate: {'3.0e-3' if model is None else '1.0e-4'}"


def _gate(found: Look) -> Iterator[str]:
    """What the default gate cannot do here."""
    from mtselect.selection.gate import MIN_SEEDS, USUAL_SEEDS
    from mtselect.training.sentence_encoder import BUILT_IN, MANY, strange_to

    strange = " and ".join(strange_to(BUILT_IN, (found.data.src_lang, found.data.tgt_lang)))
    if found.rows["seeds"] < MIN_SEEDS:
        yield f"    gate: seed_loss  # the default, learned_adequacy, needs {MIN_SEEDS} seeds or more; {USUAL_SEEDS} are better"
    elif strange:
        yield f"    gate: learned  # learned_adequacy also compares meanings, if adequacy.encoder knows {strange}: {MANY}"


def _needs_mecab(tgt_lang: str) -> bool:
    from mtselect.metrics.bleu import bleu_tokenizer

    return bleu_tokenizer(tgt_lang).endswith("-mecab")


def _text(value: str | None) -> str:
    """As YAML takes it."""
    import yaml

    return yaml.safe_dump(value, allow_unicode=True, width=1000).removesuffix("...\n").strip()


if __name__ == "__main__":
    sys.exit(main())
