"""The benchmark for accelerators runs to its end on a machine without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]


def test_a_dry_run_on_tiny_shapes_shows_every_line(tmp_path):
    options = ["--size", "tiny", "--tests", "0", "--rounds", "2"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/device.py"), *options],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "results/benchmarks/device/results.json").read_text())
    assert results["failures"] == {}
    assert results["not_run"] == []
    works = [line["work"].split(":")[0] for line in results["lines"]]
    assert works == [
        "W1",
        "W1 as a stream",
        "W2",
        *["calibrate"] * 4,
        "MLPR",
        "MLPR",
        "encode, shape of MiniLM, bfloat16",
        "encode, shape of DeBERTa-v3-base, bfloat16",
        "RouterDC, shape of MiniLM, float32",
    ]
    assert all("equal" in line["agreement"] for line in results["lines"])  # a CPU with itself
    assert all(line["wall"] > 0 for line in results["lines"])


def test_a_device_that_computes_something_else_is_named(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import device

    with pytest.raises(device.DisagreementError, match=r"threshold: device and CPU are 0\.5 apart"):
        device.apart([1.0], [1.5], 0.1, "threshold")
    with pytest.raises(device.DisagreementError, match="nan"):
        device.apart([float("nan")], [1.5], 0.1, "threshold")


def test_tests_are_counted_also_when_they_were_stopped(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import device

    ended = ["...sF.  [100%]", "FAILED tests/a.py::b", "1 failed, 4 passed, 1 skipped in 3.05s"]
    assert device.count_tests(ended) == {"failed": 1, "passed": 4, "skipped": 1}
    assert device.count_tests(["bringing up nodes...", "....   [ 50%]", ".F."]) == {
        "passed": 6,
        "failed": 1,
    }
    assert device.count_tests([]) == {}
