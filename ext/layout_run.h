/* The layout kernel for x86-64, included once per instruction set by layout.h: FF_KERNEL names its functions, FF_TARGET
 * is their attribute, FF_SSE4 and FF_AVX512 tell what is there; with the latter layout_wide.h comes first. The commas
 * of the frame are found first, then every literal and every value is looked at where they say it must be, none waiting
 * for another. Vectors are loaded by their last byte, so nothing behind the frame is read. Faults are collected and
 * looked at together. */

/* The commas among 64 bytes. */
FF_TARGET static inline uint64_t FF_KERNEL(commas)(const char *p) {
#if defined(FF_AVX512)
    return _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(p), _mm512_set1_epi8(','));
#else
    const __m128i comma = _mm_set1_epi8(',');
    const __m128i *v = (const __m128i *)p;
    uint64_t a = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128(v), comma));
    uint64_t b = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128(v + 1), comma));
    uint64_t c = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128(v + 2), comma));
    uint64_t d = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128(v + 3), comma));
    return a | b << 16 | (c | d << 16) << 32;
#endif
}

/* The commas of the 64 bytes from i on, or of what is left of the frame. */
FF_TARGET static inline uint64_t FF_KERNEL(word)(const char *p, const char *end, uint32_t i) {
    const uint32_t left = (uint32_t)(end - p) - i;
    if (left >= 64) return FF_KERNEL(commas)(p + i);
    return i ? FF_KERNEL(commas)(end - 64) >> (64 - left) : FF_KERNEL(commas)(p) & ((1ull << left) - 1);
}

/* All commas of a frame, `lead` bytes added; place 0 and the one behind the last are the frame's ends. -1: too many. */
FF_TARGET static int FF_KERNEL(index)(const char *p, const char *end, uint32_t lead, uint16_t *place) {
    const uint32_t n = (uint32_t)(end - p);
    uint32_t i, count = 1;
    place[0] = (uint16_t)lead;
    for (i = 0; i < n; i += 64) {
        uint64_t m = FF_KERNEL(word)(p, end, i);
        for (; m; m &= m - 1) place[count++] = (uint16_t)(lead + i + (uint32_t)ff_ctz(m));
        if (count > LAYOUT_COMMAS + 1) return -1;
    }
    place[count] = (uint16_t)(lead + n);
    return (int)count - 1;
}

