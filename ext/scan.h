/* Bytes to numbers and string ends: the SIMD primitives, their scalar twins, and exact decimal conversion.
 *
 * Knows nothing of schemas or ticks. Every pointer handed in lies in a *padded* frame: the byte at its end is NUL
 * and FF_PADDING bytes from there on may be read. The NUL stops every scan (it is legal nowhere in JSON), the
 * padding absorbs wide loads. `simd` is a compile-time constant at every call, so the branch on it costs nothing. */
#ifndef FF_SCAN_H
#define FF_SCAN_H

#include <Python.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#define FF_HAS_SSE2 1
#elif defined(__aarch64__) || defined(_M_ARM64)
#include <arm_neon.h>
#define FF_HAS_NEON 1
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#define FF_INLINE static __forceinline
#define FF_ALIGNED __declspec(align(16))
#define FF_LINE __declspec(align(64))
#define FF_UNLIKELY(x) (x)
#define FF_LIKELY(x) (x)
#define FF_NOINLINE __declspec(noinline)
static __forceinline int ff_ctz(uint64_t x) { unsigned long i; _BitScanForward64(&i, x); return (int)i; }
static __forceinline uint32_t ff_clz32(uint32_t x) { unsigned long i; _BitScanReverse(&i, x); return 31 - i; }
static __forceinline int ff_clz(uint64_t x) { unsigned long i; _BitScanReverse64(&i, x); return 63 - (int)i; }
#else
#define FF_INLINE static inline __attribute__((always_inline))
#define FF_ALIGNED __attribute__((aligned(16)))
#define FF_LINE __attribute__((aligned(64)))
#define FF_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define FF_LIKELY(x) __builtin_expect(!!(x), 1)
#define FF_NOINLINE __attribute__((noinline))
#define ff_ctz(x) __builtin_ctzll(x)
#define ff_clz(x) __builtin_clzll(x)
#define ff_clz32(x) (uint32_t)__builtin_clz(x)
#endif

#define FF_PADDING 64

FF_INLINE uint64_t scan_load8(const char *p) { uint64_t v; memcpy(&v, p, 8); return v; }

/* The last sixteen of the n bytes at p, zeros before them where they are fewer. Reads sixteen bytes from p on, whatever
 * n; never writes less than a word, which a load of the whole would have to wait for. */
FF_INLINE void scan_last16(uint64_t out[2], const char *p, uint32_t n) {
    const char *from = n > 16 ? p + n - 16 : p;
    const uint64_t head = scan_load8(from), tail = scan_load8(from + 8);
    const uint32_t shift = n < 16 ? 8 * (16 - n) : 0;
#if defined(__SIZEOF_INT128__)
    const unsigned __int128 both = n ? ((unsigned __int128)tail << 64 | head) << shift : 0;
    out[0] = (uint64_t)both;
    out[1] = (uint64_t)(both >> 64);
#else
    out[0] = shift >= 64 ? 0 : head << shift;
    out[1] = n == 0 ? 0 : shift >= 64 ? head << (shift - 64) : tail << shift | (head >> 1) >> (63 - shift);
#endif
}

/* ---- where in the next 16 bytes: one bit a byte, lowest first ---- */

