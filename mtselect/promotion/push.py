"""A version of a dataset on the Hugging Face hub: a commit of its files, and its number as a tag, in a dataset repository.

What can be known to be wrong is said before anything is computed (`check_repository`). A push that was cut off goes on by the
same command, and one that was done changes nothing: the hub tells which files it has, and the tag is set last.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mtselect.errors import ConfigError, HubError, PromotionRefused, UserError
from mtselect.promotion.card import data_of, hub_card
from mtselect.promotion.order import Order
from mtselect.remote import first_line, reason
from mtselect.tracking.fetch import fetch_version
from mtselect.tracking.registry import CHALLENGER, CHAMPION, Registry

if TYPE_CHECKING:
    from huggingface_hub import HfApi

NO_LICENCE = ("a set without a licence is not pushed: give the pool's as its SPDX identifier, with `--licence cc-by-4.0` here "
              "or as data.licence in the sweep")
_SECONDS = 10.0  # that the hub is waited for at first
_ROWS = "selected.jsonl"


def check_repository(repository: str, *, private: bool) -> None:
    """All that can be known before any work: the name, the token and what it may do, who sees the repository if there is one.

    Args:
        repository: ORG/NAME.
        private: it is to be a private one.

    Raises:
        ConfigError: it cannot be a name, or the repository is there and public.
        HubError: the hub does not answer, there is no token, or it may not write there.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    api = HfApi()
    organisation, _, name = repository.partition("/")
    public = None
    with _asking(api):
        try:
            public = not api.repo_info(repository if name else "", repo_type="dataset", timeout=_SECONDS).private
        except HFValidationError as error:
            raise ConfigError("--push must be ORG/NAME, each of at most 96 letters, digits, '-', '_' and '.', with neither -- "
                              f"nor .. in it, got {repository!r}: correct it") from error
        except RepositoryNotFoundError:  # or a token that may not see it
            pass
        _check_owner(organisation, api.whoami())
        if public is not None:
            api.auth_check(repository, repo_type="dataset", write=True)
    if public and private:
        raise ConfigError(f"--private is for a repository that push makes, and {repository!r} is there and public: make it "
                          "private in its settings, or push without --private")


def _check_owner(organisation: str, me: Mapping[str, Any]) -> None:
    """Raise HubError where the token's owner cannot have a repository there, as far as the hub's `whoami` says."""
    if me.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise HubError("the token of the Hugging Face hub may only read: make one that may write, and set HF_TOKEN to it")
    roles = {me["name"]: "admin", **{one["name"]: one.get("roleInOrg", "write") for one in me.get("orgs", [])}}
    role = {name.lower(): role for name, role in roles.items()}.get(organisation.lower())
    if role in (None, "read"):
        allowed = ", ".join(name for name, role in roles.items() if role != "read")
        raise HubError(f"{me['name']!r}, whose token of the Hugging Face hub this is, may write to repositories of {allowed}, "
                       f"not of {organisation!r}: correct the name, or take the token of somebody who may")


def push(order: Order, registry: Registry, console: Console) -> None:
    """Push the champion, or by force the challenger of a dataset that has no champion.

    Raises:
        PromotionRefused: there is none, it did not pass a gate, or has no licence.
        HubError: the hub does not answer or refuses it.
    """
    assert order.push is not None
    version, alias = registry.champion(), CHAMPION
    if version is None:
        version, alias = registry.challenger(), CHALLENGER
        if version is None:
            raise PromotionRefused(f"{registry.name} has no champion to push: promote the study first")
        if not order.force:
            raise PromotionRefused(f"{registry.name} has no champion, and version {version.number} is only {alias}: --force "
                                   "pushes it all the same")
    failed = [text.removeprefix("failed: ") for name, text in sorted(version.tags.items())
              if name.startswith("mtselect.gate.") and text.startswith("failed: ")]
    if failed and not order.force:
        raise PromotionRefused(f"version {version.number} of {registry.name} is not pushed, as it was promoted by force: "
                               f"{'; '.join(failed)}; --force pushes it all the same")
    tag = f"v{version.number}"
    with tempfile.TemporaryDirectory() as aside:
        folder, _ = fetch_version(f"models:/{registry.name}/{version.number}", order.uri, Path(aside))
        if (licence := order.licence or data_of(folder).licence) is None:
            raise PromotionRefused(NO_LICENCE)
        if order.dry_run:
            console.print(f"dry run: nothing was pushed; without --dry-run version {version.number} would be {tag} of "
                          f"{order.push}")
            return
        card = hub_card(folder, name=registry.name, alias=alias, study=order.study, licence=licence, repository=order.push,
                        tag=tag)
        (folder / "README.md").write_text(card, encoding="utf-8")
        with console.status(f"pushing {tag} to {order.push}"):
            changed = _upload(folder, order.push, tag, f"{registry.name} version {version.number}", private=order.private)
    done = f"was pushed to {order.push} as {tag}" if changed else f"is {tag} of {order.push} already: nothing to push"
    console.print(f"[green]{registry.name}[/] version {version.number} {done}")
    console.print(f"load it      datasets.load_dataset('{order.push}', revision='{tag}', split='train')", soft_wrap=True)


