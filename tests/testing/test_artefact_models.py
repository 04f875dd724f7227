"""`--xai-model` of an artefact that a conftest registers: judged by gates as any model, and said in the results."""

import torch
import torch.export.passes  # noqa: F401  (imported before pytester restores sys.modules: torch refuses a second import)

EXPORT = """
import torch
from usermodel import Net

torch.export.save(torch.export.export(Net(), (torch.rand(1, 3, 16, 16),)), "net.pt2")
"""

CONFTEST = """
import pathlib
import torch
import usermodel
import xai_assert as xa

PATH = pathlib.Path(__file__).parent / "net.pt2"

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
    return xa.artefact(PATH, twin=twin, name="net-mistaken", task="depth", input_size=(16, 16), mean=[0.5] * 3, std=[0.25] * 3)
"""


def test_gates_judge_what_is_shipped(project, monkeypatch):
    from xai_assert import registry

    project.makeconftest(CONFTEST)
    monkeypatch.chdir(project.path)
    with registry.isolated():
        exec(EXPORT, {})
        models = [f"--xai-model={name}" for name in ("shipped", "alone", "mistaken")]
        result = project.run_gates(*models, model=False)
    assert result.ret == 1
    cells = {(cell["model"], cell["method"]): cell for cell in project.results()["cells"]}
    judged = cells["net-shipped", "saliency"]
    assert judged["outcome"] == "passed"
    about = judged["scores"]["af"]["provenance"]["artefact"]
    assert (about["file"], about["maps"], about["images"]) == ("net.pt2", "twin Net", 12)
    assert about["difference"] < 1e-6  # a product a pixel
    result.stdout.fnmatch_lines(["*net-shipped*saliency*predictions from the artefact net.pt2, maps from the twin Net*"])
    text = result.stdout.str()
    assert "only predicts" in text
    assert "another network's weights" in text
    assert cells["net-alone", "random"]["scores"]["af"]["provenance"]["artefact"]["maps"] == "artefact"
