"""A stand-in for the Hugging Face hub: what of its HTTP API a push and `datasets.load_dataset` call, on a port of this machine.

It keeps what it is given, as commits and tags. Parquet goes by LFS and all else by the commit itself, as there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants

LICENCES = {"cc0-1.0", "cc-by-4.0", "mit", "apache-2.0", "other"}
REPO = r"(?P<repo>[^/]+/[^/]+)"
Answer = tuple[int, bytes, dict[str, str]]  # status, body, headers


class Refused(Exception):  # noqa: N818  (an answer)
    """An answer of status 400 and above."""

    def __init__(self, status: int, error: str, code: str = "", **more: object) -> None:
        self.status, self.code, self.body = status, code, {"error": error, **more}


@dataclass
class Repository:
    """One dataset repository: `commits` from the first to the head of main, each with all its files; `tags` name commits."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def add(self, title: str, files: dict[str, bytes]) -> str:
        """A commit on main; its id."""
        oid = hashlib.sha1(f"{len(self.commits)} {title}".encode()).hexdigest()
        self.commits[oid] = {**(self.files("main") if self.commits else {}), **files}
        self.titles.append(title)
        return oid

    def oid(self, revision: str) -> str:
        """The commit that a branch, a tag or an id stands for."""
        found = list(self.commits)[-1] if revision == "main" else self.tags.get(revision, revision)
        if found not in self.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    def files(self, revision: str) -> dict[str, bytes]:
        """Of a commit."""
        return self.commits[self.oid(revision)]


def is_lfs(path: str) -> bool:
    return path.endswith(".parquet")


def entry(path: str, data: bytes) -> dict[str, Any]:
    """A file as listings have it."""
    git = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    lfs = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 100}
    return {"type": "file", "path": path, "size": len(data), "oid": git, **({"lfs": lfs} if is_lfs(path) else {})}


