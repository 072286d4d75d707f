/* Plain splits of a pool on a processor with AVX-512 or AVX2: what `tile_values` of kernel.py does,
   bit for bit, in less than half of its time and without a compiler of a second and a half.

   LANES trials go side by side. Row r of a set holds queries 8 r to 8 r + 7 of each trial, a byte a
   trial, so that a vector holds the same queries of many trials.

   - A query's bit is tested straight from memory and set in the byte of its new place. With AVX-512
     that is two instructions for 64 trials, which set a bit under a mask; XLA has no such masks.
   - Eight rows are turned into 64-bit words, one a trial, while they are in registers. The words and
     the counts before them are stored once for 64 queries, and a count up to any place is one
     population count of one word. An XLA loop has one output: bytes and their counts take two passes.
   - The draws of each trial are repaired up to its own end. Under XLA all trials of a tile take as
     many draws as the slowest of them.
   - The k-th bit of a word is one instruction (PDEP) where that is fast.

   Random words are those of kernel.py: Threefry, by trial, draw and place. */

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 64, WORD = 64, DRAWS = 64 };     /* trials side by side; queries in a word; draws of a round */

#ifdef __AVX512VPOPCNTDQ__
typedef __m512i vector;
#define V(name) _mm512_##name
#define STREAM _mm512_stream_si512
#else
typedef __m256i vector;
#define V(name) _mm256_##name
#define STREAM _mm256_stream_si256
#endif
enum { VECTOR = sizeof(vector), EACH = VECTOR / 4 };          /* bytes of a vector, and numbers */
typedef uint32_t numbers __attribute__((vector_size(VECTOR)));
typedef uint8_t narrow __attribute__((vector_size(EACH)));
#define INLINE static inline __attribute__((always_inline))

/* Value of a metric: a start and the sum of weight * count over some planes, or the misses of distinct
   scores, which follow from the place of the threshold. Whole totals are summed as integers; of the
   others each product is exact in float32. */
typedef struct {
  int32_t misses, whole, first, num, start;     /* its planes: first ... first + num - 1 of `plane` */
  float real_start;
} metric;

/* What to do; see `_Task` of plain_splits.py. */
typedef struct {
  const uint8_t *digit;                         /* [digits], last one first */
  const int32_t *rank, *floor, *last, *guess;   /* [alphas] */
  const int32_t *query, *begin, *entry;         /* [entries], [planes + 1], [planes, size + 1] */
  const metric *metric;                         /* [metrics] */
  const int32_t *plane, *weight;                /* the planes of all metrics, and their weights */
  const float *real_weight;
  const uint32_t *threshold[2];                 /* [size + 1] each, of any type of four bytes */
  uint32_t key[2];
  int32_t size, num, digits, shift, halves, alphas, width, planes, metrics, thresholds, means;
} task;

/* --- random words ------------------------------------------------------------------------------ */

typedef struct { numbers a, b; } pair;

INLINE numbers rotated(numbers x, int distance) { return x << distance | x >> (32 - distance); }

INLINE pair threefry(numbers key0, numbers key1, numbers x0, numbers x1) {
  static const int distance[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  const numbers key[3] = {key0, key1, key0 ^ key1 ^ 0x1BD11BDAu};
  x0 += key[0];
  x1 += key[1];
#pragma GCC unroll 5
  for (int i = 0; i < 5; i++) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      x0 += x1;
      x1 = rotated(x1, distance[i % 2][j]) ^ x0;
    }
    x0 += key[(i + 1) % 3];
    x1 += key[(i + 2) % 3] + (uint32_t)(i + 1);
  }
  return (pair){x0, x1};
}

INLINE numbers ones(numbers x) {                /* set bits of each */
#ifdef __AVX512VPOPCNTDQ__
  return (numbers)_mm512_popcnt_epi32((vector)x);
#else
  x -= x >> 1 & 0x55555555;
  x = (x & 0x33333333) + (x >> 2 & 0x33333333);
  return ((x + (x >> 4)) & 0x0F0F0F0F) * 0x01010101 >> 24;
#endif
}

/* --- bits of all lanes, and the bits before each word ------------------------------------------ */

