"""Promoted datasets: versions of a registered model, their aliases `champion` and `challenger`, and who was champion before.

    registered model mtselect.<study>   tag mtselect.champions: versions that were champion, oldest first, the reigning one last
      version N                         a LoggedModel of type `dataset` with its own copy of the files; tags: scores and gates

MLflow's registry is made for models; a dataset that is versioned, aliased and found by name is a model to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtselect.environment import environment_variable
from mtselect.errors import PromotionRefused
from mtselect.tracking.models import create_model

CHAMPION, CHALLENGER = "champion", "challenger"
_HISTORY = "mtselect.champions"


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of a dataset.

    Args:
        number: counts from 1.
        model_id: of the logged model that holds its files.
        tags: scores and gates.
    """

    number: str
    model_id: str
    tags: dict[str, str]

    @staticmethod
    def of(found: Any) -> Version:
        """As MLflow gives it, whose own registry knows the logged model by the version's source alone."""
        return Version(number=str(found.version), model_id=found.model_id or found.source.removeprefix("models:/"),
                       tags=dict(found.tags))

    @property
    def digest(self) -> str | None:
        """Hash of the ids."""
        return self.tags.get("mtselect.selected")


def resolving(uri: str) -> AbstractContextManager[None]:
    """Of a models:/ address MLflow 3.17 asks the server that it finds by itself, whatever its client was told."""
    return environment_variable("MLFLOW_TRACKING_URI", uri, anyway=True)


class Registry:
    """The versions of one dataset.

    Args:
        client: an MlflowClient.
        uri: of its server.
        experiment_id: where the files' LoggedModels are filed.
        name: of the registered model.
    """

    def __init__(self, client: Any, uri: str, experiment_id: str, name: str) -> None:
        self._client, self._uri, self._experiment_id, self.name = client, uri, experiment_id, name

    def versions(self) -> list[Version]:
        """All there are, newest first; none where nothing was ever registered."""
        found = self._client.search_model_versions(f"name = '{self.name}'")
        return [Version.of(one) for one in sorted(found, key=lambda one: -int(one.version))]

    def champion(self) -> Version | None:
        """The version with the alias."""
        return self._at(CHAMPION)

    def challenger(self) -> Version | None:
        """Likewise."""
        return self._at(CHALLENGER)

    def register(self, folder: Path, run_id: str, tags: Mapping[str, str], description: str) -> Version:
        """Copy a folder into a new version, that outlives the run it came from.

        Args:
            folder: its files.
            run_id: the trial it is linked to.
            tags: `mtselect.selected` among them.
            description: Markdown.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self.name, tags={"mtselect.kind": "dataset"})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

        def again() -> Any:  # the answer to create_model_version may be lost
            return next((one for one in self._client.search_model_versions(f"name = '{self.name}'")
                         if one.tags.get("mtselect.selected") == tags["mtselect.selected"]), None)

        model = create_model(self._client, self._experiment_id, run_id, kind="dataset", name=self.name, tags=tags)
        with resolving(self._uri):
            self._client.log_model_artifacts(model.model_id, str(folder))
            self._client.finalize_logged_model(model.model_id, "READY")
            made = self._client.create_model_version(self.name, model.model_uri, run_id=run_id, model_id=model.model_id,
                                                     tags=dict(tags), description=description, again=again)
        return Version.of(made)

    def crown(self, number: str) -> None:
        """Make a version the champion; it is then no challenger, and the one before is remembered."""
        past = [one for one in self._history() if one != number]
        self._client.set_registered_model_alias(self.name, CHAMPION, number)
        self._client.set_registered_model_tag(self.name, _HISTORY, json.dumps([*past, number]))
        challenger = self.challenger()
        if challenger is not None and challenger.number == number:
            self._client.delete_registered_model_alias(self.name, CHALLENGER)

    def challenge(self, number: str) -> None:
        """Make a version the challenger."""
        self._client.set_registered_model_alias(self.name, CHALLENGER, number)

    def rollback(self) -> tuple[str, str]:
        """Give the alias back to the champion before; returns (old, new) numbers.

        Raises:
            PromotionRefused: there was none before.
        """
        past = self._history()
        if len(past) < 2:
            raise PromotionRefused(f"{self.name} has no earlier champion to roll back to: its champions were {past or 'none'}")
        self._client.set_registered_model_alias(self.name, CHAMPION, past[-2])
        self._client.set_registered_model_tag(self.name, _HISTORY, json.dumps(past[:-1]))
        return past[-1], past[-2]

    def _at(self, alias: str) -> Version | None:
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_model_version_by_alias(self.name, alias)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None
        return Version.of(found)

    def _history(self) -> list[str]:
        from mlflow.exceptions import MlflowException

        try:
            tags = self._client.get_registered_model(self.name).tags
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return []
        champion = self._at(CHAMPION)
        past: list[str] = json.loads(tags.get(_HISTORY, "[]"))
        return past if past or champion is None else [champion.number]
