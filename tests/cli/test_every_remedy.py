"""Every remedy that an error names is typed as it is printed, until the tables are read.

The remedies are collected from the sources; a small input for each meets the error, and what the
shell prints is typed at the end of the same line. A further error must be another one.
"""

import ast
import json
import re
import shlex
from pathlib import Path

import pytest

import racer_jax
from racer_jax.cli.main import _parsed, in_shell
from racer_jax.cli.options import Source
from racer_jax.data import DataError, load, save
from racer_jax.data.remedies import OPTIONS, Remedy
from tests.data import log_samples, samples
from tests.data.test_logs_told_apart import FIRST, SECOND, choices, rows, write_log, write_report

LONG = "query_id,query,model,{}\na,1?,x,{}\na,1?,y,{}\nb,2?,x,{}\nb,2?,y,{}\n"
WIDE = "query,{}\na?,{}\nb?,{}\n"


def csv(name, text):
    """A line that reads a file of this text."""

    def make(folder):
        (folder / name).write_text(text, encoding="utf-8")
        return [folder / name]

    return make


def csvs(*texts, folder_alone=False):
    """A line that reads several files, or the folder they are in."""

    def make(folder):
        paths = [folder / f"part{i}.csv" for i in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, encoding="utf-8")
        return [folder] if folder_alone else paths

    return make


def log(*records, report=None, **tasks):
    """A line that reads lm-eval logs of one model."""

    def make(folder):
        for task, of_task in ({"toy": list(records)} | tasks).items():
            if of_task:
                write_log(folder / "m", task, FIRST, of_task)
        if report:
            write_report(folder / "m", f"results_{FIRST}.json", "m", **report)
        return [folder / "m"]

    return make


def of(make, **options):
    """A line that reads one of the samples."""

    def line(folder):
        return [make(folder, **options)]

    return line


def two_shots(folder):
    for stamp, shots in ((FIRST, 5), (SECOND, 0)):
        write_report(folder, f"results_{stamp}.json", "a", **{"n-shot": {"toy": shots}})
        write_log(folder, "toy", stamp, rows([1.0, 0.0]))
    return [folder]


def edited(make, change):
    """A sample of JSON, changed."""

    def line(folder):
        path = make(folder)
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        return [path]

    return line


def two_scorers(content):
    for sample in content["samples"]:
        sample["scores"]["other"] = sample["scores"]["choice"]


def parts_of_a_score(content):
    for sample in content["samples"]:
        sample["scores"]["choice"]["value"] = {"fit": 1, "form": 0}


def only_latency(content):
    for result in content["results"]["results"]:
        graded = result["gradingResult"]
        parts = graded["componentResults"]
        graded["componentResults"] = [p for p in parts if p["assertion"]["type"] == "latency"]


def only_logprob(content):
    for entry in content:
        entry["stats"] = [s for s in entry["stats"] if s["name"]["name"] == "logprob"]


def helm_without_match(folder):
    path = log_samples.helm_run(folder)
    content = json.loads(path.read_text())
    only_logprob(content)
    path.write_text(json.dumps(content).replace("-0.5", "1.0"))
    return [path.parent]


def helm_of_two_metrics(folder):
    log_samples.helm(folder)
    path = sorted((folder / "runs").rglob("per_instance_stats.json"))[1]
    path.write_text(path.read_text().replace('"exact_match"', '"gone"'))
    return [folder / "runs"]


def parquet(text, rename=None, drop=None):
    """A line that reads a table of pyarrow."""

    def make(folder):
        arrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet as writer

        head, *lines = [line.split(",") for line in text.splitlines()]
        columns = {name: [line[j] for line in lines] for j, name in enumerate(head)}
        for name in ("correct", "score"):
            if name in columns:
                columns[name] = [float(value) for value in columns[name]]
        columns = {(rename or {}).get(name, name): values for name, values in columns.items()}
        writer.write_table(arrow.table(columns), folder / "rows.parquet")
        return [folder / "rows.parquet"]

    return make


def routerdc_file(name, records):
    def make(folder):
        (folder / name).write_text(json.dumps(records))
        return [folder / name]

    return make


def routerdc_folder(*more, only="test"):
    def make(folder):
        for part in (only,):
            (folder / f"mmlu_{part}.json").write_text('[{"question": "?", "scores": {"x": 1}}]')
        return [folder, *more]

    return make


def saved_table(folder):
    (folder / "t.csv").write_text(LONG.format("correct", 1, 0, 0, 1))
    save(load(folder / "t.csv"), folder / "t.npz")
    return [folder / "t.npz", "--metric", "acc"]


