"""The pages are doctests: each runs in an empty folder, and leaves nothing behind."""

import pytest


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
