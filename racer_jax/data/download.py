"""Public corpora, downloaded once, from one pinned commit, each file checked against its SHA-256.

A download that broke off goes on where it stopped. Needs the extra `fetch` (pooch).
"""

import errno
import http.client
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tqdm import tqdm

from racer_jax._distribution import install_command
from racer_jax._files import check_folder
from racer_jax.data.errors import DataError
from racer_jax.data.locks import locked

# Where the files of both corpora are; a commit and a path within the repository are appended.
BASE_URL = "https://raw.githubusercontent.com/shuhao02/RouterDC"
_ATTEMPTS = 4
_TIMEOUT_SECONDS = 30
# Two processes that append to one part would damage it: the second waits, and finds the file.
_PATIENCE = 3600.0
_BLOCK = 1 << 16
# Faults of the folder, which waiting for the network does not mend.
_DISK = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}
)


class RemoteFile(NamedTuple):
    """A file of a corpus.

    Use this when you read what a `Corpus` holds.

    Attributes:
      path: Where it is in the repository.
      sha256: Its digest, in hexadecimal.
    """

    path: str
    sha256: str


class Corpus(NamedTuple):
    """Some files of one commit.

    Use this when you read `CORPORA`.

    Attributes:
      commit: The commit they are pinned to.
      files: The files; each is stored under the last part of its path.
    """

    commit: str
    files: tuple[RemoteFile, ...]


# The commits are those under which a public index of the repository lists these paths, with the
# same lengths as the files the digests were computed from. Should upstream ever rewrite its
# history, the digests decide.
CORPORA: Mapping[str, Corpus] = MappingProxyType(
    {
        "routerdc": Corpus(
            "dadb87299f65fb8f1c1dddc30967a3907d0132dd",
            (
                RemoteFile(
                    "datasets/split2_model7/arc_challenge_test.json",
                    "7588fd22f8d7e9adb9ec6ff435a0d3612a56b3192dc3f9ace358c2468a10b1f3",
                ),
                RemoteFile(
                    "datasets/split2_model7/arc_challenge_train.json",
                    "5ec50e9cd61caf0e3f116b48d00996a3d88ee52b3a0f04797cdfde8e21f8b610",
                ),
                RemoteFile(
                    "datasets/split2_model7/cmmlu_test.json",
                    "10f175ac68f5163a9572d1d0e203415846264dceb9f56b444a654fff79e19843",
                ),
                RemoteFile(
                    "datasets/split2_model7_cluster/cmmlu_train.json",
                    "6cc4cdba7f5bf9ca6cbb303bac87efded70d3807c17ecbe54424a74d9410b11e",
                ),
                RemoteFile(
                    "datasets/split2_model7/gsm8k-test.json",
                    "237ccfe4a613a523e48ac92709ddc1a541674c332f9064899cce2cb1dafac3c9",
                ),
                RemoteFile(
                    "datasets/split2_model7/gsm8k-train.json",
                    "63528cfd7b1860f03bae35e16d4964fe61d4abd3133386c92b22f433a4d4cd75",
                ),
                RemoteFile(
                    "datasets/split2_model7/mmlu_test.json",
                    "e560163c00f717a23da5781cf7b76a4050abed0cd75b2244df3fc23d46ea379b",
                ),
                RemoteFile(
                    "datasets/split2_model7_cluster/mmlu_train.json",
                    "f07315933421304572fde4a2751c131757a7a3913ad5dad302390d4ee00e5d7d",
                ),
            ),
        ),
        "routerbench": Corpus(
            "1963d6874b69c94309ea37a34d7d4cd6f527e7c5",
            (
                RemoteFile(
                    "datasets/routerbench_zs/arc_challenge_test.csv",
                    "7bffb55faca2e1f9d19f7197c652884780a1e0f7fe14bad5b2b1c6afbe7a6769",
                ),
                RemoteFile(
                    "datasets/routerbench_zs/arc_challenge_train.csv",
                    "59e044850520be06f74dd9766b9ab4621d783f7fa5269d7dda118b9abb115d78",
                ),
            ),
        ),
    }
)


def cache_folder() -> Path:
    """The folder in which `fetch` keeps its corpora where none is named.

    Use this when you look for what was downloaded.

    Raises:
      ImportError: If the extra `fetch` is not installed.
    """
    try:
        import pooch
    except ImportError:
        raise ImportError(f"fetching needs pooch: {install_command('fetch')}") from None
    return Path(pooch.utils.cache_location(pooch.os_cache("racer_jax"), env="RACER_JAX_CACHE"))


