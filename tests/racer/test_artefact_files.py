"""An artefact as files, without a racer: formats, leftovers, and the state's defaults."""

import json

import numpy as np
import pytest

from racer_jax.racer import artefact
from racer_jax.racer.errors import CorruptError, OtherPoolError
from racer_jax.racer.serialization import PartsError, check_fingerprint, check_stated, digest
from racer_jax.racer.state import RacerState

ARRAYS = {"x": np.arange(3, dtype=np.int32)}


def written(path, **more):
    artefact.write(path, {"models": ["a", "b"], **more}, ARRAYS)
    return json.loads((path / "racer.json").read_text())


def test_an_artefact_says_its_format(tmp_path):
    assert written(tmp_path / "a")["format"] == artefact.FORMAT


def test_what_a_kill_left_beside_a_new_artefact_is_removed(tmp_path):
    (tmp_path / ".a.partial-0").mkdir()
    (tmp_path / ".a.partial-0" / "x").write_text("x")
    (tmp_path / ".b.partial-0").mkdir()
    (tmp_path / ".a.partial-1").write_text("a file, which no save leaves, stops none")
    written(tmp_path / "a")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a", ".b.partial-0", ".a.partial-1"}


def test_arrays_come_back_and_a_pool_is_compared_in_its_order(tmp_path):
    written(tmp_path / "a", note="n")
    description, arrays = artefact.read(tmp_path / "a", ["a", "b"])
    assert description["note"] == "n"
    np.testing.assert_array_equal(arrays["x"], ARRAYS["x"])
    with pytest.raises(OtherPoolError, match="was made for the models"):
        artefact.read(tmp_path / "a", ["b", "a"])


def test_another_version_replaces_the_arrays(tmp_path):
    first = written(tmp_path / "a")["arrays"]["file"]
    artefact.write(tmp_path / "a", {"models": ["a"]}, {"x": np.arange(4)})
    left = {path.name for path in (tmp_path / "a").iterdir()}
    assert first not in left
    assert len(left) == 2
    (tmp_path / "a" / next(name for name in left if name.startswith("arrays"))).unlink()
    with pytest.raises(CorruptError, match="file not found, though"):
        artefact.read(tmp_path / "a")


def test_a_state_begins_with_the_exact_tie_break_of_seed_0():
    state = RacerState(("a",))
    assert (state.seed, state.null, state.nonconformity) == (0, "paper", "inverse_probability")
    assert state.calibration is None
    assert state.scorer is None
    for models in ((), ("a", "a")):
        with pytest.raises(ValueError, match="at least one name, each once"):
            RacerState(models)


def test_fingerprints_are_of_description_and_arrays():
    one = digest({"a": 1}, ARRAYS)
    assert len(one) == 32
    assert one == digest({"a": 1}, {"x": np.arange(6, dtype=np.int32)[:3]})
    others = [
        digest({"a": 2}, ARRAYS),
        digest({"a": 1}),
        digest({"a": 1}, {"y": ARRAYS["x"]}),
        digest({"a": 1}, {"x": ARRAYS["x"].astype(np.int64)}),
        digest({"a": 1}, {"x": ARRAYS["x"][:, None]}),
        digest({"a": 1}, {"x": ARRAYS["x"] + 1}),
    ]
    assert len({one, *others}) == 7


def test_a_part_has_the_fingerprint_of_its_own_arrays():
    arrays = {"router.x": ARRAYS["x"], "encoder.x": ARRAYS["x"]}
    rest = {"kind": "knn"}
    good = digest(rest, {"router.x": ARRAYS["x"]})
    check_fingerprint("router", {**rest, "fingerprint": good}, arrays)
    check_fingerprint("router", {"kind": "external", "fingerprint": "weights"}, arrays)
    for description in (
        {**rest, "fingerprint": "0" * 32},
        rest,
        {"kind": "x", "fingerprint": good},
    ):
        with pytest.raises(PartsError, match=r"router\.fingerprint"):
            check_fingerprint("router", description, arrays)


@pytest.mark.parametrize(
    ("used", "stated", "message"),
    [
        ({"a": 1}, {"a": 2}, "states a = 2, but what is used is 1"),
        ({"a": 1}, {}, "does not state a"),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, r"states a\.b = 2"),
        ({"a": {"b": 1}}, {"a": {}}, r"does not state a\.b"),
        ({"a": {"b": 1}}, {"a": 3}, "states a = 3"),
        ({"a": 1}, {"a": True}, "states a = True"),
        ({"a": 1}, {"a": 1.0}, r"states a = 1\.0"),
        ({"a": [1, 2]}, {"a": [2, 1]}, r"states a = \[2, 1\]"),
    ],
)
def test_what_is_stated_is_what_is_used(used, stated, message):
    with pytest.raises(PartsError, match=message):
        check_stated(used, stated)


def test_more_may_be_stated():
    check_stated({"a": {"b": [1]}}, {"a": {"b": [1], "c": 2}, "d": 3})