#if defined(FF_AVX512)
/* The same in one register, up to 30 of them; -1: too many for it. */
FF_TARGET static inline int FF_KERNEL(table)(const char *p, const char *end, uint32_t lead, __m512i *table) {
    const uint32_t n = (uint32_t)(end - p);
    __m512i all = _mm512_castsi128_si512(_mm_cvtsi32_si128((int)lead));
    uint32_t i, count = 1;
    *table = all;
    for (i = 0; i < n; i += 64) {
        const uint64_t m = FF_KERNEL(word)(p, end, i);
        const uint32_t more = (uint32_t)__builtin_popcountll(m);
        const __m512i bytes = _mm512_maskz_compress_epi8(m, _mm512_load_si512(WIDE_BYTES));
        const __m512i at = _mm512_add_epi16(_mm512_cvtepu8_epi16(_mm512_castsi512_si256(bytes)),
                                            _mm512_set1_epi16((short)(i + lead)));
        if (FF_UNLIKELY(count + more > 31)) return -1;
        /* behind those there are; none waits for them */
        all = _mm512_or_si512(all, _mm512_maskz_expand_epi16(((1u << more) - 1) << count, at));
        count += more;
    }
    *table = _mm512_or_si512(all, _mm512_maskz_set1_epi16(1u << count, (short)(lead + n)));
    return (int)count - 1;
}
FF_TARGET static inline __m512i FF_KERNEL(locate)(const layout_places *want, __m512i table) {
    const __m512i v = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)want->comma));
    return _mm512_add_epi16(_mm512_permutexvar_epi16(v, table), _mm512_loadu_si512(want->bytes));
}
#elif defined(FF_SSE4)
/* The same as bytes in one register, up to 14 of them in a frame below 240 bytes; -1: too many for it. */
FF_TARGET static inline int FF_KERNEL(table)(const char *p, const char *end, uint32_t lead, __m128i *table) {
    const uint32_t n = (uint32_t)(end - p);
    __m128i all = _mm_cvtsi32_si128((int)lead);
    uint32_t i, count = 1;
    *table = all;
    if (n + lead > 255) return -1;
    for (i = 0; i < n; i += 64) {
        uint64_t m = FF_KERNEL(word)(p, end, i), at = 0;
        const uint32_t more = (uint32_t)__builtin_popcountll(m);
        if (FF_UNLIKELY(more > 8 || count + more > 15)) return -1;
        /* six whether there are as many or not: how many there are is hard to foresee, more are rare */
        for (int k = 0; k < 6; k++, m &= m - 1) at |= (uint64_t)ff_ctz(m | 1ull << 63) << 8 * k;
        if (FF_UNLIKELY(more > 6)) at |= (uint64_t)ff_ctz(m) << 48;
        if (FF_UNLIKELY(more > 7)) at |= (uint64_t)ff_ctz(m & (m - 1)) << 56;
        at += 0x0101010101010101ull * (i + lead);
        all = _mm_or_si128(all, _mm_shuffle_epi8(
            _mm_and_si128(_mm_cvtsi64_si128((long long)at),
                          _mm_loadu_si128((const __m128i *)(LAYOUT_FIRST + 16 - more))),
            _mm_loadu_si128((const __m128i *)(LAYOUT_SLIDE + 16 - count))));
        count += more;
    }
    *table = _mm_or_si128(all, _mm_shuffle_epi8(_mm_cvtsi32_si128((int)(lead + n)),
                                                _mm_loadu_si128((const __m128i *)(LAYOUT_SLIDE + 16 - count))));
    return (int)count - 1;
}
FF_TARGET static inline void FF_KERNEL(locate)(const layout_places *want, uint32_t n, __m128i table, uint16_t *out) {
    for (uint32_t i = 0; i < n; i += 8) {
        __m128i v = _mm_shuffle_epi8(table, _mm_loadl_epi64((const __m128i *)(want->comma + i)));
        v = _mm_add_epi16(_mm_cvtepu8_epi16(v), _mm_loadu_si128((const __m128i *)(want->bytes + i)));
        _mm_store_si128((__m128i *)(out + i), v);
    }
}
#endif

/* Two numbers of sixteen digit bytes each: the upper and the lower eight of a, then of b. */
FF_TARGET static inline __m128i FF_KERNEL(eights)(__m128i a, __m128i b) {
#if defined(FF_SSE4)
    const __m128i tens = _mm_set1_epi16(0x010A), hundreds = _mm_set1_epi32(0x00010064);
    a = _mm_madd_epi16(_mm_maddubs_epi16(a, tens), hundreds);
    b = _mm_madd_epi16(_mm_maddubs_epi16(b, tens), hundreds);
    return _mm_madd_epi16(_mm_packus_epi32(a, b), _mm_set1_epi32(0x00012710));
#else
    uint64_t part[4];
    _mm_storeu_si128((__m128i *)part, a);
    _mm_storeu_si128((__m128i *)(part + 2), b);
    return _mm_set_epi32((int)scan_digits8(part[3]), (int)scan_digits8(part[2]),
                         (int)scan_digits8(part[1]), (int)scan_digits8(part[0]));
#endif
}

FF_TARGET static inline __m128i FF_KERNEL(shuffle)(__m128i v, const layout_shape *shape) {
#if defined(FF_SSE4)
    return _mm_shuffle_epi8(v, _mm_load_si128((const __m128i *)shape->shuffle));
#else
    const size_t i = (size_t)(shape - LAYOUT_SHAPE);
    return _mm_or_si128(
        _mm_and_si128(v, _mm_load_si128((const __m128i *)LAYOUT_SLIDES[i].stay)),
        _mm_and_si128(_mm_slli_si128(v, 1), _mm_load_si128((const __m128i *)LAYOUT_SLIDES[i].come)));
#endif
}

/* A zero where a number of this shape may have none. */
FF_TARGET static inline __m128i FF_KERNEL(zeros)(__m128i digits, const layout_shape *shape) {
    return _mm_cmpeq_epi8(digits, _mm_load_si128((const __m128i *)shape->padded));
}

/* The last n bytes of v, zeros before them. */
FF_TARGET static inline __m128i FF_KERNEL(end_of)(__m128i v, uint32_t n) {
    return _mm_and_si128(v, _mm_loadu_si128((const __m128i *)(LAYOUT_LAST + n)));
}

