"""Signatures of artefacts: who trusts a key takes what it signed, bit for bit, and nothing else."""

import json
import os
import shutil
import stat

import pytest

from racer_jax.cli.main import main
from racer_jax.racer import artefact, signatures
from racer_jax.racer.errors import CorruptError
from racer_jax.racer.signatures import SIGNATURE, SignatureError, check_signature

DESCRIPTION = {"models": ["a", "b"], "kind": "test"}


def written(path, value=1.0):
    artefact.write(path, DESCRIPTION | {"value": value}, {})
    return artefact.read(path)[0]["checksum"]


@pytest.mark.parametrize("key", ["", "ed25519:", "ed25519:AAAA", "rsa:" + "A" * 44, "ed25519:äöü"])
def test_a_public_key_is_32_bytes_with_its_name(key):
    with pytest.raises(ValueError, match="44 characters"):
        signatures.public_bytes(key)


def test_what_is_missing_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["sign", "--new-key", str(tmp_path / "key")]) == 1
    assert "'.[signing]'" in capsys.readouterr().err
    assert not (tmp_path / "key").exists()


def test_the_options_of_sign_belong_together(tmp_path, capsys):
    for words in ([], ["x"], ["--key", "k"], ["x", "--key", "k", "--new-key", "n"]):
        assert main(["sign", *words]) == 1
        assert "--new-key FILE alone" in capsys.readouterr().err


@pytest.mark.extra
def test_an_artefact_is_signed_and_checked(tmp_path, capsys):
    pytest.importorskip("cryptography")
    folder, key = tmp_path / "a", tmp_path / "key.pem"
    checksum = written(folder)
    public = signatures.new_signing_key(key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    other = signatures.new_signing_key(tmp_path / "other.pem")
    with pytest.raises(SignatureError, match="not signed"):
        check_signature(folder, checksum, [public])
    assert main(["sign", str(folder), "--key", str(key), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"public_key": public}
    assert check_signature(folder, checksum, [other, public]) == public
    assert artefact.read(folder)[0]["value"] == 1.0  # a reader that asks for no signature
    with pytest.raises(SignatureError, match="none of the trusted keys"):
        check_signature(folder, checksum, [other])
    # The signature of an earlier content stays beside the new one, and does not fit.
    new = written(folder, 2.0)
    assert (folder / SIGNATURE).exists()
    with pytest.raises(SignatureError, match="sign it again"):
        check_signature(folder, new, [public])
    # One that was taken from another artefact neither, though it says the new checksum.
    content = json.loads((folder / SIGNATURE).read_text())
    (folder / SIGNATURE).write_text(json.dumps(content | {"checksum": new, "key": public}))
    with pytest.raises(SignatureError, match="none of the trusted keys"):
        check_signature(folder, new, [public])
    for nonsense in ("", "{}", '{"signature": 1}', '{"signature": "A"}', "[" * 100_000):
        (folder / SIGNATURE).write_text(nonsense)
        with pytest.raises(CorruptError, match="must be a signature"):
            check_signature(folder, new, [public])


@pytest.mark.extra
def test_keys_are_not_overwritten_and_others_are_refused(tmp_path, capsys):
    pytest.importorskip("cryptography")
    key = tmp_path / "key.pem"
    signatures.new_signing_key(key)
    before = key.read_bytes()
    assert main(["sign", "--new-key", str(key)]) == 1
    assert "exists" in capsys.readouterr().err
    assert key.read_bytes() == before
    folder = tmp_path / "a"
    written(folder)
    for content in (b"", b"-----BEGIN PRIVATE KEY-----\n", os.urandom(40)):
        key.write_bytes(content)
        assert main(["sign", str(folder), "--key", str(key)]) == 1
        assert "Ed25519" in capsys.readouterr().err
    assert main(["sign", str(folder), "--key", str(tmp_path / "none")]) == 1
    assert main(["sign", str(tmp_path / "none"), "--key", str(key)]) == 1
    assert not (folder / SIGNATURE).exists()
    shutil.rmtree(folder)