def with_options(make, *options):
    def line(folder):
        return [*make(folder), *options]

    return line


LISTS = [row | {"metrics": ["a", "b"], "a": 1.0, "b": 0.0} for row in rows([1.0, 0.0])]
FILTERS = [
    row | {"filter": name} for row in rows([1.0, 0.0]) for name in ("strict-match", "loose-match")
]
GRADED = list(rows([0.6, 0.2]))
# What meets the error, by what the error speaks of.
TRIES = {
    "other models": csvs(
        LONG.format("correct", 1, 0, 0, 1), "query_id,query,model,correct\na,1?,z,1\nb,2?,z,0\n"
    ),
    "some models": csvs(
        LONG.format("correct", 1, 0, 0, 1), "query_id,query,model,correct\nc,3?,y,1\nc,3?,z,0\n"
    ),
    "parquet without a query": parquet(
        LONG.format("correct", 1, 0, 0, 1), {"query_id": "i", "query": "prompt"}
    ),
    "graded parquet": parquet(LONG.format("correct", 0.6, 0, 0, 1)),
    "scores in parquet": parquet(LONG.format("score", 0.6, 0, 0, 1)),
    "a label under a name that is a score": with_options(
        csv("a.csv", LONG.format("ok", 0.7, 0, 0, 1).replace("query,", "text,")),
        *("--columns", "query=text,correct=ok"),
    ),
    "names of which some were typed": with_options(
        csv("a.csv", "question,llm,passed\na?,x,1\na?,y,0\n"), "--columns", "query=question"
    ),
    "texts that stand twice": with_options(
        csv("a.csv", "id,text,model,correct\n1,a?,x,1\n2,a?,x,0\n"), "--columns", "query=text"
    ),
    "a column named like a label": csv("a.csv", WIDE.format("label,x,y", "1,1,0", "0,0,1")),
    "a column that counts": csv("a.csv", WIDE.format("Nr.,x,y", "1,1,0", "2,0,1")),
    "no label in parquet": with_options(
        parquet(LONG.format("correct", 1, 0, 0, 1), {"correct": "passed"}), "--format", "parquet"
    ),
    "epochs": of(log_samples.inspect_eval, epochs=2),
    "an epoch that is not there": with_options(of(log_samples.inspect_json), "--attempt", "9"),
    "a graded metric": log(*GRADED),
    "shares under a rule for percentages": with_options(
        csv("a.csv", WIDE.format("x,y", "0.8,0.2", "1,0")), "--label-rule", "score > 50"
    ),
    "percentages": with_options(
        csv("a.csv", WIDE.format("x,y", "80,20", "100,0")), "--label-rule", "score > 0.5"
    ),
    "missing": csv("a.csv", LONG.format("correct", "", 0, 0, 1)),
    "a rule by group without groups": with_options(
        csv("a.csv", WIDE.format("x,y", "0.8,0.2", "1,0")), "--label-rule", "g=score > 0.5"
    ),
    "a rule for one group": with_options(
        csv("a.csv", "query,group,x\na?,g,0.7\nb?,h,0.6\n"), "--label-rule", "g=score > 0.5"
    ),
    "graded labels": csv("a.csv", LONG.format("correct", 0.7, 0, 0, 1)),
    "answers without labels": csv(
        "a.csv", "query_id,query,model,answer\na,1?,x,4\na,1?,y,4\nb,2?,x,4\nb,2?,y,5\n"
    ),
    "labels of another name": csv(
        "a.csv",
        "query_id,query,model,answer,passed\na,1?,x,4,1\na,1?,y,4,1\nb,2?,x,4,0\nb,2?,y,5,1\n",
    ),
    "graded models": csv("a.csv", WIDE.format("x,y", "0.8,0.2", "1,0")),
    "a choice that is not the answer": log(*choices(1.0, target="1")),
    "a metric that is not there": with_options(log(*LISTS), "--metric", "f1"),
    "several metrics": log(*LISTS),
    "a metric of one task": with_options(log(*LISTS, law=list(rows([1.0]))), "--metric", "a"),
    "filters": log(*FILTERS),
    "a filter of one task": with_options(log(*FILTERS, law=FILTERS), "--filter", "nothing"),
    "worked examples": two_shots,
    "columns with other names": with_options(
        csv("a.csv", LONG.format("right", 1, 0, 0, 1)), "--format", "long_csv"
    ),
    "a long delimiter": with_options(
        csv("a.csv", LONG.format("correct", 1, 0, 0, 1).replace(",", ";")), "--delimiter", "ab"
    ),
    "another delimiter": with_options(
        csv("a.csv", LONG.format("correct", 1, 0, 0, 1).replace(",", ";")), "--delimiter", ","
    ),
    "attempts of EmbedLLM": of(log_samples.embedllm, repeat=[(0, 0, 0), (0, 0, 1)]),
    "metrics of Every Eval Ever": of(log_samples.every_eval_ever_file, metrics=("a", "b")),
    "no metric of HELM": helm_without_match,
    "two metrics of HELM": helm_of_two_metrics,
    "a file of a run of HELM": of(log_samples.helm_run),
    "a scorer that is not there": with_options(of(log_samples.inspect_json), "--scorer", "other"),
    "a metric that HELM lacks": with_options(of(log_samples.helm), "--metric", "other"),
    "two scorers": edited(log_samples.inspect_json, two_scorers),
    "parts of a score": edited(log_samples.inspect_json, parts_of_a_score),
    "a shortened log": log(*rows([1.0]), report={"n-samples": {"toy": {"effective": 9}}}),
    "a task that is not there": with_options(log(*rows([1.0])), "--tasks", "law_*"),
    "two rules in a group": with_options(
        log(*LISTS, law=list(rows([1.0]))), "--metric", "toy=a", "--groups", "*=all"
    ),
    "scores": csv("a.csv", LONG.format("score", 0.7, 0, 0, 1)),
    "scores, and other names": csv(
        "a.csv", "question,llm,score\na?,x,0.7\na?,y,0\nb?,x,0\nb?,y,1\n"
    ),
    "assertions of latency alone": edited(log_samples.promptfoo, only_latency),
    "a benchmark of a folder": with_options(
        of(lambda folder: samples.routellm(folder).parent),
        *("--format", "routellm", "--benchmark", "g"),
    ),
    "a part that RouterDC lacks": routerdc_folder("--part", "val"),
    "the other part of RouterDC": routerdc_folder("--format", "routerdc", only="train"),
    "a benchmark of a folder of RouterDC": routerdc_folder("--benchmark", "g"),
    "no rule for a benchmark": routerdc_file(
        "humaneval_test.json", [{"question": "?", "scores": {"x": 0.5}}]
    ),
    "columns of RouterEval": with_options(of(samples.routereval), "--models", "a,b,c,d,e,f,g"),
    "a column that is no model": csv("a.csv", WIDE.format("mood,x,y", "good,1,0", "bad,0,1")),
    "a draw": with_options(
        csv("a.csv", LONG.format("score", 0.7, 0, 0, 1)), "--label-rule", "one attempt"
    ),
    "an option of another format": with_options(
        csv("a.csv", WIDE.format("x,y", "1,0", "0,1")), "--metric", "acc"
    ),
    "an option of a table": saved_table,
    "unknown columns": csv("a.csv", "a,x,y\n1?,1,0\n2?,0,1\n"),
    "names of columns": csv("a.csv", "question,llm,passed\na?,x,1\na?,y,0\n"),
    "a folder of files": csvs(*(f"query,x\n{i}?,1\n" for i in range(2)), folder_alone=True),
    "a folder of many files": csvs(*(f"query,x\n{i}?,1\n" for i in range(21)), folder_alone=True),
}
# What a person types where the remedy leaves the value open.
OPEN = {
    "answers without labels": ("--missing", "keep"),
    "no metric of HELM": ["--metric", "logprob"],
    "two rules in a group": ["--groups", "toy=all,law=law"],
    "columns of RouterEval": None,
    "unknown columns": ["--columns", "query=a"],
}
# Met where an artefact is used, and tried there.
ELSEWHERE = {
    "leave out {places}": "test_pools.py",
}