/* Words and the bits before each, lane by lane; word w of lane l is word[w * LANES + l]. */
typedef struct { uint64_t *word; int32_t *before; } bits;

/* Turning bytes into words works within quarters of 16 bytes: the byte at place t of a row goes to
   this lane. So the draws of lane l are made at the place that leads there. */
INLINE int lane_of(int t) {
  return t / VECTOR * VECTOR + (t & 14) / 2 * (VECTOR / 8) + t % VECTOR / 16 * 2 + (t & 1);
}

/* Eight rows of bytes as 64-bit words: byte r of each is that of row r. */
INLINE void words_of(const vector row[8], vector word[8]) {
  vector two[8], four[8];
  for (int i = 0; i < 4; i++) {
    two[2 * i] = V(unpacklo_epi8)(row[2 * i], row[2 * i + 1]);
    two[2 * i + 1] = V(unpackhi_epi8)(row[2 * i], row[2 * i + 1]);
  }
  for (int i = 0; i < 2; i++)
    for (int h = 0; h < 2; h++) {
      four[4 * i + 2 * h] = V(unpacklo_epi16)(two[4 * i + h], two[4 * i + 2 + h]);
      four[4 * i + 2 * h + 1] = V(unpackhi_epi16)(two[4 * i + h], two[4 * i + 2 + h]);
    }
  for (int k = 0; k < 4; k++) {
    word[2 * k] = V(unpacklo_epi32)(four[k], four[4 + k]);
    word[2 * k + 1] = V(unpackhi_epi32)(four[k], four[4 + k]);
  }
}

/* Stores word `at` of all lanes, whose bytes are eight rows, and adds up their bits. */
INLINE void put(bits out, int64_t at, const uint8_t *row, int32_t *total) {
  uint64_t *word = out.word + at * LANES;
  int32_t *before = out.before + at * LANES;
  for (int part = 0; part < LANES; part += VECTOR) {
    vector rows[8], words[8];
    for (int r = 0; r < 8; r++) rows[r] = *(const vector *)(row + r * LANES + part);
    words_of(rows, words);
    for (int k = 0; k < 8; k++) *(vector *)(word + part + VECTOR / 8 * k) = words[k];
  }
  for (int lane = 0; lane < LANES; lane++) {
    before[lane] = total[lane];
    total[lane] += __builtin_popcountll(word[lane]);
  }
}

/* The bits of a set as they stand. */
static void pack(const uint8_t *set, int64_t words, bits out) {
  int32_t total[LANES] = {0};
  for (int64_t w = 0; w < words; w++) put(out, w, set + 8 * w * LANES, total);
}

/* The bits of some queries, in that order. */
static void gather(const uint8_t *set, const int32_t *query, int64_t words, bits out) {
  int32_t total[LANES] = {0};
  for (int64_t w = 0; w < words; w++) {
    uint8_t row[8 * LANES] __attribute__((aligned(64)));
    for (int r = 0; r < 8; r++, query += 8) {
      vector byte[LANES / VECTOR] = {0};
#pragma GCC unroll 8
      for (int i = 0; i < 8; i++) {
        const vector *from = (const vector *)(set + (int64_t)(query[i] >> 3) * LANES);
        vector mask = V(set1_epi8)(1 << (query[i] & 7)), bit = V(set1_epi8)(1 << i);
        for (int part = 0; part < LANES / VECTOR; part++)
#ifdef __AVX512VPOPCNTDQ__
          byte[part] = _mm512_mask_add_epi8(byte[part], _mm512_test_epi8_mask(from[part], mask), byte[part], bit);
#else
          byte[part] |= _mm256_cmpeq_epi8(from[part] & mask, mask) & bit;
#endif
      }
      for (int part = 0; part < LANES / VECTOR; part++) *(vector *)(row + r * LANES + part * VECTOR) = byte[part];
    }
    put(out, w, row, total);
  }
}

