/* Numbers as machines write them: whole numbers of 1 to 8 bytes in either byte order, IEEE floats, scaled decimals.
 *
 * No syntax: what they stand for is the caller's. Reads eight bytes from p on, whatever the size, so p lies in a padded
 * frame (scan.h); whether the number itself lies in the frame is checked by the caller, before or after. */
#ifndef FF_NUMBER_H
#define FF_NUMBER_H

#include "scan.h"
#include <stdio.h>

#if defined(_MSC_VER) && !defined(__clang__)
#include <stdlib.h>
#define ff_swap8(x) _byteswap_uint64(x)
#else
#define ff_swap8(x) __builtin_bswap64(x)
#endif

/* The first `size` (1..8) bytes at p, unsigned, most significant first. */
FF_INLINE uint64_t number_big(const char *p, uint32_t size) { return ff_swap8(scan_load8(p)) >> (64 - 8 * size); }

/* The same, least significant first. */
FF_INLINE uint64_t number_little(const char *p, uint32_t size) {
    return scan_load8(p) << (64 - 8 * size) >> (64 - 8 * size);
}

/* A number of `size` bytes as two's complement. */
FF_INLINE int64_t number_signed(uint64_t v, uint32_t size) {
    return (int64_t)(v << (64 - 8 * size)) >> (64 - 8 * size);
}

/* The float of these 4 or 8 bytes; one of four is widened, which is exact. */
FF_INLINE double number_real(uint64_t bits, uint32_t size) {
    double wide;
    if (size == 4) {
        uint32_t low = (uint32_t)bits;
        float narrow;
        memcpy(&narrow, &low, 4);
        return (double)narrow;
    }
    memcpy(&wide, &bits, 8);
    return wide;
}

/* magnitude * 10^exponent, correctly rounded as the same digits in a text would be; 0 if that is infinite. */
FF_INLINE int number_decimal(uint64_t magnitude, int negative, int64_t exponent, double *out) {
    char text[40];
    int n;
    if (magnitude == 0) {
        *out = 0.0;
        return 1;
    }
    if (exponent < -400 || exponent > 400) exponent = exponent < 0 ? -400 : 400; /* nothing, or beyond any double */
    if (FF_UNLIKELY(!scan_scale(magnitude, (int)exponent, out))) {
        n = snprintf(text, sizeof text, "%llue%d", (unsigned long long)magnitude, (int)exponent);
        if (!scan_number_slow(text, (uint32_t)n, out)) return 0;
    }
    if (negative) *out = -*out;
    return 1;
}

/* The same of a signed mantissa, for the usual ones without a call. */
FF_INLINE int number_scaled(int64_t mantissa, int64_t exponent, double *out) {
    if (FF_UNLIKELY((uint64_t)mantissa + 9007199254740992u > 18014398509481984u || (uint64_t)-exponent > 22))
        return number_decimal(mantissa < 0 ? -(uint64_t)mantissa : (uint64_t)mantissa, mantissa < 0, exponent, out);
    *out = (double)mantissa / SCAN_POWER[-exponent]; /* both are exact: one rounding; 0 has no sign */
    return 1;
}

/* The digits of a whole number, at most 20 and a sign, into out; how many characters. */
static uint32_t number_spell(uint64_t magnitude, int negative, char *out) {
    return (uint32_t)sprintf(out, "%s%llu", negative ? "-" : "", (unsigned long long)magnitude);
}

#endif
