"""Downloads, from a server of our own: good, truncated, corrupted, broken off and gone."""

import hashlib
import http.server
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from racer_jax.data import DataError, fetch
from racer_jax.data.guessing import guess

module = sys.modules["racer_jax.data.download"]
BODY = bytes(range(256)) * 2000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one body; `server.mood` says how badly."""

    def do_GET(self):
        server = self.server
        server.requests.append(self.headers.get("Range"))
        body, start = server.body, 0
        if server.mood == "corrupted":
            body = body[:-1] + b"!"
        if server.mood == "missing":
            self.send_error(404)
            return
        if (wanted := self.headers.get("Range")) and server.mood != "ignores ranges":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = len(body)
        if server.mood == "truncated" or (
            server.mood == "breaks off once" and len(server.requests) == 1
        ):
            end = start + (len(body) - start) // 2
        if server.mood == "waits for another":
            half = start + (end - start) // 2
            self.wfile.write(body[start:half])
            server.another.wait(0.2) if len(server.requests) == 1 else server.another.set()
            start = half
        self.wfile.write(body[start:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server, and a corpus of one file on it."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.body, running.mood, running.requests = BODY, "good", []
        running.another = threading.Event()
        thread = threading.Thread(target=partial(running.serve_forever, poll_interval=0.01))
        thread.start()
        file = module.RemoteFile("some/where/data.json", hashlib.sha256(BODY).hexdigest())
        monkeypatch.setattr(module, "CORPORA", {"routerdc": module.Corpus("abc123", (file,))})
        monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
        yield running
        running.shutdown()
        thread.join()


def url(server):
    return f"http://127.0.0.1:{server.server_address[1]}/"


def test_a_good_file_is_kept_and_not_asked_for_again(tmp_path, server, capsys):
    folder = fetch("routerdc", tmp_path / "deep" / "cache", base_url=url(server), progress=True)
    assert (folder / "data.json").read_bytes() == BODY
    assert [path.name for path in folder.iterdir()] == ["data.json"]
    assert "data.json: 100%" in capsys.readouterr().err
    assert fetch("routerdc", folder, base_url=url(server)) == folder
    assert server.requests == [None]


def test_the_cache_folder_is_the_user_s(tmp_path, server, monkeypatch):
    monkeypatch.setenv("RACER_JAX_CACHE", str(tmp_path))
    assert fetch("routerdc", base_url=url(server)) == tmp_path / "routerdc"


def test_a_download_that_breaks_off_goes_on_where_it_stopped(tmp_path, server):
    server.mood = "breaks off once"
    assert (fetch("routerdc", tmp_path, base_url=url(server)) / "data.json").read_bytes() == BODY
    assert server.requests == [None, f"bytes={len(BODY) // 2}-"]


def test_two_at_once_do_not_write_into_one_part(tmp_path, server):
    """The second waits for the first, and finds what it has downloaded."""
    server.mood = "waits for another"
    with ThreadPoolExecutor(2) as threads:
        folders = [
            threads.submit(fetch, "routerdc", tmp_path, base_url=url(server)) for _ in range(2)
        ]
        assert [folder.result() for folder in folders] == [tmp_path] * 2
    assert (tmp_path / "data.json").read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == ["data.json"]
    assert server.requests == [None]


def test_a_later_run_goes_on_where_an_earlier_one_stopped(tmp_path, server):
    (tmp_path / ".data.json.part").write_bytes(BODY[:1000])
    assert (fetch("routerdc", tmp_path, base_url=url(server)) / "data.json").read_bytes() == BODY
    assert server.requests == ["bytes=1000-"]


def test_a_server_without_ranges_sends_all_of_it(tmp_path, server):
    server.mood = "ignores ranges"
    (tmp_path / ".data.json.part").write_bytes(BODY[:1000])
    assert (fetch("routerdc", tmp_path, base_url=url(server)) / "data.json").read_bytes() == BODY


def test_a_part_longer_than_the_file_is_begun_anew(tmp_path, server):
    (tmp_path / ".data.json.part").write_bytes(BODY + b"more")
    assert (fetch("routerdc", tmp_path, base_url=url(server)) / "data.json").read_bytes() == BODY


def test_a_truncated_file_is_refused_and_its_part_kept(tmp_path, server):
    server.mood = "truncated"
    with pytest.raises(
        DataError,
        match=r"could not be downloaded from http.*\(the connection ended early 4 times\)",
    ):
        fetch("routerdc", tmp_path, base_url=url(server))
    assert not (tmp_path / "data.json").exists()
    assert (tmp_path / ".data.json.part").read_bytes() == BODY[: len(BODY) * 15 // 16]
    server.mood = "good"
    assert (fetch("routerdc", tmp_path, base_url=url(server)) / "data.json").read_bytes() == BODY


def test_a_corrupted_file_is_refused_and_thrown_away(tmp_path, server):
    server.mood = "corrupted"
    with pytest.raises(
        DataError, match=r"data\.json: must have SHA-256 .*was thrown away; try again"
    ):
        fetch("routerdc", tmp_path, base_url=url(server))
    assert list(tmp_path.iterdir()) == []
    server.mood = "good"
    assert (fetch("routerdc", tmp_path, base_url=url(server)) / "data.json").read_bytes() == BODY


def test_a_part_of_another_file_is_found_out(tmp_path, server):
    (tmp_path / ".data.json.part").write_bytes(b"?" * 1000)
    with pytest.raises(DataError, match="must have SHA-256"):
        fetch("routerdc", tmp_path, base_url=url(server))
    assert (fetch("routerdc", tmp_path, base_url=url(server)) / "data.json").read_bytes() == BODY


def test_a_file_that_is_not_there(tmp_path, server):
    server.mood = "missing"
    with pytest.raises(
        DataError, match=r"could not be downloaded from .*/abc123/some/where/data\.json .*404"
    ):
        fetch("routerdc", tmp_path, base_url=url(server))
    assert len(server.requests) == 1  # asking again would not help


@pytest.mark.parametrize("status", [404, 416])
def test_an_answer_that_is_an_error_is_closed(tmp_path, server, monkeypatch, status):
    """Else the connection stays open; from Python 3.14 on there is a warning."""
    answers, ask = [], module.urllib.request.urlopen

    def urlopen(*arguments, **options):
        try:
            return ask(*arguments, **options)
        except module.urllib.error.HTTPError as error:
            answers.append(error)  # what is held here is closed by nobody else
            raise

    monkeypatch.setattr(module.urllib.request, "urlopen", urlopen)
    if status == 404:
        server.mood = "missing"
        with pytest.raises(DataError, match="404"):
            fetch("routerdc", tmp_path, base_url=url(server))
    else:
        (tmp_path / ".data.json.part").write_bytes(BODY + b"more")
        fetch("routerdc", tmp_path, base_url=url(server))
    assert [(answer.code, answer.fp.closed) for answer in answers] == [(status, True)]


def test_without_a_network_the_error_says_what_to_do(tmp_path, server):
    with pytest.raises(
        DataError,
        match="On a machine without a network, download the file elsewhere and put it into",
    ):
        fetch("routerdc", tmp_path, base_url="http://127.0.0.1:9")


def test_a_file_put_there_by_hand_is_taken(tmp_path, server):
    (tmp_path / "data.json").write_bytes(BODY)
    fetch("routerdc", tmp_path, base_url="http://127.0.0.1:9")
    assert server.requests == []


def test_without_pooch_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"fetching needs pooch: pip install -e '\.\[fetch\]'"):
        fetch("routerdc")


def test_other_corpora_are_refused():
    with pytest.raises(
        ValueError, match=r"corpus must be one of \('routerdc', 'routerbench'\), got 'squad'"
    ):
        fetch("squad")


@pytest.mark.parametrize("corpus", ["routerdc", "routerbench"])
def test_the_digests_are_those_of_the_real_files(data_dir, corpus):
    chosen = module.CORPORA[corpus]
    assert len(chosen.commit) == 40
    for file in chosen.files:
        data = (data_dir / corpus / file.path.rpartition("/")[2]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == file.sha256
    assert guess(data_dir / corpus) == corpus
