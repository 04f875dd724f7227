"""Published weights come whole or not at all."""

import hashlib
import io
import re
import socket

import pytest
import torch

from xai_assert.errors import CheckpointError
from xai_assert.models.download import download

pytestmark = pytest.mark.usefixtures("torch_home")
REMEDY = "Download it by hand and give its path as weights=; another folder can be set with .* TORCH_HOME"


@pytest.fixture
def content():
    buffer = io.BytesIO()
    torch.save({"weight": torch.arange(5000.0)}, buffer)
    return buffer.getvalue()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "folder" / "weights"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def fails(url, target, reason, **options):
    with pytest.raises(CheckpointError, match=f"^{re.escape(url)} could not be downloaded to .*{reason}.*{REMEDY}"):
        download(url, target, **options)
    assert not target.parent.is_dir() or not list(target.parent.iterdir())


def test_fetched_once(server, target, content, capsys):
    server.files["/weights"] = content
    for _ in range(2):
        assert download(f"{server.url}/weights", target, sha256=sha256(content)) == target
        assert target.read_bytes() == content
        assert [file.name for file in target.parent.iterdir()] == ["weights"]
    assert server.asked == ["/weights"]
    assert "100%" in capsys.readouterr().err


def test_no_such_file(server, target):
    fails(f"{server.url}/nothing", target, "HTTP Error 404: Not Found")


def test_no_server(target):
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        fails(f"http://127.0.0.1:{nobody_listens.getsockname()[1]}/weights", target, "refused")


@pytest.mark.parametrize("known", [True, False])
def test_cut_short(server, target, content, known):
    """The connection ends in the middle of the file, which torch alone takes for the end where no hash is known."""
    server.files["/weights"] = content
    server.cut.add("/weights")
    url, sha = f"{server.url}/weights", sha256(content) if known else None
    fails(url, target, "invalid hash value" if known else "truncated or foreign", sha256=sha)
    server.cut.clear()
    assert download(url, target, sha256=sha).read_bytes() == content


def test_a_page_in_place_of_the_file(server, target):
    server.files["/weights"] = b"<html>please log in</html>"
    fails(f"{server.url}/weights", target, "begins with b'<html>")


def test_interrupted(server, target, content, monkeypatch):
    def interrupted(url, dst, **_):
        with open(dst, "wb") as file:
            file.write(content[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.hub, "download_url_to_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download(server.url, target)
    assert not list(target.parent.iterdir())


def test_a_kept_file_with_the_wrong_hash_is_fetched_again(server, target, content):
    server.files["/weights"] = content
    target.parent.mkdir(parents=True)
    target.write_bytes(content[:100])
    assert download(f"{server.url}/weights", target, sha256=sha256(content)).read_bytes() == content


def test_folder_that_cannot_be_made(server, tmp_path, content):
    server.files["/weights"] = content
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=REMEDY):
        download(f"{server.url}/weights", tmp_path / "file" / "weights")
