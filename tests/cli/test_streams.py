"""`monitor` on a stream: alarms when they come, nothing lost by a signal, one process a state."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from racer_jax.cli.main import main
from racer_jax.serving.monitor import RiskMonitor
from racer_jax.serving.state_file import alone_with

MONITOR = ["monitor", "state.json", "--alpha", "0.1", "--input", "-"]


@pytest.fixture
def pipe(tmp_path, monkeypatch):
    """The other end of the standard input."""
    monkeypatch.chdir(tmp_path)
    read, write = os.pipe()
    stdin = os.fdopen(read, "rb")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stdin))
    writer = os.fdopen(write, "wb", buffering=0)
    yield writer
    with contextlib.suppress(OSError):
        writer.close()
    stdin.close()


def saved():
    try:
        return RiskMonitor.load("state.json").num
    except ValueError:
        return 0


def eventually(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def unread(pipe):
    """Bytes that wait in a pipe."""
    import fcntl
    import termios

    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_the_alarm_is_said_while_the_stream_goes_on(pipe, capsys):
    printed = []

    def feed():
        pipe.write(b"1\n" * 20)
        eventually(lambda: printed.append(capsys.readouterr().out) or "ALARM" in "".join(printed))
        printed.append("STILL OPEN")
        pipe.write(b"0\n")
        pipe.close()

    thread = threading.Thread(target=feed)
    thread.start()
    assert main(MONITOR) == 3
    thread.join()
    printed = "".join(printed)
    assert "ALARM at query 4" in printed.split("STILL OPEN")[0]
    assert "21 queries counted, 20 missed" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "status", "line"),
    [
        (signal.SIGTERM, 143, "racer-jax: terminated\n"),
        (signal.SIGINT, 130, "racer-jax: interrupted\n"),
    ],
)
def test_a_signal_loses_nothing(pipe, capsys, number, status, line):
    def feed():
        pipe.write(b"0\n" * 1500)
        eventually(lambda: saved() == 1500)
        pipe.write(b"1\n" * 7)
        assert eventually(lambda: unread(sys.stdin.buffer) == 0)
        time.sleep(0.05)  # from its buffer they are counted at once
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread = threading.Thread(target=feed)
        thread.start()
        assert main(MONITOR) == status
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == line
    assert saved() == 1507
    assert sorted(os.listdir()) == ["state.json"]


def test_a_bad_line_in_a_stream_leaves_what_was_before_it(pipe, capsys):
    pipe.write(b"0\n0\nx\n")
    pipe.close()
    assert main(MONITOR) == 1
    assert "line 3: must be JSON" in capsys.readouterr().err
    assert saved() == 2


def test_a_file_is_counted_whole_or_not_at_all_and_its_lines_once(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("f.jsonl").write_text("".join(f'{{"missed": 0, "position": {i + 1}}}\n' for i in range(9)))
    line = ["monitor", "state.json", "--alpha", "0.1", "--input", "f.jsonl"]
    for _ in range(2):
        assert main(line) == 0
        assert saved() == 9
    assert "9 lines were counted before" in capsys.readouterr().out
    Path("g.jsonl").write_text("0\n0\n")
    growing = ["monitor", "other.json", "--alpha", "0.1", "--input", "g.jsonl", "--resume"]
    assert main(growing) == 0
    Path("g.jsonl").write_text("0\n0\n1\n")
    assert main([*growing, "--json"]) == 0
    counted = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (counted["num"], counted["misses"], counted["skipped"]) == (3, 1, 2)


def test_a_second_monitor_of_a_state_waits_or_says_why_not(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("f.jsonl").write_text("0\n")
    line = ["monitor", "state.json", "--alpha", "0.1", "--input", "f.jsonl"]
    with alone_with(Path("state.json")):
        assert main([*line, "--wait", "0.01"]) == 1
    assert "state.json: in use by another monitor" in capsys.readouterr().err
    assert main(line) == 0
    assert main([*line, "--wait", "-1"]) == 1


@pytest.mark.slow
def test_kills_of_real_processes(tmp_path):
    """Two streams of one state, killed at will: what was sent with positions is counted once."""
    command = [sys.executable, "-m", "racer_jax", "monitor", "state.json", "--alpha", "0.1"]
    lines = b"".join(b'{"missed": 0, "position": %d}\n' % (i + 1) for i in range(40_000))
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        with subprocess.Popen(
            [*command, "--input", "-"], stdin=subprocess.PIPE, cwd=tmp_path, bufsize=0
        ) as run:
            threading.Timer(4, run.send_signal, [number]).start()
            with contextlib.suppress(BrokenPipeError):
                for start in range(0, len(lines), 5000):
                    run.stdin.write(lines[start : start + 5000])
                    time.sleep(0.02)
                run.stdin.close()
    subprocess.run([*command, "--input", "-"], input=lines, cwd=tmp_path, check=True)
    assert RiskMonitor.load(tmp_path / "state.json").num == 40_000
    both = [
        subprocess.Popen([*command, "--input", "f"], cwd=tmp_path)
        for _ in range(2)
        if (tmp_path / "f").write_text("0\n" * 500)
    ]
    assert [run.wait() for run in both] == [0, 0]
    assert RiskMonitor.load(tmp_path / "state.json").num == 41_000


@pytest.mark.parametrize(
    ("stream", "words", "line"),
    [
        ("stdout", ["data", "summary", "t.csv"], "racer-jax: the standard output is closed"),
        ("stdin", MONITOR, "racer-jax: standard input: is closed"),
        ("stderr", ["data", "summary", "nowhere.csv"], ""),
    ],
)
def test_closed_streams(tmp_path, monkeypatch, capsys, stream, words, line):
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("query,model,correct\na,x,1\na,y,0\n")
    monkeypatch.setattr(sys, stream, None)
    assert main(words) == 1
    monkeypatch.undo()
    assert capsys.readouterr().err.startswith(line)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirect", "words", "line"),
    [
        (">&-", "doctor", "the standard output is closed"),
        ("<&-", "monitor s.json --alpha 0.1 --input -", "standard input: is closed"),
        ("2>&-", "data summary nowhere.csv", ""),
    ],
)
def test_closed_streams_of_a_process(tmp_path, redirect, words, line):
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m racer_jax {words} {redirect}', sys.executable],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert line in done.stderr
    assert done.stderr.count("\n") == bool(line)
