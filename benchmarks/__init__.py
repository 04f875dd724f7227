"""What xai_assert costs, measured beside Captum, Quantus and the bare passes; `python benchmarks/run.py`."""
