"""Nothing that we ship reports to anybody but the operator."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("module", ["scorer.model", "trainer.training", "simulator.reference"])
def test_onnx_runtime_is_loaded_without_its_telemetry(module: str, tmp_path: Path) -> None:
    code = (
        f"import {module} as m; import numpy; m.onnxruntime.InferenceSession;"
        "import time; time.sleep(0.2)"  # it writes its queue from a thread of its own
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_nobody_loads_onnx_runtime_past_that() -> None:
    parts = ("libs", "modules", "simulator/simulator", "trainer", "cli")
    sources = [path for part in parts for path in (ROOT / part).rglob("*.py")]
    loads = re.compile(r"^\s*(import|from) onnxruntime", re.MULTILINE)
    assert {path.name for path in sources if loads.search(path.read_text())} == {"quiet_onnx.py"}
