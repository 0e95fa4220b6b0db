"""Start the scorer: `python -m scorer`."""

from edge_module import run
from scorer.scorer import Scorer

if __name__ == "__main__":
    run(Scorer())
