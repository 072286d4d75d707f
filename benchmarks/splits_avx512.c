/* Splits of a pool by hand for AVX-512: what one core attains, and what XLA does not do.

   64 splits side by side, a byte of 8 queries each, so that a row is one vector of 64 bytes.

   - A query's bit is tested straight from memory into a mask register and set under that mask: two
     instructions for 64 splits. XLA has no masks that set, and takes three to four.
   - Eight rows are turned into 64-bit words, one a split, while they are in registers. The words
     and the counts before them are stored once for 64 queries, and a count up to any place is one
     POPCNT of one word. An XLA loop has one output: bytes and their counts take two passes, and
     two bytes of memory for 8 queries where this takes one and a half. So the work of a tile
     stays in the second cache.
   - Each split is repaired up to its own end. Under XLA all splits of a tile take as many draws as
     the slowest of them.
   - The k-th bit of a word is one PDEP and one TZCNT, where XLA halves the word five times.
   - Random bits are those of xoshiro256+, eight generators in a vector: 8 instructions for 512
     bits, where Threefry takes some 70 (and can be called for any trial by its number, which
     xoshiro256+ cannot). */

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 64, WORD = 64 };             /* splits side by side; queries in a word */

/* Bits of LANES splits in some order: words, and the bits before each word. Both have the splits in
   the order of `lane_at`, which is that of unpacking. */
typedef struct { int64_t num; uint64_t *word; int32_t *before; } bits;

static void *aligned(int64_t size) { return aligned_alloc(64, (size + 63) / 64 * 64); }
static bits blank(int64_t num) {
  bits b = {num / WORD + 1, 0, 0};
  b.word = aligned(b.num * LANES * 8);
  b.before = aligned((b.num + 1) * LANES * 4);
  return b;
}
static void clear(bits b) { free(b.word); free(b.before); }

static uint64_t mix(uint64_t z) {           /* splitmix64, to seed */
  z += 0x9E3779B97F4A7C15ull; z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ z >> 27) * 0x94D049BB133111EBull; return z ^ z >> 31;
}
typedef struct { __m512i a, b, c, d; } generator;

static inline __m512i draw(generator *g) {  /* xoshiro256+ (Blackman and Vigna), eight side by side */
  __m512i result = _mm512_add_epi64(g->a, g->d), t = _mm512_slli_epi64(g->b, 17);
  __m512i c = _mm512_xor_si512(g->c, g->a), d = _mm512_xor_si512(g->d, g->b);
  g->b = _mm512_xor_si512(g->b, c);
  g->a = _mm512_xor_si512(g->a, d);
  g->c = _mm512_xor_si512(c, t);
  g->d = _mm512_rol_epi64(d, 45);
  return result;
}

/* Eight rows of bytes as 64 words: byte r of each is that of row r. Unpacking works within quarters
   of a vector, so word 8 v + 2 q + h is that of split 16 q + 2 v + h. */
static inline int lane_at(int t) { return (t & 14) / 2 * 8 + t / 16 * 2 + (t & 1); }

static inline void words_of(const __m512i row[8], __m512i word[8]) {
  __m512i a[8], b[8];
  for (int i = 0; i < 4; i++) {             /* pairs of rows: 2 bytes a split */
    a[2 * i] = _mm512_unpacklo_epi8(row[2 * i], row[2 * i + 1]);
    a[2 * i + 1] = _mm512_unpackhi_epi8(row[2 * i], row[2 * i + 1]);
  }
  for (int i = 0; i < 2; i++)               /* fours: splits 0-3, 4-7, 8-11 and 12-15 of a quarter */
    for (int h = 0; h < 2; h++) {
      b[4 * i + 2 * h] = _mm512_unpacklo_epi16(a[4 * i + h], a[4 * i + 2 + h]);
      b[4 * i + 2 * h + 1] = _mm512_unpackhi_epi16(a[4 * i + h], a[4 * i + 2 + h]);
    }
  for (int k = 0; k < 4; k++) {
    word[2 * k] = _mm512_unpacklo_epi32(b[k], b[4 + k]);
    word[2 * k + 1] = _mm512_unpackhi_epi32(b[k], b[4 + k]);
  }
}

