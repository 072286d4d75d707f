"""Files written whole or not at all, and files read without waiting for another process."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# How an address begins; a Path has made one slash of two. A single letter is a drive of Windows.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)
# How what is behind an address is downloaded.
_DOWNLOADS = {
    "s3": "aws s3 cp",
    "gs": "gcloud storage cp",
    "hf": "hf download",
    "http": "curl -LO",
    "https": "curl -LO",
}


def address_problem(path: str | os.PathLike[str], *, written: bool = False) -> str | None:
    """What is wrong with an address in the place of a path, and what would do; None if it is none.

    Use this when a file or a folder is not there, or before one is made.

    Args:
      path: What was given.
      written: Whether something is to be written there.

    >>> address_problem("ftp://a/b.csv", written=True).split(": ")[1]
    'write to a path here and copy it there afterwards'
    >>> address_problem("logs.csv")
    """
    text = os.fsdecode(path)
    match = _ADDRESS.match(text)
    if match is None or os.path.exists(text.split(":")[0] + ":"):
        return None
    scheme, rest = match[1].lower(), match[2]
    if scheme == "file":
        return f"file:///{rest} is an address: give the path /{rest}"
    problem = f"{scheme}://{rest} is an address, and files are"
    if written:
        return (
            f"{problem} written to this machine alone: write to a path here and copy it there "
            "afterwards"
        )
    tool = f" (for example: {_DOWNLOADS[scheme]})" if scheme in _DOWNLOADS else ""
    return (
        f"{problem} read from this machine alone: download it first{tool} and give the path of the "
        "copy"
    )


def check_folder(path: str | os.PathLike[str], *, written: bool = True) -> None:
    """Refuses a path where no folder can be made or filled.

    Use this before work whose result goes into a folder.

    Args:
      path: The folder, there already or not.
      written: Whether files will be written there; else it may be one that is only read.

    Raises:
      OSError: If it is an address, a file, a pipe or a device is there or above, or it is there
        and nothing may be written into it.

    >>> check_folder("/dev/null/cache")
    Traceback (most recent call last):
    NotADirectoryError: [Errno 20] must be a folder to write to, got a device: '/dev/null'
    """
    if problem := address_problem(path, written=True):
        raise FileNotFoundError(errno.ENOENT, problem)
    place = os.path.abspath(path)
    while not os.path.lexists(place):  # what is to be made is made in the first that is there
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        raise NotADirectoryError(
            errno.ENOTDIR, f"must be a folder to write to, got {_kind(place)}", place
        )
    if written and not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "cannot be written to", place)


def _kind(path: str) -> str:
    """What is at a path, other than a folder."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return "a link that leads nowhere" if not os.path.exists(path) else "a link to a file"
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return "a pipe"
    return "a file" if stat.S_ISREG(mode) else "a device"


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Errors of the disk name the file that was to be written, not the temporary one.

    Use this when a file is written and the disk may be full.
    """
    try:
        yield
    except OSError as error:
        temporary = error.filename is None or f".{path.name}." in str(error.filename)
        if error.errno is None or not temporary:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends without an error.

    Use this when a file must never be seen half written.

    Args:
      path: Where the file shall be; its folder must exist.

    Yields:
      The file to write to.

    Raises:
      OSError: If it cannot be written, or is an address.

    >>> with written_whole("/tmp/racer_jax_doctest.txt") as file:
    ...     _ = file.write_text("whole")
    >>> Path("/tmp/racer_jax_doctest.txt").read_text()
    'whole'
    """
    path = Path(path)
    if problem := address_problem(path, written=True):
        raise FileNotFoundError(errno.ENOENT, problem)
    # `secrets` would do the same, and takes a fifth of the time of a help to import.
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}{path.suffix}")
    with blaming(path):
        try:
            # Opened by hand and not by mkstemp, which makes files for their owner alone: this one
            # is as readable as any new file, without a look at the umask of the whole process.
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            yield temporary
            os.replace(temporary, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)


def read_kept(path: Path) -> bytes:
    """The content of a regular file.

    Whoever opens a named pipe waits for a process that writes into it, and none may ever come.

    Use this when a file was kept by an earlier process, and anything may be in its place by now.

    Raises:
      OSError: If there is none, it cannot be read, or something else is in its place.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    with open(handle, "rb") as file:
        return file.read()


def make_way(path: Path) -> None:
    """Removes an empty folder where a file is to be: nothing else in its place resists a new one.

    Use this when a file of ours is written anew, whatever has come into its place.
    """
    with suppress(OSError):
        path.rmdir()
