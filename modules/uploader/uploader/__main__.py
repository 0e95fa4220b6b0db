"""`python -m uploader`."""

from edge_module import run
from uploader.module import Uploader

if __name__ == "__main__":
    run(Uploader())