#if defined(FF_HAS_SSE2)
FF_INLINE uint32_t scan_equal16(const char *p, char c) {
    __m128i v = _mm_loadu_si128((const __m128i *)p);
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8(c)));
}
/* Quote, backslash, control character, or non-ASCII (negative as signed bytes, so one compare finds both). */
FF_INLINE uint32_t scan_special16(const char *p) {
    __m128i v = _mm_loadu_si128((const __m128i *)p);
    __m128i m = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));
    return (uint32_t)_mm_movemask_epi8(_mm_or_si128(m, _mm_cmplt_epi8(v, _mm_set1_epi8(0x20))));
}
FF_INLINE uint32_t scan_digits16(const char *p) {
    __m128i v = _mm_xor_si128(_mm_loadu_si128((const __m128i *)p), _mm_set1_epi8('0'));
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(9)), v));
}
FF_INLINE uint32_t scan_same16(const char *p, const uint8_t *q) {
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)p),
                                                      _mm_loadu_si128((const __m128i *)q)));
}
#elif defined(FF_HAS_NEON)
FF_INLINE uint32_t scan_bits16(uint8x16_t m) {
    static const uint8_t weights[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t w = vandq_u8(m, vld1q_u8(weights));
    return (uint32_t)vaddv_u8(vget_low_u8(w)) | ((uint32_t)vaddv_u8(vget_high_u8(w)) << 8);
}
FF_INLINE uint32_t scan_equal16(const char *p, char c) {
    return scan_bits16(vceqq_u8(vld1q_u8((const uint8_t *)p), vdupq_n_u8((uint8_t)c)));
}
FF_INLINE uint32_t scan_special16(const char *p) {
    uint8x16_t v = vld1q_u8((const uint8_t *)p);
    uint8x16_t m = vorrq_u8(vceqq_u8(v, vdupq_n_u8('"')), vceqq_u8(v, vdupq_n_u8('\\')));
    return scan_bits16(vorrq_u8(m, vcltq_s8(vreinterpretq_s8_u8(v), vdupq_n_s8(0x20))));
}
FF_INLINE uint32_t scan_digits16(const char *p) {
    return scan_bits16(vcleq_u8(veorq_u8(vld1q_u8((const uint8_t *)p), vdupq_n_u8('0')), vdupq_n_u8(9)));
}
FF_INLINE uint32_t scan_same16(const char *p, const uint8_t *q) {
    return scan_bits16(vceqq_u8(vld1q_u8((const uint8_t *)p), vld1q_u8(q)));
}
#else
FF_INLINE uint32_t scan_equal16(const char *p, char c) {
    uint32_t m = 0;
    for (int i = 0; i < 16; i++) m |= (uint32_t)(p[i] == c) << i;
    return m;
}
FF_INLINE uint32_t scan_special16(const char *p) {
    uint32_t m = 0;
    for (int i = 0; i < 16; i++) m |= (uint32_t)(p[i] == '"' || p[i] == '\\' || (signed char)p[i] < 0x20) << i;
    return m;
}
FF_INLINE uint32_t scan_digits16(const char *p) {
    uint32_t m = 0;
    for (int i = 0; i < 16; i++) m |= (uint32_t)((unsigned char)(p[i] - '0') < 10) << i;
    return m;
}
FF_INLINE uint32_t scan_same16(const char *p, const uint8_t *q) {
    uint32_t m = 0;
    for (int i = 0; i < 16; i++) m |= (uint32_t)((uint8_t)p[i] == q[i]) << i;
    return m;
}
#endif

/* First byte at or after p equal to c, in a span that is known to hold one (or the frame's NUL). */
FF_INLINE const char *scan_until(const char *p, char c, int simd) {
    if (simd) {
        for (;; p += 16) {
            uint32_t m = scan_equal16(p, c) | scan_equal16(p, 0);
            if (m) return p + ff_ctz(m);
        }
    }
    while (*p != c && *p) p++;
    return p;
}

/* ---- strings ---- */

/* First byte at or after p that a plain ASCII string does not simply pass over. */
FF_INLINE const char *scan_plain(const char *p, int simd) {
    if (simd) {
        for (;; p += 16) {
            uint32_t m = scan_special16(p);
            if (m) return p + ff_ctz(m);
        }
    }
    while (*p != '"' && *p != '\\' && (signed char)*p >= 0x20) p++;
    return p;
}

/* Length of the well-formed UTF-8 sequence at p (RFC 3629, no surrogates, no overlong forms), 0 if ill-formed. */
static int scan_utf8(const char *s) {
    const unsigned char *p = (const unsigned char *)s;
    if (p[0] < 0x80) return 1;
    if (p[0] < 0xC2) return 0;
    if ((p[1] & 0xC0) != 0x80) return 0;
    if (p[0] < 0xE0) return 2;
    if (p[0] < 0xF0) {
        if ((p[2] & 0xC0) != 0x80) return 0;
        if (p[0] == 0xE0 && p[1] < 0xA0) return 0;
        if (p[0] == 0xED && p[1] > 0x9F) return 0;
        return 3;
    }
    if (p[0] > 0xF4) return 0;
    if ((p[2] & 0xC0) != 0x80 || (p[3] & 0xC0) != 0x80) return 0;
    if (p[0] == 0xF0 && p[1] < 0x90) return 0;
    if (p[0] == 0xF4 && p[1] > 0x8F) return 0;
    return 4;
}

/* Where the text from p to end stops being UTF-8, or NULL if it does not: the rest of it once it is not plain ASCII. */
static const char *scan_text_fault_rest(const char *p, const char *end) {
    while (p < end) {
        int n = scan_utf8(p);
        if (!n || n > end - p) return p;
        p += n;
    }
    return NULL;
}
FF_INLINE const char *scan_text_fault(const char *p, const char *end) {
    for (; end - p >= 8; p += 8)
        if (FF_UNLIKELY(scan_load8(p) & 0x8080808080808080ull)) return scan_text_fault_rest(p, end);
    if (p < end && FF_UNLIKELY(scan_load8(p) << (64 - 8 * (end - p)) & 0x8080808080808080ull))
        return scan_text_fault_rest(p, end);
    return NULL;
}

static int scan_hex4(const char *p) {
    int v = 0;
    for (int i = 0; i < 4; i++) {
        int c = (unsigned char)p[i], d;
        if (c >= '0' && c <= '9') d = c - '0';
        else if ((c | 32) >= 'a' && (c | 32) <= 'f') d = (c | 32) - 'a' + 10;
        else return -1;
        v = v * 16 + d;
    }
    return v;
}

/* The escape at p (a backslash): bytes it takes, its code point in *code; 0 if malformed (lone surrogates are). */
static int scan_escape(const char *p, uint32_t *code) {
    int high, low;
    switch (p[1]) {
    case '"': case '\\': case '/': *code = (uint32_t)p[1]; return 2;
    case 'b': *code = '\b'; return 2;
    case 'f': *code = '\f'; return 2;
    case 'n': *code = '\n'; return 2;
    case 'r': *code = '\r'; return 2;
    case 't': *code = '\t'; return 2;
    case 'u': break;
    default: return 0;
    }
    high = scan_hex4(p + 2);
    if (high < 0 || (high >= 0xDC00 && high < 0xE000)) return 0;
    *code = (uint32_t)high;
    if (high < 0xD800 || high >= 0xE000) return 6;
    if (p[6] != '\\' || p[7] != 'u') return 0;
    low = scan_hex4(p + 8);
    if (low < 0xDC00 || low >= 0xE000) return 0;
    *code = 0x10000 + (((uint32_t)high - 0xD800) << 10) + ((uint32_t)low - 0xDC00);
    return 12;
}

/* The rest of a string from a byte scan_plain stopped at: its closing quote, or NULL if malformed. */
static const char *scan_string_rest(const char *p, int *escaped) {
    for (;;) {
        unsigned char c = (unsigned char)*p;
        if (c == '"') return p;
        if (c == '\\') {
            uint32_t code;
            int n = scan_escape(p, &code);
            if (!n) return NULL;
            *escaped = 1;
            p += n;
        } else if (c < 0x20) {
            return NULL;
        } else {
            int n = scan_utf8(p);
            if (!n) return NULL;
            p += n;
        }
    }
}

/* Where scan_string_rest gave up, for telling people: the bad byte or escape, or the end. */
static const char *scan_string_fault(const char *p) {
    for (;;) {
        uint32_t code;
        int n = *p == '\\' ? scan_escape(p, &code) : *p == '"' || (unsigned char)*p < 0x20 ? 0 : scan_utf8(p);
        if (!n) return p;
        p += n;
    }
}

/* p is just after the opening quote: the closing quote, or NULL if malformed. *escaped is set, never cleared. */
FF_INLINE const char *scan_string(const char *p, int *escaped, int simd) {
    p = scan_plain(p, simd);
    if (FF_UNLIKELY(*p != '"')) return scan_string_rest(p, escaped);
    return p;
}

/* Decode the escapes of a validated string into out (at most `size` bytes and a NUL); the length written. */
static uint32_t scan_unescape(const char *p, uint32_t size, char *out) {
    const char *end = p + size;
    char *o = out;
    while (p < end) {
        uint32_t c = 0;
        if (*p != '\\') { *o++ = *p++; continue; }
        p += scan_escape(p, &c);
        if (c < 0x80) *o++ = (char)c;
        else if (c < 0x800) { *o++ = (char)(0xC0 | c >> 6); *o++ = (char)(0x80 | (c & 63)); }
        else if (c < 0x10000) {
            *o++ = (char)(0xE0 | c >> 12);
            *o++ = (char)(0x80 | (c >> 6 & 63));
            *o++ = (char)(0x80 | (c & 63));
        } else {
            *o++ = (char)(0xF0 | c >> 18);
            *o++ = (char)(0x80 | (c >> 12 & 63));
            *o++ = (char)(0x80 | (c >> 6 & 63));
            *o++ = (char)(0x80 | (c & 63));
        }
    }
    *o = 0;
    return (uint32_t)(o - out);
}

FF_INLINE const char *scan_space(const char *p) {
    if ((unsigned char)*p <= ' ')
        while (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t') p++;
    return p;
}

/* ---- numbers ---- */

FF_INLINE int scan_is_digit(char c) { return (unsigned char)(c - '0') < 10; }

/* The end of the JSON number at p, or NULL if there is none. *form gets bit 0 for a fraction, bit 1 for an exponent. */
FF_INLINE const char *scan_number(const char *p, int *form) {
    if (*p == '-') p++;
    if (*p == '0') p++;
    else {
        if (!scan_is_digit(*p)) return NULL;
        do p++; while (scan_is_digit(*p));
    }
    if (*p == '.') {
        *form |= 1;
        p++;
        if (!scan_is_digit(*p)) return NULL;
        do p++; while (scan_is_digit(*p));
    }
    if ((*p | 32) == 'e') {
        *form |= 2;
        p++;
        if (*p == '+' || *p == '-') p++;
        if (!scan_is_digit(*p)) return NULL;
        do p++; while (scan_is_digit(*p));
    }
    return p;
}

static int scan_price_general(const char *s, uint32_t n, double *out);

/* The end of the bare JSON number at p, or NULL: malformed, or beyond what a double holds. */
FF_INLINE const char *scan_bare_number(const char *p) {
    int form = 0;
    const char *end = scan_number(p, &form);
    double value;
    if (FF_UNLIKELY(end != NULL && ((form & 2) || end - p > 300)))
        return scan_price_general(p, (uint32_t)(end - p), &value) ? end : NULL;
    return end;
}

/* The same where the frame is padded: up to fifteen characters without an exponent are seen in one vector. */
FF_INLINE const char *scan_bare(const char *p, int simd) {
    if (simd) {
        const uint32_t others = ~scan_digits16(p) | 0x10000u;
        uint32_t n = (uint32_t)ff_ctz(others);
        if (n > 0 && n < 16 && (n == 1 || *p != '0')) {
            if (p[n] == '.') {
                const uint32_t rest = others & (0xFFFFFFFEu << n);
                const uint32_t whole = n + 1;
                n = (uint32_t)ff_ctz(rest);
                if (n == whole || n >= 16) return scan_bare_number(p);
            }
            if ((p[n] | 32) != 'e') return p + n;
        }
    }
    return scan_bare_number(p);
}

static const double SCAN_POWER[23] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13,
                                      1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
static const uint64_t SCAN_POWER_INT[20] = {
    1u, 10u, 100u, 1000u, 10000u, 100000u, 1000000u, 10000000u, 100000000u, 1000000000u, 10000000000u, 100000000000u,
    1000000000000u, 10000000000000u, 100000000000000u, 1000000000000000u, 10000000000000000u, 100000000000000000u,
    1000000000000000000u, 10000000000000000000u};

/* Eight bytes 0..9, the first digit lowest, as one number. */
FF_INLINE uint64_t scan_digits8(uint64_t v) {
    v = v * 10 + (v >> 8);
    return (((v & 0x000000FF000000FFull) * 0x000F424000000064ull) +
            (((v >> 16) & 0x000000FF000000FFull) * 0x0000271000000001ull)) >> 32;
}

/* The first n (1..8) characters at p as digit bytes, right aligned; *bad gets high bits where one is no digit. */
FF_INLINE uint64_t scan_take8(const char *p, uint32_t n, uint64_t *bad) {
    uint64_t v = (scan_load8(p) ^ 0x3030303030303030ull) << (64 - 8 * n);
    *bad |= (v + 0x7676767676767676ull) | v;
    return v;
}

/* mantissa * 10^exponent correctly rounded, for exponents that stay exact in 128 bits. */
static int scan_scale(uint64_t mantissa, int exponent, double *out) {
    if (mantissa <= 9007199254740992ull && exponent >= -22 && exponent <= 22) {
        /* both operands are exact doubles: one rounding (Clinger) */
        *out = exponent < 0 ? (double)mantissa / SCAN_POWER[-exponent] : (double)mantissa * SCAN_POWER[exponent];
        return 1;
    }
#if defined(__SIZEOF_INT128__)
    if (exponent >= -19 && exponent <= 19) {
        if (exponent >= 0) {
            *out = (double)((unsigned __int128)mantissa * SCAN_POWER_INT[exponent]);
        } else {
            /* The quotient keeps at least 64 significant bits; the remainder only needs to be known as non-zero. */
            int shift = ff_clz(mantissa);
            uint64_t divisor = SCAN_POWER_INT[-exponent];
            unsigned __int128 n = (unsigned __int128)(mantissa << shift) << 64, q = n / divisor;
            double scale = 1.0 / 18446744073709551616.0 / (double)(1ull << shift); /* a power of two: exact */
            if (n % divisor) q |= 1;
            *out = (double)q * scale;
        }
        return 1;
    }
#endif
    return 0;
}

/* Whatever the fast ways leave over: CPython's own correctly rounded conversion. */
static int scan_number_slow(const char *s, uint32_t n, double *out) {
    char small[128], *text = n < sizeof small ? small : (char *)malloc((size_t)n + 1);
    PyGILState_STATE state;
    if (text == NULL) return 0;
    memcpy(text, s, n);
    text[n] = 0;
    state = PyGILState_Ensure();
    *out = PyOS_string_to_double(text, NULL, NULL);
    if (PyErr_Occurred()) { PyErr_Clear(); *out = Py_HUGE_VAL; }
    PyGILState_Release(state);
    if (text != small) free(text);
    return *out - *out == 0; /* finite */
}

/* Exactly the n characters at s as a JSON number, correctly rounded; 0 if they are none or it is infinite. */
static int scan_price_general(const char *s, uint32_t n, double *out) {
    const char *p = s, *end = s + n;
    uint64_t mantissa = 0;
    int form = 0, exponent = 0, digits = 0, e = 0, negative, ok;
    if (n == 0 || scan_number(s, &form) != end) return 0;
    negative = *p == '-';
    p += negative;
    for (; p < end && (scan_is_digit(*p) || *p == '.'); p++) {
        if (*p == '.') { exponent = -1; continue; }
        mantissa = mantissa * 10 + (uint64_t)(*p - '0');
        digits += digits || *p != '0';
        if (exponent < 0) exponent--;
        if (digits > 19) return scan_number_slow(s, n, out);
    }
    exponent += exponent < 0;
    if (p < end) {
        int sign = p[1] == '-' ? -1 : 1;
        for (p += 1 + !scan_is_digit(p[1]); p < end; p++)
            if ((e = e * 10 + (*p - '0')) > 100000) break;
        exponent += sign * e;
    }
    if (mantissa == 0) { *out = negative ? -0.0 : 0.0; return 1; }
    if (e > 100000) return scan_number_slow(s, n, out);
    ok = scan_scale(mantissa, exponent, out);
    if (!ok) return scan_number_slow(s, n, out);
    if (negative) *out = -*out;
    return 1;
}

/* The usual price: up to eight digits, a point at s[dot] (dot == n: none), up to eight more. 0: not that shape. */
FF_INLINE int scan_price_usual(const char *s, uint32_t n, uint32_t dot, double *out) {
    uint64_t bad = 0, mantissa;
    uint32_t fraction = n - dot - (dot < n);
    if (FF_UNLIKELY(dot - 1 > 7 || fraction > 8 || (*s == '0' && dot > 1))) return 0;
    mantissa = scan_digits8(scan_take8(s, dot, &bad));
    if (fraction) {
        mantissa *= SCAN_POWER_INT[fraction];
        mantissa += scan_digits8(scan_take8(s + dot + 1, fraction, &bad));
    } else if (dot < n) {
        return 0;
    }
    if (FF_UNLIKELY((bad & 0x8080808080808080ull) || mantissa > 9007199254740992ull)) return 0;
    *out = (double)mantissa / SCAN_POWER[fraction];
    return 1;
}

/* Exactly the n characters at s as a JSON number, correctly rounded; 0 if they are none or it is infinite. */
FF_INLINE int scan_price(const char *s, uint32_t n, double *out, int simd) {
    if (n - 1 < 16) {
        uint32_t dot = 0;
        if (simd) {
            uint32_t m = scan_equal16(s, '.') & ((1u << n) - 1);
            dot = m ? (uint32_t)ff_ctz(m) : n;
        } else {
            while (dot < n && s[dot] != '.') dot++;
        }
        if (scan_price_usual(s, n, dot, out)) return 1;
    }
    return scan_price_general(s, n, out);
}

/* Exactly the n characters at s as a JSON integer that fits int64; 0 if they are none. */
FF_INLINE int scan_integer(const char *s, uint32_t n, int64_t *out) {
    uint64_t bad = 0, v;
    if (n - 1 < 16 && *s != '-') {
        if (n <= 8) v = scan_digits8(scan_take8(s, n, &bad));
        else v = scan_digits8(scan_take8(s, n - 8, &bad)) * 100000000u + scan_digits8(scan_take8(s + n - 8, 8, &bad));
        *out = (int64_t)v;
        return !(bad & 0x8080808080808080ull) && !(*s == '0' && n > 1);
    }
    {
        int negative = n && *s == '-';
        uint32_t i = (uint32_t)negative;
        if (n - i - 1 > 18 || (s[i] == '0' && n - i > 1)) return 0;
        for (v = 0; i < n; i++) {
            if (!scan_is_digit(s[i])) return 0;
            v = v * 10 + (uint64_t)(s[i] - '0'); /* 19 digits stay below 2^64 */
        }
        if (v > (uint64_t)INT64_MAX) return 0;
        *out = negative ? -(int64_t)v : (int64_t)v;
        return 1;
    }
}

/* Days since 1970-01-01 of a proleptic Gregorian date (the era arithmetic is Howard Hinnant's days_from_civil). */
FF_INLINE int64_t scan_days(int64_t y, int m, int d) {
    int64_t era, yoe, doy;
    y -= m <= 2;
    era = (y >= 0 ? y : y - 399) / 400;
    yoe = y - era * 400;
    doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static int scan_fixed(const char *s, int n, int *out) {
    int v = 0;
    for (int i = 0; i < n; i++) {
        if (!scan_is_digit(s[i])) return 0;
        v = v * 10 + (s[i] - '0');
    }
    *out = v;
    return 1;
}

/* ISO-8601 / RFC 3339 `YYYY-MM-DD[T ]HH:MM:SS[.fraction][Z|+HH:MM|-HH:MM]` as epoch ns, or 0. Digits past the ninth
 * are cut. The FIX form `YYYYMMDD-HH:MM:SS.mmm` is read too; without a zone the time is UTC. */
static int scan_iso(const char *s, uint32_t n, int64_t *out) {
    static const int LENGTH[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const char *p = s, *end = s + n;
    int year, month, day, hour, minute, second, fraction = 0, digits = 0, zone = 0, leap;
    int dashed = n > 4 && s[4] == '-';
    if (n < (dashed ? 19u : 17u) || !scan_fixed(p, 4, &year)) return 0;
    p += 4;
    if (dashed && *p++ != '-') return 0;
    if (!scan_fixed(p, 2, &month)) return 0;
    p += 2;
    if (dashed && *p++ != '-') return 0;
    if (!scan_fixed(p, 2, &day)) return 0;
    p += 2;
    if (*p != 'T' && *p != 't' && *p != ' ' && *p != '-') return 0;
    p++;
    if (!scan_fixed(p, 2, &hour) || p[2] != ':' || !scan_fixed(p + 3, 2, &minute) || p[5] != ':' ||
        !scan_fixed(p + 6, 2, &second)) return 0;
    p += 8;
    if (p < end && *p == '.') {
        for (p++; p < end && scan_is_digit(*p); p++, digits++)
            if (digits < 9) fraction = fraction * 10 + (*p - '0');
        if (!digits) return 0;
        while (digits++ < 9) fraction *= 10;
    }
    if (p < end && (*p == 'Z' || *p == 'z')) p++;
    else if (end - p == 6 && (*p == '+' || *p == '-') && p[3] == ':') {
        int zh, zm;
        if (!scan_fixed(p + 1, 2, &zh) || !scan_fixed(p + 4, 2, &zm) || zh > 23 || zm > 59) return 0;
        zone = (zh * 60 + zm) * (*p == '-' ? -1 : 1);
        p = end;
    }
    if (p != end || month < 1 || month > 12 || year < 1678 || year > 2261) return 0;
    if (hour > 23 || minute > 59 || second > 60) return 0;
    leap = month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (day < 1 || day > LENGTH[month - 1] + leap) return 0;
    *out = ((scan_days(year, month, day) * 24 + hour) * 60 + minute - zone) * 60000000000ll
         + second * 1000000000ll + fraction;
    return 1;
}

#endif
