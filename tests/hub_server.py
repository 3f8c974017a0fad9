"""A Hugging Face Hub on localhost: as much as its client asks for, and faults on demand.

Small files are served where they are asked for, large ones after a redirect to another origin, as
the Hub does with its CDN.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

_LARGE = (".gguf", ".safetensors", ".bin", ".pth", ".pt")
_API = re.compile(r"^/api/models/(?P<repo>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?$")
_RESOLVE = re.compile(r"^/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)$")
_CDN = re.compile(r"^/cdn/(?P<sha256>[0-9a-f]{64})$")


@dataclass(slots=True)
class HubRepo:
    """A repository: its files on `main`, and who may read them."""

    files: dict[str, bytes]
    is_gated: bool = False
    listed_sizes: dict[str, int] = field(default_factory=dict)
    """Sizes that the listing states instead of the true ones."""

    @property
    def commit(self) -> str:
        digest = hashlib.sha1(usedforsecurity=False)
        for name, content in sorted(self.files.items()):
            digest.update(name.encode() + content)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """What the server remembers of a request."""

    method: str
    path: str
    range: str | None
    authorization: str | None


class HubServer:
    """Serves `repos` from a thread; the faults are attributes that a test sets."""

    def __init__(self, repos: Mapping[str, HubRepo]) -> None:
        self.repos = dict(repos)
        self.seen: list[SeenRequest] = []
        self.cuts: deque[int] = deque()
        """Bytes of a large file after which to hang up, one for each of the next requests."""
        self.statuses: deque[int] = deque()
        """Statuses with which to answer the next requests for large files."""
        self.corrupt: set[str] = set()
        """Files that arrive with a wrong byte."""
        self.ignores_ranges = False
        self.is_portal = False
        """Whether every answer is a page that asks to sign in, as in a hotel's network."""
        self.stalls_after: int | None = None
        """Bytes of a large file after which nothing more comes, until `go_on` is set."""
        self.go_on = Event()
        self._lock = Lock()
        self._server = _Server(self)
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def cdn_url(self) -> str:
        return f"http://localhost:{self._server.server_port}/cdn"  # another origin, to a client

    def downloads(self) -> list[SeenRequest]:
        """The requests for the bytes of large files, in order."""
        return [request for request in self.seen if request.path.startswith("/cdn/")]

    def stop(self) -> None:
        self.go_on.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def remember(self, request: SeenRequest) -> None:
        with self._lock:
            self.seen.append(request)

    def next_fault(self, faults: deque[int]) -> int | None:
        with self._lock:
            return faults.popleft() if faults else None

    def content(self, repo: HubRepo, file: str) -> bytes:
        content = repo.files[file]
        return bytes([content[0] ^ 1]) + content[1:] if file in self.corrupt else content


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_blob_id(content: bytes) -> str:
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, hub: HubServer) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def _hub(self) -> HubServer:
        assert isinstance(self.server, _Server)
        return self.server.hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:  # pytest's output is for pytest
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self._hub.remember(
            SeenRequest(
                self.command, path, self.headers.get("Range"), self.headers["Authorization"]
            )
        )
        if self._hub.is_portal:
            self._send(200, b"<html>Welcome</html>", {"Content-Type": "text/html"})
        elif match := _API.match(path):
            self._answer_info(match["repo"], match["revision"])
        elif match := _CDN.match(path):
            self._answer_cdn(match["sha256"])
        elif match := _RESOLVE.match(path):
            self._answer_resolve(match["repo"], match["revision"], match["file"])
        else:
            self._refuse(404, "NotFound", "Sorry, we can't find the page.")

    def _answer_info(self, name: str, revision: str | None) -> None:
        repo = self._find(name, revision)
        if repo is None:
            return
        siblings: list[dict[str, Any]] = []
        for file, content in repo.files.items():
            size = repo.listed_sizes.get(file, len(content))
            sibling: dict[str, Any] = {
                "rfilename": file,
                "size": size,
                "blobId": git_blob_id(content),
            }
            if file.endswith(_LARGE):
                sibling["lfs"] = {"sha256": sha256(content), "size": size, "pointerSize": 134}
            siblings.append(sibling)
        info = {
            "id": name,
            "modelId": name,
            "sha": repo.commit,
            "private": False,
            "gated": "auto" if repo.is_gated else False,
            "tags": [],
            "siblings": siblings,
        }
        self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _answer_resolve(self, name: str, revision: str, file: str) -> None:
        repo = self._find(name, revision)
        if repo is None:
            return
        if repo.is_gated and self.headers["Authorization"] != "Bearer hf_licensed":
            self._refuse(403, "GatedRepo", f"Access to model {name} is restricted.")
            return
        if file not in repo.files:
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        content = self._hub.content(repo, file)
        headers = {"X-Repo-Commit": repo.commit}
        if not file.endswith(_LARGE):
            self._send(200, content, {**headers, "ETag": f'"{git_blob_id(content)}"'})
            return
        listed = sha256(repo.files[file])
        headers |= {
            "X-Linked-Size": str(len(content)),
            "X-Linked-ETag": f'"{listed}"',
            "Location": f"{self._hub.cdn_url}/{listed}",
        }
        self._send(302, b"", headers)

    def _answer_cdn(self, wanted: str) -> None:
        status = self._hub.next_fault(self._hub.statuses)
        if status is not None:
            self._send(status, b"<html>busy</html>", {"Content-Type": "text/html"})
            return
        content = next(
            self._hub.content(repo, file)
            for repo in self._hub.repos.values()
            for file, listed in repo.files.items()
            if sha256(listed) == wanted
        )
        headers = {"Accept-Ranges": "bytes", "ETag": f'"{wanted}"'}
        asked = self.headers.get("Range")
        if asked is None or self._hub.ignores_ranges:
            self._send_faulty(200, content, headers)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        total = len(content)
        headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        self._send_faulty(206, content[start:], headers)

    def _find(self, name: str, revision: str | None) -> HubRepo | None:
        repo = self._hub.repos.get(name)
        if repo is None:  # what the Hub says to a caller without a token
            self._refuse(401, None, "Invalid username or password.")
        elif revision not in (None, "main", repo.commit):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repo

    def _refuse(self, status: int, code: str | None, message: str) -> None:
        headers = {"Content-Type": "application/json", "X-Error-Message": message}
        if code is not None:
            headers["X-Error-Code"] = code
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self._send_head(status, content, headers)
        if self.command == "GET":
            self._write(content)

    def _send_faulty(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        cut = self._hub.next_fault(self._hub.cuts)
        stall = self._hub.stalls_after
        if cut is None and stall is None:
            self._send(status, content, headers)
            return
        self._send_head(status, content, headers)
        self._write(content[: cut if cut is not None else stall])
        if cut is None:
            self._hub.go_on.wait()

    def _send_head(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")  # so that `stop` waits for nobody's idle connection
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def _write(self, content: bytes) -> None:
        with suppress(ConnectionError):  # the client may leave
            self.wfile.write(content)
