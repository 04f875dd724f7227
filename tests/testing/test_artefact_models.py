"""`--xai-model` of an artefact that a conftest registers: judged by gates as any model, and said in the results."""

import warnings

EXPORT = """
import torch
from usermodel import Net

torch.jit.save(torch.jit.trace(Net(), torch.rand(1, 3, 16, 16)), "net.pt")
"""

CONFTEST = """
import pathlib
import torch
import usermodel
import xai_assert as xa

PATH = pathlib.Path(__file__).parent / "net.pt"

@xa.register_model("shipped")
def shipped():
    return xa.artefact(PATH, twin=usermodel.build(), name="net-shipped")

@xa.register_model("alone")
def alone():
    colours = {"mean": [0.5] * 3, "std": [0.25] * 3}
    return xa.artefact(PATH, name="net-alone", task="depth", input_size=(16, 16), **colours)

@xa.register_model("mistaken")
def mistaken():
    twin = usermodel.Net()
    twin.weight.data = twin.weight.data.flip(0)
    return xa.artefact(PATH, twin=twin, name="net-mistaken", task="depth", input_size=(16, 16))
"""


def test_gates_judge_what_is_shipped(project, monkeypatch):
    from xai_assert import registry

    project.makeconftest(CONFTEST)
    monkeypatch.chdir(project.path)
    with registry.isolated():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls TorchScript deprecated; people ship it
            exec(EXPORT, {})
        models = [f"--xai-model={name}" for name in ("shipped", "alone", "mistaken")]
        result = project.run_gates(*models, model=False)
    assert result.ret == 1
    cells = {(cell["model"], cell["method"]): cell for cell in project.results()["cells"]}
    judged = cells["net-shipped", "saliency"]
    assert judged["verdict"] == "pass"
    about = judged["scores"]["af"]["provenance"]["artefact"]
    assert (about["file"], about["maps"], about["images"]) == ("net.pt", "twin Net", 12)
    assert about["difference"] < 1e-6  # a product a pixel
    result.stdout.fnmatch_lines(["*net-shipped*saliency*predictions from the artefact net.pt, maps from the twin Net*"])
    text = result.stdout.str()
    assert "only predicts" in text
    assert "another network's weights" in text
    assert cells["net-alone", "random"]["scores"]["af"]["provenance"]["artefact"]["maps"] == "artefact"
