"""Remedies: each can be typed, in Python and in the shell, and does what it says."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from racer_jax.data import DataError, load, read_routerbench
from racer_jax.data.errors import printable
from racer_jax.data.remedies import OPTIONS, Remedy, option_value, python_text, shell_text
from tests.data import samples

NAME = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1)


def typed(keyword, text):
    """What a command makes of an option as a remedy spells it."""
    flag, *values = shlex.split(text)
    if OPTIONS[keyword].kind == "switch":
        assert not values
        return not flag.startswith("--no-")
    assert flag == OPTIONS[keyword].flag
    return option_value(keyword, *values)


@given(names=st.lists(NAME, min_size=1, max_size=4))
def test_names_come_back_from_the_shell(names):
    assert typed("models", shell_text("models", names)) == names


@given(pairs=st.dictionaries(NAME, NAME, min_size=1, max_size=4))
def test_pairs_come_back_from_the_shell(pairs):
    assert typed("columns", shell_text("columns", pairs)) == pairs


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("label_rule", "score >= 0.5"),
        ("label_rule", "one attempt"),
        ("label_rule", {"gsm8k": "score >= 0.5", "a,b=c": "score > 0"}),
        ("metric", "acc"),
        ("metric", {"*": "acc"}),
        ("delimiter", "\t"),
        ("delimiter", ";"),
        ("answers", False),
        ("whole_prompt", True),
        ("num_fewshot", 5),
    ],
)
def test_values_come_back_from_the_shell_and_from_python(keyword, value):
    assert typed(keyword, shell_text(keyword, value)) == value
    assert eval(f"dict({python_text(keyword, value)})")[keyword] == value


def test_options_that_cannot_be_read_are_named_as_they_were_typed():
    with pytest.raises(ValueError, match="--columns must be pairs such as query=prompt"):
        option_value("columns", "query")
    with pytest.raises(ValueError, match="--columns must name each key once, got 'a' twice"):
        option_value("columns", "a=b,a=c")
    with pytest.raises(ValueError, match="--num-fewshot must be a whole number, got '999"):
        option_value("num_fewshot", "9" * 5000)


def test_a_sentence_must_leave_a_place_for_each_option():
    with pytest.raises(ValueError, match="must leave a place for each option"):
        Remedy("pass it", missing="drop")
    with pytest.raises(ValueError, match="options must be among"):
        Remedy("pass {}", nonsense=1)


# Every remedy a reader names: what fails, and how a remedy of the error makes it succeed.
LOGS = "query_id,query,model,{label}\na,1?,x,{a}\na,1?,y,1\nb,2?,x,0\nb,2?,y,1\n"
WIDE = "query_id,query,mood,x,y\na,1?,good,1,0\nb,2?,bad,0,1\n"
FAILURES = {
    "missing": ("a.csv", LOGS.format(label="correct", a=""), {}),
    "label_rule": ("a.csv", LOGS.format(label="score", a="0.7"), {}),
    "label_rule in place of correct": ("a.csv", LOGS.format(label="correct", a="0.7"), {}),
    "percentages": (
        "a.csv",
        LOGS.format(label="score", a="70"),
        {"label_rule": "score > 0.5"},
    ),
    "models": ("a.csv", WIDE, {}),
    "delimiter": ("a.csv", "query_id;model;correct\na;x;1\n", {"delimiter": ","}),
    "columns": (
        "a.csv",
        LOGS.format(label="right", a="1").replace("query_id,query", "id,prompt"),
        {"format": "long_csv"},
    ),
    "routerdc": ("humaneval_test.json", '[{"question": "?", "scores": {"x": 0.5}}]', {}),
    "key": ("a.csv", LOGS.format(label="score", a="0.7"), {"label_rule": "one attempt"}),
    "filter": ("lm_eval", None, {}),
    "metric": ("lm_eval", None, {"filter": "strict-match", "metric": "f1"}),
    "check_results": ("lm_eval short", None, {"filter": "strict-match"}),
}


def failing(folder, name, content):
    if name.startswith("lm_eval"):
        path = samples.lm_eval(folder)
        if "short" in name:
            log = next(path.rglob("*toy_arc*.jsonl"))
            log.write_text("".join(log.read_text().splitlines(keepends=True)[:2]))
        return path
    (folder / name).write_text(content)
    return folder / name


@pytest.mark.parametrize("case", FAILURES)
def test_every_remedy_can_be_typed_until_the_log_is_read(tmp_path, case):
    import jax

    name, content, options = FAILURES[case]
    path = failing(tmp_path, name, content)
    tried = 0
    while True:
        refused = None
        try:
            table = load(path, **options)
            break
        except DataError as error:
            refused = error
        assert refused.remedy is not None, refused
        assert refused.remedy.in_shell() in refused.in_shell()
        assert refused.remedy.in_python() in str(refused)
        every = any(together in refused.remedy.sentence for together in (" and ", "{} {}"))
        chosen = refused.remedy.options if every else refused.remedy.options[:1]
        for keyword, value in chosen:
            if keyword == "columns":
                renamed = {"query_id": "id", "query": "prompt", "correct": "right"}
                value = {ours: renamed.get(ours, theirs) for ours, theirs in value.items()}
            elif keyword == "key":
                value = jax.random.key(value)
            else:
                value = typed(keyword, shell_text(keyword, value))
            options = {**options, keyword: value}
        tried += 1
        assert tried < 5
    assert tried
    assert len(table) > 0


def test_files_that_are_to_be_joined_are_named_for_the_shell(tmp_path):
    for name in ("jan 1.csv", "feb.csv"):
        text = LOGS.format(label="correct", a="1").replace("\na", f"\na{name[0]}")
        (tmp_path / name).write_text(text.replace("\nb", f"\nb{name[0]}"))
    with pytest.raises(DataError, match="to join them name the files") as raised:
        load(tmp_path)
    spelled = raised.value.in_shell().split("name the files, ")[1]
    table = load(shlex.split(spelled))
    assert len(table) == 4
    assert table.notes[-1] == "joined 2 files"


def test_files_of_other_pools_are_joined_on_the_models_of_all(tmp_path):
    (tmp_path / "a.csv").write_text("query_id,model,correct\na,x,1\na,y,0\n")
    (tmp_path / "b.csv").write_text("query_id,model,correct\nb,x,1\nb,z,0\n")
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    with pytest.raises(DataError, match="got 'y' in some but not all; pass pools='intersect'"):
        load(paths)
    assert load(paths, pools="intersect").models == ("x",)


def test_an_option_the_format_lacks_is_answered_with_those_it_has(tmp_path):
    path = samples.wide_csv(tmp_path)
    with pytest.raises(DataError) as raised:
        load(path, metric="acc")
    assert "leave out --metric; its options are --models, --label-rule" in raised.value.in_shell()


def test_models_are_chosen_by_name_in_any_format(tmp_path):
    path = samples.routerbench(tmp_path)
    table = load(path, models=samples.MODELS[1:])
    assert table.models == (samples.MODELS[1],)
    assert table.correct.tolist() == read_routerbench(path).correct[:, 1:].tolist()
    assert "left out 1 of 2 models" in " ".join(table.notes)
    sparse = tmp_path / "sparse.csv"
    sparse.write_text(LOGS.format(label="correct", a="1") + "b,2?,z,1\n")
    with pytest.raises(DataError, match=r"1 of 6 are missing \(z 1\)"):
        load(sparse)
    assert len(load(sparse, models=["y", "x"])) == 2
    assert load(sparse, models=["z"], missing="drop").ids == ("b",)
    with pytest.raises(DataError, match="the table has no model 'z'; it has: "):
        load(path, models=["z"])


def test_an_error_is_one_line_whatever_names_hold():
    error = DataError("must be a\nthing", path="a\x1b[2J\udc80", field="b\u202e")
    assert str(error).isprintable()
    assert str(error).splitlines() == [str(error)]
    assert printable("模型 é") == "模型 é"


def test_advice_is_readable_however_long_the_names_are(tmp_path):
    """A damaged file may hold a name as long as itself: the option then stands alone."""
    path = tmp_path / "wide.csv"
    path.write_text(f"query,label,{'m' * 100_000}\na?,1,0\n")
    with pytest.raises(DataError, match="pass models= to name the models") as raised:
        load(path)
    assert len(str(raised.value)) < 1000
    assert Remedy("pass {}", metric="m" * 3000).in_shell() == "pass --metric"
