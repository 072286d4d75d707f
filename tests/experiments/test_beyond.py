import json

import numpy as np
import pytest

from experiments.beyond import main

OPTIONS = ["--queries", "120", "--networks", "1", "--epochs", "2", "--resamples", "5", "--neighbors", "20"]


def test_a_tiny_run_writes_a_table_a_figure_and_files(tmp_path, capsys):
    status = main([*OPTIONS, "--alphas", "0.1,0.4", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    assert status == 0
    for name in ("static", "oracle", "P, MLP", "J blend", "J tilt, MLP"):
        assert name in printed
    names = {path.suffix for path in tmp_path.iterdir()}
    assert {".json", ".csv", ".png"} <= names
    (file,) = tmp_path.glob("*.json")
    cells = json.loads(file.read_text())["cells"]
    assert {cell["benchmark"] for cell in cells} == {"gsm8k", "mmlu", "cmmlu", "arc_challenge"}
    sizes = {(cell["benchmark"], cell["score"]): np.array(cell["size"], float) for cell in cells}
    for (benchmark, _), size in sizes.items():
        assert (size >= sizes[benchmark, "oracle"] - 1e-9).all()
        assert (np.diff(size) <= 1e-9).all()
    for cell in cells:
        if cell["score"] != "oracle":
            assert (np.array(cell["risk"], float) <= np.array([0.1, 0.4]) + 1e-9).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calibration", "0"], "calibration must be in (0, 1), got 0.0"),
        (["--resamples", "1"], "resamples must be at least 2, got 1"),
    ],
)
def test_usage_errors_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
