/* Layouts in registers, for x86-64 with AVX-512 VBMI: a frame of up to 255 bytes lies in four of them, where its commas
 * are in a fifth. What a layout says of sixty-four bytes at a time, where each is by the commas and what it should be,
 * is fetched by two permutations and judged by masks: nothing waits for memory, or for how long another value is.
 * Longer frames, longer values and the elements of arrays are left to layout_run.h. Nothing but the frame is read. */
#ifndef FF_LAYOUT_WIDE_H
#define FF_LAYOUT_WIDE_H

#include <immintrin.h>
#include "layout.h"

#define FF_WIDE __attribute__((target( \
    "avx512f,avx512bw,avx512vl,avx512dq,avx512cd,avx512vbmi,avx512vbmi2,bmi,bmi2,lzcnt,popcnt")))

static FF_LINE uint8_t WIDE_BYTES[256];  /* 0, 1, 2 ... */
static FF_LINE double WIDE_POWER[16];    /* of ten */

/* Has the machine what this takes? */
static int wide_prepare(void) {
    for (int i = 0; i < 256; i++) WIDE_BYTES[i] = (uint8_t)i;
    for (int i = 0; i < 16; i++) WIDE_POWER[i] = SCAN_POWER[i];
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("popcnt");
}

typedef struct wide_frame {
    __m512i part[4]; /* its bytes, zeros behind them */
    __m512i place;   /* of its commas; place 0 and the one behind the last are the frame's ends */
} wide_frame;

static inline const __m512i *wide_line(const uint8_t *p) { return (const __m512i *)p; }

/* The frame of n bytes at p. */
FF_WIDE FF_INLINE void wide_load(const char *p, uint32_t n, wide_frame *w) {
    for (int i = 0; i < 4; i++) {
        const uint32_t before = 64u * (uint32_t)i;
        w->part[i] = _mm512_maskz_loadu_epi8(_bzhi_u64(~0ull, n > before ? n - before : 0), p + before);
    }
}

/* How many commas it has; -1: too many. */
FF_WIDE FF_INLINE int wide_index(uint32_t n, wide_frame *w) {
    __m512i at[4];
    uint32_t count = 1;
    for (int i = 0; i < 4; i++) {
        const uint64_t m = _mm512_cmpeq_epi8_mask(w->part[i], _mm512_set1_epi8(','));
        at[i] = _mm512_maskz_compress_epi8(m, _mm512_load_si512(WIDE_BYTES + 64 * i));
        at[i] = _mm512_maskz_expand_epi8(~0ull << (count & 63), at[i]); /* behind those there are */
        count += (uint32_t)_mm_popcnt_u64(m);
    }
    if (FF_UNLIKELY(count > 63)) return -1;
    w->place = _mm512_ternarylogic_epi32(_mm512_or_si512(at[0], at[1]), at[2], at[3], 0xFE);
    w->place = _mm512_mask_set1_epi8(w->place, 1ull << count, (char)n);
    return (int)count - 1;
}

FF_WIDE FF_INLINE __m512i wide_fetch(const wide_frame *w, __m512i at) {
    const __m512i low = _mm512_permutex2var_epi8(w->part[0], at, w->part[1]);
    const __m512i high = _mm512_permutex2var_epi8(w->part[2], at, w->part[3]);
    return _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(at), high);
}

/* The bytes of some values, `at` which places they are, the `size` of each one's value, and which are `inside` it. */
FF_WIDE FF_INLINE __m512i wide_values(
    const wide_frame *w, const layout_lanes *a, __m512i *at, __m512i *size, uint64_t *inside) {
    const __m512i to = _mm512_permutexvar_epi8(*wide_line(a->to), w->place);
    const __m512i from = _mm512_permutexvar_epi8(*wide_line(a->from), w->place);
    *at = _mm512_add_epi8(to, *wide_line(a->bytes));
    *size = _mm512_add_epi8(_mm512_sub_epi8(to, from), *wide_line(a->size));
    *inside = _mm512_cmpgt_epu8_mask(*size, *wide_line(a->behind));
    return wide_fetch(w, *at);
}

/* Four numbers of up to fifteen characters each, as JSON has them but without sign and exponent: their digits as one
 * whole number each (in the even words), and their points. What there should not be is added to `bad`. */
