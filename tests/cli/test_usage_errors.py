"""What is wrong with a command line is said before JAX is imported, whichever command it is."""

import argparse
import json
import shlex
import subprocess
import sys

import numpy as np
import pytest

from racer_jax.cli.main import build_parser, main
from racer_jax.cli.options import add_command
from racer_jax.racer import artefact as artefacts
from tests.cli.test_start import artefact

# Runs each line of the standard input, and says with what status and last line it ended, and
# whether JAX was there by then.
EACH = """
import contextlib, io, json, shlex, sys
from racer_jax.cli.main import main
for line in sys.stdin:
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            status = main(shlex.split(line))
        except SystemExit as end:
            status = end.code
    last = said.getvalue().strip().splitlines()[-1:]
    print(json.dumps([line.strip(), status, *last, "jax" in sys.modules]), flush=True)
"""

# The command line, and a part of what is said.
WRONG = """
data summary absent.csv                                       | absent.csv: file not found
data summary s3://bucket/logs.csv                             | download it first (for example: aws s3 cp)
data summary hf://datasets/owner/name                         | download it first (for example: hf download)
data summary https://example.org/logs.csv                     | download it first (for example: curl -LO)
data summary ftp://example.org/logs.csv                       | download it first and give the path of the copy
data summary file:///home/logs.csv                            | give the path /home/logs.csv
data summary ''                                               | must be the name of a file or folder, got an empty one
data summary t.csv --models ''                                | models must hold at least one model
data summary t.csv --label-rule best                          | label rule must be 'score > X'
data summary t.csv --label-rule mmlu=best                     | label rule must be 'score > X'
data summary t.csv --delimiter ,,                             | must be separated by one character
data summary t.csv --format long_csv --metric acc             | leave out --metric; its options are
data summary t.csv --seed 4294967296                          | from -2147483648 to 4294967295, got '4294967296'
data summary broken.csv                                       | must have the columns query, model and correct
data convert t.csv out.xlsx                                   | must end in .npz, .csv or .parquet
data convert absent.csv out.csv                               | absent.csv: file not found
data convert t.csv absent/out.csv                             | must be in a folder that exists
data convert t.csv t.csv                                      | is read by this command
data convert t.csv s3://bucket/out.csv                        | s3://bucket/out.csv is an address, and files are written to this machine alone
data fetch routerdc --folder s3://bucket/x                    | is an address
data fetch routerdc --folder t.csv                            | must be a folder to write to, got a file
data fetch routerdc --folder t.csv/x                          | must be a folder to write to, got a file
train absent.csv -o new.racer                                 | absent.csv: file not found
train t.csv -o my.racer                                       | which would be lost
train t.csv -o full                                           | got a folder with other files
train t.csv -o gs://bucket/my.racer                           | is an address
train t.csv -o new.racer --share 2                            | --share must be above 0 and at most 1
train t.csv -o new.racer --cost-weight 1                      | --cost-weight is for an order
train t.csv -o new.racer --nonconformity J --cost-weight nan  | --cost-weight must be in [0, 4], got nan
train t.csv -o new.racer --nonconformity J --cost-weight inf  | --cost-weight must be in [0, 4], got inf
train t.csv -o new.racer --nonconformity J --cost-weight -1   | --cost-weight must be in [0, 4], got -1
train t.csv -o new.racer --share nan                          | --share must be above 0 and at most 1
train t.csv -o new.racer --seed 1e3                           | must be a whole number
train t.csv -o ''                                             | got an empty one
train t.csv -o t.csv/x                                        | must be a folder to write to, got a file
train t.csv -o new.racer --label-rule best                    | label rule must be 'score > X'
train t.csv -o new.racer --nonconformity J --cost-weight 1    | needs the cost of every model
train broken.csv -o new.racer                                 | must have the columns query, model and correct
train garbled.csv -o new.racer                                | row 2 (line 3), field 'large': must be 0/1
train t.csv -o new.racer --group nobody                       | the table has no groups, got 'nobody'
train groups.csv -o new.racer --group nobody                  | must be one of mmlu, gsm8k, got 'nobody'
train t.csv -o new.racer --columns correct=nobody             | nobody
train t.csv -o new.racer --metric acc                         | leave out --metric
train t.csv -o new.racer --models nobody                      | field 'nobody': must be a column
calibrate absent.racer t.csv --alpha 0.1                      | absent.racer: folder not found
calibrate my.racer absent.csv --alpha 0.1                     | absent.csv: file not found
calibrate my.racer t.csv                                      | needs --alpha
calibrate my.racer t.csv --alpha 2                            | --alpha must be a number between 0 and 1
calibrate my.racer t.csv --alpha 0.1 --delta 2                | --delta must be a number between 0 and 1
calibrate my.racer t.csv --alpha 0.1 --max-models 0           | --max-models must be at least 1
calibrate my.racer t.csv --alpha 0.1 --min-models -1          | --min-models must be at least 1
calibrate my.racer t.csv --alpha 0.1 --max-models 1 --min-models 2 | --min-models must be at most 1
calibrate my.racer t.csv --alpha 0.1 --min-models 9           | --min-models must be at most 3, the number of models
calibrate my.racer t.csv --alpha 0.1 --without large --min-models 3 | --min-models must be at most 2, the number of models
calibrate my.racer t.csv --alpha 0.1 --without nobody         | 'nobody' is not a model of the pool
calibrate my.racer --without nobody                           | 'nobody' is not a model of the pool
calibrate my.racer --without small --without medium --without large | --without must leave at least one model
calibrate my.racer t.csv --alpha nan                          | --alpha must be a number between 0 and 1
calibrate my.racer t.csv --alpha 0.1 --delta nan              | --delta must be a number between 0 and 1
calibrate my.racer t.csv --alpha 0.1 --form nonsense          | 'nonsense' is not known
calibrate my.racer t.csv --alpha 0.1 --view nonsense          | got 'nonsense'
calibrate my.racer t.csv --alpha 0.1 --share 0                | --share must be above 0
calibrate my.racer t.csv --alpha 0.1 --models nobody          | --models must name all models of the artefact
calibrate my.racer t.csv --alpha 0.1 --nonconformity gap      | with --from-scores
calibrate my.racer                                            | nothing is to be changed
calibrate my.racer --loss grade --alpha 0.1                   | --loss is about the rows of a table
calibrate my.racer --label-rule any --alpha 0.1               | --label-rule is about the rows of a table
calibrate plain.racer --alpha 0.1                             | has no calibration to change
calibrate my.cascade t.csv --alpha 0.1                        | the artefact of a Cascade
calibrate new.racer t.csv --from-scores --alpha 0.1           | must be a score matrix
calibrate new.racer --from-scores --alpha 0.1                 | needs a score matrix
calibrate new.racer absent.npz --from-scores --alpha 0.1      | absent.npz: file not found
calibrate new.racer alone.npz --from-scores --alpha 0.1       | field 'correct': must be in the file
calibrate my.racer broken.csv --alpha 0.1                     | must have the columns query, model and correct
calibrate my.racer garbled.csv --alpha 0.1                    | row 2 (line 3), field 'large': must be 0/1
calibrate my.racer t.csv --alpha 0.1                          | the table has no model 'small', 'medium', 'large'
calibrate my.racer t.csv --alpha 0.1 --without small          | the table has no model 'medium', 'large'
calibrate my.racer pool.csv --alpha 0.1 --loss grade          | needs a table with graded scores
calibrate my.racer pool.csv --alpha 0.1 --group nobody        | the table has no groups, got 'nobody'
calibrate new.racer scores.npz --from-scores --alpha 0.1 --group nobody | the table has no groups, got 'nobody'
calibrate new.racer scores.npz --from-scores --alpha 0.1 --models a | --models must name all models
extend my.racer garbled.csv                                   | row 2 (line 3), field 'large': must be 0/1
extend my.racer t.csv --metric acc                            | leave out --metric
extend absent.racer t.csv                                     | absent.racer: folder not found
extend my.racer absent.csv                                    | absent.csv: file not found
extend my.racer t.csv -o full                                 | got a folder with other files
route absent.racer x                                          | absent.racer: folder not found
route hf://owner/my.racer x                                   | hf://owner/my.racer is an address
route my.racer                                                | nothing to route
route my.racer ""                                             | question 1 must not be empty
route my.racer x --input lines.jsonl                          | not both
route my.racer --input absent.jsonl                           | absent.jsonl: file not found
route my.racer --input full                                   | full: must be a file, got a folder
route my.racer --input ''                                     | nothing to route
route my.racer x --input ''                                   | must not be empty
route my.racer x --batch 99999999999999999999                 | --batch must be at most
route my.racer --input t.csv                                  | got a table
route my.racer x --alpha 3                                    | --alpha must be a number between 0 and 1
route my.racer x --batch 0                                    | --batch must be at least 1
route my.racer x --output absent/x                            | must be in a folder that exists
route plain.racer x                                           | calibrate it first
route my.cascade x                                            | the artefact of a Cascade
route full x                                                  | has no file racer.json
evaluate my.racer absent.csv                                  | absent.csv: file not found
evaluate absent.racer t.csv                                   | absent.racer: folder not found
evaluate my.racer t.csv --alphas 2                            | must be a number between 0 and 1
evaluate my.racer t.csv --alphas nonsense                     | --alphas must be like
evaluate my.racer t.csv --output x.txt                        | --output must end in .json
evaluate plain.racer t.csv                                    | calibrate it first
evaluate my.racer t.csv --models nobody                       | --models must name all models of the artefact
evaluate my.racer garbled.csv                                 | row 2 (line 3), field 'large': must be 0/1
evaluate my.racer t.csv                                       | the table has no model 'small'
evaluate my.racer pool.csv --group nobody                     | the table has no groups, got 'nobody'
report my.racer --data garbled.csv                            | row 2 (line 3), field 'large': must be 0/1
report my.racer --data pool.csv --sequential my.cascade       | has no answers, which --sequential reads
report my.racer --data pool.csv --group nobody                | the table has no groups, got 'nobody'
report my.racer --data absent.csv                             | absent.csv: file not found
report my.racer --data t.csv --output x.pdf                   | --output must end in .html
report my.racer --data t.csv --title ""                       | --title must not be empty
report my.racer --data t.csv --alphas 3                       | must be a number between 0 and 1
report my.racer --data t.csv --models nobody                  | --models must name all models of the artefact
report my.racer --data t.csv --sequential my.racer            | not of a Cascade
report my.cascade --data t.csv --sequential my.cascade        | leave --sequential out
report my.racer --data t.csv --sequential absent.cascade      | absent.cascade: folder not found
cascade train absent.csv -o new.cascade                       | absent.csv: file not found
cascade train t.csv -o new.cascade --batches x                | --batches must be whole numbers
cascade train t.csv -o new.cascade --batches 0                | --batches must be sizes of at least 1
cascade train t.csv -o new.cascade --alpha 2                  | --alpha must be a number between 0 and 1
cascade train t.csv -o new.cascade --alpha nan                | --alpha must be a number between 0 and 1
cascade train t.csv -o new.cascade --seed 99999999999999999999 | must be a whole number
cascade train t.csv -o new.cascade --form nonsense            | 'nonsense' is not known
cascade train t.csv -o my.racer                               | which would be lost
cascade train garbled.csv -o new.cascade                      | row 2 (line 3), field 'large': must be 0/1
cascade train t.csv -o new.cascade                            | must hold the answer of every model
cascade train answers.csv -o new.cascade --objective dollars  | needs the cost of every model's answers
cascade train answers.csv -o new.cascade --group nobody       | the table has no groups, got 'nobody'
cascade calibrate my.cascade garbled.csv --alpha 0.1          | row 2 (line 3), field 'large': must be 0/1
cascade calibrate my.cascade pool.csv --alpha 0.1             | must hold the answer of every model
cascade calibrate my.cascade answers.csv --alpha 0.01         | takes at least 99 calibration rows, there are 1
cascade calibrate my.cascade answers.csv --alpha 0.1 --delta 0.01 | and delta = 0.01 takes at least 44 calibration rows
cascade calibrate stops.cascade --alpha 0.01                  | takes at least 99 calibration rows, there are 9
cascade calibrate absent.cascade t.csv --alpha 0.1            | absent.cascade: folder not found
cascade calibrate my.cascade t.csv --alpha 2                  | --alpha must be a number between 0 and 1
cascade calibrate my.cascade --alpha 0.1                      | has no calibration to change alpha of
cascade calibrate my.cascade t.csv --alpha 0.1 --delta 3      | --delta must be a number between 0 and 1
cascade calibrate my.racer t.csv --alpha 0.1                  | not of a Cascade
cascade calibrate my.cascade t.csv --alpha 0.1 --models nobody | --models must name all models of the artefact
cascade evaluate my.cascade absent.csv                        | absent.csv: file not found
cascade evaluate my.cascade t.csv --alphas 3                  | must be a number between 0 and 1
cascade evaluate my.racer t.csv                               | not of a Cascade
cascade evaluate my.cascade t.csv --models nobody             | --models must name all models of the artefact
cascade evaluate my.cascade t.csv --alphas 0.1                | racer-jax cascade calibrate my.cascade TABLE
cascade evaluate my.cascade garbled.csv                       | row 2 (line 3), field 'large': must be 0/1
cascade evaluate my.cascade pool.csv                          | must hold the answer of every model
cascade evaluate stops.cascade answers.csv --alphas 0.2,0.01  | takes at least 99 calibration rows, there are 9
cascade report stops.cascade --data answers.csv --alphas 0.01 | takes at least 99 calibration rows, there are 9
cascade report my.cascade --data garbled.csv                  | row 2 (line 3), field 'large': must be 0/1
cascade report my.cascade --data absent.csv                   | absent.csv: file not found
cascade report my.cascade --data t.csv --output x.pdf         | --output must end in .html
cascade report my.cascade --data t.csv --models nobody        | --models must name all models of the artefact
cascade report my.cascade --data t.csv --alphas 0.1           | racer-jax cascade calibrate my.cascade TABLE
cascade report my.cascade --data t.csv --title ' '            | --title must not be empty
cascade route my.cascade x                                    | answered in lines
cascade route my.cascade --input absent.jsonl                 | absent.jsonl: file not found
cascade route my.cascade --alpha 3                            | --alpha must be a number between 0 and 1
cascade route my.cascade --alpha 0.1                          | racer-jax cascade calibrate my.cascade TABLE
cascade route stops.cascade --alpha 0.01                      | takes at least 99 calibration rows, there are 9
train t.csv -o new.cascade --sequential --batches 0           | --batches must be sizes of at least 1
bound-check                                                   | name an ARTEFACT and a TABLE
bound-check my.racer                                          | name an ARTEFACT and a TABLE
bound-check absent.racer t.csv                                | absent.racer: folder not found
bound-check my.racer absent.csv                               | absent.csv: file not found
bound-check my.racer t.csv --alphas 3                         | must be a number between 0 and 1
bound-check my.racer t.csv --splits -1                        | --splits must be at least 0, got -1
bound-check my.racer t.csv --splits 4294967296                | --splits must be at most 4294967295
bound-check my.racer t.csv --z nan                            | --z must be above 0, and finite
bound-check my.racer t.csv --z inf                            | --z must be above 0, and finite
bound-check my.racer t.csv --calibration nan                  | --calibration must be a share
bound-check my.racer t.csv --seed -4294967296                 | must be a whole number
bound-check my.racer t.csv --calibration 2                    | --calibration must be a share
bound-check my.racer t.csv --loss grade                       | --loss is for --scores and --table
bound-check my.racer garbled.csv                              | row 2 (line 3), field 'large': must be 0/1
bound-check my.racer pool.csv --group nobody                  | the table has no groups, got 'nobody'
bound-check --table garbled.csv                               | row 2 (line 3), field 'large': must be 0/1
bound-check --scores scores.npz t.csv                         | must hold scores [1, 2]
bound-check --scores alone.csv t.csv                          | must have a row for each query, none for 'x'
bound-check --scores scores.npz --nonconformity nobody:score  | 'nobody:score' cannot be imported
bound-check --scores scores.npz --nonconformity own:nobody    | 'own:nobody' cannot be imported
bound-check --scores absent.npz                               | absent.npz: file not found
bound-check --scores alone.npz                                | holds scores alone: name the table
bound-check --scores alone.npy                                | holds scores alone: name the table
bound-check --scores alone.csv                                | holds scores alone: name the table
bound-check --scores full                                     | must be an .npz, .npy or .csv file
bound-check --scores x.npz --table t.csv                      | exclude each other
bound-check --table                                           | --table needs a TABLE
bound-check --table absent.csv                                | absent.csv: file not found
bound-check --table t.csv --nonconformity nonsense            | got 'nonsense'
bound-check --table t.csv --nonconformity J,J                 | must name each score once
bound-check --scores t.csv --loss regret                      | is of a chain of calls
bound-check --scores t.csv --nonconformity J                  | is learned from texts
bound-check --table t.csv --share 0.5                         | --share is for an artefact
monitor                                                       | name the file of the state
monitor absent.json                                           | needs lines to count
monitor state.json --input absent.jsonl --alpha 0.1           | absent.jsonl: file not found
monitor state.json --input full --alpha 0.1                   | must be a file, got a folder
monitor state.json --input lines.jsonl --alpha nan            | --alpha must be a number between 0 and 1
monitor state.json --input lines.jsonl --alpha 0.1 --level nan | --level must be a number between 0 and 1
monitor state.json --input lines.jsonl --alpha 0.1 --wait nan | --wait must be seconds
monitor state.json --input lines.jsonl --alpha 0.1 --seed 1.5 | must be a whole number
monitor state.json --input lines.jsonl                        | needs --alpha or --artefact
monitor state.json --input lines.jsonl --alpha 2              | --alpha must be a number between 0 and 1
monitor state.json --input lines.jsonl --alpha 0.1 --level 2  | --level must be a number between 0 and 1
monitor state.json --input lines.jsonl --alpha 0.1 --artefact my.racer | not both
monitor state.json --input lines.jsonl --artefact absent.racer | absent.racer: folder not found
monitor state.json --input lines.jsonl --artefact plain.racer | not calibrated
monitor state.json --input lines.jsonl --kind exchangeability | needs --reference
monitor state.json --decisions lines.jsonl                    | go together
monitor --decisions lines.jsonl --labels absent.csv           | absent.csv: file not found
monitor --decisions lines.jsonl --labels t.csv --resume       | leave out --input and --resume
monitor state.json --input lines.jsonl --alpha 0.1 --wait -1  | --wait must be seconds
monitor state.json --input lines.jsonl --alpha 0.1 --label-rule any | give --labels
monitor --decisions lines.jsonl --labels garbled.csv          | row 2 (line 3), field 'large': must be 0/1
monitor s3://bucket/state.json --input lines.jsonl --alpha 0.1 | is an address
serve                                                         | give one of CONFIG
serve absent.toml                                             | absent.toml: cannot be read
serve odd.toml                                                | unknown field
serve odd.toml --demo                                         | give one of CONFIG
serve odd.toml --port 99999                                   | --port must be 0 to 65535
serve --demo --folder t.csv                                   | must be a folder
serve s3://bucket/gateway.toml                                | is an address
recalibrate absent.db --artefact my.racer -o new.racer        | absent.db: file not found
recalibrate t.csv --artefact my.racer -o new.racer            | not the state of a gateway
recalibrate absent.db --artefact absent.racer -o new.racer    | absent.racer: folder not found
recalibrate absent.db --artefact my.racer -o new.racer --alpha 2 | --alpha must be a number between 0 and 1
recalibrate absent.db --artefact my.racer -o new.racer --since x | --since must be a time
replay absent.db --artefact my.racer                          | absent.db: file not found
replay absent.db --artefact absent.racer                      | absent.racer: folder not found
compare absent.db a b                                         | absent.db: file not found
compare absent.db a a                                         | got 'a' twice
compare absent.db a b --level 2                               | --level must be between 0 and 1
compare absent.db a b --level nan                             | --level must be between 0 and 1
sign                                                          | give ARTEFACT and --key FILE
sign my.racer                                                 | give ARTEFACT and --key FILE
sign my.racer --key absent.pem                                | absent.pem: file not found
sign my.racer --key s3://bucket/k.pem                         | s3://bucket/k.pem is an address
demo --output full                                            | must be a new folder
demo --output s3://bucket/x                                   | is an address
demo --output t.csv                                           | must be a folder to write to, got a file
demo --output new --seed 99999999999999999999                 | must be a whole number
doctor --nonsense                                             | unrecognized arguments
completion nonsense                                           | invalid choice
"""
LINES = [tuple(part.strip() for part in line.split("|")) for line in WRONG.strip().splitlines()]


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """How each command line ended, in one process: what is imported stays."""
    folder = tmp_path_factory.mktemp("usage")
    calibrated = artefact(folder)
    description, arrays = artefacts.read(calibrated)
    plain = {name: value for name, value in description.items() if name != "checksum"}
    artefacts.write(folder / "plain.racer", {**plain, "calibration": None}, arrays)
    # What a command looks at before it loads the cascade, and no more.
    rows = {"calibration.value": np.zeros(9, np.float32), "calibration.code": np.zeros(9, np.int32)}
    stop = {"alpha": "0.1", "loss": "regret", "delta": None, "groups": None}
    stops = {**plain, "kind": "cascade", "policy": {"loss": "regret"}}
    artefacts.write(folder / "my.cascade", {**stops, "calibration": None}, arrays)
    artefacts.write(folder / "stops.cascade", {**stops, "calibration": stop}, rows)
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").touch()
    (folder / "t.csv").write_text("query,a,b\nx,1,0\n")
    (folder / "lines.jsonl").write_text('{"missed": 0}\n')
    (folder / "odd.toml").write_text("x = 1\n")
    (folder / "broken.csv").write_text("one,two\n1,2\n")
    pool = "small,medium,large"
    (folder / "garbled.csv").write_text(f"query,{pool}\nx,1,0,1\ny,1,0,many\n")
    (folder / "pool.csv").write_text(f"query,{pool}\nx,1,0,1\n")
    (folder / "groups.csv").write_text("query,a,b,group\nx,1,0,mmlu\ny,1,1,gsm8k\n")
    long = "".join(f"x,{name},1,A\n" for name in pool.split(","))
    (folder / "answers.csv").write_text(f"query,model,correct,answer\n{long}")
    (folder / "own.py").write_text("def score(scores): return scores\n")
    scores = np.full((2, 2), 0.5)
    np.savez(folder / "alone.npz", scores=scores)
    np.savez(folder / "scores.npz", scores=scores, correct=np.eye(2, dtype=int))
    np.save(folder / "alone.npy", scores)
    (folder / "alone.csv").write_text("id,a,b\n1,0.5,0.25\n")
    done = subprocess.run(
        [sys.executable, "-c", EACH],
        input="".join(f"{line}\n" for line, _ in LINES),
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    return {line: rest for line, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize(("line", "part"), LINES, ids=[line for line, _ in LINES])
def test_what_is_wrong_is_said_before_jax_is_imported(ended, line, part):
    status, said, has_jax = ended[line]
    assert part in said
    assert status in (1, 2)
    assert not has_jax


def test_every_command_is_among_them():
    def commands(parser, words=()):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, inner in action.choices.items():
                    if callable(inner.get_default("run")):
                        yield (*words, name)
                    yield from commands(inner, (*words, name))

    tried = [tuple(shlex.split(line)) for line, _ in LINES]
    for command in commands(build_parser()):
        assert any(words[: len(command)] == command for words in tried), command


def test_a_command_cannot_be_added_without_a_check():
    with pytest.raises(TypeError, match="check"):
        add_command(None, "new", "A command.", "racer-jax new")


def commands_of(parser):
    """A parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from commands_of(command)


def test_what_a_command_carries_hides_none_of_its_options():
    """`serve` without `--check` once took the function of that name for the option, and ended."""
    parsers = list(commands_of(build_parser()))
    assert len(parsers) > 15
    for parser in parsers:
        options = {action.dest for action in parser._actions}
        assert not options & parser._defaults.keys(), parser.prog


def test_serve_checks_alone_only_where_it_is_told(tmp_path, monkeypatch):
    running = pytest.importorskip("racer_jax.serving.gateway._running")
    seen = []
    monkeypatch.setattr(running, "run", lambda *args: seen.append(args[:4]))
    config = tmp_path / "gateway.toml"
    config.write_text(
        '[models.a]\nbase_url = "http://127.0.0.1:1/v1"\n[routes.r]\nartefact = "my.racer"\n'
        '[state]\npath = "gateway.db"\n'
    )
    assert main(["serve", str(config)]) == main(["serve", str(config), "--check"]) == 0
    assert [args[3] for args in seen] == [False, True]
