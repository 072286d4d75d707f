"""Small logs in the true layout of the evaluation tools, all of the pool of `samples`."""

import json
import zipfile

from tests.data.samples import CORRECT, IDS, MODELS, QUESTIONS, write_csv

OPTIONS = ["two", "four", "eight"]
CREATED = "2026-01-02T03:04:05+00:00"


def _dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def _lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text(text, encoding="utf-8")
    return path


# --- Inspect AI -----------------------------------------------------------------------------------


def inspect_sample(i, j, epoch=1, value=None):
    """One sample; even questions are chat messages whose text stands among the attachments."""
    text = QUESTIONS[i]
    requests = text
    if i % 2 == 0:
        requests = [{"role": "user", "content": f"attachment://a{i}"}]
    verdict = value or ("C" if CORRECT[i][j] else "I")
    answer = "B" if verdict == "C" else "A"
    sample = {"id": i + 1, "epoch": epoch, "input": requests, "choices": OPTIONS, "target": "B"}
    sample["messages"] = [{"role": "user", "content": text}]
    sample["output"] = {"model": MODELS[j], "choices": [], "usage": {"output_tokens": 5 + i}}
    sample["scores"] = {"choice": {"value": verdict, "answer": answer, "explanation": "so"}}
    usage = {"input_tokens": 3, "output_tokens": 5 + i, "total_tokens": 8 + i}
    sample["model_usage"] = {MODELS[j]: usage}
    sample["attachments"] = {f"a{i}": text}
    return sample


def inspect_header(j, task="arc", created=CREATED, **more):
    about = {"task": task, "model": MODELS[j], "created": created, "task_args": {}}
    about["dataset"] = {"name": "arc", "samples": 4, "sample_ids": [1, 2, 3, 4]}
    about["config"] = {"epochs": 1}
    results = {"total_samples": 4, "completed_samples": 4, "scores": [{"name": "choice"}]}
    return {"version": 2, "status": "success", "eval": about | more, "plan": {}, "results": results}


def inspect_json(folder, j=0, **header):
    samples = [inspect_sample(i, j) for i in range(4)]
    log = inspect_header(j, **header) | {"samples": samples}
    return _dump(folder / f"log{j}.json", log)


def inspect_eval(folder, j=0, epochs=1, method=zipfile.ZIP_DEFLATED, module=zipfile, **header):
    """An `.eval` archive; with two epochs the model is right in the second one alone."""
    path = folder / f"log{j}.eval"
    path.parent.mkdir(parents=True, exist_ok=True)
    with module.ZipFile(path, "w", method) as archive:
        archive.writestr("_journal/start.json", json.dumps({"version": 2}))
        for i in range(4):
            for epoch in range(1, epochs + 1):
                value = None if epochs == 1 else "IC"[epoch - 1]
                sample = inspect_sample(i, j, epoch, value)
                archive.writestr(f"samples/{i + 1}_epoch_{epoch}.json", json.dumps(sample))
        archive.writestr("summaries.json", "[]")
        archive.writestr("header.json", json.dumps(inspect_header(j, **header)))
    return path


def inspect_logs(folder):
    """A folder of two logs, an archive and a JSON file."""
    inspect_eval(folder / "inspect", 0)
    inspect_json(folder / "inspect", 1)
    return folder / "inspect"


# --- Every Eval Ever ------------------------------------------------------------------------------


def every_eval_ever_record(i, j, metric="accuracy", run="1750000000"):
    record = {"schema_version": "0.3.0", "evaluation_id": f"arc/{MODELS[j]}/{run}"}
    record |= {"model_id": MODELS[j], "evaluation_name": "arc"}
    record |= {"evaluation_result_id": f"arc.{metric}", "sample_id": IDS[i]}
    record |= {"sample_hash": f"{i:064x}", "interaction_type": "single_turn"}
    requests = {"raw": QUESTIONS[i], "formatted": f"Q: {QUESTIONS[i]}\nA:", "reference": ["four"]}
    record["input"] = requests | {"choices": OPTIONS}
    record["output"] = {"raw": [f"The answer is {j}."]}
    extracted = {"turn_idx": 0, "source": "output.raw", "extracted_value": f"A{j}"}
    record["answer_attribution"] = [extracted | {"extraction_method": "re", "is_terminal": True}]
    record["evaluation"] = {"score": 0.75 * CORRECT[i][j], "is_correct": bool(CORRECT[i][j])}
    usage = {"input_tokens": 12, "output_tokens": 5 + i, "total_tokens": 17 + i}
    return record | {"token_usage": usage, "metadata": {"subject": "all"}}


