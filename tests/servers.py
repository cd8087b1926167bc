"""Web servers on this machine, in place of those that weights and datasets are downloaded from."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class FileServer:
    """Serves files from memory, in part where a client asks for a part.

    Attributes:
        files: their contents by their paths, as "/a.bin".
        cuts: after how many bytes the next answers break off.
        ranges: whether it can send a part of a file.
        asked: path and Range header of every request.
    """

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files = dict(files or {})
        self.cuts: list[int] = []
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def do_HEAD(self) -> None:
                outer.answer(self)

            def do_POST(self) -> None:
                outer.receive(self, self.rfile.read(int(self.headers["Content-Length"])))

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        self._thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append((request.path, wanted))
        content = self.files.get(request.path)
        if content is None:
            self.missing(request)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start >= len(content) > 0:
            request.send_error(416)
            return
        rest = content[start:]
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(rest)))
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for name, value in self.headers(request.path).items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(rest[: self.cuts.pop(0)] if self.cuts else rest)

    def headers(self, path: str) -> dict[str, str]:
        """Return what is said of a file besides its length."""
        return {}

    def missing(self, request: BaseHTTPRequestHandler) -> None:
        request.send_error(404)

    def receive(self, request: BaseHTTPRequestHandler, content: bytes) -> None:
        request.send_error(405)

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self._thread.join()


class HubServer(FileServer):
    """Answers as the Hugging Face Hub does to who asks for a file of a repository, or adds files to one.

    Attributes:
        commit: of all repositories.
        checksums: wrong ones, by the names of files.
        created: what was asked for, for each repository.
        refuses: whether nobody may write.
    """

    commit = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self) -> None:
        self.checksums: dict[str, str] = {}
        self.created: list[dict[str, Any]] = []
        self.refuses = False
        super().__init__()

    def put(self, repository: str, folder: Path) -> None:
        """Have a repository with the files of a folder."""
        for file in folder.iterdir():
            self.files[f"/{repository}/resolve/main/{file.name}"] = file.read_bytes()

    def headers(self, path: str) -> dict[str, str]:
        name, content = path.rpartition("/")[2], self.files[path]
        # Small files are known by their git object, large ones by their SHA-256.
        large = hashlib.sha256(content).hexdigest()
        tag = large if name.endswith(".safetensors") else hashlib.sha1(content).hexdigest()
        return {"X-Repo-Commit": self.commit, "ETag": f'"{self.checksums.get(name, tag)}"'}

    def missing(self, request: BaseHTTPRequestHandler) -> None:
        repository = "/".join(request.path.split("/")[:3]) + "/"
        known = any(path.startswith(repository) for path in self.files)
        revision = "/resolve/main/" not in request.path
        error = ("RevisionNotFound" if revision else "EntryNotFound") if known else "RepoNotFound"
        request.send_response(404)
        request.send_header("X-Error-Code", error)
        request.send_header("X-Repo-Commit", self.commit)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def receive(self, request: BaseHTTPRequestHandler, content: bytes) -> None:
        status, answer = (401, {}) if self.refuses else self._answer_to(request.path, content)
        body = json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def _answer_to(self, path: str, content: bytes) -> tuple[int, dict[str, Any]]:
        if path == "/api/validate-yaml":
            return 200, {}
        if path == "/api/repos/create":
            asked = json.loads(content)
            repository = f"{asked['organization']}/{asked['name']}"
            there = any(file.startswith(f"/{repository}/") for file in self.files)
            self.created.append(asked)
            answer = {"url": f"{self.address}/{repository}", "name": repository, "id": repository}
            return (409 if there else 200), answer
        if "/preupload/" in path:
            how = {"uploadMode": "regular", "shouldIgnore": False}
            return 200, {"files": [{"path": file["path"], **how} for file in json.loads(content)["files"]]}
        repository = re.fullmatch(r"/api/models/(.*)/commit/main", path)[1]  # type: ignore[index]
        for line in map(json.loads, content.splitlines()):
            if line["key"] == "file":
                name = f"/{repository}/resolve/main/{line['value']['path']}"
                self.files[name] = base64.b64decode(line["value"]["content"])
        url = f"{self.address}/{repository}/commit/{self.commit}"
        return 200, {"success": True, "commitOid": self.commit, "commitUrl": url}


@contextmanager
def serving(files: dict[str, bytes] | None = None) -> Iterator[FileServer]:
    server = FileServer(files)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def serving_hub() -> Iterator[HubServer]:
    server = HubServer()
    try:
        yield server
    finally:
        server.stop()
