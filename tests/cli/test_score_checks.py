"""`bound-check` without an artefact: scores in a file, or a table to learn on."""

import json

import numpy as np
import pytest

from racer_jax.cli.main import main

ALPHAS = ["--splits", "0", "--alphas", "0.1,0.3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same scores in every form, and the labels as a table of their own."""
    folder = tmp_path_factory.mktemp("scores")
    rng = np.random.default_rng(0)
    scores = rng.random((40, 2)).round(3).astype(np.float32)
    right = rng.random((40, 2)) < scores
    np.savez(folder / "both.npz", scores=scores, correct=right)
    np.save(folder / "both.npy", np.stack([scores, right]))
    np.save(folder / "alone.npy", scores)
    cells = [(i, j) for i in range(40) for j in range(2)]
    wide = ["a,b", *(f"{a:.3f},{b:.3f}" for a, b in scores)]
    (folder / "alone.csv").write_text("\n".join(wide) + "\n")
    by_id = ["id,b,a", *(f"{i},{scores[i, 1]:.3f},{scores[i, 0]:.3f}" for i in range(39, -1, -1))]
    (folder / "by_id.csv").write_text("\n".join(by_id) + "\n")
    long = [f"{i},{'ab'[j]},{scores[i, j]:.3f},{int(right[i, j])}" for i, j in cells]
    (folder / "both.csv").write_text("\n".join(["query_id,model,score,correct", *long]) + "\n")
    labels = [f"{i},{'ab'[j]},{int(right[i, j])}" for i, j in cells]
    (folder / "labels.csv").write_text("\n".join(["query_id,model,correct", *labels]) + "\n")
    return folder


def checked(capsys, *arguments):
    status = main(["bound-check", *map(str, arguments), *ALPHAS, "--json"])
    assert status == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    return [(check["nonconformity"], check["risk"], check["size"]) for check in checks]


@pytest.mark.long
def test_every_form_of_the_same_scores_gives_the_same(folder, capsys):
    expected = checked(capsys, "--scores", folder / "both.npz")
    assert [name for name, *_ in expected] == ["gap", "inverse_probability"]
    labels = folder / "labels.csv"
    for arguments in (
        ("--scores", folder / "both.npy"),
        ("--scores", folder / "both.csv"),
        ("--scores", folder / "alone.npy", labels),
        ("--scores", folder / "alone.csv", labels),
        ("--scores", folder / "by_id.csv", labels),
    ):
        assert checked(capsys, *arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scores", "alone.npy"], "holds scores alone: name the table"),
        (["--scores", "alone.csv", "both.csv", "--unseen"], "--unseen is for an artefact"),
        (["--scores", "both.npz", "--table"], "--scores and --table exclude each other"),
        (["labels.csv"], "name an ARTEFACT and a TABLE; or --scores FILE"),
        (["art", "labels.csv", "--loss", "grade"], "--loss is for --scores and --table"),
        (["--scores", "both.npz", "--loss", "regret"], "name a --table with answers"),
        (["--scores", "both.npz", "--loss", "grade"], "needs graded scores"),
        (["--scores", "both.npz", "--nonconformity", "J"], "J is learned from texts"),
        (["--scores", "both.npz", "--nonconformity", "K"], "nonconformity must be both, or among"),
        (["--scores", "labels.txt"], "must be an .npz, .npy or .csv file"),
    ],
)
def test_errors_name_the_options(arguments, message, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert main(["bound-check", *arguments, *ALPHAS]) == 1
    assert message in capsys.readouterr().err