def every_eval_ever_file(folder, j=0, metrics=("accuracy",)):
    name = f"0000000{j}-0000-4000-8000-000000000000"
    aggregate = {"schema_version": "0.3.0", "model_info": {"id": MODELS[j]}}
    _dump(folder / f"{name}.json", aggregate | {"evaluation_results": []})
    records = [every_eval_ever_record(i, j, metric) for i in range(4) for metric in metrics]
    return _lines(folder / f"{name}_samples.jsonl", records)


def every_eval_ever(folder, metrics=("accuracy",)):
    """The datastore's layout: a folder for each developer and model."""
    for j, model in enumerate(MODELS):
        every_eval_ever_file(folder / "data" / "arc" / model, j, metrics)
    return folder / "data"


# --- promptfoo ------------------------------------------------------------------------------------


def promptfoo_result(i, j, test=None):
    """A result that fails by latency throughout; quality says what is right."""
    right = bool(CORRECT[i][j])
    judged = [("cost", True, 1), ("latency", False, 0), ("contains", right, float(right))]
    judged.append(("llm-rubric", True, 0.8))
    parts = [
        {"pass": passed, "score": score, "reason": "", "assertion": {"type": kind}}
        for kind, passed, score in judged
    ]
    grading = {"pass": False, "score": 0.5, "reason": "late", "componentResults": parts}
    asserted = [{"type": kind} for kind, *_ in judged]
    result = {"cost": 0.25 + i, "gradingResult": grading, "latencyMs": 5000, "namedScores": {}}
    result |= {"prompt": {"raw": QUESTIONS[i], "label": "{{question}}"}, "promptId": "cd59"}
    result |= {"promptIdx": j, "provider": {"id": MODELS[j], "label": ""}}
    usage = {"total": 9, "prompt": 4, "completion": 5 + i}
    result["response"] = {"output": f"A{j}", "tokenUsage": usage, "cost": 0.25 + i}
    result |= {"score": 0.5, "success": False, "testIdx": i if test is None else test}
    result |= {"vars": {"question": QUESTIONS[i]}, "failureReason": 1}
    return result | {"testCase": {"vars": {"question": QUESTIONS[i]}, "assert": asserted}}


def promptfoo(folder, results=None):
    if results is None:
        results = [promptfoo_result(i, j) for i in range(4) for j in (1, 0)]
    whole = {"version": 3, "timestamp": CREATED, "prompts": [], "results": results}
    export = {"evalId": "eval-WJi", "results": whole | {"stats": {"successes": 0}}}
    return _dump(folder / "promptfoo.json", export | {"config": {}, "shareableUrl": None})


# --- HELM -----------------------------------------------------------------------------------------


def _stat(name, value, **more):
    about = {"name": name, "split": "test"} | more
    return {"name": about, "count": 1, "sum": value, "min": value, "max": value, "mean": value}


def helm_run(folder, j=0, trials=1, perturbed=False):
    """One run folder."""
    name = f"mmlu:subject=philosophy,method=multiple_choice_joint,model={MODELS[j]}"
    place = folder / name.replace("/", "_")
    adapter = {"method": "multiple_choice_joint", "model": MODELS[j]}
    _dump(place / "run_spec.json", {"name": name, "adapter_spec": adapter, "groups": ["mmlu"]})
    states, stats = [], []
    for i, text in enumerate(QUESTIONS):
        for trial in range(trials):
            references = [{"output": {"text": option}, "tags": []} for option in OPTIONS]
            instance = {"input": {"text": text}, "references": references, "split": "test"}
            request = {"model": MODELS[j], "prompt": f"Shots.\n\nQuestion: {text}\nAnswer:"}
            completion = {"text": " B" if CORRECT[i][j] else " A", "logprob": -1.0}
            state = {"instance": instance | {"id": IDS[i]}, "train_trial_index": trial}
            state["output_mapping"] = dict(zip("ABC", OPTIONS, strict=True))
            state["request"] = request
            states.append(state | {"result": {"success": True, "completions": [completion]}})
            right = CORRECT[i][j] if trial == 0 else 1
            values = [_stat("num_completion_tokens", 1.0), _stat("exact_match", right)]
            values += [_stat("quasi_exact_match", 1.0), _stat("logprob", -0.5)]
            about = {"instance_id": IDS[i], "train_trial_index": trial}
            stats.append(about | {"stats": values})
            if perturbed:
                typos = {"name": "typos"}
                copy = state | {"instance": state["instance"] | {"perturbation": typos}}
                states.append(copy)
                wrong = [_stat("exact_match", 0.0, perturbation=typos)]
                stats.append(about | {"perturbation": typos, "stats": wrong})
    _dump(place / "scenario_state.json", {"adapter_spec": adapter, "request_states": states})
    return _dump(place / "per_instance_stats.json", stats)