/* Place of the rank-th set bit, 1 <= rank <= their number. */
INLINE int place_in_word(uint64_t word, int rank) {
#ifdef FAST_PDEP
  return __builtin_ctzll(_pdep_u64(1ull << (rank - 1), word));
#else
  const uint64_t each = 0x0101010101010101ull;
  uint64_t sums = word - (word >> 1 & each * 0x55);
  sums = (sums & each * 0x33) + (sums >> 2 & each * 0x33);
  sums = ((sums + (sums >> 4)) & each * 0x0F) * each;         /* byte i: bits of bytes 0 ... i */
  uint64_t fewer = (((rank - 1) * each | each * 0x80) - sums) & each * 0x80;
  int shift = 8 * __builtin_popcountll(fewer), at = 0;
  uint32_t byte = word >> shift & 255;
  rank -= sums << 8 >> shift & 255;
  for (int half = 4; half; half >>= 1) {
    int low = __builtin_popcount(byte & ((1u << half) - 1)), up = rank > low;
    rank -= up ? low : 0;
    byte >>= up ? half : 0;
    at += up ? half : 0;
  }
  return shift + at;
#endif
}

/* Place of the rank-th bit of each lane: words that begin below the rank are counted in a bracket
   around the expected one; a lane whose place is outside goes on step by step. */
static void places_of(bits b, int64_t words, int32_t rank, int64_t guess, int64_t width, int32_t *place) {
  int32_t below[LANES] = {0};
  for (int64_t w = guess; w < guess + width; w++)
    for (int lane = 0; lane < LANES; lane++) below[lane] += b.before[w * LANES + lane] < rank;
  for (int lane = 0; lane < LANES; lane++) {
    int64_t w = guess + below[lane] - 1;
    if (w < guess || below[lane] == width) {
      if (w < 0) w = 0;
      while (w > 0 && b.before[w * LANES + lane] >= rank) w--;
      while (w < words - 1 && b.before[(w + 1) * LANES + lane] < rank) w++;
    }
    int64_t index = w * LANES + lane;
    place[lane] = (int32_t)(WORD * w) + place_in_word(b.word[index], rank - b.before[index]);
  }
}

/* --- the draw of the calibration part: `uniform_subsets` of subsets.py --------------------------- */

static void draw_set(const task *t, uint8_t *set, const uint32_t *key0, const uint32_t *key1) {
  int32_t words = (t->size - 1) / 32 + 1, count[LANES] __attribute__((aligned(64)));
  numbers zero = {0}, ascending;
  for (int i = 0; i < EACH; i++) ascending[i] = i;
  for (int v = 0; v < LANES; v += EACH) {       /* Bernoulli bits */
    numbers k0 = *(const numbers *)(key0 + v), k1 = *(const numbers *)(key1 + v), total = zero;
    for (int32_t w = 0; w < words; w++) {
      numbers x = zero;
      for (int d = 0; d < t->digits; d++) {
        numbers uniform = threefry(k0, k1, zero + (uint32_t)w, zero + (uint32_t)d).a;
        x = t->digit[d] ? x | uniform : x & uniform;
      }
      if (32 * (int64_t)w + 32 > t->size) x &= (1u << (t->size & 31)) - 1;
      total += ones(x);
      for (int j = 0; j < 4; j++)
        *(narrow *)(set + (4 * (int64_t)w + j) * LANES + v) = __builtin_convertvector(x >> (8 * j), narrow);
    }
    *(numbers *)(count + v) = total;
  }
  int num_words = t->halves ? DRAWS / 2 : DRAWS;
  for (int at = 0; at < LANES; at++) {          /* then bits of the side that has too many, one by one */
    int32_t left = count[at] - t->num;
    uint32_t wrong = left > 0, number = 0, size = t->size;
    if (left < 0) left = -left;
    while (left) {
      uint32_t word[DRAWS] __attribute__((aligned(64))), draw[DRAWS];
      for (int i = 0; i < num_words; i += EACH)
        *(numbers *)(word + i) = threefry(zero + key0[at], zero + key1[at], ascending + (number + i), zero + (1u << 16)).a;
      number += num_words;
      if (t->halves)
        for (int i = 0; i < DRAWS / 2; i++) {
          draw[2 * i] = word[i] >> t->shift;
          draw[2 * i + 1] = word[i] << 16 >> t->shift;
        }
      else
        for (int i = 0; i < DRAWS; i++) draw[i] = word[i] >> t->shift;
      for (int i = 0; i < DRAWS && left; i++) {
        uint32_t query = draw[i];
        if (query >= size) continue;
        uint8_t *to = set + (int64_t)(query >> 3) * LANES + at;
        uint32_t hit = (*to >> (query & 7) & 1) == wrong;     /* no branch: half of them would be guessed wrongly */
        *to ^= hit << (query & 7);
        left -= hit;
      }
    }
  }
}

