/* The layout walk for x86-64, included once per kernel by layout.h: FF_KERNEL names it, FF_TARGET is its function
 * attribute, FF_SSE4 tells that shuffles are there. Values of up to fifteen characters are converted here, in the
 * vector they were found in; the rest goes to layout_value. Faults of digits are collected and looked at once. */

FF_TARGET static int FF_KERNEL(const layout *l, const char *p, const char *end, ff_fields *f) {
    const layout_step *s = l->step, *last = s + l->steps;
    const __m128i zeros = _mm_set1_epi8('0'), nine = _mm_set1_epi8(9);
    __m128i bad = _mm_setzero_si128(); /* non-zero where a digit was none */
    for (; s < last; s++) {
        __m128i v = _mm_loadu_si128((const __m128i *)p);
        uint32_t m = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_loadu_si128((const __m128i *)s->literal)));
        uint32_t n, inside;
        if (FF_UNLIKELY(s->mask & ~m)) return 0;
        p += s->size;
        if (s->action == STEP_LITERAL) continue;
        v = _mm_loadu_si128((const __m128i *)p);
        m = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_loadu_si128((const __m128i *)s->stop)));
        n = (uint32_t)ff_ctz(m | 0x10000u);
        inside = (1u << n) - 1;
        if (FF_UNLIKELY(n - 1 > 14)) goto other;
        if (s->action == STEP_PRICE || s->action == STEP_INTEGER) {
            uint32_t dot = n, fraction = 0;
            uint64_t mantissa;
            if (s->action == STEP_PRICE) {
                m = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('.'))) & inside;
                dot = (uint32_t)ff_ctz(m | (1u << n));
                fraction = n - dot - (m != 0);
                /* no digit before the point, or none after it, or a zero too many in front */
                if (FF_UNLIKELY(dot == 0 || (m != 0 && fraction == 0) || (*p == '0' && dot > 1))) return 0;
            } else if (FF_UNLIKELY(*p == '0' && n > 1)) {
                return 0;
            }
#if defined(FF_SSE4)
            __m128i digits = _mm_loadu_si128((const __m128i *)LAYOUT_SHUFFLE[n][dot]);
            digits = _mm_shuffle_epi8(_mm_xor_si128(v, zeros), digits);
            bad = _mm_or_si128(bad, _mm_subs_epu8(digits, nine));
            digits = _mm_maddubs_epi16(digits, _mm_set1_epi16(0x010A)); /* 10, 1: pairs */
            digits = _mm_madd_epi16(digits, _mm_set1_epi32(0x00010064)); /* 100, 1: fours */
            digits = _mm_packus_epi32(digits, digits);
            digits = _mm_madd_epi16(digits, _mm_set1_epi32(0x00012710)); /* 10000, 1: eights */
            mantissa = (uint64_t)_mm_cvtsi128_si64(digits);
            mantissa = (mantissa & 0xFFFFFFFFu) * 100000000u + (mantissa >> 32);
#else
            {
                uint64_t wrong = 0;
                if (FF_UNLIKELY(dot > 8 && s->action == STEP_PRICE) || fraction > 8) goto other;
                if (dot > 8) {
                    mantissa = scan_digits8(scan_take8(p, dot - 8, &wrong)) * 100000000u;
                    mantissa += scan_digits8(scan_take8(p + dot - 8, 8, &wrong));
                } else {
                    mantissa = scan_digits8(scan_take8(p, dot, &wrong));
                }
                if (fraction) {
                    mantissa *= SCAN_POWER_INT[fraction];
                    mantissa += scan_digits8(scan_take8(p + dot + 1, fraction, &wrong));
                }
                bad = _mm_or_si128(bad, _mm_cvtsi64_si128((long long)(wrong & 0x8080808080808080ull)));
            }
#endif
            if (s->field < FIELD_NUMBERS) f->number[s->field] = (double)(int64_t)mantissa / SCAN_POWER[fraction];
            else if (s->field != FIELD_COUNT) f->integer[s->field - FIELD_SEQ] = (int64_t)mantissa;
            p += n;
            continue;
        }
        if (s->action <= STEP_TEXT && s->stop[0] == '"') { /* STEP_SYMBOL or STEP_TEXT: plain ASCII, or the parser's business */
            m = (uint32_t)_mm_movemask_epi8(
                _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('\\')), _mm_cmplt_epi8(v, _mm_set1_epi8(0x20))));
            if (FF_UNLIKELY(m & inside)) return 0;
            if (s->action == STEP_SYMBOL) {
                f->symbol = p;
                f->symbol_size = n;
            }
            p += n;
            continue;
        }
        if (s->action == STEP_NUMBER) {
            m = (uint32_t)_mm_movemask_epi8(
                _mm_cmpeq_epi8(_mm_subs_epu8(_mm_xor_si128(v, zeros), nine), _mm_setzero_si128()));
            if ((~m & inside) == 0 && (*p != '0' || n == 1)) {
                p += n;
                continue;
            }
        }
    other:
        p = layout_value(s, p, f);
        if (p == NULL) return 0;
    }
    return p == end && _mm_movemask_epi8(_mm_cmpeq_epi8(bad, _mm_setzero_si128())) == 0xFFFF;
}
