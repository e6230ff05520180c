/* The layout walk for x86-64, included once per kernel by layout.h: FF_KERNEL names it, FF_TARGET is its function
 * attribute, FF_SSE4 tells that shuffles are there. Values of up to fifteen characters are converted here, in the
 * vector they were found in; the rest goes to layout_value. Faults of digits are collected and looked at once. */

FF_TARGET static int FF_KERNEL(const layout *l, const char *p, const char *end, ff_fields *f) {
    const layout_step *s = l->step, *last = s + l->steps;
    const __m128i zeros = _mm_set1_epi8('0'), nine = _mm_set1_epi8(9);
    __m128i bad = _mm_setzero_si128(); /* non-zero where a digit was none */
    uint32_t padded = 0;               /* non-zero where a zero too many was in front */
    for (; s < last; s++) {
        __m128i v = _mm_loadu_si128((const __m128i *)p);
        uint32_t m = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_loadu_si128((const __m128i *)s->literal)));
        uint32_t n, dot;
        if (FF_UNLIKELY(s->mask & ~m)) return 0;
        p += s->size;
        if (s->action == STEP_LITERAL) continue;
        v = _mm_loadu_si128((const __m128i *)p);
        m = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_loadu_si128((const __m128i *)s->stop)));
        n = (uint32_t)ff_ctz(m | 0x10000u);
        if (FF_UNLIKELY(n - 1 > 14)) goto other;
        if (s->action == STEP_PRICE) {
            /* a point in first or last place is left in, and so found to be no digit */
            m = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('.')));
            dot = (uint32_t)ff_ctz(m | 1u << n);
#if defined(FF_SSE4)
            {
                const uint32_t shape = n * 16 + dot;
                __m128d halves;
                v = _mm_shuffle_epi8(_mm_xor_si128(v, zeros), _mm_load_si128((const __m128i *)LAYOUT_SHUFFLE[shape]));
                bad = _mm_or_si128(bad, _mm_subs_epu8(v, nine));
                v = _mm_maddubs_epi16(v, _mm_set1_epi16(0x010A));     /* times 10, 1: pairs */
                v = _mm_madd_epi16(v, _mm_set1_epi32(0x00010064));    /* times 100, 1: fours */
                v = _mm_madd_epi16(_mm_packus_epi32(v, v), _mm_set1_epi32(0x00012710)); /* times 10000, 1: eights */
                halves = _mm_mul_pd(_mm_cvtepi32_pd(v), _mm_set_pd(1.0, 1e8));
                halves = _mm_add_sd(halves, _mm_unpackhi_pd(halves, halves)); /* below 1e15: exact */
                f->number[s->field] = _mm_cvtsd_f64(halves) / LAYOUT_DIVISOR[shape];
            }
#else
            {
                uint64_t wrong = 0, mantissa;
                uint32_t fraction = n - dot - (dot < n);
                if (FF_UNLIKELY(dot - 1 > 7 || fraction > 8 || (dot < n && fraction == 0))) goto other;
                mantissa = scan_digits8(scan_take8(p, dot, &wrong));
                if (fraction) {
                    mantissa *= SCAN_POWER_INT[fraction];
                    mantissa += scan_digits8(scan_take8(p + dot + 1, fraction, &wrong));
                }
                bad = _mm_or_si128(bad, _mm_cvtsi64_si128((long long)(wrong & 0x8080808080808080ull)));
                f->number[s->field] = (double)(int64_t)mantissa / SCAN_POWER[fraction];
            }
#endif
            padded |= (*p == '0') & (dot > 1);
            p += n;
        } else if (s->action == STEP_INTEGER) {
            uint64_t integer;
#if defined(FF_SSE4)
            v = _mm_shuffle_epi8(_mm_xor_si128(v, zeros), _mm_load_si128((const __m128i *)LAYOUT_SHUFFLE[n * 16 + n]));
            bad = _mm_or_si128(bad, _mm_subs_epu8(v, nine));
            v = _mm_maddubs_epi16(v, _mm_set1_epi16(0x010A));
            v = _mm_madd_epi16(v, _mm_set1_epi32(0x00010064));
            v = _mm_madd_epi16(_mm_packus_epi32(v, v), _mm_set1_epi32(0x00012710));
            integer = (uint64_t)_mm_cvtsi128_si64(v);
            integer = (integer & 0xFFFFFFFFu) * 100000000u + (integer >> 32);
#else
            int64_t value;
            if (FF_UNLIKELY(!scan_integer(p, n, &value))) return 0;
            integer = (uint64_t)value;
#endif
            f->integer[s->field] = (int64_t)integer;
            padded |= (*p == '0') & (n > 1);
            p += n;
        } else if (s->action <= STEP_TEXT && s->stop[0] == '"') { /* plain ASCII, or the parser's business */
            v = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('\\')), _mm_cmplt_epi8(v, _mm_set1_epi8(0x20)));
            if (FF_UNLIKELY((uint32_t)_mm_movemask_epi8(v) & ((1u << n) - 1))) return 0;
            if (s->action == STEP_SYMBOL) {
                f->symbol = p;
                f->symbol_size = n;
            }
            p += n;
        } else if (s->action == STEP_NUMBER) {
            v = _mm_cmpeq_epi8(_mm_subs_epu8(_mm_xor_si128(v, zeros), nine), _mm_setzero_si128());
            if ((~(uint32_t)_mm_movemask_epi8(v) & ((1u << n) - 1)) || (*p == '0' && n > 1)) goto other;
            p += n;
        } else {
        other:
            p = layout_value(s, p, f);
            if (p == NULL) return 0;
        }
    }
    return p == end && !padded && _mm_movemask_epi8(_mm_cmpeq_epi8(bad, _mm_setzero_si128())) == 0xFFFF;
}
