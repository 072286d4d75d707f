"""Every configuration of a gateway that a page shows can be read by one."""

import base64
import hashlib
import re
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("cryptography")

from racer_jax.serving.gateway.configuration import settings_from
from racer_jax.serving.gateway.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("gateway.md", "guides/containers.md", "guides/litellm.md")
# What a reader puts in, by the words that stand for it.
KEY = "ed25519:" + base64.b64encode(bytes(range(32))).decode()
FILLED = {
    "<the hash that it prints>": hashlib.sha256(b"key").hexdigest(),
    "ed25519:cPg3t1Cqvl8...": KEY,
}


def blocks(page: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def read_block(text: str, folder: Path) -> Settings:
    """The settings of a block; what a part of a file lacks comes from the first of the pages."""
    for words, filled in FILLED.items():
        text = text.replace(words, filled)
    secret = folder / "secret"
    secret.write_text("s3cret", encoding="utf-8")
    shown = tomllib.loads(re.sub(r"\$\{file:[^}]*\}", f"${{file:{secret}}}", text))
    first = tomllib.loads(blocks(PAGES[0])[0])
    routes = first["routes"] | shown.get("routes", {})
    return settings_from(first | shown | {"routes": routes}, folder)


@pytest.mark.parametrize(
    ("page", "block"), [(page, block) for page in PAGES for block in range(len(blocks(page)))]
)
def test_a_configuration_of_a_page_is_read(page, block, tmp_path, monkeypatch):
    for name in ("OPENAI_API_KEY", "LITELLM_KEY"):
        monkeypatch.setenv(name, "s3cret")
    settings = read_block(blocks(page)[block], tmp_path)
    assert settings.routes
    assert settings.models


def test_a_configuration_that_would_be_refused_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    (shown,) = blocks("guides/containers.md")
    with pytest.raises(ValueError, match="admin"):
        read_block(shown.replace('roles = ["admin"]', 'roles = ["infer"]'), tmp_path)
    assert len(blocks("gateway.md")) > 2
