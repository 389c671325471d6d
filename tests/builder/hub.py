"""A stand-in for the Hugging Face hub: the requests that a download makes, over loopback."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(repository: str, files: dict[str, bytes], *, token: str | None = None, lies: bool = False) -> Iterator[str]:
    """Serve `files` as `repository` and yield the base URL; with `token` the repository is gated.

    A hub that `lies` names checksums that its files do not have.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
                self._answer(401, b"{}", {"X-Error-Code": "GatedRepo"})
            elif path.startswith(f"/api/models/{repository}/tree/"):
                self._answer(200, json.dumps(_tree(files)).encode(), {"Content-Type": "application/json"})
            elif path.startswith(f"/api/models/{repository}"):
                self._answer(200, _info(repository, files, lies).encode(), {"Content-Type": "application/json"})
            elif path.startswith(f"/{repository}/resolve/") and (name := path.split("/", 5)[-1]) in files:
                digest = hashlib.sha256(files[name]).hexdigest()
                self._answer(200, files[name], {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT})
            else:
                self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _info(repository: str, files: dict[str, bytes], lies: bool) -> str:
    siblings = []
    for name, data in files.items():
        sibling: dict[str, object] = {"rfilename": name, "size": len(data)}
        if name.endswith(".safetensors"):
            digest = hashlib.sha256(data + b"!" if lies else data).hexdigest()
            sibling["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
        siblings.append(sibling)
    return json.dumps({"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings, "tags": []})


def _tree(files: dict[str, bytes]) -> list[dict[str, object]]:
    return [
        {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        for name, data in files.items()
    ]