def fetch(
    corpus: str,
    folder: str | Path | None = None,
    *,
    base_url: str = BASE_URL,
    progress: bool | None = None,
) -> Path:
    """Downloads a corpus, or finds it where it was downloaded before.

    Use this when you want public data to start with and the machine has internet; `simulated_pool`
    needs none.

    Args:
      corpus: `routerdc` or `routerbench`.
      folder: Where to keep it; the user's cache folder when None (`RACER_JAX_CACHE` names another).
      base_url: Where to download from; a mirror holds `<base_url>/<commit>/<path>`.
      progress: Whether to show a bar for each file; when None, where the error stream is a
        terminal.

    Returns:
      The folder of the files, whole and checked.

    Raises:
      ValueError: If the corpus is unknown.
      ImportError: If pooch is not installed.
      OSError: If the folder cannot be made or written to.
      DataError: If a file cannot be downloaded, or is not the right one; it says what to do.
    """
    if corpus not in CORPORA:
        raise ValueError(f"corpus must be one of {tuple(CORPORA)}, got {corpus!r}")
    default = cache_folder() / corpus  # first of all: the extra may not be installed
    import pooch

    source = CORPORA[corpus]
    folder = default if folder is None else Path(folder)
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    download = _Download(folder, sys.stderr.isatty() if progress is None else progress)
    pooch.get_logger().setLevel("WARNING")
    for file in source.files:
        url, name = (
            f"{base_url.rstrip('/')}/{source.commit}/{file.path}",
            file.path.rpartition("/")[2],
        )
        try:
            with locked(folder / f".{name}.lock", _PATIENCE):
                pooch.retrieve(url, f"sha256:{file.sha256}", name, folder, downloader=download)
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"must have SHA-256 {file.sha256}; what {url} gave has another, so it was "
                f"damaged on the way "
                "or changed there, and was thrown away; try again, or pass another base_url",
                path=folder / name,
            ) from None
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in _DISK:
                raise DataError(
                    f"cannot be written: {error.strerror}", path=folder / name
                ) from None
            raise DataError(_offline(url, folder, name, error), path=folder / name) from None
    return folder


def _offline(url: str, folder: Path, name: str, error: Exception) -> str:
    # "HTTP Error 404: Not Found" says more than its reason; "<urlopen error ...>" says less.
    reason: object = error
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        reason = error.reason
    return (
        f"could not be downloaded from {url} ({reason}). Run the command again when the network "
        f"is back: it goes on "
        f"where it stopped. On a machine without a network, download the file elsewhere and put "
        f"it into {folder} as "
        f"{name}; or pass a mirror as base_url (--base-url)"
    )


class _Download:
    """A downloader for pooch that keeps what it has got and asks the server for the rest."""

    def __init__(self, folder: Path, progress: bool) -> None:
        self._folder, self._progress = folder, progress

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        # pooch hands over a temporary file of a new name each time; the part has a name that lasts.
        part = self._folder / f".{url.rpartition('/')[2]}.part"
        for attempt in range(_ATTEMPTS):
            try:
                whole = self._fetch_rest(url, part)
            except urllib.error.HTTPError as error:
                error.close()  # it is the response too, with its connection
                if error.code == 416:  # the part is longer than the file: it is of another file
                    part.unlink()
                    continue
                raise
            except (OSError, http.client.HTTPException) as error:
                if attempt == _ATTEMPTS - 1 or (
                    isinstance(error, OSError) and error.errno in _DISK
                ):
                    raise
                whole = False
            if whole:
                part.replace(output_file)
                return
            time.sleep(0.1 * 2**attempt)
        raise ConnectionError(f"the connection ended early {_ATTEMPTS} times")

    def _fetch_rest(self, url: str, part: Path) -> bool:
        """Appends to the part what is missing of it; whether it is whole then."""
        have = part.stat().st_size if part.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
            if response.status != 206:  # the server sends the file from its beginning
                have = 0
            length = response.headers.get("Content-Length")
            total = None if length is None else have + int(length)
            bar = tqdm(
                desc=part.name[1:-5],
                total=total,
                initial=have,
                unit="B",
                unit_scale=True,
                disable=not self._progress,
            )
            with part.open("ab" if have else "wb") as file, bar:
                while block := response.read(_BLOCK):
                    file.write(block)
                    have += len(block)
                    bar.update(len(block))
        return total is None or have == total
