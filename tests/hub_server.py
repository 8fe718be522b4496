"""A server on this machine that answers what the hub's client asks to list and fetch files."""

import contextlib
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from urllib.parse import unquote

REVISION = "0123456789abcdef0123456789abcdef01234567"
_TREE = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/tree/([^/?]+).*")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/([^?]+).*")


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(body=True)

    def do_HEAD(self):
        self.answer(body=False)

    def answer(self, body: bool):
        server: HubServer = self.server
        server.requests.append((self.command, unquote(self.path)))
        if tree := _TREE.fullmatch(unquote(self.path)):
            files = self.files(tree[1], tree[2], tree[3])
            if files is not None:
                listing = [_listed(name, content) for name, content in files.items()]
                self.send(json.dumps(listing).encode(), {"Content-Type": "application/json"})
            return
        if file := _FILE.fullmatch(unquote(self.path)):
            files = self.files("datasets" if file[1] else "models", file[2], file[3])
            if files is None:
                return
            content = files[file[4]]
            headers = {"ETag": f'"{_git_hash(content)}"', "X-Repo-Commit": file[3]}
            sent = content
            if body and file[4] in server.truncated:
                sent = content[: len(content) // 2]
            elif body and file[4] in server.damaged:
                sent = content[::-1]
            self.send(sent if body else b"", headers, len(content))
            return
        self.fail(404, "EntryNotFound")

    def files(self, kind: str, name: str, revision: str) -> dict[str, bytes] | None:
        files = self.server.repositories.get((kind, name))
        if files is None:
            self.fail(401, "RepoNotFound")
        elif revision != REVISION:
            self.fail(404, "RevisionNotFound")
            files = None
        return files

    def send(self, content: bytes, headers: dict, length: int | None = None):
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
            # A body that is too short ends with its connection.
            self.close_connection = length is not None and len(content) < length

    def fail(self, status: int, code: str):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class HubServer(http.server.ThreadingHTTPServer):
    """`repositories` maps ("models" or "datasets", "owner/name") to files at REVISION."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[tuple[str, str], dict[str, bytes]] = {}
        self.requests: list[tuple[str, str]] = []
        self.truncated: set[str] = set()
        self.damaged: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def environment(self) -> dict[str, str]:
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _listed(name: str, content: bytes) -> dict:
    listed = {"type": "file", "oid": _git_hash(content), "size": len(content), "path": name}
    if name.endswith((".safetensors", ".parquet", ".bin")):
        listed["lfs"] = {
            "oid": hashlib.sha256(content).hexdigest(),
            "size": len(content),
            "pointerSize": 134,
        }
    return listed


@contextlib.contextmanager
def running_hub() -> Iterator[HubServer]:
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
