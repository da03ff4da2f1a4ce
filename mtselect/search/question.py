"""What a study asks. Trials that answer another question do not compare, so a study that goes on has to ask the same one."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal

from mtselect.config import Experiment, Sweep, validated
from mtselect.data.fingerprint import local_digest
from mtselect.errors import ConfigError
from mtselect.metrics.base import direction
from mtselect.readers.base import source_fingerprint

Question = dict[str, Any]  # as JSON keeps it


def directions(sweep: Sweep) -> list[Literal["minimize", "maximize"]]:
    """Of each objective."""
    return [direction(name) for name in sweep.study.objectives]


def question(sweep: Sweep) -> Question:
    """Experiment, search, objectives with their directions, and what the sources and a model's folder hold, as plain values.

    Optuna itself only knows how many objectives there are, and would rank BLEU among chrF. Test decides too: what leaks from it
    leaves the others.
    """
    return {"experiment": dataclasses.asdict(sweep.experiment),
            "search": {path: dataclasses.asdict(space) for path, space in sweep.search.items()},
            "objectives": dict(zip(sweep.study.objectives, directions(sweep), strict=True)),
            "content": content(sweep.experiment)}


def content(experiment: Experiment) -> dict[str, str]:
    """Fingerprints of what the sources hold, and the model's folder if it is one."""
    sources = {role: getattr(experiment.data, role) for role in ("pool", "seeds", "dev", "test")}
    found = {role: source_fingerprint(source) for role, source in sources.items() if source is not None}
    if (name := experiment.model.name) and (digest := local_digest(name)):
        found["model"] = digest
    return {name: digest[:20] for name, digest in found.items()}


def refuse_other_content(experiment: Experiment, begun: Question) -> None:
    """Raise ConfigError where the sources or the model's folder hold something else than when a study was begun."""
    if changed := differences(begun.get("content", {}), content(experiment)):
        raise ConfigError(f"what it was begun with has changed: {'; '.join(changed[:3])}")


def begun_experiment(begun: Question) -> Question:
    """A study's experiment, with what versions did that had no field for it: statistics were in float32."""
    found: Question = begun["experiment"]
    return {**found, "attribution": {"statistics": "float32", **found["attribution"]}}


def refuse_other(sweep: Sweep, begun: Question) -> None:
    """Raise ConfigError with both values where a study was begun with another question."""
    then = {**begun, "experiment": dataclasses.asdict(validated(Experiment, begun_experiment(begun), lenient=True))}
    if changed := differences(then, question(sweep)):
        raise ConfigError(f"study {sweep.study.name!r} was begun with other settings ({'; '.join(changed[:3])}): "
                          "its trials would not compare; choose another study.name")


def differences(old: object, new: object, path: str = "") -> list[str]:
    """Dotted fields in which two plain values differ, as `field: old -> new`. Objectives differ as a whole, also in order."""
    if isinstance(old, dict) and isinstance(new, dict) and path != "objectives":
        keys = [*old, *(key for key in new if key not in old)]
        return [text for key in keys for text in differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))]
    return [] if json.dumps(old) == json.dumps(new) else [f"{path}: {old!r} -> {new!r}"]