def table_of(words):
    """The tables that a command reads."""
    return source_of(words).table()


def source_of(words):
    """What a line of tables and options names."""
    return Source.of(_parsed(["data", "summary", *map(str, words)]))


def without(words, flag):
    """A line without an option and its value."""
    words = list(words)
    place = words.index(flag)
    return words[:place] + words[place + 2 :]


def typed(name, words, error):
    """The line once more, with what the error says typed at its end."""
    remedy, printed = error.remedy, in_shell(error)
    assert remedy.in_shell() in printed
    if remedy.sentence.startswith("leave out {}"):
        return without(words, OPTIONS[remedy.options[0][0]].flag)
    if remedy.options and remedy.options[0][0] == "path":
        return shlex.split(remedy.in_shell().split(", ", 1)[1])
    if "name the files" in remedy.sentence:
        return sorted(words[0].iterdir())
    if any(value is ... for _, value in remedy.options):
        if OPEN[name] is None:
            return without(words, OPTIONS[remedy.options[0][0]].flag)
        return [*words, *OPEN[name]]
    both = any(together in remedy.sentence for together in (" and {}", "{} {}"))
    chosen = Remedy(" ".join("{}" for _ in remedy.options), *remedy.options)
    if not both:
        chosen = Remedy("{}", remedy.options[0])
    assert all(word in printed for word in chosen.in_shell().split(" "))
    return [*words, *shlex.split(chosen.in_shell())]


