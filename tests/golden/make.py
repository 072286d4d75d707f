"""Wrote the golden artefact of a format, once; a format that was released is never written again.

python tests/golden/make.py 3
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np

from racer_jax.encoders import HashedNgrams, ReducedEncoder
from racer_jax.racer.racer import Racer
from racer_jax.routers.mlp import MLPConfig
from tests.racer.test_racer import table_of


def main() -> None:
    folder = Path(__file__).parent / f"format_{sys.argv[1]}"
    folder.mkdir()
    rng = np.random.default_rng(2026)
    train, calibration = table_of(rng, 60).table, table_of(rng, 60, start=100, cost=True).table
    encoder = ReducedEncoder.fit(
        jax.random.key(0), train.texts, 8, HashedNgrams(dim=64, sizes=(2, 3))
    )
    config = MLPConfig(hidden=(6,), max_epochs=5, batch_size=8)
    nonconformity = {"1": "inverse_probability", "2": "J", "3": "static"}[sys.argv[1]]
    fitted = Racer.fit(jax.random.key(1), train, config, encoder, nonconformity=nonconformity)
    options = {"unknown_group": "pooled", "max_models": 2} if sys.argv[1] == "3" else {}
    racer = fitted.calibrate(calibration, 0.2, **options)
    racer.save(folder / "golden.racer")
    questions = [
        ("What is a prime?", "a"),
        ("Which river?", "b"),
        ("Tax law note", "c"),
        ("二加二?", "a"),
    ]
    decisions = []
    for text, group in questions:
        plain = racer.route(text, group).to_dict()
        names = ("models", "reason", "threshold", "scores", "margins")
        threshold = {"threshold": float(plain["threshold"])}
        decisions.append(
            {"text": text, "group": group, **{n: plain[n] for n in names}, **threshold}
        )
    record = {"guarantee": racer.guarantee(), "decisions": decisions}
    text = json.dumps(record, indent=1, ensure_ascii=False).replace("Infinity", "1e999")
    (folder / "decisions.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