/* Stores the words of one block of rows, and adds up their bits. */
static inline void put(bits out, int64_t block, const __m512i row[8], __m512i total[8]) {
  __m512i word[8];
  words_of(row, word);
  for (int v = 0; v < 8; v++) {
    _mm512_store_si512(out.word + block * LANES + 8 * v, word[v]);
    _mm256_store_si256((__m256i *)(out.before + block * LANES + 8 * v), _mm512_cvtepi64_epi32(total[v]));
    total[v] = _mm512_add_epi64(total[v], _mm512_popcnt_epi64(word[v]));
  }
}

/* The bits of a set of rows as they stand. */
static void pack(const uint8_t *set, bits out) {
  __m512i total[8], row[8];
  for (int v = 0; v < 8; v++) total[v] = _mm512_setzero_si512();
  for (int64_t block = 0; block < out.num; block++) {
    for (int r = 0; r < 8; r++) row[r] = _mm512_load_si512(set + (8 * block + r) * LANES);
    put(out, block, row, total);
  }
}

/* The bits of some queries, in that order. */
static void gather(const uint8_t *set, const int32_t *query, int64_t num, bits out) {
  __m512i total[8], row[8];
  for (int v = 0; v < 8; v++) total[v] = _mm512_setzero_si512();
  for (int64_t block = 0; block < out.num; block++) {
    int64_t entry = block * WORD;
    for (int r = 0; r < 8; r++) {
      __m512i byte = _mm512_setzero_si512();
      int64_t count = num - entry < 8 ? num - entry : 8;
      if (count == 8) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
          int32_t q = query[entry + i];
          __m512i from = _mm512_load_si512(set + (int64_t)(q >> 3) * LANES);
          __mmask64 in = _mm512_test_epi8_mask(from, _mm512_set1_epi8(1 << (q & 7)));
          byte = _mm512_mask_add_epi8(byte, in, byte, _mm512_set1_epi8(1 << i));
        }
      } else
        for (int64_t i = 0; i < count; i++) {
          int32_t q = query[entry + i];
          __m512i from = _mm512_load_si512(set + (int64_t)(q >> 3) * LANES);
          __mmask64 in = _mm512_test_epi8_mask(from, _mm512_set1_epi8(1 << (q & 7)));
          byte = _mm512_mask_add_epi8(byte, in, byte, _mm512_set1_epi8(1 << i));
        }
      row[r] = byte;
      entry += 8;
    }
    put(out, block, row, total);
  }
}

static inline int32_t bits_before(bits b, int32_t entry, int at) {
  int64_t index = (int64_t)(entry >> 6) * LANES + at;
  return b.before[index] + (int32_t)_mm_popcnt_u64(_bzhi_u64(b.word[index], entry & 63));
}

/* Places of the rank-th bit of all splits: words that begin below the rank are counted in a bracket of
   `width` around the expected one; a split whose place is outside goes on step by step. */
static void places_of(bits b, int32_t rank, int64_t guess, int64_t width, int32_t *place) {
  int32_t below[LANES];
  __m512i k = _mm512_set1_epi32(rank), one = _mm512_set1_epi32(1);
  for (int v = 0; v < LANES / 16; v++) {
    __m512i count = _mm512_setzero_si512();
    for (int64_t i = 0; i < width; i++) {
      __m512i before = _mm512_load_si512(b.before + (guess + i) * LANES + 16 * v);
      count = _mm512_mask_add_epi32(count, _mm512_cmplt_epi32_mask(before, k), count, one);
    }
    _mm512_storeu_si512(below + 16 * v, count);
  }
  for (int at = 0; at < LANES; at++) {
    int64_t block = guess + below[at] - 1;
    if (block < guess || below[at] == width) {
      if (block < 0) block = 0;
      while (block > 0 && b.before[block * LANES + at] >= rank) block--;
      while (block < b.num - 1 && b.before[(block + 1) * LANES + at] < rank) block++;
    }
    int64_t index = block * LANES + at;
    uint64_t bit = _pdep_u64(1ull << (rank - b.before[index] - 1), b.word[index]);
    place[at] = (int32_t)(WORD * block + _tzcnt_u64(bit));
  }
}

