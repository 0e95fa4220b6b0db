"""Start the scorer: `python -m scorer`."""

import sys

from edge_module import run
from scorer.scorer import Scorer

if __name__ == "__main__":
    sys.exit(run(Scorer()))
