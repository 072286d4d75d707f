"""The pages are doctests: each runs in an empty folder, and leaves nothing behind."""

import pytest

# Run with its commands by tests/docs/test_pages.py.
collect_ignore = [
    "tutorial.md",
    "guides/changing-pool.md",
    "guides/cookbook.md",
    "guides/own-parts.md",
]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