/* What of the n bytes at the end of v is not plain ASCII text. */
FF_TARGET static inline __m128i FF_KERNEL(special)(__m128i v, uint32_t n) {
    __m128i m = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));
    m = _mm_or_si128(m, _mm_cmplt_epi8(v, _mm_set1_epi8(0x20)));
    return FF_KERNEL(end_of)(m, n);
}

#if defined(FF_AVX512)
#define FF_OR_AND(a, b, c) _mm_ternarylogic_epi32(a, b, c, 0xF8)
#else
#define FF_OR_AND(a, b, c) _mm_or_si128(a, _mm_and_si128(b, c))
#endif
#define FF_ZERO(v) (_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_setzero_si128())) == 0xFFFF)
/* `size` in units of a length's shapes */
#define FF_SHAPE(size, behind) ((const layout_shape *)((const char *)(LAYOUT_SHAPE - 16) + (size)) + (behind))
#define FF_LOAD(at) _mm_loadu_si128((const __m128i *)(base + (at)))

#if defined(FF_AVX512)
typedef __m512i FF_KERNEL(places);
#elif defined(FF_SSE4)
typedef __m128i FF_KERNEL(places);
#else
typedef int FF_KERNEL(places);
#endif

/* Is the text, sixteen bytes or more, plain ASCII? */
FF_TARGET static int FF_KERNEL(text)(const char *p, const char *end) {
    for (; end - p > 16; p += 16)
        if (!FF_ZERO(FF_KERNEL(special)(_mm_loadu_si128((const __m128i *)p), 16))) return 0;
    return FF_ZERO(FF_KERNEL(special)(_mm_loadu_si128((const __m128i *)(end - 16)), 16));
}

/* The values, once it is known where they are: `to` is the vector each ends with, `size` its length in units of
 * shapes, those in `late` are left to layout_take. */