FF_WIDE FF_INLINE __m512i wide_numbers(
    const layout_lanes *a, __m512i v, uint64_t inside, uint64_t *points, uint64_t *bad) {
    const uint64_t low = 0x0001000100010001ull, high = 0x8000800080008000ull; /* the first and last bits of vectors */
    const __m512i digits = _mm512_maskz_sub_epi8(inside, v, _mm512_set1_epi8('0'));
    const uint64_t point = _mm512_mask_cmpeq_epi8_mask(inside, digits, _mm512_set1_epi8('.' - '0'));
    const uint64_t none = _mm512_mask_cmpgt_epu8_mask(inside, digits, _mm512_set1_epi8(9));
    const uint64_t zeros = _mm512_testn_epi8_mask(digits, digits);
    const uint64_t first = inside & ~(inside << 1);
    /* per number: all below its point and whether it has one, the latter in the highest bit */
    const uint64_t below = (point | high) - low, has = (below & high) >> 15;
    const uint64_t upto = (below | point) & ((has << 15) - has);
    __m512i m;
    *bad |= (inside & low) | (a->ends & ~inside);                      /* too long, or nothing at all */
    *bad |= (none ^ point) | ((first & zeros) << 1 & inside & ~point); /* no digit, or one behind a leading zero */
    *bad |= point & (first | high | below | a->whole);                 /* at an end, the second one, or in an integer */
    *points = point;
    m = _mm512_mask_mov_epi8(digits, upto, _mm512_bslli_epi128(digits, 1)); /* the point is taken out */
    m = _mm512_madd_epi16(_mm512_maddubs_epi16(m, _mm512_set1_epi16(0x010A)), _mm512_set1_epi32(0x00010064));
    m = _mm512_madd_epi16(_mm512_packus_epi32(m, m), _mm512_set1_epi32(0x00012710));
    return _mm512_add_epi64(_mm512_mul_epu32(m, _mm512_set1_epi64(100000000)), _mm512_srli_epi64(m, 32));
}

/* Their prices: one rounding, as both are exact. */
FF_WIDE FF_INLINE __m256d wide_prices(__m512i whole, uint64_t points) {
    const __m256i behind = _mm256_lzcnt_epi64(_mm256_cvtepu16_epi64(_mm_cvtsi64_si128((long long)points)));
    const __m512d divisor = _mm512_permutex2var_pd(
        _mm512_load_pd(WIDE_POWER), _mm512_castsi256_si512(behind), _mm512_load_pd(WIDE_POWER + 8));
    return _mm256_div_pd(_mm256_cvtepu64_pd(_mm512_castsi512_si256(whole)), _mm512_castpd512_pd256(divisor));
}

/* Those of four texts that are to be true or false. */
FF_WIDE FF_INLINE int wide_truths(const layout_lanes *a, __m512i texts, ff_fields *f) {
    FF_LINE uint64_t word[8];
    _mm512_store_si512(word, texts);
    for (uint32_t lanes = a->truths; lanes; lanes &= lanes - 1) {
        const uint32_t lane = (uint32_t)ff_ctz(lanes);
        const uint64_t last = word[2 * lane + 1]; /* eight bytes, zeros before the text */
        const uint32_t truth = last == 0x6575727400000000ull;
        if (!truth && last != 0x65736C6166000000ull) return 0;
        if (a->side >> lane & 1) {
            f->side_text = NULL;
            f->side_size = truth;
        }
    }
    return 1;
}

/* The values that are neither numbers nor plain texts, or usually longer. Of those that are not: layout_take would read
 * behind a short integer. */
FF_WIDE FF_NOINLINE static int wide_rest(const layout *l, const char *p, __m512i where, ff_fields *f) {
    uint8_t place[64];
    _mm512_storeu_si512(place, where);
    for (uint64_t late = l->wide.late; late; late &= late - 1) {
        const uint32_t k = (uint32_t)ff_ctz(late);
        const int32_t from = place[l->from.comma[k]] + l->from.bytes[k];
        const int32_t to = place[l->to.comma[k]] + l->to.bytes[k] + 16;
        if (to - from < (l->action[k] == STEP_INTEGER ? 16 : 0)) return 0;
        if (!layout_take(l->action[k], l->field[k], l->quoted[k], p + from, (uint32_t)(to - from), f)) return 0;
    }
    return 1;
}

