"""A stand-in for the Hub on the loopback address: what huggingface_hub asks for when it pushes and downloads."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from attrs import define, field

TOKEN = "hf_of_the_tests"


@define
class Commit:
    sha: str
    files: dict[str, bytes]
    message: str = ""


@define
class Repository:
    private: bool = False
    gated: bool = False
    branches: dict[str, list[Commit]] = field(factory=dict)

    def commit_of(self, revision: str) -> Commit | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        found = (c for commits in self.branches.values() for c in commits if c.sha == revision)
        return next(found, None)


@define
class StandInHub:
    """The state of the server. requests: method and path of each."""

    url: str = ""
    repositories: dict[str, Repository] = field(factory=dict)
    objects: dict[str, bytes] = field(factory=dict)
    requests: list[str] = field(factory=list)
    down: bool = False

    def add(self, name: str, files: dict[str, bytes], **settings: bool) -> Repository:
        repository = Repository(**settings)
        self.repositories[name] = repository
        self.commit(repository, "main", files, "first")
        return repository

    def commit(self, repository: Repository, branch: str, files: dict[str, bytes], message: str) -> Commit:
        earlier = repository.branches.setdefault(branch, [])
        text = json.dumps([branch, len(earlier), message, sorted(files)])
        commit = Commit(hashlib.sha1(text.encode()).hexdigest(), files, message)
        earlier.append(commit)
        return commit

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        return self.repositories[name].branches[branch][-1].files


class Handler(BaseHTTPRequestHandler):
    hub: StandInHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.route()

    do_HEAD = do_POST = do_PUT = do_GET

    def route(self) -> None:
        quoted = urlsplit(self.path).path
        path = unquote(quoted)
        self.hub.requests.append(f"{self.command} {path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hub.down:
            return self.answer(503, {"error": "down for maintenance"})
        parts = [unquote(part) for part in quoted.strip("/").split("/")]  # the slash of a branch is quoted
        if path == "/api/validate-yaml":
            return self.answer(200, {"warnings": [], "errors": []})
        if parts[0] == "lfs":
            return self.store(parts[1])
        if path == "/api/repos/create":
            return self.create()
        if parts[:2] == ["api", "models"]:
            return self.api("/".join(parts[2:4]), parts[4:])
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.batch()
        if len(parts) > 4 and parts[2] == "resolve":
            return self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return self.answer(404, {"error": f"no route {path}"})

    def answer(self, status: int, content: object = None, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @property
    def signed_in(self) -> bool:
        return self.headers.get("authorization") == f"Bearer {TOKEN}"

    def readable(self, name: str) -> Repository | None:
        """A repository that this request may read; otherwise answers as the Hub does."""
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self.signed_in):
            self.answer(404 if self.signed_in else 401, {"error": "not found"}, X_Error_Code="RepoNotFound")
            return None
        if found.gated and not self.signed_in:
            self.answer(403, {"error": "gated"}, X_Error_Code="GatedRepo")
            return None
        return found

    def create(self) -> None:
        if not self.signed_in:
            return self.answer(401, {"error": "Invalid username or password."})
        wanted = json.loads(self.body)
        name = f"{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] == "others":
            return self.answer(403, {"error": "You don't have the rights to create a model under the namespace"})
        if name in self.hub.repositories:
            return self.answer(409, {"error": "You already created it", "url": f"{self.hub.url}/{name}"})
        self.hub.add(name, {".gitattributes": b""}, private=wanted.get("visibility") == "private")
        return self.answer(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def api(self, name: str, rest: list[str]) -> None:
        repository = self.readable(name)
        if repository is None:
            return None
        if self.command == "POST" and not self.signed_in:
            return self.answer(403, {"error": "Authorization error."})
        what, revision = (rest[0], "/".join(rest[1:])) if rest else ("revision", "main")
        if what == "branch":
            if revision in repository.branches:
                return self.answer(409, {"error": "Reference already exists"})
            self.hub.commit(repository, revision, dict(self.hub.files(name)), "branch")
            return self.answer(201, {})
        commit = repository.commit_of(revision)
        if commit is None:
            return self.answer(404, {"error": "no revision"}, X_Error_Code="RevisionNotFound")
        if what == "tree":
            tree = [{"type": "file", "path": p, "size": len(b), "oid": "0" * 40} for p, b in commit.files.items()]
            return self.answer(200, tree)
        if what == "preupload":
            wanted = json.loads(self.body)["files"]
            modes = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith((".safetensors", ".png")) else "regular",
                    "shouldIgnore": False,
                }
                for f in wanted
            ]
            return self.answer(200, {"files": modes})
        if what == "commit":
            return self.commit_files(name, repository, revision, commit)
        siblings = [{"rfilename": path} for path in commit.files]
        info = {"id": name, "sha": commit.sha, "private": repository.private, "siblings": siblings, "tags": []}
        return self.answer(200, info)

    def commit_files(self, name: str, repository: Repository, branch: str, before: Commit) -> None:
        files, message = dict(before.files), ""
        for line in self.body.decode().splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        made = self.hub.commit(repository, branch, files, message)
        url = f"{self.hub.url}/{name}/commit/{made.sha}"
        self.answer(200, {"success": True, "commitOid": made.sha, "commitUrl": url, "hookOutput": ""})

    def batch(self) -> None:
        wanted = json.loads(self.body)["objects"]
        objects = [
            {
                "oid": o["oid"],
                "size": o["size"],
                "authenticated": True,
                "actions": {"upload": {"href": f"{self.hub.url}/lfs/{o['oid']}", "header": {}}},
            }
            for o in wanted
        ]
        self.answer(200, {"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.objects[oid] = self.body
        self.answer(200, {})

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository = self.readable(name)
        if repository is None:
            return None
        commit = repository.commit_of(revision)
        if commit is None:
            return self.answer(404, {"error": "no revision"}, X_Error_Code="RevisionNotFound")
        if path not in commit.files:
            return self.answer(404, {"error": "no file"}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit.sha)
        content = commit.files[path]
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        return self.answer(200, content, ETag=etag, X_Repo_Commit=commit.sha)


@contextmanager
def running() -> Iterator[StandInHub]:
    """A server in a thread of its own."""
    hub = StandInHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HandlerOfHub", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
