/* Predicted layouts: a frame whose shape has been seen before is verified by vector compares and converted on the
 * way, without being parsed. Exchanges send the same keys in the same order millions of times.
 *
 * A layout is learned only from a frame the strict parser accepted, without escapes or repeated keys. Running one
 * proves the same strictness (every byte is either literal text of that frame or inside a value that is checked
 * here), so a hit needs no parse; a miss says nothing and costs the few steps walked. Frames are padded as in scan.h:
 * the NUL at their end is in no literal and in no value, so no walk gets past it. */
#ifndef FF_LAYOUT_H
#define FF_LAYOUT_H

#include "scan.h"

enum { FIELD_NUMBERS = 8, FIELD_SEQ = 8, FIELD_FIRST_SEQ = 9, FIELD_PREV_SEQ = 10, FIELD_TIME = 11, FIELD_SYMBOL = 12,
       FIELD_SIDE = 13, FIELD_BIDS = 14, FIELD_ASKS = 15, FIELD_COUNT = 16 };

/* What one message (or one element of it) says, before it becomes ticks. Text is valid as long as the frame is. */
typedef struct ff_fields {
    double number[FIELD_NUMBERS];
    int64_t integer[4];      /* seq, first_seq, prev_seq, and the time in its unit while time_text is NULL */
    int64_t event_ns;
    const char *symbol;
    const char *time_text;
    const char *side_text;   /* NULL for a boolean, which side_size then holds */
    uint32_t symbol_size;
    uint32_t time_size;
    uint32_t side_size;
    uint32_t level[2];       /* bids, asks: where they begin in the parser's level store */
    uint32_t levels[2];      /* and how many they are */
    uint16_t present;        /* bit per FIELD_*: has a value */
    uint16_t null;           /* bit per FIELD_*: explicitly has none */
    uint16_t message;        /* index into the program's messages */
    uint8_t sell;            /* the side, once known to mean that the aggressor sold */
} ff_fields;

enum {
    STEP_LITERAL, STEP_PRICE, STEP_INTEGER, STEP_SYMBOL, STEP_TEXT,
    STEP_NUMBER, STEP_TIME_TEXT, STEP_SIDE_TEXT, STEP_BOOL
};

typedef struct layout_step {
    uint8_t literal[16]; /* the text before the value */
    uint8_t stop[16];    /* the byte right after the value, repeated */
    uint16_t mask;       /* which bytes of the literal count */
    uint8_t size;        /* how many they are */
    uint8_t action;      /* STEP_*: what follows */
    uint8_t field;       /* PRICE: which number; INTEGER: which integer; BOOL: FIELD_SIDE or not */
} layout_step;

enum { LAYOUT_STEPS = 64 };

typedef struct layout {
    layout_step step[LAYOUT_STEPS];
    uint32_t steps;
    uint16_t message;
    uint16_t present;
    uint16_t null;
} layout;

/* The values a kernel leaves over: long, signed, with exponents, texts, booleans. Its end, or NULL for a miss. */
static const char *layout_value(const layout_step *s, const char *p, ff_fields *f) {
    const char *q = scan_until(p, (char)s->stop[0], 1);
    uint32_t n = (uint32_t)(q - p);
    int escaped = 0, truth;
    switch (s->action) {
    case STEP_PRICE:
        return scan_price_general(p, n, &f->number[s->field]) ? q : NULL;
    case STEP_INTEGER:
        return scan_integer(p, n, &f->integer[s->field]) ? q : NULL;
    case STEP_NUMBER:
        return scan_bare_number(p) == q ? q : NULL;
    case STEP_BOOL:
        if (n == 4 && memcmp(p, "true", 4) == 0) truth = 1;
        else if (n == 5 && memcmp(p, "false", 5) == 0) truth = 0;
        else return NULL;
        if (s->field == FIELD_SIDE) {
            f->side_text = NULL;
            f->side_size = (uint32_t)truth;
        }
        return q;
    }
    if (s->stop[0] == '"' ? scan_string(p, &escaped, 1) != q || escaped : scan_bare_number(p) != q) return NULL;
    if (s->action == STEP_SYMBOL) {
        f->symbol = p;
        f->symbol_size = n;
    } else if (s->action == STEP_TIME_TEXT) {
        f->time_text = p;
        f->time_size = n;
    } else if (s->action == STEP_SIDE_TEXT) {
        f->side_text = p;
        f->side_size = n;
    }
    return q;
}

