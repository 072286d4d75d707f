"""A C program for the same splits, compiled on the spot: what the machine can do without JAX.

The same way, with the layout chosen by hand: a uniform subset by repair of Bernoulli bits (from a
cheaper generator than JAX's), the rank of each alpha by counting bits, and the metrics by packing
the bits of the test queries in order of effect.

Where the processor has the instructions, it is `splits_avx512.c`, whose head says what it does that
XLA does not. Elsewhere it is the program below, in plain C: 128 splits side by side, a byte a split,
so that one vector instruction serves as many of them as it holds bytes.
"""

import ctypes
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from baselines import Problem

from racer_jax.montecarlo.step_functions import Pool

# Macros of a C compiler for what `splits_avx512.c` needs.
AVX512 = ("AVX512BW", "AVX512VPOPCNTDQ", "AVX512BITALG", "BMI", "BMI2", "POPCNT")
BY_HAND = Path(__file__).parent / "splits_avx512.c"
PORTABLE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 128, WIDE = LANES / 8, BLOCK = 16 };    /* splits side by side; words of 8 of them; bytes in a block */
#define EACH 0x0101010101010101ull                     /* one bit in each of 8 lanes */

static uint64_t mix(uint64_t z) {                      /* splitmix64, to seed */
  z += 0x9E3779B97F4A7C15ull; z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ z >> 27) * 0x94D049BB133111EBull; return z ^ z >> 31;
}
static inline uint64_t popcounts(uint64_t x) {         /* of each of 8 bytes */
  x -= x >> 1 & EACH * 0x55; x = (x & EACH * 0x33) + (x >> 2 & EACH * 0x33);
  return (x + (x >> 4)) & EACH * 0x0F;
}

/* Bits of LANES splits: row r holds entries 8 r to 8 r + 7 of each, a byte a split. */
typedef struct { int64_t rows; uint64_t *byte, *within; int32_t *before; } bits;

static bits blank(int64_t num) {
  int64_t blocks = num / (8 * BLOCK) + 1, rows = blocks * BLOCK;
  bits b = {rows, calloc(rows, LANES), calloc(rows, LANES), calloc(blocks + 1, 4 * LANES)};
  return b;
}
static void clear(bits b) { free(b.byte); free(b.within); free(b.before); }

/* Bits before each byte within its block, and before each block. */
static void add_up(bits b) {
  for (int64_t block = 0; block < b.rows / BLOCK; block++) {
    uint64_t total[WIDE] = {0};
    for (int64_t row = block * BLOCK; row < (block + 1) * BLOCK; row++)
      for (int i = 0; i < WIDE; i++) {
        b.within[row * WIDE + i] = total[i];
        total[i] += popcounts(b.byte[row * WIDE + i]);
      }
    const uint8_t *each = (const uint8_t *)total;
    int32_t *now = b.before + block * LANES;
    for (int t = 0; t < LANES; t++) now[LANES + t] = now[t] + each[t];
  }
}
static inline int32_t bits_before(bits b, int32_t entry, int t) {
  int64_t row = entry >> 3;
  int32_t rest = ((uint8_t *)b.byte)[row * LANES + t] & ((1 << (entry & 7)) - 1);
  return b.before[(row / BLOCK) * LANES + t] + ((uint8_t *)b.within)[row * LANES + t] + __builtin_popcount(rest);
}
/* Place of the rank-th bit; the search begins in the middle of what is likely. */
static inline int32_t place_of(bits b, int32_t rank, double rows_a_bit, int t) {
  int64_t last = b.rows / BLOCK - 1, block = (int64_t)(rank * rows_a_bit / BLOCK);
  if (block > last) block = last;
  while (block > 0 && b.before[block * LANES + t] >= rank) block--;
  while (block < last && b.before[(block + 1) * LANES + t] < rank) block++;
  int32_t left = rank - b.before[block * LANES + t], row = BLOCK - 1;
  const uint8_t *within = (uint8_t *)b.within + block * BLOCK * LANES + t;
  while (row > 0 && within[row * LANES] >= left) row--;
  left -= within[row * LANES];
  uint32_t byte = ((uint8_t *)b.byte)[(block * BLOCK + row) * LANES + t];
  for (; left > 1; left--) byte &= byte - 1;
  return 8 * (block * BLOCK + row) + __builtin_ctz(byte);
}
/* The bits of `set` that are NOT in, in the order `query`. */
static void gather(bits set, const int32_t *query, int64_t num, bits out) {
  for (int64_t row = 0; 8 * row < num; row++) {
    uint64_t byte[WIDE] = {0};
    int count = num - 8 * row < 8 ? num - 8 * row : 8;
    for (int k = 0; k < count; k++) {
      int32_t q = query[8 * row + k], shift = q & 7;
      const uint64_t *from = set.byte + (q >> 3) * WIDE;
      for (int i = 0; i < WIDE; i++) byte[i] |= (~from[i] >> shift & EACH) << k;
    }
    memcpy(out.byte + row * WIDE, byte, LANES);
  }
  add_up(out);
}

