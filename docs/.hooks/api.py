"""The API reference: a page for each package, with the names of its `__all__` and nothing else.

What a package does not name is not promised, wherever it stands; so a module has no page of its
own. The exceptions are few and listed in `BESIDE`.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
# Names that their package does not give: most users of it would pay for what they import, or only
# read of them, as the type of what a function takes or gives.
BESIDE = {
    "racer_jax.core": {"aggregation": ("answer_codes", "model_order")},
    "racer_jax.data": {
        "answers": ("last_number", "text"),
        "remedies": ("Remedy",),
        "summary": ("GroupSummary",),
    },
    "racer_jax.encoders": {
        "base": ("PartsError", "Stages"),
        "text": ("EncodingReport", "TextReading", "data_mesh"),
        "checkpoint": ("load_model",),
        "bert": ("Bert",),
        "deberta": ("Deberta",),
        "layers": ("Transformer",),
    },
    "racer_jax.montecarlo": {
        "bound_check": ("verdicts",),
        "compared": ("Compared",),
        "exact": ("Mixture",),
        "summaries": ("Summary",),
        "trials": ("StreamSpec",),
    },
    "racer_jax.orders": {"coverage_gain": ("coverage_gain",)},
    "racer_jax.racer": {
        "errors": (
            "CorruptError",
            "NewerFormatError",
            "NoRecordError",
            "OtherPoolError",
            "OtherWeightsError",
            "UnknownGroupError",
        ),
        "losses": ("CalibratedLoss",),
        "options": ("CalibrationOptions",),
        "record": ("CalibrationRecord",),
        "report": ("sequential_data",),
        "results": ("Baseline", "GroupEvaluation"),
        "scoring": ("ModelScores", "Scorer"),
        "stages": ("FitStage",),
        "usage": ("Usage",),
    },
    "racer_jax.routers": {
        "finetune": ("finetune",),
        "fit": ("fit", "Fit"),
        "report": ("TrainingDivergedError", "TrainingReport"),
        "runs": ("Run",),
        "training": ("OptimizerConfig",),
    },
    "racer_jax.sequential": {
        "calibration": ("StopCalibration",),
        "normal_forms": ("UnknownFormError", "last_match"),
        "policy": ("PolicyOptions",),
        "risk_model": ("RiskModel",),
    },
    "racer_jax.serving": {"json_lines": ("BadLine", "Query")},
    "racer_jax.serving.gateway": {
        "litellm_provider": ("RacerProvider",),
        "settings": (
            "Model",
            "Deployment",
            "Route",
            "Verifier",
            "Server",
            "Key",
            "State",
            "Audit",
            "Monitors",
            "Experiment",
        ),
        "core": ("UnderWay",),
        "_errors": ("CallFailedError",),
        "_loaded": ("Loaded",),
        "_panel": ("Panel",),
        "_planning": ("Situation",),
        "_replies": ("Choice", "Reply", "Usage"),
        "_secrets": ("Secret",),
    },
    "racer_jax.studies": {
        "compilation_cache": ("cache_folder", "use_compilation_cache"),
        "runner": ("Drawer",),
        "paper_data": ("study_data",),
        "strategies": ("Strategy", "Votes", "racer_name"),
    },
}
# Modules of classes whose methods come from a base that has an entry: it describes them once.
DESCRIBED_AT_BASE = (
    "racer_jax.racer.errors",
    "racer_jax.encoders.bert",
    "racer_jax.encoders.deberta",
)
# The method in NumPy, a module of its own beside the packages.
ALONE = ("racer_jax.reference",)
_BASE = re.compile(
    r'<p class="doc doc-class-bases">\s*Bases: <code><autoref identifier="(racer_jax[\w.]*)"'
    r"[^>]*>\w+</autoref></code></p>"
)


class Package(NamedTuple):
    """A package with an `__all__`: its name, and its public names by the module of each."""

    name: str
    homes: dict[str, list[str]]


def _syntax(module: str) -> ast.Module:
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def _public_names(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


def packages() -> list[Package]:
    """The packages of the reference, in the order of their names."""
    found = []
    for path in sorted((ROOT / "racer_jax").rglob("__init__.py")):
        name = ".".join(path.parent.relative_to(ROOT).parts)
        tree = _syntax(name)
        public, homes = _public_names(tree), {}
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        for node in imports:
            names = [alias.name for alias in node.names if alias.name in public]
            if names and node.module is not None:
                homes[node.module] = names
        for module, names in BESIDE.get(name, {}).items():
            homes.setdefault(f"{name}.{module}", []).extend(names)
        if homes:
            found.append(Package(name, homes))
    return found


def entries() -> frozenset[str]:
    """The public names, each with its module."""
    return frozenset(
        f"{module}.{name}"
        for package in packages()
        for module, names in package.homes.items()
        for name in names
    )


def _described(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    """The names of a module, each with its docstring; that of a constant stands below it."""
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            yield node.name, ast.get_docstring(node) or ""
        elif isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr):
            yield ast.unparse(node.target), ast.literal_eval(after.value)


def _summaries(module: str) -> dict[str, str]:
    """First line of what describes each class, function and constant of a module."""
    return {name: text.partition("\n")[0] for name, text in _described(_syntax(module).body)}


def _cell(text: str) -> str:
    """Text for a cell of a table, where a bar would end the cell."""
    return text.replace("\\", "\\\\").replace("|", "\\|")


def _contents(package: Package) -> str:
    """A table of the public names: what each does, with a link."""
    rows = ["| Name | What it does |", "| --- | --- |"]
    for module, names in package.homes.items():
        summaries = _summaries(module)
        rows += [
            f"| [`{name}`][{module}.{name}] | {_cell(summaries.get(name, ''))} |" for name in names
        ]
    return "\n".join(rows)


def _block(name: str, **options: Any) -> str:
    lines = [f"        {option}: {value}" for option, value in options.items()]
    return "\n".join([f"::: {name}", "    options:", *lines])


def page(package: Package) -> str:
    """The Markdown of a package's page."""
    parts = [f"# `{package.name}`", _block(package.name, members="false"), _contents(package)]
    if package.name == "racer_jax":
        return "\n\n".join(parts)
    for module, names in package.homes.items():
        inner = module.removeprefix(f"{package.name}.")
        beside = BESIDE.get(package.name, {}).get(inner, ())
        parts.append(f"## {inner.lstrip('_')} {{ #{module} }}")
        if beside:
            listed = ", ".join(f"`{name}`" for name in beside)
            parts.append(f"From `{module}` itself: {listed}.")
        options = {"members": f"[{', '.join(names)}]", "heading_level": 3}
        if module in DESCRIBED_AT_BASE:
            options["inherited_members"] = "false"
        parts.append(_block(module, **options))
    return "\n\n".join(parts)


def on_config(config: Any) -> Any:
    """Appends the reference to the contents."""
    names = [package.name for package in packages()]
    entries = [{name: f"api/{name}.md"} for name in (*names, *ALONE)]
    config.nav.append({"API reference": entries})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages."""
    for package in packages():
        files.append(File.generated(config, f"api/{package.name}.md", content=page(package)))
    for name in ALONE:
        content = f"# `{name}`\n\n::: {name}\n"
        files.append(File.generated(config, f"api/{name}.md", content=content))
    return files


def on_page_content(content: str, **_: Any) -> str:
    """Leaves out a base that has no entry: it is a part of its class in a file of its own."""
    known = entries() if "doc-class-bases" in content else frozenset()
    return _BASE.sub(lambda base: base[0] if base[1] in known else "", content)