/* --- what is measured --------------------------------------------------------------------------- */

/* Test queries in each plane's prefix at a place: all of the prefix, less those of calibration. */
static void count_test(const task *t, bits counted, const int32_t *place, int32_t *count) {
  for (int p = 0; p < t->planes; p++, count += LANES) {
    const int32_t *entry = t->entry + p * ((int64_t)t->size + 1);
    for (int lane = 0; lane < LANES; lane++) {
      int32_t end = entry[place[lane]];
      int64_t index = (int64_t)(end >> 6) * LANES + lane;
      uint64_t earlier = counted.word[index] & ((1ull << (end & 63)) - 1);
      count[lane] = end - t->begin[p] - counted.before[index] - __builtin_popcountll(earlier);
    }
  }
}

/* Stores one number of each lane. Means are many, and nothing here reads them again: they go past the
   caches, which keep the bits. Totals are few at a time and are summed at once. */
INLINE void store(const task *t, const void *number, int lanes, uint32_t *out) {
  for (int i = 0; i < lanes; i += EACH) {
    vector x = *(const vector *)((const uint32_t *)number + i);
    if (t->means) STREAM((vector *)(out + i), x);
    else *(vector *)(out + i) = x;
  }
}

/* How often each whole total stands among the trials, in the place of the totals themselves. */
typedef struct {
  const int32_t *low, *spread;                  /* [metrics, alphas]: the least that is counted; [metrics] */
  int32_t *const *times;                        /* of each metric [alphas, spread] */
  int64_t outside;                              /* totals that are not counted, as they lie elsewhere */
} tally;

INLINE void tell(const task *t, tally *y, int m, int a, const int32_t *total, int lanes) {
  int32_t low = y->low[m * t->alphas + a], *times = y->times[m] + (int64_t)a * y->spread[m];
  for (int lane = 0; lane < lanes; lane++) {
    uint32_t at = (uint32_t)total[lane] - (uint32_t)low;
    if (at < (uint32_t)y->spread[m]) times[at]++;
    else y->outside++;
  }
}

/* The totals of metric `number`, or its means. */
static void measure(const task *t, int number, int a, const int32_t *place, const int32_t *count, int lanes,
                    uint32_t *out, tally *y) {
  const metric *m = t->metric + number;
  int32_t total[LANES] __attribute__((aligned(64)));
  float real[LANES] __attribute__((aligned(64))), rows = (float)(t->size - t->num);
  if (m->whole) {
    for (int lane = 0; lane < LANES; lane++) total[lane] = m->misses ? t->last[a] - place[lane] : m->start;
    for (int k = m->first; k < m->first + m->num; k++)
      for (int lane = 0; lane < LANES; lane++) total[lane] += count[t->plane[k] * LANES + lane] * t->weight[k];
    if (y) {
      tell(t, y, number, a, total, lanes);
      return;
    }
    if (!t->means) {
      store(t, total, lanes, out);
      return;
    }
    for (int lane = 0; lane < LANES; lane++) real[lane] = (float)total[lane];
  } else {
    for (int lane = 0; lane < LANES; lane++) real[lane] = m->real_start;
    for (int k = m->first; k < m->first + m->num; k++)
      for (int lane = 0; lane < LANES; lane++) real[lane] += (float)count[t->plane[k] * LANES + lane] * t->real_weight[k];
  }
  if (t->means)
    for (int lane = 0; lane < LANES; lane++) real[lane] /= rows;
  store(t, real, lanes, out);
}

/* What a thread works in. */
typedef struct {
  int64_t words, planes;                        /* words of the queries, and of the entries of all planes */
  uint8_t *set;                                 /* rows of the calibration part */
  bits calibration, counted;                    /* by position, and in the order of the entries */
  int32_t *count;                               /* [planes, LANES] */
} room;

