"""Small files in the true layout of every format, all of one pool that is known."""

import csv
import hashlib
import json

import numpy as np

MODELS = ["org/weak-7b", "org/strong-8b"]
QUESTIONS = [
    "How many legs has a spider?",
    "Which planet is red,\nas seen from here?",
    'Who wrote "Emma"?',
    "2 + 2 是多少？",
]
CORRECT = [[1, 1], [0, 1], [0, 0], [1, 0]]
IDS = [f"q{i}" for i in range(4)]


def write_csv(path, rows, encoding="utf-8"):
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


def long_csv(folder):
    rows = [
        [
            "query_id",
            "query",
            "group",
            "model",
            "answer",
            "cost",
            "tokens",
            "confidence_verbal",
            "correct",
        ]
    ]
    for i, text in enumerate(QUESTIONS):
        for j, model in enumerate(MODELS):
            answer = "" if (i, j) == (2, 0) else f"A{j}"
            rows.append(
                [
                    IDS[i],
                    text,
                    f"g{i // 2}",
                    model,
                    answer,
                    0.25 + i,
                    10 * i + j,
                    [0, 1][j],
                    CORRECT[i][j],
                ]
            )
    return write_csv(folder / "long.csv", rows)


def wide_csv(folder):
    header = [
        "query_id",
        "query",
        "group",
        *MODELS,
        f"{MODELS[0]}|answer",
        f"{MODELS[1]}|cost",
        f"{MODELS[1]}|tokens",
    ]
    rows = [[IDS[i], QUESTIONS[i], "g", *CORRECT[i], f"A{i}", 0.5, 7] for i in range(4)]
    return write_csv(folder / "wide.csv", [header, *rows])


def routerdc(folder):
    records = [
        {
            "question": q,
            "scores": dict(zip(MODELS, [0.75 * c for c in row], strict=True)),
            "cluster_id": 0,
        }
        for q, row in zip(QUESTIONS, CORRECT, strict=True)
    ]
    path = folder / "mmlu_test.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def routerbench(folder):
    header = ["", "sample_id", "prompt", "eval_name", *MODELS]
    header += (
        [f"{m}|model_response" for m in MODELS]
        + [f"{m}|total_cost" for m in MODELS]
        + ["oracle_model_to_route_to"]
    )
    shots = "What is 1 + 1?\nAnswer:\nB\n\n"
    rows = [header]
    for i, text in enumerate(QUESTIONS):
        prompt = str([f"{shots}{text}\nAnswer:"])
        responses = ["['A']" if c else "['I do']" for c in CORRECT[i]]
        rows.append(
            [
                i,
                IDS[i],
                prompt,
                "arc-challenge",
                *map(float, CORRECT[i]),
                *responses,
                0.5,
                0.25,
                MODELS[1],
            ]
        )
    return write_csv(folder / "routerbench.csv", rows)


def routellm(folder):
    header = ["prompt", *MODELS, *(f"{m}_response" for m in MODELS)]
    rows = [
        [q, *(str(bool(c)) for c in row), "so #### 1,000", ""]
        for q, row in zip(QUESTIONS, CORRECT, strict=True)
    ]
    return write_csv(folder / "gsm8k_responses.csv", [header, *rows])


def llmrouter(folder):
    lines = []
    for i, text in enumerate(QUESTIONS):
        for j, model in enumerate(MODELS):
            record = {
                "task_name": "nq",
                "query": text,
                "ground_truth": "x",
                "metric": "em",
                "model_name": model,
            }
            record |= {
                "response": f" A{j}\n",
                "performance": float(CORRECT[i][j]),
                "embedding_id": i,
                "token_num": 5 + i,
            }
            lines.append(json.dumps(record, ensure_ascii=False))
    path = folder / "routing.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def routereval(folder):
    path = folder / "perf.npz"
    scores, prompts = np.array(CORRECT, dtype=float), np.array(QUESTIONS)
    embed = np.arange(12, dtype=np.float32).reshape(4, 3)
    parts = {f"{part}_score": scores for part in ("train", "val", "test")}
    np.savez(path, test_prompt=prompts, test_embed=embed, **parts)
    return path


def score_matrix(folder):
    path = folder / "scores.npz"
    np.savez(
        path,
        scores=np.array(CORRECT) * np.float32(0.5) + np.float32(0.25),
        correct=np.array(CORRECT),
    )
    return path


