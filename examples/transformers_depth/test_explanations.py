"""A depth network of transformers, from the folder that save_pretrained wrote."""

from pathlib import Path

import xai_assert as xa

NETWORK = Path(__file__).with_name("network")  # or a repository of the hub, such as "Intel/dpt-large"


def test_saliency_is_true():
    subject = xa.load_model(f"hf/{NETWORK}", "pretrained", name="my-dpt")
    images = xa.datasets.generated(subject.card)  # yours: xa.datasets.folder("photographs", subject.card)
    xa.assert_attribution_fidelity(subject, "saliency", images, min_af=0.1, beats="random")
