"""The pages on data: one for each format, and their examples run."""

import re
from pathlib import Path

import pytest

from racer_jax.data.loading import READERS
from tests.data import log_samples, samples

PAGES = Path(__file__).parents[2] / "docs" / "data"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", READERS)
def test_every_format_has_a_page_that_the_contents_name(name):
    assert (PAGES / f"{name}.md").read_text(encoding="utf-8").startswith(f"# `{name}`")
    assert f"]({name}.md)" in (PAGES / "README.md").read_text(encoding="utf-8")


@pytest.mark.long
@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_the_examples_run(tmp_path, monkeypatch, page):
    for make in (
        samples.long_csv,
        samples.wide_csv,
        samples.routerdc,
        samples.routerbench,
        samples.routellm,
    ):
        make(tmp_path)
    for make in (samples.llmrouter, samples.routereval, samples.lm_eval):
        make(tmp_path)
    for make in (
        log_samples.inspect_logs,
        log_samples.every_eval_ever,
        log_samples.promptfoo,
        log_samples.helm,
        log_samples.llmrouterbench,
        log_samples.embedllm,
        log_samples.routerarena,
    ):
        make(tmp_path)
    if page.stem == "parquet":
        pytest.importorskip("pyarrow", reason="extra parquet")
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert blocks
    names = {}
    exec("\n".join(blocks), names)
    assert len(names["table"]) > 0
