"""A small hub on this machine, for huggingface_hub itself to talk to: repositories, commits, LFS uploads, downloads.

It speaks the part of the protocol that uploading and downloading a model takes, and keeps what it is given in memory.
Xet, the newer store behind the real hub, is not played: clients are told to do without.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Files = dict[str, bytes]


class Hub:
    """Repositories: name → commits, the oldest first, each its sha and all its files."""

    def __init__(self) -> None:
        self.repos: dict[str, list[tuple[str, Files]]] = {}
        self.private: dict[str, bool | None] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.address = ""

    def commit(self, repo: str, files: Files) -> str:
        commits = self.repos.setdefault(repo, [])
        whole = {**(commits[-1][1] if commits else {}), **files}
        sha = hashlib.sha1(repr((len(commits), sorted(whole.items()))).encode()).hexdigest()
        commits.append((sha, whole))
        return sha

    def at(self, repo: str, revision: str) -> tuple[str, Files] | None:
        commits = self.repos.get(repo, [])
        if revision == "main":
            return commits[-1] if commits else None
        return next((commit for commit in commits if commit[0] == revision), None)


@contextmanager
def running() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _lfs(content: bytes) -> bool:
    return b"\0" in content[:1000]  # the real hub goes by name and size too


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        content = self._body()
        oid = self.path.rsplit("/", 1)[1]
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.blobs[oid] = content
        self._send(200, b"")

    def do_POST(self) -> None:
        body, hub = self._body(), self.hub
        hub.asked.append(f"POST {self.path}")
        path = self.path.partition("?")[0]
        if self.headers.get("Authorization") != "Bearer hf_write":
            return self._json({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            hub.repos.setdefault(name, [])
            hub.private[name] = asked.get("private")
            return self._json({"url": f"{hub.address}/{name}", "name": name})
        if path == "/api/validate-yaml":
            front = json.loads(body)["content"].split("---")[1]
            return self._json({"errors": [], "warnings": []}, 200 if "license: " in front else 400)
        if found := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if _lfs(base64.b64decode(file["sample"])) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": modes})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**asked, "actions": {"upload": {"href": f"{hub.address}/blobs/{asked['oid']}"}}}
                for asked in json.loads(body)["objects"]
            ]
            return self._json({"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            files: Files = {}
            for line in body.splitlines():
                item = json.loads(line)
                value = item["value"]
                if item["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif item["key"] == "lfsFile":
                    files[value["path"]] = hub.blobs[value["oid"]]
            sha = hub.commit(found[1], files)
            return self._json({"commitUrl": f"{hub.address}/{found[1]}/commit/{sha}", "commitOid": sha})
        return self._json({"error": "not played"}, 404)

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            commit = self.hub.at(found[1], found[3] or "main")
            if commit is None:
                return self._missing("RevisionNotFound" if found[1] in self.hub.repos else "RepoNotFound")
            if found[2] == "tree":
                return self._json([self._entry(name, content) for name, content in commit[1].items()])
            siblings = [{"rfilename": name} for name in commit[1]]
            return self._json({"id": found[1], "sha": commit[0], "siblings": siblings, "private": False})
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            commit = self.hub.at(found[1], found[2])
            if commit is None or found[3] not in commit[1]:
                return self._missing("EntryNotFound" if commit else "RepoNotFound")
            content = commit[1][found[3]]
            return self._send(
                200, content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', **{"X-Repo-Commit": commit[0]}
            )
        return self._missing("EntryNotFound")

    def _entry(self, name: str, content: bytes) -> dict[str, Any]:
        entry = {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        lfs = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return entry | ({"lfs": lfs} if _lfs(content) else {})

    def _missing(self, code: str) -> None:
        self._send(404, b"{}", **{"X-Error-Code": code})

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""
