"""The store and the fingerprint tell artefacts apart by their bytes, and by their twins."""

import torch
from artefacts.exported import COLOURS, exported, images, network, onnx, subject
from torch import nn

import xai_assert as xa

IMAGES = images()


def score_of(judged, folder):
    ev = xa.Evaluation(judged, IMAGES, batch_size=3)
    ev.store = xa.Store(folder)
    score = ev.attribution_fidelity("saliency")
    assert ev.passes == ev.expected_passes("saliency")
    return score, ev.store


def test_another_run_is_served_the_twins_maps(ship, tmp_path):
    scores = [score_of(xa.artefact(ship("depth.pt2"), twin=subject()), tmp_path) for _ in range(2)]
    assert scores[0][1].written == scores[1][1].served == 6
    assert torch.equal(scores[0][0].values, scores[1][0].values)


def test_another_artefact_is_served_nothing(ship, tmp_path):
    """Its map would be the same; but what a score says it is of must be what it is of."""
    score_of(xa.artefact(ship("depth.pt2"), twin=subject()), tmp_path)
    near = network()
    with torch.no_grad():
        near[0].weight.mul_(1.01)
    other = xa.artefact(exported(near, tmp_path / "near.pt2"), twin=subject(), name="float")
    assert score_of(other, tmp_path)[1].served == 0


class Scaled(nn.Sequential):
    """Code that changes between two runs under one name, with the same weights."""

    power = 1

    def forward(self, pictures):
        return super().forward(pictures) ** self.power


def test_a_twin_whose_code_changed_is_noticed_though_the_artefact_is_the_same(ship, tmp_path, monkeypatch):
    def judged():
        return xa.artefact(ship("depth.pt2"), twin=subject(Scaled(*network())), tolerance=9.0)

    score_of(judged(), tmp_path)
    monkeypatch.setattr(Scaled, "power", 2)
    found = score_of(judged(), tmp_path)[1]
    assert (found.served, found.outdated) == (0, 6)


def test_fingerprints_are_of_the_bytes_and_of_the_twin(ship, tmp_path):
    path = ship("depth.pt2")
    same = [xa.artefact(path, twin=subject()).fingerprint() for _ in range(2)]
    others = [
        xa.artefact(path, task="depth", **COLOURS).fingerprint(),
        xa.artefact(path, twin=subject(network(1))).fingerprint(),
        xa.artefact(exported(network(1), tmp_path / "b.pt2"), twin=subject()).fingerprint(),
        xa.artefact(ship("depth.pt"), twin=subject()).fingerprint(),
        subject().fingerprint(),
    ]
    assert same[0] == same[1]
    assert len({same[0], *others}) == 6


def test_the_weights_beside_an_onnx_file_count(tmp_path):
    """A graph of the same bytes with other weights in the file beside it is another artefact."""
    path = onnx(network(), tmp_path / "depth.onnx")
    beside = tmp_path / "depth.onnx.data"
    before, graph = xa.artefact(path, task="depth").fingerprint(), path.read_bytes()
    assert beside.is_file()
    content = bytearray(beside.read_bytes())
    content[0] ^= 1
    beside.write_bytes(bytes(content))
    assert path.read_bytes() == graph
    assert xa.artefact(path, task="depth").fingerprint() != before


def test_a_twin_that_was_written_on_is_noticed(ship):
    judged = xa.artefact(ship("depth.pt2"), twin=subject())
    before = judged.known_fingerprint()
    with torch.no_grad():
        judged.twin.module[0].weight.mul_(1.5)
    assert judged.known_fingerprint() != before