def _upload(folder: Path, repository: str, tag: str, title: str, *, private: bool) -> bool:
    """Make the repository, its main branch and the tag what they are to be; whether anything had to be changed."""
    from huggingface_hub import CommitOperationAdd, DatasetCard, HfApi
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()  # an error would be told on the line of one that did not end
    api = HfApi()
    with _asking(api):
        tagged = _is_tagged(api, repository, tag, (folder / _ROWS).read_bytes())
        DatasetCard.load(folder / "README.md").validate(repo_type="dataset")  # before there is an empty repository
        api.create_repo(repository, repo_type="dataset", private=private or None, exist_ok=True)
        before = api.repo_info(repository, repo_type="dataset").sha
        files = [CommitOperationAdd(path.name, path) for path in sorted(folder.iterdir())]
        now = api.create_commit(repository, files, commit_message=title, repo_type="dataset").oid  # the same if nothing is new
        if not tagged:
            api.create_tag(repository, tag=tag, revision=now, repo_type="dataset")
    return now != before or not tagged


def _is_tagged(api: HfApi, repository: str, tag: str, rows: bytes) -> bool:
    """Whether the tag is there, with these rows. Raises PromotionRefused if it has others."""
    from huggingface_hub import RepoFile
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils.sha import git_hash

    try:
        found = api.get_paths_info(repository, [_ROWS], revision=tag, repo_type="dataset")
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return False
    hashes = [file.lfs.sha256 if file.lfs else file.blob_id for file in found if isinstance(file, RepoFile)]
    if not {git_hash(rows), sha256(rows).hexdigest()}.intersection(hashes):
        raise PromotionRefused(f"{repository} has a {tag} already, of another set: push to a repository of this dataset's own, "
                               "or delete that tag there")
    return True


@contextmanager
def _asking(api: HfApi) -> Iterator[None]:
    """What goes wrong with the hub, as a HubError of one line."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    hub = f"the Hugging Face hub at {api.endpoint}"
    try:
        yield
    except UserError:
        raise
    except LocalTokenNotFoundError as error:
        raise HubError(f"there is no token for {hub}: set HF_TOKEN, or log in with `hf auth login`") from error
    except OfflineModeIsEnabled as error:
        raise HubError(f"{hub} is not asked where HF_HUB_OFFLINE is set: unset it to push") from error
    except HfHubHTTPError as error:
        status, said = error.response.status_code, first_line(Exception(error.server_message or error))
        raise HubError({
            401: f"{hub} refuses the token ({said}): set HF_TOKEN to one that is valid, or log in with `hf auth login`",
            403: f"{hub} does not let the token's owner write there ({said}): take a token with that permission",
        }.get(status, f"{hub} answers {status} ({said}): what was pushed is kept; run the same command again")) from error
    except ValueError as error:
        raise HubError(f"{hub} refuses the card ({_faults(str(error))}): correct what it names; a licence that is none of its "
                       "list is `--licence other`") from error
    except Exception as error:  # the classes are those of an HTTP library that changes between versions
        raise HubError(f"{hub} does not answer ({reason(error)}): run the same command again when it does") from error


def _faults(answer: str) -> str:
    """What the hub found wrong with a card's header, out of its JSON if it is that."""
    try:
        return "; ".join(str(fault["message"]) for fault in json.loads(answer)["errors"])
    except (ValueError, KeyError, TypeError):
        return " ".join(answer.split())
