"""Coverage-guided fuzzing of one reader, for as long as you like (needs `pip install atheris`):

    python -m tests.data.atheris_readers routerbench -max_total_time=60

It starts from the reader's sample and stops at the first error that is not a `DataError`, with the
bytes behind it.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["racer_jax.data"]):
    from racer_jax.data import DataError
    from tests.data.test_fuzz import ALL, check_table


def main() -> None:
    make, reader = ALL[sys.argv.pop(1)]
    folder = Path(tempfile.mkdtemp())
    path = make(folder)
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "sample").write_bytes(path.read_bytes())

    def one_input(data: bytes) -> None:
        path.write_bytes(data)
        try:
            table = reader(path)
        except DataError:
            return
        check_table(table)

    atheris.Setup([*sys.argv, str(corpus)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