FF_TARGET FF_INLINE int FF_KERNEL(take)(
    const layout *l, const char *base, const uint16_t *from, const uint16_t *to, const uint16_t *size, uint64_t late,
    ff_fields *f) {
    const __m128i zeros = _mm_set1_epi8('0'), nine = _mm_set1_epi8(9);
    __m128i bad = _mm_setzero_si128(); /* what there should not be */
    __m128i odd = _mm_setzero_si128(); /* what layout_take is to judge */
    uint32_t i, k;
    for (k = 0; k < l->prices; k += 2) {
        __m128i v[2];
        __m128d price, divisor;
        const layout_shape *shape[2];
        for (i = 0; i < 2; i++) {
            v[i] = FF_LOAD(to[k + i]);
            /* the first byte is never of the price: a point there is one nowhere */
            shape[i] = FF_SHAPE(size[k + i],
                ff_clz32((uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v[i], _mm_set1_epi8('.'))) | 1));
            v[i] = FF_KERNEL(shuffle)(_mm_xor_si128(v[i], zeros), shape[i]);
            bad = _mm_or_si128(bad, _mm_subs_epu8(v[i], nine));
            bad = _mm_or_si128(bad, FF_KERNEL(zeros)(v[i], shape[i]));
        }
        divisor = _mm_loadh_pd(_mm_load_sd(&shape[0]->divisor), &shape[1]->divisor);
        v[0] = FF_KERNEL(eights)(v[0], v[1]);
        price = _mm_mul_pd(_mm_cvtepi32_pd(_mm_shuffle_epi32(v[0], _MM_SHUFFLE(2, 0, 2, 0))), _mm_set1_pd(1e8));
        price = _mm_add_pd(price, _mm_cvtepi32_pd(_mm_shuffle_epi32(v[0], _MM_SHUFFLE(3, 1, 3, 1)))); /* exact */
        price = _mm_div_pd(price, divisor);
        if (l->field[k + 1] == l->field[k] + 1) {
            _mm_storeu_pd(&f->number[l->field[k]], price);
        } else {
            _mm_storel_pd(&f->number[l->field[k]], price);
            _mm_storeh_pd(&f->number[l->field[k + 1]], price);
        }
    }
    for (; k < (uint32_t)l->prices + l->integers; k += 2) {
        __m128i v[2];
        for (i = 0; i < 2; i++) {
            const layout_shape *shape = FF_SHAPE(size[k + i], 31);
            v[i] = FF_KERNEL(shuffle)(_mm_xor_si128(FF_LOAD(to[k + i]), zeros), shape);
            bad = _mm_or_si128(bad, _mm_subs_epu8(v[i], nine));
            bad = _mm_or_si128(bad, FF_KERNEL(zeros)(v[i], shape));
        }
        v[0] = FF_KERNEL(eights)(v[0], v[1]);
        v[0] = _mm_add_epi64(_mm_mul_epu32(v[0], _mm_set1_epi64x(100000000)), _mm_srli_epi64(v[0], 32));
        _mm_storel_pd((double *)&f->integer[l->field[k]], _mm_castsi128_pd(v[0]));
        _mm_storeh_pd((double *)&f->integer[l->field[k + 1]], _mm_castsi128_pd(v[0]));
    }
    for (i = k + l->numbers; k < i; k++) {
        const layout_shape *shape = FF_SHAPE(size[k], 31);
        __m128i v = FF_KERNEL(shuffle)(_mm_xor_si128(FF_LOAD(to[k]), zeros), shape);
        odd = _mm_or_si128(odd, _mm_subs_epu8(v, nine));
        odd = _mm_or_si128(odd, FF_KERNEL(zeros)(v, shape));
    }
    for (i = k + l->texts; k < i; k++) odd = _mm_or_si128(odd, FF_KERNEL(special)(FF_LOAD(to[k]), size[k] >> 10));
    if (FF_UNLIKELY(!FF_ZERO(bad))) return 0;

    k = l->symbol;
    f->keyed = !(late >> k & 1);
    f->symbol = base + from[k];
    f->symbol_size = size[k] >> 10;
    _mm_storeu_si128((__m128i *)f->key, _mm_and_si128(FF_LOAD(to[k]), _mm_loadu_si128(
        (const __m128i *)(LAYOUT_LAST + f->symbol_size))));
    if (FF_UNLIKELY(!FF_ZERO(odd)) || l->marked)
        late |= ((1ull << (l->numbers + l->texts)) - 1) << (l->prices + l->integers);
    while (FF_UNLIKELY(late)) {
        const int32_t n = (k = (uint32_t)ff_ctz(late), (int32_t)to[k] + 16 - from[k]);
        late &= late - 1;
        if (n >= 16 && l->quoted[k] && l->action[k] == STEP_TEXT) { /* as an envelope's stream is */
            const __m128i v = _mm_or_si128(
                FF_KERNEL(special)(FF_LOAD(from[k]), 16), FF_KERNEL(special)(FF_LOAD(to[k]), 16));
            if (FF_ZERO(v) && (n <= 32 || FF_KERNEL(text)(base + from[k] + 16, base + to[k]))) continue;
        }
        if (n < 0 || !layout_take(l->action[k], l->field[k], l->quoted[k], base + from[k], (uint32_t)n, f)) return 0;
    }
    return 1;
}

/* How long the values are, from where they begin and end, and which are late; 0: one of them is not in the frame. */
FF_TARGET FF_INLINE int FF_KERNEL(measure)(
    const layout *l, uint16_t last, const uint16_t *from, const uint16_t *to, uint16_t *size, uint64_t *late) {
    const __m128i limit = _mm_set1_epi16(16), none = _mm_setzero_si128();
    __m128i beyond = none;
    for (uint32_t i = 0; i < l->values; i += 8) {
        const __m128i t = _mm_load_si128((const __m128i *)(to + i));
        __m128i n = _mm_sub_epi16(_mm_add_epi16(t, limit), _mm_load_si128((const __m128i *)(from + i))), fits;
        beyond = _mm_or_si128(beyond, _mm_subs_epu16(t, _mm_set1_epi16((short)last)));
        fits = _mm_cmpeq_epi16(_mm_subs_epu16(n, _mm_loadu_si128((const __m128i *)(l->longest + i))), none);
        *late |= (uint64_t)(uint8_t)~_mm_movemask_epi8(_mm_packs_epi16(fits, fits)) << i;
        /* 16 for all that is longer or ends before it begins */
        _mm_store_si128((__m128i *)(size + i), _mm_slli_epi16(_mm_sub_epi16(n, _mm_subs_epu16(n, limit)), 10));
    }
    return FF_ZERO(beyond);
}