@dataclass
class Hub:
    """The server, while it is entered.

    Args:
        token: that it takes; its owner is `me`, an admin of `team` who may read in `readers`.
        role: of the token.
        repositories: what it has.
        closed: repositories that the owner may not write to.
        fail: of a method and a part of a path: the next such request is carried out if `late`, and answered with 500.
        asked: method and path of every request.
    """

    token: str = "hf_right"
    role: str = "write"
    repositories: dict[str, Repository] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    fail: list[tuple[str, str, bool]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    lfs: dict[str, bytes] = field(default_factory=dict)

    def __enter__(self) -> Hub:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.serve(self)

            do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def written(self) -> list[tuple[str, str]]:
        """Requests that change something."""
        return [(method, path) for method, path in self.asked if method in ("POST", "PUT")
                and not path.endswith("validate-yaml") and "paths-info" not in path]

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """One request."""
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        method, path = request.command, unquote(urlsplit(request.path).path)
        self.asked.append((method, path))
        fault = next((one for one in self.fail if one[0] == method and one[1] in path), None)
        headers = {"Content-Type": "application/json"}
        try:
            if fault is not None:
                self.fail.remove(fault)
            if fault is None or fault[2]:
                status, answer, more = self.answer(method, path, body, request)
                headers |= more
            if fault is not None:
                raise Refused(500, "Internal Error")
        except Refused as refused:
            status, answer = refused.status, json.dumps(refused.body).encode()
            headers |= {"X-Error-Message": str(refused.body["error"]), "X-Error-Code": refused.code}
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(answer))}.items():
            request.send_header(name, value)
        request.end_headers()
        if method != "HEAD":
            request.wfile.write(answer)

    def answer(self, method: str, path: str, body: bytes, request: BaseHTTPRequestHandler) -> Answer:
        """Of one request."""
        given = request.headers.get("Authorization")
        if given is not None and given != f"Bearer {self.token}":
            raise Refused(401, "Invalid username or password.")
        self.authorised = given is not None
        for pattern, kind, handle in self.routes():
            if kind in (method, "GET" if method == "HEAD" else method) and (match := re.fullmatch(pattern, path)):
                parts = match.groupdict()
                if "repo" in parts:
                    found = self.repositories.get(parts["repo"])
                    if found is None or (found.private and not self.authorised):
                        raise Refused(404, "Repository not found", "RepoNotFound")
                    if method in ("POST", "PUT") and "paths-info" not in path:
                        self.check_write(parts["repo"])
                    parts["repository"] = found
                made = handle(body, **parts)
                return made if isinstance(made, tuple) else (200, json.dumps(made).encode(), {})
        raise Refused(404, f"the stand-in does not know {method} {path}")

    def check_write(self, name: str) -> None:
        if not self.authorised or name in self.closed or self.role == "read":
            raise Refused(403, "you must have write access to it")

    def routes(self) -> Iterator[tuple[str, str, Callable[..., Any]]]:
        """Pattern of a path, method, and what answers it."""
        api = f"/api/datasets/{REPO}"
        yield "/api/whoami-v2", "GET", self.whoami
        yield "/api/validate-yaml", "POST", self.validate
        yield "/api/repos/create", "POST", self.create
        yield "/lfs/(?P<oid>[0-9a-f]+)", "PUT", self.put
        yield f"{api}/auth-check/write", "GET", lambda _, repo, repository: self.check_write(repo) or {}
        yield f"{api}(/revision/(?P<revision>.+))?", "GET", self.info
        yield f"{api}/tree/(?P<revision>[^/]+)(/.*)?", "GET", self.tree
        yield f"{api}/paths-info/(?P<revision>[^/]+)", "POST", self.paths
        yield f"{api}/preupload/main", "POST", self.preupload
        yield f"{api}/commit/main", "POST", self.commit
        yield f"{api}/tag/(?P<revision>[^/]+)", "POST", self.tag
        yield f"/datasets/{REPO}\\.git/info/lfs/objects/batch", "POST", self.batch
        yield f"/datasets/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "GET", self.resolve

    def whoami(self, _: bytes) -> Any:
        orgs = [{"type": "org", "name": "team", "roleInOrg": "admin"}, {"type": "org", "name": "readers", "roleInOrg": "read"}]
        if not self.authorised:
            raise Refused(401, "Invalid username or password.")
        return {"type": "user", "name": "me", "orgs": orgs,
                "auth": {"type": "access_token", "accessToken": {"displayName": "t", "role": self.role}}}

    def validate(self, body: bytes) -> Any:
        header = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
        faults = [] if header["license"] in LICENCES else [{"message": f'"license" must be one of {sorted(LICENCES)}'}]
        faults += [{"message": '"language" must only contain lowercase characters'} for one in header.get("language", [])
                   if not re.fullmatch("[a-z]{2,3}", one)]
        if faults:
            raise Refused(400, "Invalid metadata", errors=faults, warnings=[])
        return {"errors": [], "warnings": []}

    def create(self, body: bytes) -> Any:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        assert asked["type"] == "dataset"
        if name in self.repositories:
            raise Refused(409, "You already created this dataset repo", url=f"{self.address}/datasets/{name}")
        self.check_write(name)
        self.repositories[name] = Repository(private=asked.get("visibility") == "private" or bool(asked.get("private")))
        self.repositories[name].add("initial commit", {".gitattributes": b"*.parquet filter=lfs\n"})
        return {"url": f"{self.address}/datasets/{name}"}

    def info(self, _: bytes, repo: str, repository: Repository, revision: str | None) -> Any:
        oid = repository.oid(revision or "main")
        return {"id": repo, "sha": oid, "private": repository.private, "tags": [], "downloads": 0, "likes": 0,
                "siblings": [{"rfilename": path} for path in repository.commits[oid]]}

    def tree(self, _: bytes, repo: str, repository: Repository, revision: str) -> Any:
        return [entry(path, data) for path, data in repository.files(revision).items()]

    def paths(self, body: bytes, repo: str, repository: Repository, revision: str) -> Any:
        files = repository.files(revision)
        return [entry(path, files[path]) for path in parse_qs(body.decode()).get("paths", []) if path in files]

    def preupload(self, body: bytes, repo: str, repository: Repository) -> Any:
        listed = {path: entry(path, data) for path, data in repository.files("main").items()}
        known = {path: one.get("lfs", one)["oid"] for path, one in listed.items()}
        return {"files": [{"path": path, "uploadMode": "lfs" if is_lfs(path) else "regular", "shouldIgnore": False,
                           "oid": known.get(path)} for path in (one["path"] for one in json.loads(body)["files"])]}

    def batch(self, body: bytes, repo: str, repository: Repository) -> Any:
        objects = [{"oid": one["oid"], "size": one["size"], **({} if one["oid"] in self.lfs else {
            "actions": {"upload": {"href": f"{self.address}/lfs/{one['oid']}"}}})} for one in json.loads(body)["objects"]]
        return {"transfer": "basic", "objects": objects}

    def put(self, body: bytes, oid: str) -> Any:
        assert hashlib.sha256(body).hexdigest() == oid
        self.lfs[oid] = body
        return {}

    def commit(self, body: bytes, repo: str, repository: Repository) -> Any:
        title, files = "", {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                title = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "lfsFile"
                files[value["path"]] = self.lfs[value["oid"]]
        oid = repository.add(title, files)
        return {"commitOid": oid, "commitUrl": f"{self.address}/datasets/{repo}/commit/{oid}"}

    def tag(self, body: bytes, repo: str, repository: Repository, revision: str) -> Any:
        name = json.loads(body)["tag"]
        if name in repository.tags:
            raise Refused(409, "Tag already exists")
        repository.tags[name] = repository.oid(revision)
        return {}

    def resolve(self, _: bytes, repo: str, repository: Repository, revision: str, path: str) -> Answer:
        files = repository.files(revision)
        if path not in files:
            raise Refused(404, "Entry not found", "EntryNotFound")
        return 200, files[path], {"ETag": f'"{entry(path, files[path])["oid"]}"', "X-Repo-Commit": repository.oid(revision),
                                  "Content-Type": "application/octet-stream"}



@contextmanager
def hub_of_this_process() -> Iterator[Hub]:
    """The stand-in, as the hub that huggingface_hub finds here, and a token for it."""
    with Hub() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", server.address)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # LFS then, which is plain HTTP
        patch.setattr(constants, "HF_TOKEN_PATH", os.devnull)
        patch.setenv("HF_TOKEN", server.token)
        yield server
