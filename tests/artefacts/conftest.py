"""The exports that tests share."""

import pytest
from artefacts.exported import exported, network, onnx, torchscript

MAKERS = {"depth.pt": torchscript, "depth.pt2": exported, "depth.onnx": onnx}


@pytest.fixture(scope="session")
def ship(tmp_path_factory):
    """`ship("depth.pt2")` is the path of that export of `network()`, made when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("shipped"), {}

    def path(name):
        if name not in made:
            made[name] = MAKERS[name](network(), folder / name)
        return made[name]

    return path