/* `place`: the commas where they do not fit the table, else NULL. `base`: what places count from. */
FF_TARGET FF_NOINLINE static int FF_KERNEL(run)(
    const layout *l, const char *base, const char *end, FF_KERNEL(places) table, const uint16_t *place, ff_fields *f) {
    const uint16_t last = (uint16_t)(end - base - 16); /* where the last whole vector begins */
    FF_LINE uint16_t check[LAYOUT_VALUES], from[LAYOUT_VALUES], to[LAYOUT_VALUES], size[LAYOUT_VALUES];
    __m128i bad = _mm_setzero_si128();
    uint64_t late = l->late;
    uint32_t i, k;

    if (FF_UNLIKELY(end - base < 16)) return 0; /* there is no whole vector, and `last` is beyond the frame */
#if defined(FF_AVX512)
    if (FF_LIKELY(place == NULL)) {
        const __m512i most = _mm512_set1_epi16((short)last), limit = _mm512_set1_epi16(16);
        const __m512i literals = FF_KERNEL(locate)(&l->check, table);
        const __m512i first = FF_KERNEL(locate)(&l->from, table), ends = FF_KERNEL(locate)(&l->to, table);
        const __m512i n = _mm512_sub_epi16(_mm512_add_epi16(ends, limit), first);
        if (FF_UNLIKELY(_mm512_cmpgt_epu16_mask(literals, most) | _mm512_cmpgt_epu16_mask(ends, most))) return 0;
        late |= _mm512_cmpgt_epu16_mask(n, _mm512_loadu_si512(l->longest));
        _mm512_store_si512(check, literals);
        _mm512_store_si512(from, first);
        _mm512_store_si512(to, ends);
        /* 16 for all that is longer or ends before it begins */
        _mm512_store_si512(size, _mm512_slli_epi16(_mm512_min_epu16(n, limit), 10));
    } else
#endif
    {
#if defined(FF_SSE4) && !defined(FF_AVX512)
        if (FF_LIKELY(place == NULL)) {
            FF_KERNEL(locate)(&l->check, l->checks, table, check);
            FF_KERNEL(locate)(&l->from, l->values, table, from);
            FF_KERNEL(locate)(&l->to, l->values, table, to);
        } else
#else
        (void)table;
#endif
        {
            layout_locate(&l->check, (l->checks + 7u) & ~7u, place, check);
            layout_locate(&l->from, (l->values + 7u) & ~7u, place, from);
            layout_locate(&l->to, (l->values + 7u) & ~7u, place, to);
        }
        for (i = 0; i < l->checks; i += 8)
            bad = _mm_or_si128(bad, _mm_subs_epu16(_mm_load_si128((const __m128i *)(check + i)),
                                                   _mm_set1_epi16((short)last)));
        if (FF_UNLIKELY(!FF_ZERO(bad) || !FF_KERNEL(measure)(l, last, from, to, size, &late))) return 0;
    }

    for (i = 0; i < l->checks; i += 4)
        for (k = i; k < i + 4; k++) {
            __m128i v = _mm_xor_si128(FF_LOAD(check[k]), _mm_load_si128((const __m128i *)l->text[k].literal));
            bad = FF_OR_AND(bad, v, _mm_load_si128((const __m128i *)l->text[k].mask));
        }
    if (!FF_ZERO(bad)) return 0;
    return FF_KERNEL(take)(l, base, from, to, size, late, f);
}

/* The same whatever order the members are in, where 16 bytes in front of the frame may be read: `place` holds its
 * commas. Every byte is in one member, every member is there once, and each is of the layout. */
