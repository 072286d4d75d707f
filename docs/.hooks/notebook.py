"""The notebook as a page of the site, run while the site is built.

It is stored without outputs, which would tell of an older version one day; here it gets those of
the code beside it.
"""

import base64
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
SOURCE = "notebooks/quickstart.ipynb"
PAGE = "notebooks/quickstart.md"
RUN = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


def executed(path: Path) -> Any:
    """The notebook after a run from top to bottom, in an empty folder and a process of its own."""
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "executed.ipynb"
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-W", "ignore", "-c", RUN, str(path), str(result)]
        environment = os.environ | {"PYTHONPATH": paths}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise PluginError(f"{path.name} does not run:\n{done.stderr[-3000:]}")
        return nbformat.read(result, as_version=4)


def rendered(notebook: Any) -> tuple[str, dict[str, bytes]]:
    """The Markdown of a notebook with outputs, and its pictures by name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"quickstart-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                parts.append(f"![What the cell above draws]({name})")
            elif "text/plain" in data:
                parts.append(f"```text\n{data['text/plain']}\n```")
            elif output.get("name") == "stdout":
                parts.append(f"```text\n{output['text'].rstrip()}\n```")
    return "\n\n".join(parts) + "\n", pictures


def on_files(files: Files, config: Any) -> Files:
    """Adds the page and its pictures."""
    try:
        text, pictures = rendered(executed(ROOT / "docs" / SOURCE))
    except ModuleNotFoundError as error:
        raise PluginError(f"the notebook's page needs the extra docs: {error}") from error
    note = "This page is a notebook ([download](quickstart.ipynb)), run for this site.\n\n"
    title, _, rest = text.partition("\n\n")
    files.append(File.generated(config, PAGE, content=f"{title}\n\n{note}{rest}"))
    for name, content in pictures.items():
        files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files
