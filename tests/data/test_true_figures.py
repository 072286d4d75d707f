"""What the files of RouterDC and RouterBench say, in figures of the first release."""

import numpy as np
import pytest

from racer_jax.data import load, read_routerbench, read_routerdc

# How many questions each of the seven models answers rightly, by file.
ROUTERDC = {
    "arc_challenge_test.json": [174, 170, 153, 204, 185, 174, 174],
    "arc_challenge_train.json": [416, 397, 362, 467, 437, 413, 398],
    "cmmlu_test.json": [1523, 1523, 1726, 1488, 1519, 1799, 1554],
    "cmmlu_train.json": [895, 887, 936, 862, 874, 968, 863],
    "gsm8k-test.json": [429, 907, 490, 385, 659, 589, 909],
    "gsm8k-train.json": [329, 819, 424, 316, 539, 445, 777],
    "mmlu_test.json": [2618, 2522, 2419, 2520, 2550, 2721, 2505],
    "mmlu_train.json": [1258, 1217, 1140, 1208, 1238, 1312, 1204],
}
# Right answers, dollars to six digits, and pairs without a result, by file and model.
ROUTERBENCH = {
    "arc_challenge_test.csv": (
        [285, 370, 404, 275, 373, 420, 290, 359, 294, 379, 403],
        [
            *(0.067105, 0.179579, 1.795264, 1.799128, 0.22397, 2.24408, 0.173796, 0.201568),
            *(0.044793, 0.134378, 0.178816),
        ],
        [5, 5, 5, 5, 1, 5, 5, 5, 5, 5, 5],
    ),
    "arc_challenge_train.csv": (
        [684, 848, 931, 588, 853, 983, 681, 822, 691, 877, 925],
        [
            *(0.155623, 0.416442, 4.163608, 4.173592, 0.519435, 5.20454, 0.403069, 0.467477),
            *(0.103884, 0.311651, 0.41471),
        ],
        [1, 1, 1, 1, 5, 1, 1, 1, 1, 1, 1],
    ),
}


@pytest.mark.parametrize("name", ROUTERDC)
def test_right_answers_of_routerdc(data_dir, name):
    table = read_routerdc(data_dir / "routerdc" / name)
    assert table.correct.sum(axis=0).tolist() == ROUTERDC[name]
    assert load(data_dir / "routerdc" / name).correct.sum(axis=0).tolist() == ROUTERDC[name]


@pytest.mark.parametrize("name", ROUTERBENCH)
def test_right_answers_and_costs_of_routerbench(data_dir, name):
    table = read_routerbench(data_dir / "routerbench" / name, missing="keep")
    right, dollars, absent = ROUTERBENCH[name]
    assert table.correct.sum(axis=0).tolist() == right
    np.testing.assert_allclose(np.nansum(table.cost, axis=0), dollars, rtol=0, atol=5.1e-7)
    assert table.missing.sum(axis=0).tolist() == absent
