"""A plain C program for the same splits, compiled on the spot: what the machine can do without JAX.

Each split: a uniform subset by the same repair of Bernoulli words, the rank of each alpha by counting bits, and the
metrics by packing the bits of the test queries in order of effect.
"""

import ctypes
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from baselines import Problem

from racer_jax.steps import Pool

SOURCE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static inline uint64_t next(uint64_t *s) {            /* xoshiro256++ */
  uint64_t r = ((s[0] + s[3]) << 23 | (s[0] + s[3]) >> 41) + s[0], t = s[1] << 17;
  s[2] ^= s[0]; s[3] ^= s[1]; s[1] ^= s[2]; s[0] ^= s[3]; s[2] ^= t; s[3] = s[3] << 45 | s[3] >> 19;
  return r;
}
static uint64_t mix(uint64_t z) {                      /* splitmix64, to seed it */
  z += 0x9E3779B97F4A7C15ull; z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ z >> 27) * 0x94D049BB133111EBull; return z ^ z >> 31;
}

/* Number of set bits among the first upto[i] of the bits of `test` taken in the order `query`. */
static void count(const uint64_t *test, const int32_t *query, int64_t num, const int32_t *upto, const int32_t *position,
                  int alphas, uint64_t *bits, int32_t *before, int32_t *out) {
  int64_t words = num / 64 + 1;
  int32_t total = 0;
  for (int64_t w = 0; w < words; w++) {
    uint64_t word = 0;
    int64_t end = num - 64 * w < 64 ? num - 64 * w : 64;
    for (int64_t i = 0; i < end; i++) {
      uint32_t q = query[64 * w + i];
      word |= (test[q >> 6] >> (q & 63) & 1) << i;
    }
    bits[w] = word; before[w] = total; total += __builtin_popcountll(word);
  }
  for (int a = 0; a < alphas; a++) {
    int32_t u = upto[position[a]];
    out[a] = before[u >> 6] + __builtin_popcountll(bits[u >> 6] & ((1ull << (u & 63)) - 1));
  }
}

/* out: int32 [3, splits, alphas]: misses, models called, queries that call some model. */
void splits(uint64_t seed, int64_t first, int64_t last, int64_t all, int32_t size, int32_t num, int alphas,
            const int32_t *rank, const int32_t *size_query, int64_t size_num, const int32_t *size_upto,
            const int32_t *some_query, int64_t some_num, const int32_t *some_upto, int32_t *out) {
  int32_t words = (size + 63) / 64;
  int64_t most = (size_num > some_num ? size_num : some_num) / 64 + 1;
  uint64_t *set = malloc(8 * words), *test = malloc(8 * words), *bits = malloc(8 * most);
  int32_t *before = malloc(4 * most), *start = malloc(4 * words), *position = malloc(4 * alphas);
  uint64_t tail = size % 64 ? (1ull << size % 64) - 1 : ~0ull;
  for (int64_t s = first; s < last; s++) {
    uint64_t state[4];
    for (int i = 0; i < 4; i++) state[i] = mix(seed * 0x632BE59BD9B4E019ull + 4 * s + i);
    int32_t have = 0;
    for (int32_t w = 0; w < words; w++) {
      set[w] = next(state) & (w + 1 == words ? tail : ~0ull);
      have += __builtin_popcountll(set[w]);
    }
    while (have != num) {                              /* n = N / 2: Bernoulli(1/2), then flip uniform surplus bits */
      uint32_t at = (uint32_t)((next(state) >> 32) * (uint64_t)size >> 32);
      uint64_t bit = 1ull << (at & 63);
      if (((set[at >> 6] & bit) != 0) == (have > num)) { have += have > num ? -1 : 1; set[at >> 6] ^= bit; }
    }
    int32_t total = 0;
    for (int32_t w = 0; w < words; w++) { start[w] = total; total += __builtin_popcountll(set[w]); test[w] = ~set[w]; }
    int32_t *misses = out + s * alphas, *called = misses + all * alphas, *some = called + all * alphas;
    for (int a = 0; a < alphas; a++) {
      int32_t low = 0, high = words - 1, left;
      while (low < high) { int32_t m = (low + high + 1) / 2; if (start[m] < rank[a]) low = m; else high = m - 1; }
      uint64_t word = set[low];
      for (left = rank[a] - start[low]; left > 1; left--) word &= word - 1;
      position[a] = 64 * low + __builtin_ctzll(word);
      misses[a] = size - 1 - position[a] - (num - rank[a]);
    }
    count(test, size_query, size_num, size_upto, position, alphas, bits, before, called);
    count(test, some_query, some_num, some_upto, position, alphas, bits, before, some);
  }
  free(set); free(test); free(bits); free(before); free(start); free(position);
}
"""


class Reference:
    """The compiled program with one problem."""

    def __init__(self, library: ctypes.CDLL, pool: Pool, problem: Problem) -> None:
        self.function = library.splits
        self.function.restype = None
        self.size, self.num = pool.num_queries, problem.num_calibration
        self.rank = problem.ranks.astype(np.int32)
        self.steps = []
        for name in ("size", "abstention"):
            first = pool.metrics[name].first
            upto = np.searchsorted(first, np.arange(self.size + 1), side="right").astype(np.int32)
            self.steps.append((np.ascontiguousarray(pool.metrics[name].query), upto))

    def run(self, seed: int, num_splits: int, threads: int) -> np.ndarray:
        """Risk, size and abstention, float32 `[3, s, a]`."""
        out = np.empty((3, num_splits, len(self.rank)), np.int32)
        arrays = [array.ctypes.data_as(ctypes.c_void_p) for pair in self.steps for array in pair]
        lengths = [ctypes.c_int64(len(query)) for query, _ in self.steps]

        def part(i: int) -> None:
            self.function(
                ctypes.c_uint64(seed),
                ctypes.c_int64(num_splits * i // threads),
                ctypes.c_int64(num_splits * (i + 1) // threads),
                ctypes.c_int64(num_splits),
                ctypes.c_int32(self.size),
                ctypes.c_int32(self.num),
                ctypes.c_int(len(self.rank)),
                self.rank.ctypes.data_as(ctypes.c_void_p),
                arrays[0],
                lengths[0],
                arrays[1],
                arrays[2],
                lengths[1],
                arrays[3],
                out.ctypes.data_as(ctypes.c_void_p),
            )

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, range(threads)))
        num_test = self.size - self.num
        out[2] = num_test - out[2]
        return out / np.float32(num_test)


def build(pool: Pool, problem: Problem) -> Reference | None:
    """Compiles the program; None where there is no C compiler, or the split is not in halves."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or 2 * problem.num_calibration != pool.num_queries:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "splits.c", Path(folder) / "splits.so"
        source.write_text(SOURCE, encoding="utf-8")
        subprocess.run(
            [compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", str(library), str(source)], check=True
        )
        return Reference(ctypes.CDLL(str(library)), pool, problem)
