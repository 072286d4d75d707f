"""The `racer-jax` command: ready for Ctrl-C before anything heavy is imported.

While modules are imported nothing is being written, so an interrupt says its line and is gone.
Later it is raised, so that what is half written is taken away, and said once that is done. Nothing
here is imported but what Python has imported itself by then.

A server is also ready for SIGHUP, which asks it to read its artefacts again and ends any other
process: who sends it need not wait until the server has begun.
"""

# `signal` takes ten milliseconds to import, for its enumerations; this is what it wraps.
import _signal as signal  # type: ignore[import-not-found]
import gc
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED = 130
# One Ctrl-C may come more than once, by an impatient finger; what it has started may be finished
# first.
_SAME_SECONDS = 1.0
_LINE = b"racer-jax: interrupted\n"


class _State:
    """Whether and when the command was interrupted."""

    interrupted = False
    last = -_SAME_SECONDS


_state = _State()


def _leave(_signal: int, _frame: "FrameType | None") -> None:
    """While modules are imported.

    An exception in the middle of that may be lost or become another.
    """
    os.write(2, _LINE)
    os._exit(INTERRUPTED)


def _raise(_signal: int, _frame: "FrameType | None") -> None:
    """While a command runs."""
    if time.monotonic() - _state.last < _SAME_SECONDS:
        return
    _state.interrupted, _state.last = True, time.monotonic()
    raise KeyboardInterrupt


def _unraisable(exception: "sys.UnraisableHookArgs") -> None:
    """An interrupt inside a callback, which cannot pass it on, comes again a moment later."""
    if not issubclass(exception.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(exception)
        return
    import _thread
    import threading

    _state.last = -_SAME_SECONDS
    again = threading.Timer(0.02, _thread.interrupt_main)
    again.daemon = True
    again.start()


def _hold_standard_descriptors() -> None:
    """Where a standard stream is closed, a file opened later would be taken for it."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one


def _read_later(_signal: int, _frame: "FrameType | None") -> None:
    """While a server begins: what it is asked to read again it has not read yet."""


def _hold_reloads() -> None:
    """Where the command is a server, SIGHUP no longer ends it."""
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if command == "serve" and hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, _read_later)


def _imported() -> None:
    """The command's own modules are imported, and it is about to run."""
    gc.freeze()
    gc.enable()
    if "jax" in sys.modules:
        from racer_jax.studies.compilation_cache import use_compilation_cache

        use_compilation_cache(None)  # what is compiled is there for the next run


def _ready_for_ctrl_c() -> None:
    """The same, of a command that can be interrupted."""
    _imported()
    signal.signal(signal.SIGINT, _raise)


def main() -> int:
    """Runs the command of this process; returns its exit status."""
    _hold_reloads()
    _hold_standard_descriptors()
    # What is imported stays. Looking through it for garbage again and again, as more comes, takes a
    # tenth of the time that JAX takes to import: the collector waits until all is there.
    gc.disable()
    # as in `nohup racer-jax ... &`: so it stays
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        from racer_jax.cli.main import main as run

        return run(imported=_imported)
    signal.signal(signal.SIGINT, _leave)
    from racer_jax.cli.main import main as run

    sys.unraisablehook = _unraisable
    try:
        status = run(imported=_ready_for_ctrl_c)
    except BaseException:
        if not _state.interrupted:
            raise
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.write(2, _LINE)
        status = INTERRUPTED
    finally:
        # all is done; what is left is Python's own end, which need not look for garbage
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        gc.freeze()
    if _state.interrupted:
        # What was half written is gone. XLA, interrupted while it compiles, does not survive an
        # orderly end.
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                continue
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
