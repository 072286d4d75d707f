"""No row of one part of a split stands in another."""

from types import SimpleNamespace

import numpy as np
import pytest

from racer_jax.montecarlo import kernel, split_design


@pytest.mark.parametrize("validates", [False, True])
def test_each_row_stands_in_one_part(validates, monkeypatch):
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**32, (2, 3, 4), dtype=np.uint32)
    calibration, validation = words[0], words[1] & ~words[0]
    drawn = (calibration, validation if validates else None)
    monkeypatch.setattr(kernel, "trial_parts", lambda keys, plan: drawn)
    plan = SimpleNamespace(calibration=SimpleNamespace(num=np.zeros(1)), order=None)
    first, measured = kernel._draw(plan, np.zeros((2, 2, 4), np.uint32))
    parts = [np.asarray(first), *map(np.asarray, measured.values())]
    assert list(measured) == ["test", *(["validation"] if validates else [])]
    places = np.stack([np.unpackbits(part.view(np.uint8)) for part in parts]).sum(axis=0)
    assert (places == 1).all()
    np.testing.assert_array_equal(parts[0], calibration)
    if validates:
        np.testing.assert_array_equal(parts[2], validation)


def test_calibration_and_validation_are_disjoint_parts_of_one_draw(monkeypatch):
    both = np.uint32([[0b1110]])
    subsets = iter([both, np.uint32([[0b0110]])])
    monkeypatch.setattr(split_design, "uniform_subsets", lambda *_: next(subsets))
    plan = SimpleNamespace(outer=object(), calibration=object())
    calibration, validation = split_design.trial_parts(np.zeros((2, 2, 1)), plan)
    assert (int(calibration[0, 0]), int(validation[0, 0])) == (0b0110, 0b1000)
