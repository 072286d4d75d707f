"""Scores in batches of a few rows: every number around the borders, each row once and in order."""

import numpy as np
import pytest

from racer_jax.racer import scoring
from racer_jax.racer.scoring import ModelScores, Scorer, _padded_size, padded_batches


def test_sizes_are_powers_of_two():
    assert [_padded_size(num) for num in (1, 2, 3, 4, 5, 8, 9, 1024)] == [
        1,
        2,
        4,
        4,
        8,
        8,
        16,
        1024,
    ]
    # The largest is one of them, so that no batch is padded beyond it.
    assert _padded_size(scoring.LARGEST) == scoring.LARGEST


@pytest.mark.parametrize("num", range(1, 14))
def test_every_row_is_in_one_batch_and_what_is_added_is_cut(monkeypatch, num):
    monkeypatch.setattr(scoring, "LARGEST", 4)
    x = np.arange(2 * num).reshape(num, 2)
    batches = list(padded_batches(x))
    assert [len(batch) for batch, _ in batches] == [
        _padded_size(min(4, num - start)) for start in range(0, num, 4)
    ]
    np.testing.assert_array_equal(np.concatenate([batch[:real] for batch, real in batches]), x)
    for batch, real in batches:
        assert (batch[real:] == batch[0]).all()


@pytest.mark.parametrize("num", [1, 3, 4, 5, 8, 9, 12, 13, 20])
@pytest.mark.parametrize("grouped", [False, True])
def test_batches_are_joined_in_order_and_few_are_ahead(monkeypatch, num, grouped):
    monkeypatch.setattr(scoring, "LARGEST", 4)
    events, scorer = [], object.__new__(Scorer)

    def started(self, texts, nonconformity, null, groups):
        first = int(texts[0])
        events.append(("start", len(texts)))
        assert (nonconformity, null) == ("gap", "free")
        assert groups == ([f"g{text}" for text in texts] if grouped else None)

        def finish():
            events.append(("finish", len(texts)))
            values = np.arange(first, first + len(texts))[:, None]
            return ModelScores(values / 100, values)

        return finish

    monkeypatch.setattr(Scorer, "_started", started)
    texts = [str(i) for i in range(num)]
    groups = [f"g{i}" for i in range(num)] if grouped else None
    result = scorer(texts, "gap", "free", groups)
    assert result.nonconformity[:, 0].tolist() == list(range(num))
    np.testing.assert_allclose(result.scores[:, 0], np.arange(num) / 100)
    sizes = [min(4, num - start) for start in range(0, num, 4)]
    for kind in ("start", "finish"):
        assert [size for what, size in events if what == kind] == sizes
    ahead = np.cumsum([1 if what == "start" else -1 for what, _ in events])
    assert ahead.max() == min(len(sizes), 3)  # two that wait, and the one just started


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01, 0.0, 1.0])
def test_scores_of_a_broken_router_are_refused(monkeypatch, value):
    scores = np.array([[0.5, value]])
    monkeypatch.setattr(
        Scorer, "_started", lambda *_: lambda: ModelScores(scores, np.zeros((1, 3)))
    )
    scorer = object.__new__(Scorer)
    if 0 <= value <= 1:
        assert scorer(["a"], "gap", "free").scores.tolist() == scores.tolist()
    else:
        with pytest.raises(ValueError, match="the router's scores must be finite"):
            scorer(["a"], "gap", "free")