/* out: int32 [3, splits, alphas]: misses, models called, queries that call some model. */
void splits(uint64_t seed, int64_t first, int64_t last, int64_t all, int32_t size, int32_t num, int alphas,
            const int32_t *rank, const int32_t *size_query, int64_t size_num, const int32_t *size_upto,
            const int32_t *some_query, int64_t some_num, const int32_t *some_upto, int32_t *out) {
  bits set = blank(size), called = blank(size_num), some = blank(some_num);
  int64_t draws = (size + 7) / 8 * WIDE;
  int shift = 64 - (32 - __builtin_clz(size));
  for (; first < last; first += LANES) {
    int lanes = last - first < LANES ? last - first : LANES;
    uint64_t state[4][4], next = mix(mix(seed) + first);
    for (int i = 0; i < 16; i++) state[i / 4][i % 4] = next = mix(next);
    for (int64_t at = 0; at < draws; at += 4)          /* xorshift128+, four side by side: Bernoulli(1/2) bits */
      for (int i = 0; i < 4; i++) {
        uint64_t x = state[0][i], y = state[1][i];
        set.byte[at + i] = x + y;
        x ^= x << 23; state[0][i] = y; state[1][i] = x ^ y ^ x >> 17 ^ y >> 26;
      }
    uint8_t *byte = (uint8_t *)set.byte;
    if (size % 8) for (int t = 0; t < LANES; t++) byte[size / 8 * LANES + t] &= (1 << size % 8) - 1;
    add_up(set);
    for (int t = 0; t < LANES; t++) {                  /* n = N / 2: flip uniform surplus bits */
      int32_t surplus = set.before[set.rows / BLOCK * LANES + t] - num;
      while (surplus) {
        uint64_t x = state[2][0], y = state[3][0];
        x ^= x << 23; state[2][0] = y; state[3][0] = x ^ y ^ x >> 17 ^ y >> 26;
        uint32_t at = (x + y) >> shift, bit = 1 << (at & 7);
        if (at < (uint32_t)size && !(byte[(at >> 3) * LANES + t] & bit) == (surplus < 0)) {
          byte[(at >> 3) * LANES + t] ^= bit; surplus += surplus > 0 ? -1 : 1;
        }
      }
    }
    add_up(set);
    gather(set, size_query, size_num, called);
    gather(set, some_query, some_num, some);
    for (int t = 0; t < lanes; t++)
      for (int a = 0; a < alphas; a++) {
        int32_t position = place_of(set, rank[a], size / (8.0 * num), t);
        int32_t *to = out + (first + t) * alphas + a;
        to[0] = size - 1 - position - (num - rank[a]);
        to[all * alphas] = bits_before(called, size_upto[position], t);
        to[2 * all * alphas] = bits_before(some, some_upto[position], t);
      }
  }
  clear(set); clear(called); clear(some);
}
"""


class Reference:
    """The compiled program with one problem."""

    def __init__(self, library: ctypes.CDLL, pool: Pool, problem: Problem, by_hand: bool) -> None:
        self.name = "C by hand for AVX-512" if by_hand else "C"
        self.by_hand = by_hand
        self.function = library.splits
        self.function.restype = None
        self.size, self.num = pool.num_queries, problem.num_calibration
        self.rank = problem.ranks.astype(np.int32)
        self.steps = []
        for name in ("size", "abstention"):
            first = pool.metrics[name].first
            upto = np.searchsorted(first, np.arange(self.size + 1), side="right").astype(np.int32)
            self.steps.append((np.ascontiguousarray(pool.metrics[name].query), upto))

    def measured(self, masks: np.ndarray) -> np.ndarray:
        """What `run` returns for known splits: masks over positions, bool `[s, N]`."""
        lanes, rows = 64, (self.size // 64 + 1) * 8
        bits = np.zeros((-(-len(masks) // lanes) * lanes, rows * 8), bool)
        bits[: len(masks), : self.size] = masks
        known = np.packbits(bits, axis=1, bitorder="little").reshape(-1, lanes, rows)
        return self.run(0, len(masks), 1, np.ascontiguousarray(known.transpose(0, 2, 1)))

    def run(
        self, seed: int, num_splits: int, threads: int, known: np.ndarray | None = None
    ) -> np.ndarray:
        """Risk, size and abstention, float32 `[3, s, a]`."""
        shape = (3, num_splits, len(self.rank))
        if self.by_hand:
            out: np.ndarray = np.empty((3, len(self.rank), num_splits), np.float32)
        else:
            out = np.empty(shape, np.int32)
        arrays = [array.ctypes.data_as(ctypes.c_void_p) for pair in self.steps for array in pair]
        lengths = [ctypes.c_int64(len(query)) for query, _ in self.steps]

        extra: list[ctypes.c_void_p | None] = []
        if self.by_hand:
            extra = [None if known is None else known.ctypes.data_as(ctypes.c_void_p)]

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
                *extra,
            )

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, range(threads)))
        if self.by_hand:
            return out.transpose(0, 2, 1)
        num_test = self.size - self.num
        out[2] = num_test - out[2]
        return out / np.float32(num_test)


def build(pool: Pool, problem: Problem) -> Reference | None:
    """Compiles the program; None where there is no C compiler, or the split is not in halves."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or 2 * problem.num_calibration != pool.num_queries:
        return None
    known = subprocess.run(
        [compiler, "-march=native", "-dM", "-E", "-x", "c", os.devnull],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.split()
    by_hand = all(f"__{name}__" in known for name in AVX512)
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "splits.c", Path(folder) / "splits.so"
        text = BY_HAND.read_text(encoding="utf-8") if by_hand else PORTABLE
        source.write_text(text, encoding="utf-8")
        subprocess.run(
            [compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", str(library), str(source)],
            check=True,
        )
        return Reference(ctypes.CDLL(str(library)), pool, problem, by_hand)
