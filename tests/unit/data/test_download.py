import hashlib
import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tutelage.data.download import download
from tutelage.errors import TutelageError

CONTENT = bytes(range(256)) * 5000  # more than one block
MD5 = hashlib.md5(CONTENT).hexdigest()


class Mirror(BaseHTTPRequestHandler):
    """Good below /good; elsewhere each folder has its fault."""

    asked: Counter

    def do_GET(self):
        folder = self.path.split("/")[1]
        type(self).asked[folder] += 1
        if folder == "hanging":
            time.sleep(1.5)
        if folder == "missing":
            self.send_error(404)
            return
        content = {"wrong": b"x" + CONTENT[1:], "empty": b""}.get(folder, CONTENT)
        self.send_response(200)
        if folder == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write({"cut": content[:1000], "chunked": b"ff\r\nabc"}.get(folder, content))

    def log_message(self, *args):
        pass


@pytest.fixture
def mirror():
    """The address of a server on this machine, and what it was asked for."""
    Mirror.asked = Counter()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.handle_error = lambda *args: None  # a client that hung up
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def left_over(folder):
    return [name for name in os.listdir(folder) if not name.endswith(".lock")]


def test_fetches_once(mirror, tmp_path):
    folder = tmp_path / "deep" / "raw"
    for _ in range(2):
        path = download("a.gz", MD5, [f"{mirror}/good"], folder)
        assert path.read_bytes() == CONTENT
    assert left_over(folder) == ["a.gz"]
    assert Mirror.asked == {"good": 1}


@pytest.mark.parametrize("bad", ["wrong", "empty", "missing", "cut", "chunked", "hanging"])
def test_a_bad_mirror_is_passed_over(bad, mirror, tmp_path):
    path = download("a.gz", MD5, [f"{mirror}/{bad}", f"{mirror}/good/"], tmp_path, timeout=0.5)
    assert path.read_bytes() == CONTENT
    assert Mirror.asked == {bad: 1, "good": 1}
    assert left_over(tmp_path) == ["a.gz"]


def test_without_a_good_mirror_each_failure_is_told_and_nothing_stays(mirror, tmp_path):
    mirrors = [f"{mirror}/wrong", f"{mirror}/missing", "http://127.0.0.1:9", "not an address"]
    with pytest.raises(TutelageError) as caught:
        download("a.gz", MD5, mirrors, tmp_path)
    title, wrong, missing, refused, nonsense = str(caught.value).splitlines()
    assert f"a.gz with the MD5 checksum {MD5}" in title
    assert f"{mirror}/wrong/a.gz: its checksum is {hashlib.md5(b'x' + CONTENT[1:]).hexdigest()} (1280000 by" in wrong
    assert f"{mirror}/missing/a.gz: HTTP Error 404" in missing
    assert "http://127.0.0.1:9/a.gz: " in refused
    assert "not an address/a.gz: unknown url" in nonsense
    assert left_over(tmp_path) == []


def test_several_at_once_fetch_once(mirror, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: download("a.gz", MD5, [f"{mirror}/good"], tmp_path), range(4)))
    assert {path.read_bytes() == CONTENT for path in paths} == {True}
    assert Mirror.asked == {"good": 1}