static room room_in(const task *t, uint8_t *scratch) {
  room r = {t->size / WORD + 1, t->begin[t->planes] / WORD + 1, scratch};
  r.calibration.word = (uint64_t *)(r.set + r.words * 8 * LANES);
  r.counted.word = r.calibration.word + r.words * LANES;
  r.calibration.before = (int32_t *)(r.counted.word + r.planes * LANES);
  r.counted.before = r.calibration.before + r.words * LANES;
  r.count = r.counted.before + r.planes * LANES;
  int64_t drawn = ((int64_t)t->size + 31) / 32 * 4;      /* the rows beyond are in no part */
  memset(r.set + drawn * LANES, 0, (r.words * 8 - drawn) * LANES);
  return r;
}

/* Bytes of it. */
int64_t plain_splits_scratch(const task *t) {
  room r = {t->size / WORD + 1, t->begin[t->planes] / WORD + 1};
  return LANES * (r.words * 8 + (r.words + r.planes) * 12 + t->planes * 4);
}

/* Thresholds and metrics of the parts in `r.set`, into `lanes` columns from `at` on, or into a tally. */
static void measure_set(const task *t, room r, int64_t at, int lanes, int64_t stride, void *const *out, tally *y) {
  int64_t width = t->width / 2 + 2 < r.words ? t->width / 2 + 2 : r.words;
  pack(r.set, r.words, r.calibration);
  for (int p = 0; p < t->planes; p++) {
    int64_t first = t->begin[p] / WORD;
    bits plane = {r.counted.word + first * LANES, r.counted.before + first * LANES};
    gather(r.set, t->query + t->begin[p], t->begin[p + 1] / WORD - first, plane);
  }
  for (int a = 0; a < t->alphas; a++, at += stride) {
    int32_t place[LANES];
    uint32_t number[LANES] __attribute__((aligned(64)));
    int64_t guess = t->guess[a] / 2 < r.words - width ? t->guess[a] / 2 : r.words - width;
    places_of(r.calibration, r.words, t->rank[a], guess, width, place);
    for (int lane = 0; lane < LANES; lane++) place[lane] = place[lane] > t->floor[a] ? place[lane] : t->floor[a];
    count_test(t, r.counted, place, r.count);
    for (int k = 0; k < t->thresholds; k++) {
      for (int lane = 0; lane < LANES; lane++) number[lane] = t->threshold[k][place[lane]];
      store(t, number, lanes, (uint32_t *)out[k] + at);
    }
    for (int m = 0; m < t->metrics; m++)
      measure(t, m, a, place, r.count, lanes, y ? 0 : (uint32_t *)out[t->thresholds + m] + at, y);
  }
  _mm_sfence();                                 /* what went past the caches is there for all */
}

/* Trials `first_trial` + `first` to `first_trial` + `last` - 1, into columns `first` to `last` - 1 of
   arrays [alphas, stride]: the thresholds, then each metric. `first` is whole LANES, and `last` and
   `stride` are multiples of 16. These arrays and the scratch begin where a vector may. With a tally,
   which is for totals that are all whole, nothing is written but its counts, and any `last` will do. */
void plain_splits(const task *t, uint32_t first_trial, int64_t first, int64_t last, int64_t stride, void *const *out,
                  uint8_t *scratch, tally *y) {
  room r = room_in(t, scratch);
  for (; first < last; first += LANES) {
    uint32_t key0[LANES] __attribute__((aligned(64))), key1[LANES] __attribute__((aligned(64)));
    for (int v = 0; v < LANES; v += EACH) {     /* `fold_in` of the trial, then of its first draw */
      numbers zero = {0}, trial;
      for (int i = 0; i < EACH; i++) trial[i] = first_trial + (uint32_t)first + lane_of(v + i);
      pair key = threefry(zero + t->key[0], zero + t->key[1], zero, trial);
      key = threefry(key.a, key.b, zero, zero);
      *(numbers *)(key0 + v) = key.a;
      *(numbers *)(key1 + v) = key.b;
    }
    draw_set(t, r.set, key0, key1);
    measure_set(t, r, first, last - first < LANES ? last - first : LANES, stride, out, y);
  }
}
