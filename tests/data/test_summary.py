"""The summary, against counts by hand and the Beta law of the exact interval."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from racer_jax.data import RoutingTable, read_routerdc, summarize
from racer_jax.data.summary import exact_interval


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 500), st.data(), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_interval_s_ends_are_quantiles_of_beta_laws(n, data, confidence):
    successes, tail = data.draw(st.integers(0, n)), (1 - confidence) / 2
    low = beta.ppf(tail, successes, n - successes + 1) if successes else 0.0
    high = beta.isf(tail, successes + 1, n - successes) if successes < n else 1.0
    np.testing.assert_allclose(exact_interval(successes, n, confidence), (low, high), atol=1e-9)


def test_no_trial_says_nothing():
    assert exact_interval(0, 0) == (0.0, 1.0)


def make(**fields):
    base = {
        "ids": list("abcd"),
        "texts": ["1?", "1?", "2?", "3?"],
        "models": ["x", "y"],
        "correct": [[1, 0], [0, 1], [0, 1], [0, 0]],
        "group": ["g", "g", "g", "h"],
    }
    return RoutingTable(**{**base, **fields})


def test_every_figure_by_hand():
    summary = make(missing=[[0, 0], [0, 0], [1, 0], [0, 0]], notes=["a note"]).summary()
    g, h, whole = summary.groups
    assert (g.group, g.num_queries, g.num_duplicates, g.num_missing) == ("g", 3, 1, 1)
    assert g.accuracies == {"x": 1 / 2, "y": 2 / 3}
    assert g.best_single == "y"
    assert g.all_wrong == 0.0  # of the two whole rows
    assert (h.all_wrong, h.all_wrong_low, h.all_wrong_high) == (1.0, *exact_interval(1, 1))
    assert (whole.group, whole.num_queries, whole.all_wrong) == ("all", 4, 1 / 3)
    assert summary.notes == ("a note",)


def test_it_prints_as_a_table_and_dumps_as_json():
    summary = make(label_rule={"g": "score > 0", "h": "score > 0.5"}).summary()
    lines = str(summary).splitlines()
    assert lines[0].split() == [
        "group",
        "queries",
        "duplicates",
        "missing",
        "best",
        "single",
        "accuracy",
        "all",
        "wrong",
        "95%",
        "interval",
        "label",
        "rule",
    ]
    assert lines[2].split()[:6] == ["g", "3", "1", "0", "y", "0.6667"]
    assert "score > 0, score > 0.5" in lines[4]
    assert json.loads(json.dumps(summary.to_dict()))["groups"][0]["accuracies"]["y"] == 2 / 3


def test_one_group_needs_no_total():
    assert [g.group for g in make(group=["g"] * 4).summary().groups] == ["g"]
    assert [g.group for g in make(group=None).summary().groups] == ["all"]


def test_a_model_nobody_evaluated_has_no_accuracy():
    summary = make(correct=np.zeros((4, 2)), missing=[[1, 0]] * 4).summary()
    assert np.isnan(summary.groups[-1].accuracies["x"])
    assert np.isnan(summary.groups[-1].all_wrong)
    assert "nan" in str(summary)


def test_the_paper_s_table(data_dir):
    groups = {g.group: g for g in read_routerdc(data_dir / "routerdc").summary().groups}
    best = {
        name: (g.best_single.split("/")[1], round(100 * g.accuracies[g.best_single], 1))
        for name, g in groups.items()
    }
    assert best["mmlu"] == ("Meta-Llama-3-8B", 64.6)
    assert best["arc_challenge"] == ("zephyr-7b-beta", 58.0)
    assert groups["mmlu"].num_duplicates == 8


def test_what_cannot_be_summarised_is_refused():
    with pytest.raises(ValueError, match="table must hold at least one query, got none"):
        make().select([]).summary()
    with pytest.raises(ValueError, match=r"confidence must be in \(0, 1\), got 1"):
        summarize(make(), confidence=1)


def test_long_names_are_cut_short_on_a_terminal_alone():
    names = ["m" * 300, "n"]
    table = RoutingTable(ids=["q"], texts=["?"], models=names, correct=[[1, 0]], group=["g" * 500])
    summary = summarize(table)
    assert max(map(len, str(summary).splitlines())) < 250
    assert "g" * 57 + "..." in str(summary)
    assert list(summary.to_dict()["groups"][0]["accuracies"]) == names
