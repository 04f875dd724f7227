"""A folder for downloads, and a server for them on this machine."""

import queue
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Server:
    """Serves `files` (path -> bytes), and notes what it is asked for.

    A path in `cut` is promised whole and sent in half; one in `held` too, and its other half once `go_on` is set.
    """

    def __init__(self):
        self.files, self.cut, self.held, self.asked = {}, set(), set(), queue.Queue()
        self.go_on = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.put(self.path)
                body = outer.files.get(self.path)
                self.send_response(404 if body is None else 200)
                body = body or b""
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                half = len(body) // 2
                with suppress(ConnectionError):  # who asked may be gone
                    self.wfile.write(body[:half])
                    self.wfile.flush()
                    if self.path in outer.held:
                        outer.go_on.wait()
                    if self.path not in outer.cut:
                        self.wfile.write(body[half:])

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.go_on.set()
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Downloads are kept in here, and fetched without a proxy."""
    monkeypatch.setenv("XAI_ASSERT_HOME", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"
