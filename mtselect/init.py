"""python -m mtselect.init FILE ... [--out SWEEP.yaml]

Writes a sweep file with comments from a look at your files: columns, languages, sizes and budgets. Files are pool, seeds, dev
and test; what each is, is told by its name (trusted.de-en, dev.jsonl) or by --pool, --seeds, --dev and --test. Two files of a
language each (crawl.de crawl.en) are one. Pool and seeds alone are enough for a set without a sweep (`mtselect select`). The
file passes `mtselect check` as it is.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
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
    parser = cli.parser_of("init", __doc__)
    parser.add_argument("files", nargs="*", metavar="FILE", help="pool, seeds, dev and test, in any form that a sweep reads")
    for role, about in (("pool", "noisy candidates"), ("seeds", "some hundred trusted pairs"),
                        ("dev", "pairs that decide between trials"), ("test", "pairs that are scored once, at promotion")):
        parser.add_argument(f"--{role}", metavar="FILE", help=about)
    parser.add_argument("--model", help="name on the Hugging Face hub, or folder, of the model to finetune (default: a small "
                        "one, built on the spot)")
    parser.add_argument("--out", metavar="SWEEP.yaml", type=Path, help="file to write (default: named as the pool is)")
    arguments = parser.parse_args(argv)
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
    text = _filled(found, name, model, path)
    schema = path.parent / SCHEMA
    write_text_whole(schema, json.dumps(json_schema(), indent=1) + "\n")
    write_text_whole(path, text)
    data = found.data
    console.print(f"{path} written: {found.rows['pool']:,} {data.src_lang}-{data.tgt_lang} pairs ({found.told_by})")
    console.print(f"next: {cli.program('mtselect')} check {path}", soft_wrap=True)
    return path


def _filled(found: Look, name: str, model: str | None, path: Path) -> str:
    """The sweep file: `init.yaml.jinja` with what was found, and what fits it."""
    from mtselect.metrics.bleu import bleu_tokenizer
    from mtselect.template import fill

    low, high = (10_000, 100_000) if found.rows["pool"] > _MANY_PAIRS else (0.1, 0.4)
    pairs = high if high > 1 else high * found.rows["pool"]
    return fill(Path(__file__).with_suffix(".yaml.jinja"), **vars(found), name=name, model=model, path=path, schema=SCHEMA,
                gate=_gate(found), low=low, high=high, steps=min(max(round(2 * pairs / _BATCH), _LEAST_STEPS), _MOST_STEPS),
                dev_rows=_DEV_ROWS, needs_mecab=bleu_tokenizer(found.data.tgt_lang).endswith("-mecab"))


def _gate(found: Look) -> str | None:
    """Where the default gate cannot do its work here, another one, and why."""
    from mtselect.selection.gate import MIN_SEEDS, USUAL_SEEDS
    from mtselect.training.sentence_encoder import BUILT_IN, MANY, strange_to

    strange = " and ".join(strange_to(BUILT_IN, (found.data.src_lang, found.data.tgt_lang)))
    if found.rows["seeds"] < MIN_SEEDS:
        return f"seed_loss  # the default, learned_adequacy, needs {MIN_SEEDS} seeds or more; {USUAL_SEEDS} are better"
    if strange:
        return f"learned  # learned_adequacy also compares meanings, if adequacy.encoder knows {strange}: {MANY}"
    return None


if __name__ == "__main__":
    sys.exit(main())
