import json

import pytest

from experiments.conformal_training import Config, main


@pytest.mark.long
def test_routers_are_trained_and_compared(tmp_path, capsys):
    arguments = ["--steps", "3", "--seeds", "1", "--hidden", "4", "--output", str(tmp_path)]
    assert main([*arguments, "--benchmark", "arc_challenge", "--weights", "0,0.1"]) == 0
    printed = capsys.readouterr().out
    assert "top-1 accuracy" in printed
    assert "nan" not in printed
    rows = json.loads((tmp_path / "results.json").read_text())["results"]
    assert [row["weight"] for row in rows] == [0.0, 0.1]
    for row in rows:  # the law is that of the calibration, whatever the training
        assert row["risk"] == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"alpha": 1.5}, "alpha must be in"), ({"weights": "0,-1"}, "must not be negative")],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        Config(**options)