/* 1 if the text from p to end is this layout, its values in f; 0 otherwise, f then worthless. */
typedef int (*layout_kernel)(const layout *l, const char *p, const char *end, ff_fields *f);

static int layout_run_scalar(const layout *l, const char *p, const char *end, ff_fields *f) {
    const layout_step *s = l->step, *last = s + l->steps;
    for (; s < last; s++) {
        if (memcmp(p, s->literal, s->size) != 0) return 0;
        p += s->size;
        if (s->action == STEP_LITERAL) continue;
        p = layout_value(s, p, f);
        if (p == NULL) return 0;
    }
    return p == end;
}

#if defined(FF_HAS_SSE2)

/* By length and place of the point (16 * n + dot, dot == n for none): which byte of the text goes where so that the
 * digits stand right aligned without the point, and what to divide their number by. */
static FF_ALIGNED uint8_t LAYOUT_SHUFFLE[256][16];
static double LAYOUT_DIVISOR[256];

static void layout_prepare(void) {
    for (int n = 0; n < 16; n++)
        for (int dot = 0; dot < 16; dot++) {
            int taken_out = dot > 0 && dot < n - 1, digits = n - taken_out;
            for (int i = 0; i < 16; i++) {
                int j = i - (16 - digits);
                LAYOUT_SHUFFLE[16 * n + dot][i] = j < 0 ? 0x80 : (uint8_t)(taken_out && j >= dot ? j + 1 : j);
            }
            LAYOUT_DIVISOR[16 * n + dot] = SCAN_POWER[taken_out ? n - dot - 1 : 0];
        }
}

#define FF_KERNEL layout_run_sse2
#define FF_TARGET
#include "layout_run.h"
#undef FF_KERNEL
#undef FF_TARGET

#if defined(__GNUC__)
#include <smmintrin.h>
#define FF_SSE4 1
#define FF_KERNEL layout_run_sse4
#define FF_TARGET __attribute__((target("sse4.1")))
#include "layout_run.h"
#undef FF_KERNEL
#undef FF_TARGET
#undef FF_SSE4
#endif

#elif defined(FF_HAS_NEON)
static void layout_prepare(void) {}
static int layout_run_neon(const layout *l, const char *p, const char *end, ff_fields *f) {
    const layout_step *s = l->step, *last = s + l->steps;
    for (; s < last; s++) {
        uint32_t n;
        if ((scan_same16(p, s->literal) & s->mask) != s->mask) return 0;
        p += s->size;
        n = (uint32_t)ff_ctz(scan_equal16(p, (char)s->stop[0]) | 0x10000u);
        if (s->action == STEP_PRICE && n < 16 && scan_price(p, n, &f->number[s->field], 1)) {
            p += n;
        } else if (s->action != STEP_LITERAL) {
            p = layout_value(s, p, f);
            if (p == NULL) return 0;
        }
    }
    return p == end;
}
#else
static void layout_prepare(void) {}
#endif

/* The kernels this build and machine have, best first, ended by NULL. */
typedef struct layout_choice { const char *name; layout_kernel run; } layout_choice;

static const layout_choice *layout_kernels(void) {
    static layout_choice found[4];
    int n = 0;
    if (found[0].name) return found;
    layout_prepare();
#if defined(FF_HAS_SSE2) && defined(__GNUC__)
    if (__builtin_cpu_supports("sse4.1")) { found[n].run = layout_run_sse4; found[n++].name = "sse4"; }
#endif
#if defined(FF_HAS_SSE2)
    found[n].run = layout_run_sse2; found[n++].name = "sse2";
#elif defined(FF_HAS_NEON)
    found[n].run = layout_run_neon; found[n++].name = "neon";
#endif
    found[n].run = layout_run_scalar;
    found[n].name = "scalar";
    return found;
}

#endif
