"""Bulk import with the real embedder, against the embedder alone on the same texts, turn about.

python -m benchmarks.embedding DATA ANSWER
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.data import Data
from holdfast import Memory
from holdfast.encode.embedders import open_embedder

TEXTS, ROUNDS = 400, 5


def main(data: Data, answer: Path) -> None:
    texts = next(data.batches(TEXTS)).texts
    embedder = open_embedder("minilm")
    embedder.embed(texts[:32])
    alone, imported = [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        embedder.embed(texts)
        alone.append(TEXTS / (time.perf_counter() - start))
        with tempfile.TemporaryDirectory() as folder, Memory(folder, embedder=embedder, background=False) as memory:
            start = time.perf_counter()
            memory.add([{"role": "user", "content": text} for text in texts], user="ana")
            memory.flush()
            imported.append(TEXTS / (time.perf_counter() - start))
    rates = {"embedder_texts_per_s": statistics.median(alone), "import_rows_per_s": statistics.median(imported)}
    shares = [b / a for a, b in zip(alone, imported, strict=True)]
    answer.write_text(
        json.dumps(
            rates | {"share": statistics.median(shares), "model": embedder.model, "texts": TEXTS, "rounds": ROUNDS}
        )
    )


if __name__ == "__main__":
    main(Data(Path(sys.argv[1])), Path(sys.argv[2]))