STAMP = "2026-01-02T03-04-05.678901"
CHOICES = ["two", "four", "eight"]


def lm_eval_rows(j, old=False):
    """Rows of a multiple-choice task and of an open one with two filters, of either version."""
    choice, generated = [], []
    for i, text in enumerate(QUESTIONS):
        doc = {
            "id": str(i),
            "question": text,
            "choices": {"text": CHOICES, "label": ["1", "2", "3"]},
            "answerKey": "2",
        }
        best = 1 if CORRECT[i][j] else 2
        likelihoods = [[-1.0 if k == best else -2.5, False] for k in range(3)]
        arguments = [[f"Question: {text}\nAnswer:", f" {c}"] for c in CHOICES]
        choice.append(
            _row(
                i,
                doc,
                1,
                arguments,
                likelihoods,
                {"acc": float(CORRECT[i][j]), "acc_norm": 0.0},
                "none",
                old,
            )
        )
    for name in ("strict-match", "flexible-extract"):
        for i, text in enumerate(QUESTIONS):
            doc = {"question": text, "answer": "#### 8"}
            right = bool(CORRECT[i][j]) or name == "flexible-extract"
            answer = "8" if right else ("[invalid]" if i == 2 else "7")
            arguments = [[f"Question: {text}\nAnswer:", {"until": ["\n"]}]]
            generated.append(
                _row(
                    i, doc, "#### 8", arguments, [answer], {"exact_match": float(right)}, name, old
                )
            )
    return choice, generated


def _row(i, doc, target, arguments, responses, metrics, name, old):
    if old:
        row = {
            "doc_id": i,
            "doc": doc,
            "target": target,
            "arguments": arguments,
            "resps": [[r] for r in responses],
        }
        return row | {"filtered_resps": responses} | metrics
    texts = [[str(value) for value in r] if isinstance(r, list) else r for r in responses]
    requests = {
        f"gen_args_{k}": {f"arg_{n}": v for n, v in enumerate(request)}
        for k, request in enumerate(arguments)
    }
    row = {
        "doc_id": i,
        "doc": doc,
        "target": str(target),
        "arguments": requests,
        "resps": [[t] for t in texts],
    }
    digest = hashlib.sha256(json.dumps(doc, indent=2, ensure_ascii=False).encode()).hexdigest()
    row |= {"filtered_resps": texts, "filter": name, "metrics": list(metrics), "doc_hash": digest}
    return row | {"prompt_hash": digest, "target_hash": digest} | metrics


def lm_eval_report(j):
    right = [row[j] for row in CORRECT]
    results = {
        "toy_arc": {
            "alias": "toy_arc",
            "acc,none": sum(right) / 4,
            "acc_stderr,none": 0.1,
            "acc_norm,none": 0.0,
        },
        "toy_gsm8k": {
            "exact_match,strict-match": sum(right) / 4,
            "exact_match,flexible-extract": 1.0,
        },
    }
    return {"results": results, "config": {"model_args": f"pretrained={MODELS[j]},dtype=auto"}}


def lm_eval(folder):
    """The output folder of version 0.4.13."""
    out = folder / "out"
    for j, model in enumerate(MODELS):
        place = out / model.replace("/", "__")
        place.mkdir(parents=True)
        report = lm_eval_report(j) | {"model_name": model}
        report["n-samples"] = {task: {"original": 4, "effective": 4} for task in report["results"]}
        (place / f"results_{STAMP}.json").write_text(json.dumps(report))
        for task, rows in zip(("toy_arc", "toy_gsm8k"), lm_eval_rows(j), strict=True):
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (place / f"samples_{task}_{STAMP}.jsonl").write_text(text, encoding="utf-8")
    return out


def lm_eval_old(folder):
    """The output folders of version 0.4.2: indented lists without hashes, filters and stamps."""
    out = folder / "old"
    for j, model in enumerate(MODELS):
        place = out / f"run{j}"
        place.mkdir(parents=True)
        (place / "results.json").write_text(json.dumps(lm_eval_report(j), indent=2))
        for task, rows in zip(("toy_arc", "toy_gsm8k"), lm_eval_rows(j, old=True), strict=True):
            name = f"pretrained__{model.replace('/', '__')},dtype__auto_{task}.jsonl"
            (place / name).write_text(
                json.dumps(rows, indent=2, ensure_ascii=False), encoding="utf-8"
            )
    return out