FF_TARGET FF_NOINLINE static int FF_KERNEL(run_loose)(
    const layout *l, const char *base, const char *end, const uint16_t *place, ff_fields *f) {
    const uint32_t last = (uint32_t)(end - base - 16); /* where the last whole vector begins */
    FF_LINE uint16_t from[LAYOUT_VALUES], to[LAYOUT_VALUES], size[LAYOUT_VALUES];
    char edge[32]; /* the last sixteen bytes once more, for vectors that begin there */
    __m128i bad = _mm_setzero_si128();
    uint64_t late = l->late;
    uint32_t wrong, seen = 0, i;
    _mm_storeu_si128((__m128i *)edge, FF_LOAD(last));
    _mm_storeu_si128((__m128i *)(edge + 16), _mm_setzero_si128());
    memset(from, 0, sizeof from);
    memset(to, 0, sizeof to);
    wrong = (uint32_t)(base[place[0]] != '{') | (uint32_t)(end[-1] != '}');
    for (i = 0; i < l->members; i++) {
        const uint32_t at = place[i] + 1u, behind = i + 1u < l->members ? place[i + 1] : place[i + 1] - 1u;
        const char *q = at > last ? edge + (at - last) : base + at;
        uint32_t first, k, which;
        const layout_member *m;
        if (FF_UNLIKELY(at >= last + 16)) return 0;
        memcpy(&first, q, 4);
        which = l->which[first * l->multiplier >> 27];
        m = &l->member[which];
        bad = FF_OR_AND(bad, _mm_xor_si128(_mm_loadu_si128((const __m128i *)q),
                                           _mm_load_si128((const __m128i *)m->literal)),
                        _mm_loadu_si128((const __m128i *)m->mask));
        seen |= 1u << which;
        k = behind - (m->quote != 0);
        wrong |= ((at + m->size) ^ k) & m->exact;
        wrong |= m->quote && base[k] != '"';
        from[m->value] = from[m->again] = (uint16_t)(at + m->size);
        to[m->value] = to[m->again] = (uint16_t)(k - 16);
    }
    if (wrong || seen != (l->members < 32 ? (1u << l->members) - 1 : ~0u) || !FF_ZERO(bad)) return 0;
    if (!FF_KERNEL(measure)(l, (uint16_t)last, from, to, size, &late)) return 0;
    return FF_KERNEL(take)(l, base, from, to, size, late, f);
}

FF_TARGET static inline int FF_KERNEL(suits)(const layout *l, int commas, uint32_t lead, int padded) {
    return l->commas == commas && (padded || !l->padded) && (lead >= LAYOUT_LEAD || !l->early);
}

/* When the likely layout is not it: its members in another order, then all the others, as they are unless it is known
 * that they are `loose`. */
FF_TARGET FF_NOINLINE static int FF_KERNEL(others)(
    layout_set *s, int commas, const char *p, const char *end, uint32_t lead, int padded, int loose,
    FF_KERNEL(places) table, const uint16_t *place, ff_fields *f) {
    uint16_t many[LAYOUT_PLACES];
    layout *l;
    int round;
    if (place == NULL && lead >= LAYOUT_LEAD) FF_KERNEL(index)(p, end, lead, many);
    for (round = 0; round < 3; round++) { /* the likely one loosely, the others as they are, the others loosely */
        if (round == 1 ? loose : lead < LAYOUT_LEAD) continue;
        for (l = s->known; l < s->known + s->count; l++) {
            if ((l == s->likely[commas]) != (round == 0) || !FF_KERNEL(suits)(l, commas, lead, padded)) continue;
            if (round == 1 ? FF_KERNEL(run)(l, p - lead, end, table, place, f) :
                l->members && FF_KERNEL(run_loose)(l, p - lead, end, place == NULL ? many : place, f))
                return layout_hit(s, l, (uint32_t)commas, f);
        }
    }
    return 0;
}

FF_TARGET static int FF_KERNEL(find)(
    layout_set *s, const char *p, const char *end, uint32_t lead, int padded, ff_fields *f) {
    FF_KERNEL(places) table;
    uint16_t many[LAYOUT_PLACES];
    const uint16_t *place = NULL;
    layout *l;
    int commas = -1, loose = 0;
    if (end - p > LAYOUT_LONGEST || !s->count) return 0;
#if defined(FF_AVX512)
    loose = wide_search(s, p, end, padded, f);
    if (loose > 0) return 1;
#endif
#if defined(FF_SSE4)
    commas = FF_KERNEL(table)(p, end, lead, &table);
#else
    table = 0;
#endif
    if (FF_UNLIKELY(commas < 0)) {
        commas = FF_KERNEL(index)(p, end, lead, many);
        if (commas < 0) return 0;
        place = many;
    }
    l = s->likely[commas];
    if (!loose && l != NULL && FF_KERNEL(suits)(l, commas, lead, padded) &&
        FF_KERNEL(run)(l, p - lead, end, table, place, f))
        return layout_hit(s, l, (uint32_t)commas, f);
    return FF_KERNEL(others)(s, commas, p, end, lead, padded, loose, table, place, f);
}

/* The commas of the array from the element at p on: LAYOUT_AHEAD or more, unless the frame ends or 32,000 bytes do. What
 * is in front of the element stands for one, and so does the frame's last byte. */