/* Random bits for all rows of a set, and flips of random queries until each split has `num`. */
static void draw_set(uint8_t *set, int64_t rows, int32_t size, int32_t num, uint64_t next) {
  uint64_t state[32], words[512];
  for (int i = 0; i < 32; i++) state[i] = next = mix(next);
  generator g = {_mm512_loadu_si512(state), _mm512_loadu_si512(state + 8),
                 _mm512_loadu_si512(state + 16), _mm512_loadu_si512(state + 24)};
  int shift = 64 - (32 - __builtin_clz(size));
  int32_t count[LANES] = {0};
  for (int64_t r = 0; r < rows;) {          /* Bernoulli(1/2) bits; bytes of counts for 31 rows */
    __m512i bytes = _mm512_setzero_si512();
    for (int64_t end = r + 31 < rows ? r + 31 : rows; r < end; r++) {
      __m512i x = draw(&g);
      if (8 * r >= size) x = _mm512_setzero_si512();
      else if (8 * r + 8 > size) x = _mm512_and_si512(x, _mm512_set1_epi8((1 << size % 8) - 1));
      _mm512_store_si512(set + r * LANES, x);
      bytes = _mm512_add_epi8(bytes, _mm512_popcnt_epi8(x));
    }
    uint8_t each[LANES];
    _mm512_storeu_si512(each, bytes);
    for (int t = 0; t < LANES; t++) count[t] += each[t];
  }
  int at_word = 512;
  for (int t = 0; t < LANES; t++) {         /* n = N / 2: flip uniform surplus bits */
    int32_t left = count[t] - num;
    uint32_t wrong = left > 0;
    if (left < 0) left = -left;
    while (left) {
      if (at_word == 512) {
        at_word = 0;
        for (int i = 0; i < 512; i += 8) _mm512_storeu_si512(words + i, draw(&g));
      }
      uint32_t at = words[at_word++] >> shift;
      if (at >= (uint32_t)size) continue;
      uint8_t *to = set + (int64_t)(at >> 3) * LANES + t;
      uint32_t hit = (*to >> (at & 7) & 1) == wrong;     /* no branch: it would be missed half the time */
      *to ^= hit << (at & 7);
      left -= hit;
    }
  }
}

/* out: float [3, alphas, splits]: shares of misses, models called, share of queries that call none.
   known: the bits of the splits, [tiles, bytes of 8 queries, LANES], in place of random ones; or null. */
void splits(uint64_t seed, int64_t first, int64_t last, int64_t all, int32_t size, int32_t num, int alphas,
            const int32_t *rank, const int32_t *size_query, int64_t size_num, const int32_t *size_upto,
            const int32_t *some_query, int64_t some_num, const int32_t *some_upto, float *out,
            const uint8_t *known) {
  bits all_bits = blank(size), called = blank(size_num), some = blank(some_num);
  int64_t rows = all_bits.num * 8;
  uint8_t *set = aligned(rows * LANES);
  /* six standard deviations of a place, in words */
  int64_t spread = 1;
  while (4 * spread * spread * WORD * WORD < 36ll * size) spread++;
  int64_t width = 2 * spread + 2 < all_bits.num ? 2 * spread + 2 : all_bits.num;
  float scale = 1.0f / (size - num);
  for (; first < last; first += LANES) {
    int lanes = last - first < LANES ? last - first : LANES;
    if (known) {
      memcpy(set, known, rows * LANES);
      known += rows * LANES;
    } else draw_set(set, rows, size, num, mix(mix(seed) + first));
    pack(set, all_bits);
    gather(set, size_query, size_num, called);
    gather(set, some_query, some_num, some);
    for (int a = 0; a < alphas; a++) {
      int32_t place[LANES];
      int64_t guess = (int64_t)(rank[a] * ((size + 1.0) / (num + 1.0)) / WORD) - spread;
      if (guess > all_bits.num - width) guess = all_bits.num - width;
      if (guess < 0) guess = 0;
      places_of(all_bits, rank[a], guess, width, place);
      float *to = out + (int64_t)a * all + first;
      for (int t = 0; t < lanes; t++) {
        int at = lane_at(t);
        int32_t p = place[at], end = size_upto[p], upto = some_upto[p];
        to[t] = (size - 1 - p - (num - rank[a])) * scale;
        to[t + all * alphas] = (end - bits_before(called, end, at)) * scale;
        to[t + 2 * all * alphas] = (size - num - (upto - bits_before(some, upto, at))) * scale;
      }
    }
  }
  free(set); clear(all_bits); clear(called); clear(some);
}
