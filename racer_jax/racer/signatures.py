"""Who made an artefact: an Ed25519 signature of its checksum, in a file beside `racer.json`.

The checksum covers the description, which holds the checksum of the arrays, so a signature of it
covers every bit of the artefact. A reader that knows nothing of signatures reads the artefact as
before. Needs the extra `signing`.
"""

import base64
import binascii
import importlib.util
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from racer_jax._distribution import install_command
from racer_jax._files import blaming, written_whole
from racer_jax.data.errors import DataError
from racer_jax.racer import artefact
from racer_jax.racer.errors import ArtefactError, CorruptError

SIGNATURE = "racer.sig"
_ALGORITHM = "ed25519"
# What is signed says what it is, so that a signature of anything else never passes for one.
_CONTEXT = b"racer_jax artefact "
_LONGEST = 1 << 16


class SignatureError(ArtefactError):
    """An artefact that nobody who is trusted has signed. Use this when you catch one."""


def new_signing_key(path: str | os.PathLike[str]) -> str:
    """Writes a new private key, for its owner alone, and returns the public one.

    Use this when you are to sign artefacts; readers get the public key.

    Args:
      path: Where the private key is written; a file that is there is not replaced.

    Returns:
      The public key, `ed25519:` and 44 characters.

    Raises:
      FileExistsError: If there is a file already.
      ModuleNotFoundError: If `cryptography` is missing.
    """
    ed25519, serialization = _cryptography()
    key = ed25519.Ed25519PrivateKey.generate()
    content = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(handle, "wb") as file:
            file.write(content)
    except BaseException:
        os.unlink(path)  # a part of a key is none, and would be in the way of the next
        raise
    return _public_text(key.public_key(), serialization)


def sign(path: str | os.PathLike[str], key: str | os.PathLike[str]) -> str:
    """Signs an artefact as it is now; after a change it must be signed again.

    Use this when an artefact is ready and goes to machines that only take signed ones.

    Args:
      path: The folder of the artefact.
      key: The file of the private key, in PEM.

    Returns:
      The public key that readers must trust.

    Raises:
      ArtefactError: If it is not a whole artefact.
      DataError: If the key cannot be read, or is none of Ed25519.
      ModuleNotFoundError: If `cryptography` is missing.
    """
    _, serialization = _cryptography()
    private = _private(Path(key))
    description, _ = artefact.read(path)
    signature = private.sign(_signed(description["checksum"]))
    public = _public_text(private.public_key(), serialization)
    content = {
        "algorithm": _ALGORITHM,
        "checksum": description["checksum"],
        "key": public,
        "signature": base64.b64encode(signature).decode(),
    }
    place = Path(path) / SIGNATURE
    with blaming(place), written_whole(place) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return public


def check_signature(path: str | os.PathLike[str], checksum: str, trusted: Iterable[str]) -> str:
    """Refuses an artefact that none of the trusted keys has signed.

    Use this when you load artefacts that others may write, before you use what was read.

    Args:
      path: The folder of the artefact.
      checksum: The checksum of the description that was read.
      trusted: Public keys, as `sign` returns them.

    Returns:
      The key that signed it.

    Raises:
      SignatureError: If there is no signature, or none of these keys made it for this content.
      ModuleNotFoundError: If `cryptography` is missing.
    """
    ed25519, _ = _cryptography()
    from cryptography.exceptions import InvalidSignature

    place = Path(path) / SIGNATURE
    said = _read(place)
    for key in trusted:
        with suppress(InvalidSignature):
            public = ed25519.Ed25519PublicKey.from_public_bytes(public_bytes(key))
            public.verify(said, _signed(checksum))
            return key
    raise SignatureError(
        "none of the trusted keys signed the artefact as it is: sign it again after a change "
        "(racer-jax sign)",
        path=place,
    )


def public_bytes(key: str) -> bytes:
    """The 32 bytes of a public key.

    Use this when you read public keys that somebody typed.

    Raises:
      ValueError: If it is not `ed25519:` and the base64 of 32 bytes.
    """
    algorithm, _, text = key.partition(":")
    content = b""
    with suppress(binascii.Error, ValueError):
        content = base64.b64decode(text, validate=True)
    if algorithm != _ALGORITHM or len(content) != 32:
        raise ValueError(
            "a public key must be 'ed25519:' and 44 characters, as racer-jax sign prints it, got "
            f"{key[:80]!r}"
        )
    return content


def check_installed() -> None:
    """Refuses to go on without the package that signs and checks.

    Use this when signatures will be checked later, before any work is done.

    Raises:
      ModuleNotFoundError: If it is missing.
    """
    if importlib.util.find_spec("cryptography") is None:
        raise ModuleNotFoundError(
            f"signatures of artefacts need cryptography: {install_command('signing')}"
        )


def _cryptography() -> tuple[Any, Any]:
    """The modules that sign."""
    check_installed()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    return ed25519, serialization


def _signed(checksum: str) -> bytes:
    return _CONTEXT + checksum.encode()


def _public_text(public: Any, serialization: Any) -> str:
    content = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return f"{_ALGORITHM}:{base64.b64encode(content).decode()}"


def _private(path: Path) -> Any:
    ed25519, serialization = _cryptography()
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from None
    except (TypeError, ValueError):
        key = None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise DataError(
            "must be a private key of Ed25519 in PEM, without a password: racer-jax sign "
            "--new-key makes one",
            path=path,
        )
    return key


def _read(place: Path) -> bytes:
    """The signature that a file holds."""
    try:
        with place.open("rb") as file:
            content = file.read(_LONGEST)
    except OSError:
        raise SignatureError(
            "file not found: the artefact is not signed (racer-jax sign)", path=place
        ) from None
    try:
        return base64.b64decode(json.loads(content)["signature"], validate=True)
    except (KeyError, TypeError, ValueError, RecursionError):
        raise CorruptError("must be a signature as racer-jax sign writes it", path=place) from None
