"""Measure what our work costs beside Captum, Quantus and the bare passes.

    python benchmarks/run.py [--quick] [-o DIR] [--only NAME] [--device cuda] [--docs]

Writes the raw results into DIR/benchmarks.json, two pictures and a page beside it, and says of every promise whether it
is kept. With `--docs` they go where the docs have them. Under half an hour on two cores that have nothing else to do.
Captum and Quantus are measured where they are installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script finds only its own folder

from benchmarks.command import main

if __name__ == "__main__":
    sys.exit(main(description=__doc__))