SEEN, TRIED = {}, set()


def until_read(name, folder, read):
    """The table that is read once every advice was typed."""
    words, messages = TRIES[name](folder), []
    while True:
        refused = None
        try:
            table = read(words)
            break
        except DataError as error:
            refused = error
        assert refused.remedy is not None, in_shell(refused)
        message = in_shell(refused)
        assert message not in messages, f"{message} again"
        messages.append(message)
        SEEN.setdefault(refused.remedy.sentence, set()).update(k for k, _ in refused.remedy.options)
        words = typed(name, words, refused)
        assert len(messages) < 6, messages
    assert len(table) > 0
    return table, messages


@pytest.mark.parametrize("name", TRIES)
def test_what_an_error_advises_is_typed_until_the_tables_are_read(tmp_path, name):
    TRIED.add(name)
    _, messages = until_read(name, tmp_path, table_of)
    assert messages


def typed_where_an_artefact_reads(name, folder):
    """The same advice leads to the same table where an artefact says which models it holds."""
    (folder / "first").mkdir(parents=True)
    (folder / "again").mkdir()
    models = until_read(name, folder / "first", table_of)[0].models
    again, _ = until_read(name, folder / "again", lambda words: source_of(words).table_of(models))
    assert again.models == models


@pytest.mark.parametrize("name", ["labels of another name", "other models", "missing"])
def test_what_an_error_advises_is_typed_where_an_artefact_reads(tmp_path, name):
    typed_where_an_artefact_reads(name, tmp_path)


@pytest.mark.long
def test_every_advice_is_typed_where_an_artefact_reads(tmp_path):
    for number, name in enumerate(TRIES):
        typed_where_an_artefact_reads(name, tmp_path / str(number))


def remedies():
    """Every remedy of the sources: its sentence as a pattern, and how it is written."""
    for path in sorted(Path(racer_jax.__file__).parent.rglob("*.py")):
        if path.name == "remedies.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Remedy"):
                continue
            sentence = node.args[0]
            if isinstance(sentence, ast.Constant):
                pattern, text = re.escape(sentence.value), sentence.value
            else:
                parts = [
                    re.escape(part.value) if isinstance(part, ast.Constant) else ".*"
                    for part in sentence.values
                ]
                pattern, text = "".join(parts), ast.unparse(sentence)[2:-1]
            yield path.name, pattern, text, {keyword.arg for keyword in node.keywords}


@pytest.mark.long
def test_every_remedy_of_the_sources_is_tried(tmp_path_factory):
    """Runs after the tries of this file, and makes up for those that were not run."""
    for name in set(TRIES) - TRIED:
        folder = tmp_path_factory.mktemp("walk")
        test_what_an_error_advises_is_typed_until_the_tables_are_read(folder, name)
    listed = list(remedies())
    assert len(listed) > 40
    left = []
    for place, pattern, text, keywords in listed:
        if text in ELSEWHERE or text == "pass {} if it is another":
            continue
        tried = any(
            re.search(pattern, sentence) and keywords <= options
            for sentence, options in SEEN.items()
        )
        if not tried:
            left.append((place, text))
    assert left == []


def test_the_format_that_was_guessed_can_be_named(tmp_path):
    """Every error of a guessed format says so, and the format it names is one that can be typed."""
    (path,) = csv("a.csv", LONG.format("correct", 0.7, 0, 0, 1))(tmp_path)
    with pytest.raises(DataError) as raised:
        table_of([path])
    said = in_shell(raised.value)
    assert said.endswith(
        "(read as long_csv, guessed from the content; pass --format if it is another)"
    )
    with pytest.raises(DataError) as again:
        table_of([path, "--format", raised.value.format])
    assert said.startswith(in_shell(again.value))
