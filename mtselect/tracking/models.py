"""MLflow's logged models: one is made once, however often the answer is lost, and does not outlive a run that failed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_NOT_IN_NAMES = re.compile(r"""[/:.%"']""")


def create_model(client: Any, experiment_id: str, run_id: str, *, kind: str, name: str, tags: Mapping[str, str],
                 params: Mapping[str, str] | None = None) -> Any:
    """A logged model of a run, pending until it is finalised.

    Args:
        client: a PatientClient.
        experiment_id: where it is filed.
        run_id: it comes from; it has one pending model of a kind.
        kind: MLflow's `model_type`.
        name: characters that MLflow forbids become dashes.
        tags: of the model.
        params: likewise.
    """
    def again() -> Any:
        return next((one for one in _models(client, experiment_id, run_id) if one.model_type == kind and
                     one.status == "PENDING"), None)

    return client.create_logged_model(experiment_id, name=_NOT_IN_NAMES.sub("-", name), source_run_id=run_id, tags=dict(tags),
                                      params=dict(params or {}), model_type=kind, again=again)


def fail_models(client: Any, experiment_id: str, run_id: str) -> None:
    """What a run made before it failed is not taken for a result."""
    for model in _models(client, experiment_id, run_id):
        client.finalize_logged_model(model.model_id, "FAILED")


def _models(client: Any, experiment_id: str, run_id: str) -> Any:
    """Newest first."""
    return client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
