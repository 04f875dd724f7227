"""Published weights come whole or not at all, whatever happens on the way and whoever else asks for them."""

import hashlib
import io
import queue
import re
import socket
import subprocess
import sys

import pytest
import torch

from xai_assert.errors import CheckpointError
from xai_assert.models import download as module
from xai_assert.models.download import cache_folder, download

pytestmark = pytest.mark.usefixtures("cache")
SOON = 60  # seconds for what must happen, on a busy machine
ASK = """
import sys
from pathlib import Path
from xai_assert.models.download import download
print("ready", flush=True)
sys.stdin.readline()
download(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3])
"""


@pytest.fixture
def content():
    buffer = io.BytesIO()
    torch.save({"weight": torch.arange(5000.0)}, buffer)
    return buffer.getvalue()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "folder" / "weights"


@pytest.fixture
def ask(server, target, content):
    """Start a process that is about to download; `go` lets it."""
    started = []

    def start():
        command = [sys.executable, "-c", ASK, f"{server.url}/weights", str(target), sha256(content)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def go(*processes):
    for process in processes:
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.flush()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def nothing_is_left(target):
    """Neither the file nor a part of it; the lock may stay."""
    return not target.parent.is_dir() or {file.suffix for file in target.parent.iterdir()} <= {".lock"}


def fails(url, target, reason, **options):
    remedy = (
        f"fetch it elsewhere and put it at {re.escape(str(target))}, or give its path as weights=; .*XAI_ASSERT_HOME"
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(url)} could not be downloaded: .*{reason}.*{remedy}"):
        download(url, target, **options)
    assert nothing_is_left(target)


def test_the_folder_is_the_users_cache_or_what_the_environment_says(cache, monkeypatch, tmp_path):
    assert cache_folder() == cache
    monkeypatch.delenv("XAI_ASSERT_HOME")
    for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    assert "xai-assert" in cache_folder().parts
    if sys.platform == "linux":
        assert cache_folder() == tmp_path / "home" / "xai-assert"


def test_fetched_once(server, target, content, capsys):
    server.files["/weights"] = content
    for _ in range(2):
        assert download(f"{server.url}/weights", target, sha256=sha256(content)) == target
        assert target.read_bytes() == content
    assert list(server.asked.queue) == ["/weights"]
    progress = capsys.readouterr().err
    assert "weights: 100%" in progress
    assert not target.with_name("weights.part").exists()


def test_no_such_file(server, target):
    fails(f"{server.url}/nothing", target, "HTTP Error 404: Not Found")


def test_no_server(target):
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        fails(f"http://127.0.0.1:{nobody_listens.getsockname()[1]}/weights", target, "refused")


@pytest.mark.parametrize("known", [True, False])
def test_cut_short(server, target, content, known):
    """The connection ends in the middle of the file, which looks like its end."""
    server.files["/weights"] = content
    server.cut.add("/weights")
    url, sha = f"{server.url}/weights", sha256(content) if known else None
    fails(url, target, f"the connection ended after {len(content) // 2} of {len(content)} bytes", sha256=sha)
    server.cut.clear()
    assert download(url, target, sha256=sha).read_bytes() == content


def test_a_server_that_falls_silent(server, target, content, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    server.files["/weights"] = content
    server.held.add("/weights")
    fails(f"{server.url}/weights", target, "timed out")


def test_the_wrong_hash(server, target, content):
    server.files["/weights"] = content
    wanted = sha256(b"another file")
    fails(f"{server.url}/weights", target, f"has the SHA-256 {sha256(content)}, not {wanted}", sha256=wanted)


def test_a_page_in_place_of_the_file(server, target):
    server.files["/weights"] = b"<html>please log in</html>"
    fails(f"{server.url}/weights", target, "begins with b'<html>")


def test_interrupted_by_the_user(server, target, content, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    server.files["/weights"] = content
    monkeypatch.setattr(module.tqdm, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download(f"{server.url}/weights", target)
    assert nothing_is_left(target)


def test_killed_half_way(server, target, content, ask):
    """It can clean nothing up; the next one neither waits for it nor takes its half for whole."""
    server.files["/weights"] = content
    server.held.add("/weights")
    process = ask()
    go(process)
    server.asked.get(timeout=SOON)
    process.kill()
    process.wait(SOON)
    assert not target.exists()
    server.held.clear()
    assert download(f"{server.url}/weights", target, sha256=sha256(content)).read_bytes() == content
    assert not target.with_name("weights.part").exists()


def test_two_processes_at_once(server, target, content, ask):
    """The second waits for the first, and asks the server for nothing."""
    server.files["/weights"] = content
    server.held.add("/weights")
    both = [ask(), ask()]
    go(*both)
    server.asked.get(timeout=SOON)
    with pytest.raises(queue.Empty):  # without the lock, the other would ask now
        server.asked.get(timeout=1)
    assert not target.exists()
    server.go_on.set()
    for process in both:
        _, said = process.communicate(timeout=SOON)
        assert process.returncode == 0, said
    assert server.asked.empty()
    assert target.read_bytes() == content


def test_a_kept_file_with_the_wrong_hash_is_fetched_again(server, target, content):
    target.parent.mkdir(parents=True)
    target.write_bytes(content[:100])
    with pytest.raises(CheckpointError, match="404: Not Found; the file that is there has another SHA-256"):
        download(f"{server.url}/weights", target, sha256=sha256(content))
    server.files["/weights"] = content
    assert download(f"{server.url}/weights", target, sha256=sha256(content)).read_bytes() == content


def test_a_kept_file_needs_neither_server_nor_a_folder_to_write_in(target, content):
    target.parent.mkdir(parents=True)
    target.write_bytes(content)
    assert download("http://127.0.0.1:9/weights", target, sha256=sha256(content)) == target
    assert list(target.parent.iterdir()) == [target]


def test_folder_that_cannot_be_made(server, tmp_path, content):
    server.files["/weights"] = content
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"put it at .*weights, or give its path as weights="):
        download(f"{server.url}/weights", tmp_path / "file" / "weights")