/* Is the frame of this layout? Its values in f then. -1: it is not; 0: it may be, but not by this way. */
FF_WIDE FF_INLINE int wide_run(const layout *l, const char *p, const wide_frame *w, ff_fields *f) {
    const __m512i even = _mm512_set_epi64(0, 0, 0, 0, 6, 4, 2, 0);
    uint64_t bad = 0, inside;
    __m512i at, size, v;
    uint32_t i;
    for (i = 0; i < l->wide.literals; i++) {
        const layout_bytes *b = &l->wide.literal[i];
        at = _mm512_add_epi8(_mm512_permutexvar_epi8(*wide_line(b->comma), w->place), *wide_line(b->bytes));
        bad |= _mm512_mask_cmpneq_epu8_mask(b->mask, wide_fetch(w, at), *wide_line(b->text));
    }
    if (FF_UNLIKELY(bad)) return -1;
    for (i = 0; i < l->wide.numbers; i++) {
        const layout_lanes *a = &l->wide.number[i];
        uint64_t points;
        v = wide_values(w, a, &at, &size, &inside);
        v = _mm512_permutexvar_epi64(even, wide_numbers(a, v, inside, &points, &bad));
        if (a->field < FIELD_NUMBERS) _mm256_storeu_pd(f->number + a->field, wide_prices(v, points));
        else if (a->field == FIELD_SEQ) _mm256_storeu_si256((__m256i *)f->integer, _mm512_castsi512_si256(v));
    }
    f->keyed = 0;
    f->symbol_size = 0;
    for (i = 0; i < l->wide.texts; i++) {
        const layout_lanes *a = &l->wide.text[i];
        v = wide_values(w, a, &at, &size, &inside);
        bad |= _mm512_cmpgt_epu8_mask(size, *wide_line(a->limit));
        bad |= _mm512_mask_cmplt_epi8_mask(inside, v, _mm512_set1_epi8(0x20));
        bad |= _mm512_mask_cmpeq_epi8_mask(inside, v, _mm512_set1_epi8('"'));
        bad |= _mm512_mask_cmpeq_epi8_mask(inside, v, _mm512_set1_epi8('\\'));
        if (a->truths && !wide_truths(a, _mm512_maskz_mov_epi8(inside, v), f)) return 0;
        if (a->field == FIELD_SYMBOL) { /* the first sixteen bytes are of its end */
            f->keyed = 1;
            f->symbol_size = (uint8_t)_mm_cvtsi128_si32(_mm512_castsi512_si128(size));
            f->symbol = p + (uint8_t)(_mm_cvtsi128_si32(_mm512_castsi512_si128(at)) + 16 - (int)f->symbol_size);
            _mm_storeu_si128((__m128i *)f->key, _mm512_castsi512_si128(_mm512_maskz_mov_epi8(inside, v)));
        }
    }
    if (FF_UNLIKELY(bad)) return 0;
    return !l->wide.late || wide_rest(l, p, w->place, f);
}

/* A layout_glance. */
FF_WIDE static int wide_glance(layout_set *s, const char *p, const char *end, int padded, ff_fields *f) {
    const uint32_t n = (uint32_t)(end - p);
    wide_frame w;
    layout *l;
    int commas;
    if (FF_UNLIKELY(end - p > s->widest)) return 0;
    wide_load(p, n, &w);
    commas = wide_index(n, &w);
    if (FF_UNLIKELY(commas < 0)) return 0;
    l = s->likely[commas];
    if (FF_UNLIKELY(l == NULL || l->commas != commas || (l->padded && !padded))) return 0;
    if (FF_UNLIKELY((int32_t)n > l->wide.longest || wide_run(l, p, &w, f) <= 0)) return 0;
    layout_fill(l, f);
    return 1;
}

/* Is it of any layout, as they stand? 0: it may be; -1: it is not. */
FF_WIDE FF_NOINLINE static int wide_search(layout_set *s, const char *p, const char *end, int padded, ff_fields *f) {
    const uint32_t n = (uint32_t)(end - p);
    int commas, best = -1;
    wide_frame w;
    if (end - p > s->widest) return 0;
    wide_load(p, n, &w);
    commas = wide_index(n, &w);
    if (commas < 0) return 0;
    for (layout *l = s->known; l < s->known + s->count; l++) {
        int found = 0;
        if (l->commas != commas || (l->padded && !padded)) continue;
        if ((int32_t)n <= l->wide.longest) found = wide_run(l, p, &w, f);
        if (found > 0) return layout_hit(s, l, (uint32_t)commas, f);
        if (found == 0) best = 0;
    }
    return best;
}

#endif