def helm(folder, **options):
    """`benchmark_output/runs/<suite>` with a run of each model."""
    suite = folder / "runs" / "v1"
    for j in range(len(MODELS)):
        helm_run(suite, j, **options)
    return folder / "runs"


# --- Results of routers' benchmarks ---------------------------------------------------------------


def llmrouterbench_file(folder, j=0, stamp="20260102_030405", **more):
    records = []
    for i, text in enumerate(QUESTIONS):
        record = {"index": i + 1, "origin_query": text, "prompt": f"Question: {text}\nAnswer:"}
        record |= {"prompt_tokens": 15, "completion_tokens": 5 + i, "cost": 0.25 + i}
        record |= {"score": float(CORRECT[i][j]), "prediction": f"A{j}", "ground_truth": "A0"}
        records.append(record | {"raw_output": "so A", "extra_fields": {}})
    model = MODELS[j].replace("/", "__")
    whole = {"performance": 0.5, "time_taken": 1.5, "prompt_tokens": 60, "completion_tokens": 26}
    whole |= {"cost": 7.0, "counts": 4, "model_name": model, "dataset_name": "arc"}
    whole |= {"split": "test", "demo": False, "extra_metrics": {}, "data_fingerprint": "f"}
    place = folder / "bench" / "arc" / "test" / model
    return _dump(place / f"arc-test-{model}-{stamp}.json", whole | more | {"records": records})


def llmrouterbench(folder):
    for j in range(len(MODELS)):
        llmrouterbench_file(folder, j)
    return folder / "bench"


def embedllm(folder, repeat=()):
    """Rows of (prompt, model); `repeat` adds rows (question, model, label)."""
    header = ["prompt_id", "model_id", "category_id", "category", "prompt", "model_name", "label"]
    cells = [(i, j, CORRECT[i][j]) for i in range(4) for j in range(2)]
    rows = [
        [i, j, i // 2, f"g{i // 2}", QUESTIONS[i], MODELS[j], label]
        for i, j, label in [*cells, *repeat]
    ]
    return write_csv(folder / "embedllm.csv", [header, *rows])


def routerarena_record(i, j):
    record = {"global_index": f"arc_{i}", "question": QUESTIONS[i], "llm_selected": MODELS[j]}
    usage = {"input_tokens": 9, "output_tokens": 5 + i, "total_tokens": 14 + i}
    record |= {"generated_answer": f"\\boxed{{A{j}}}", "token_usage": usage, "success": True}
    record |= {"provider": "p", "error": None}
    judged = {"extracted_answer": f"A{j}", "ground_truth": "A0", "score": float(CORRECT[i][j])}
    return record | {"evaluation_result": judged | {"metric": "m", "inference_cost": 0.25 + i}}


def routerarena_file(folder, j=0):
    name = MODELS[j].replace("/", "_")
    return _lines(folder / f"{name}.jsonl", [routerarena_record(i, j) for i in range(4)])


def routerarena(folder):
    for j in range(len(MODELS)):
        routerarena_file(folder / "cached_results", j)
    return folder / "cached_results"


def routerarena_predictions(folder):
    entries = []
    for i in range(4):
        entry = {"global index": f"arc_{i}", "prompt": QUESTIONS[i], "prediction": MODELS[i % 2]}
        usage = {"input_tokens": 9, "output_tokens": 5, "total_tokens": 14}
        entry["generated_result"] = {"generated_answer": "A", "success": True, "token_usage": usage}
        entries.append(entry | {"cost": 0.5, "accuracy": float(i > 1), "for_optimality": False})
    return _dump(folder / "predictions.json", entries)
