/* Plain splits with the cheapest random words: what a processor attains at all.

   The layout, the counts and the metrics are those of the package (racer_jax/montecarlo/plain_splits.c),
   whose head says what they do that XLA does not. Random bits are those of xoshiro256+, as many
   generators as a vector holds: 8 instructions for a vector, where Threefry takes some 70 and can be
   called for any trial by its number, which xoshiro256+ cannot. */

#define plain_splits by_threefry
#include "plain_splits.c"
#undef plain_splits

typedef uint64_t state __attribute__((vector_size(VECTOR)));
typedef struct { state a, b, c, d; } generator;

static uint64_t mix(uint64_t z) {               /* splitmix64, to seed */
  z += 0x9E3779B97F4A7C15ull;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ z >> 27) * 0x94D049BB133111EBull;
  return z ^ z >> 31;
}

INLINE state next(generator *g) {               /* xoshiro256+ (Blackman and Vigna), side by side */
  state result = g->a + g->d, t = g->b << 17, c = g->c ^ g->a, d = g->d ^ g->b;
  g->b ^= c;
  g->a ^= d;
  g->c = c ^ t;
  g->d = d << 45 | d >> 19;
  return result;
}

/* Bits of chance 1/2 for all queries, then flips of random ones until each trial has `num`. */
static void draw_cheaply(const task *t, uint8_t *set, uint64_t seed) {
  generator g;
  for (uint64_t i = 0; i < sizeof(g) / 8; i++) ((uint64_t *)&g)[i] = seed = mix(seed);
  int64_t rows = (t->size + 7) / 8;
  int32_t count[LANES] = {0};
  for (int64_t r = 0; r < rows; r++)
    for (int part = 0; part < LANES; part += VECTOR) *(state *)(set + r * LANES + part) = next(&g);
  if (t->size % 8)
    for (int i = 0; i < LANES; i++) set[(rows - 1) * LANES + i] &= (1 << t->size % 8) - 1;
  for (int64_t r = 0; r < rows;) {              /* bytes of counts for 31 rows */
    state bytes[LANES / VECTOR] = {0};
    for (int64_t end = r + 31 < rows ? r + 31 : rows; r < end; r++)
      for (int part = 0; part < LANES / VECTOR; part++) {
        state x = ((const state *)(set + r * LANES))[part];
        x -= x >> 1 & 0x5555555555555555;
        x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
        bytes[part] += (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F;
      }
    for (int i = 0; i < LANES; i++) count[i] += ((const uint8_t *)bytes)[i];
  }
  int at_word = 512, shift = 64 - (32 - __builtin_clz(t->size));
  uint64_t words[512] __attribute__((aligned(64)));
  for (int i = 0; i < LANES; i++) {
    int32_t left = count[i] - t->num;
    uint32_t wrong = left > 0;
    if (left < 0) left = -left;
    while (left) {
      if (at_word == 512)
        for (at_word = 0; at_word < 512; at_word += VECTOR / 8) *(state *)(words + at_word) = next(&g);
      at_word %= 512;
      uint32_t query = words[at_word++] >> shift;
      if (query >= (uint32_t)t->size) continue;
      uint8_t *to = set + (int64_t)(query >> 3) * LANES + i;
      uint32_t hit = (*to >> (query & 7) & 1) == wrong;
      *to ^= hit << (query & 7);
      left -= hit;
    }
  }
}

/* As in the package. */
void plain_splits(const task *t, uint32_t first_trial, int64_t first, int64_t last, int64_t stride, void *const *out,
                  uint8_t *scratch, tally *y) {
  room r = room_in(t, scratch);
  for (; first < last; first += LANES) {
    draw_cheaply(t, r.set, mix(t->key[1]) + first_trial + first);
    measure_set(t, r, first, last - first < LANES ? last - first : LANES, stride, out, y);
  }
}
