"""Downloads against a real server on this machine."""

import hashlib
import http.server
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ifguide.data.downloads import download
from ifguide.errors import InputError

CONTENT = b"some published text\n" * 200_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FETCH_FILE = Path(__file__).parents[1] / "scripts" / "fetch_file.py"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        plan = self.server.plan
        answer = plan.pop(0) if plan else "good"
        if answer == "good" or answer == "truncated":
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT if answer == "good" else CONTENT[: len(CONTENT) // 2])
        elif answer == "redirect":
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.end_headers()
        else:
            self.send_error(answer)

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.requests, server.plan = [], []
        server.url = f"http://127.0.0.1:{server.server_port}/file.txt"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "file.txt"


def fetch(url, path, sha256=SHA256, **settings):
    download(url, path, sha256, pause_seconds=0.01, **settings)


def refused(url, path, sha256=SHA256, **settings):
    with pytest.raises(InputError) as error:
        fetch(url, path, sha256, **settings)
    message = str(error.value)
    assert "\n" not in message
    return message


def files_beside(path):
    return [found.name for found in path.parent.glob("*")] if path.parent.exists() else []


def test_a_file_is_fetched_whole(server, path):
    fetch(server.url, path, SHA256.upper())
    assert path.read_bytes() == CONTENT
    assert files_beside(path) == ["file.txt"]


def test_a_right_file_is_taken_without_a_request(server, path):
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    fetch(server.url, path)
    assert server.requests == []


def test_a_file_of_which_nobody_published_a_checksum(server, path):
    fetch(server.url, path, None)
    assert path.read_bytes() == CONTENT
    path.write_bytes(b"mine")
    fetch(server.url, path, None)
    assert path.read_bytes() == b"mine"
    server.plan = ["truncated"]
    path.unlink()
    assert "of 4000000 bytes" in refused(server.url, path, None, attempts=1)
    assert files_beside(path) == []


def test_a_wrong_file_is_never_overwritten(server, path):
    path.parent.mkdir()
    path.write_bytes(b"mine")
    message = refused(server.url, path)
    assert SHA256 in message and hashlib.sha256(b"mine").hexdigest() in message
    assert message.startswith(str(path))
    assert path.read_bytes() == b"mine"
    assert server.requests == []


def test_a_wrong_checksum_leaves_nothing_and_is_not_tried_again(server, path):
    message = refused(server.url, path, "0" * 64)
    assert server.url in message and "0" * 64 in message and SHA256 in message
    assert files_beside(path) == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("trouble", [500, 503, 429, "truncated"])
def test_passing_trouble_is_overcome(server, path, trouble):
    server.plan = [trouble, trouble, "good"]
    fetch(server.url, path)
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 3
    assert files_beside(path) == ["file.txt"]


def test_lasting_trouble_ends_with_advice(server, path):
    server.plan = [500] * 10
    message = refused(server.url, path, attempts=2)
    assert len(server.requests) == 2
    assert server.url in message and str(path) in message and "data_dir" in message
    assert files_beside(path) == []


def test_a_truncated_body_is_not_taken_for_the_file(server, path):
    server.plan = ["truncated"]
    half = hashlib.sha256(CONTENT[: len(CONTENT) // 2]).hexdigest()
    message = refused(server.url, path, half, attempts=1)
    assert f"after {len(CONTENT) // 2} of {len(CONTENT)} bytes" in message
    assert files_beside(path) == []


def test_a_missing_page_is_not_tried_again(server, path):
    server.plan = [404] * 3
    assert "404" in refused(server.url, path)
    assert len(server.requests) == 1


def test_redirects_are_followed(server, path):
    server.plan = ["redirect"]
    fetch(server.url, path)
    assert server.requests == ["/file.txt", "/elsewhere"]
    assert path.read_bytes() == CONTENT


def test_refused_connection(path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        message = refused(f"http://127.0.0.1:{port}/x", path)
    assert "Connection refused" in message and "data_dir" in message


def test_file_addresses(tmp_path, path):
    original = tmp_path / "a file.txt"
    original.write_bytes(CONTENT)
    fetch(original.as_uri(), path)
    assert path.read_bytes() == CONTENT
    assert "cannot be fetched" in refused((tmp_path / "absent").as_uri(), tmp_path / "b")


@pytest.mark.parametrize("url", ["ftp://host/x", "data:,x", "/etc/hosts", "", "s3://bucket/x"])
def test_other_addresses_are_refused(path, url):
    assert "not an http, https or file address" in refused(url, path)


@pytest.mark.parametrize("url", ["http://[bad/x", "http:///x", "http://127.0.0.1:port/x"])
def test_malformed_addresses(path, url):
    assert refused(url, path).startswith(url)


def test_a_checksum_of_another_kind_is_refused_before_any_request(server, path):
    assert "not 64 hexadecimal digits" in refused(
        server.url, path, "d41d8cd98f00b204e9800998ecf8427e"
    )
    assert server.requests == []


def test_a_folder_in_the_way(server, path):
    path.mkdir(parents=True)
    assert refused(server.url, path).startswith(f"{path}: not a file")


def run_script(settings, path, output):
    return subprocess.run(
        [sys.executable, FETCH_FILE, "--settings", json.dumps(settings)]
        + ["--path", path, "--output", output],
        capture_output=True,
        text=True,
    )


def test_script_fetches_and_explains(server, path, tmp_path):
    settings, receipt = {"url": server.url, "sha256": SHA256}, tmp_path / "receipt.json"
    done = run_script(settings, path, receipt)
    assert (done.returncode, path.read_bytes()) == (0, CONTENT)
    assert json.loads(receipt.read_text()) == {
        **settings,
        "path": str(path),
        "bytes": len(CONTENT),
    }
    receipt.unlink()
    failed = run_script({"url": server.url, "sha256": "0" * 64}, path, receipt)
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"error: {path}: has SHA-256")
    assert failed.stderr.count("\n") == 1
    assert not receipt.exists()