FF_TARGET FF_NOINLINE static void FF_KERNEL(look_ahead)(layout_array *a, const char *p) {
    const char *base = a->base = p - a->start < LAYOUT_LEAD ? a->start : p - LAYOUT_LEAD;
    const uint32_t lead = (uint32_t)(p - base), left = (uint32_t)(a->end - p), most = left < 32000 ? left : 32000;
    uint32_t i, count = 1;
    a->place[0] = (uint16_t)(lead - 1);
    for (i = 0; i < most && count <= LAYOUT_AHEAD; i += 64) {
        uint64_t m = FF_KERNEL(commas)(p + i);
        if (left - i < 64) m &= (1ull << (left - i)) - 1;
#if defined(FF_AVX512)
        {
            const uint32_t more = (uint32_t)__builtin_popcountll(m);
            const __m512i bytes = _mm512_maskz_compress_epi8(m, _mm512_load_si512(WIDE_BYTES));
            const __m512i from = _mm512_set1_epi16((short)(i + lead));
            _mm512_storeu_si512(a->place + count, _mm512_add_epi16(
                _mm512_cvtepu8_epi16(_mm512_castsi512_si256(bytes)), from));
            if (FF_UNLIKELY(more > 32))
                _mm512_storeu_si512(a->place + count + 32, _mm512_add_epi16(
                    _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(bytes, 1)), from));
            count += more;
        }
#else
        for (; m; m &= m - 1) a->place[count++] = (uint16_t)(lead + i + (uint32_t)ff_ctz(m));
#endif
    }
    if (i >= left) a->place[count++] = (uint16_t)(lead + left - 1);
    a->next = 0;
    a->count = count;
}

/* One layout on the element at p; `end` is where it would end. */
FF_TARGET static inline int FF_KERNEL(run_element)(
    const layout *l, layout_array *a, const char *p, const char *end, ff_fields *f) {
    uint16_t *place = a->place + a->next; /* the first is not where the element begins, but in front of it */
    FF_KERNEL(places) table;
#if defined(FF_AVX512)
    table = _mm512_mask_set1_epi16(_mm512_loadu_si512(place), 1, (short)(p - a->base));
    if (FF_LIKELY(l->commas <= 30)) return FF_KERNEL(run)(l, a->base, end, table, NULL, f);
#elif defined(FF_SSE4)
    const char *base = p - a->base < LAYOUT_LEAD ? a->base : p - LAYOUT_LEAD;
    const __m128i from = _mm_set1_epi16((short)(base - a->base));
    table = _mm_packus_epi16(_mm_sub_epi16(_mm_loadu_si128((const __m128i *)place), from),
                             _mm_sub_epi16(_mm_loadu_si128((const __m128i *)place + 1), from));
    table = _mm_insert_epi8(table, (int)(p - base), 0);
    if (FF_LIKELY(l->commas <= 14 && end - base < 256)) return FF_KERNEL(run)(l, base, end, table, NULL, f);
#else
    table = 0;
#endif
    place[0] = (uint16_t)(p - a->base);
    return FF_KERNEL(run)(l, a->base, end, table, place, f);
}

/* A layout_element_kernel: where an element of a layout would end is told by how many commas that has. */
FF_TARGET static const char *FF_KERNEL(element)(layout_set *s, const char *p, ff_fields *f) {
    layout_array *a = &s->array;
    uint32_t i;
    if (a->base != NULL) /* on to the comma in front of it */
        while (a->next + 1 < a->count && a->base + a->place[a->next + 1] < p) a->next++;
    if (a->base == NULL || (a->next + LAYOUT_COMMAS + 2 > a->count && a->base + a->place[a->count - 1] != a->end - 1))
        FF_KERNEL(look_ahead)(a, p);
    for (i = 0; i <= s->count; i++) { /* the latest right one first */
        layout *l = i ? s->known + i - 1 : s->element;
        const char *end;
        if (l == NULL || (i && l == s->element) || l->commas == 255 || !layout_begins(l, p, 1)) continue;
        if (a->next + l->commas + 1u >= a->count || (l->early && p - a->base < LAYOUT_LEAD)) continue;
        end = a->base + a->place[a->next + l->commas + 1];
        if (end[-1] != '}' || end - p > LAYOUT_LONGEST || !FF_KERNEL(run_element)(l, a, p, end, f)) continue;
        layout_fill(l, f);
        s->element = l;
        a->next += l->commas + 1u;
        return end;
    }
    return NULL;
}
#undef FF_ZERO
#undef FF_LOAD
#undef FF_SHAPE
#undef FF_OR_AND
