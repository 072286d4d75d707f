"""A gateway with trusted keys takes signed artefacts alone, at the start and later."""

import shutil

import pytest

from racer_jax.data.errors import DataError
from racer_jax.racer import signatures
from racer_jax.racer.signatures import SIGNATURE
from racer_jax.serving.gateway import settings_from
from tests.serving.gateway.conftest import plain_settings


def test_a_trusted_key_is_checked_with_the_configuration(upstreams, artefacts):
    plain = plain_settings(upstreams, artefacts, trusted_keys=["ed25519:short"])
    with pytest.raises(ValueError, match=r"44 characters.*trusted_keys\[0\]"):
        settings_from(plain)


@pytest.mark.extra
def test_unsigned_artefacts_are_refused_at_the_start_and_later(start, artefacts, tmp_path):
    pytest.importorskip("cryptography")
    path, key = tmp_path / "used.racer", tmp_path / "key.pem"
    public = signatures.new_signing_key(key)
    shutil.copytree(artefacts / "my.racer", path)
    options = {"trusted_keys": [public], "routes__my__artefact": str(path)}
    with pytest.raises(DataError, match="not signed") as refused:
        start(**options)
    assert str(refused.value.path) == str(path / SIGNATURE)
    signatures.sign(path, key)
    gateway = start(**options)
    before = gateway.gateway.planners["my"].loaded
    assert before.path == str(path)
    # Replaced by one that nobody signed: the one in use stays.
    files = gateway.gateway.artefact_files()
    shutil.rmtree(path)
    shutil.copytree(artefacts / "other.racer", path)
    refused = gateway.admin("POST", "/reload")
    assert (refused.status, refused.json["error"]["code"]) == (409, "artefact")
    assert gateway.gateway.planners["my"].loaded is before
    unsigned = gateway.gateway.artefact_files()
    assert unsigned != files
    # Signed, it is taken; the signature alone is reason enough to look again.
    signatures.sign(path, key)
    assert gateway.gateway.artefact_files() != unsigned
    assert gateway.admin("POST", "/reload").status == 200
    assert gateway.gateway.planners["my"].loaded.checksum != before.checksum
    shutil.rmtree(path)
    with pytest.raises(DataError, match=r"used\.racer"):
        start(**options)
