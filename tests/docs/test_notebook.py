"""The notebook runs from top to bottom, in a kernel of its own, and installs nothing here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "notebooks" / "quickstart.ipynb"
RUN = """
import json, sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
print(json.dumps([[str(output) for output in cell.outputs] for cell in notebook.cells if cell.cell_type == "code"]))
"""


@pytest.mark.long
def test_the_notebook_runs(tmp_path):
    for module in ("nbclient", "ipykernel"):
        pytest.importorskip(module, reason="extra test")
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-W", "ignore", "-c", RUN, str(NOTEBOOK)]
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = json.loads(done.stdout.splitlines()[-1])
    assert outputs[0] == []  # the cell for Colab
    assert "image/png" in str(outputs)
    assert "is at most 0.1" in str(outputs)


def test_the_notebook_is_stored_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
