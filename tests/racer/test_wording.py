"""Promises in words: how sure they are, and the words of the version before."""

import json
import shutil
from pathlib import Path

import pytest

from racer_jax.core.risk_levels import confidence_name
from racer_jax.racer import artefact
from racer_jax.racer.errors import CorruptError
from racer_jax.racer.racer import Racer
from racer_jax.racer.state import earlier_guarantee

GOLDEN = Path(__file__).parents[1] / "golden" / "format_3"


@pytest.mark.parametrize(
    ("delta", "name"),
    [(0.05, "95%"), (0.1, "90%"), (0.001, "99.9%"), (1e-9, "99.9999999%"), (0.5, "50%")],
)
def test_confidence_is_what_delta_leaves(delta, name):
    assert confidence_name(delta) == name


def test_the_words_of_the_version_before_are_read_and_others_refused(tmp_path):
    """A promise in the words before is one of this format; with another number it is not."""
    folder = tmp_path / "art"
    shutil.copytree(GOLDEN / "golden.racer", folder)
    racer = Racer.load(folder)
    path = folder / artefact.DESCRIPTION
    described = json.loads(path.read_text(encoding="utf-8"))
    before = described["guarantee"]
    assert before == earlier_guarantee(racer) != racer.guarantee()
    described["guarantee"] = before.replace("at most 0.2", "at most 0.1")
    assert described["guarantee"] != before
    described["checksum"] = artefact._checksum(described)
    path.write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(CorruptError, match="states guarantee"):
        Racer.load(folder)


@pytest.mark.parametrize("null", ["paper", "free", "never"])
def test_each_null_mode_says_what_counts_where_no_model_is_right(null):
    calibration = Racer.load(GOLDEN / "golden.racer").calibration
    promise = calibration.guarantee(null)
    assert promise.startswith(
        "For new queries drawn like (exchangeable with) the calibration queries of"
    )
    words = {
        "paper": "(if no model could answer, abstaining counts as right)",
        "free": "no called model is right (although some model of the pool could answer)",
        "never": "(also where no model could answer)",
    }
    assert [name for name, text in words.items() if text in promise] == [null]
