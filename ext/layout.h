/* Predicted layouts: a frame whose shape has been seen before is verified by vector compares and converted on the
 * way, without being parsed. Exchanges send the same keys in the same order millions of times.
 *
 * A layout is learned only from a frame the strict parser accepted, without escapes, non-ASCII or repeated keys. Running
 * one proves the same strictness (every byte is either literal text of that frame or inside a value that is checked
 * here), so a hit needs no parse; a miss says nothing and costs the few steps walked. Frames are padded as in scan.h. */
#ifndef FF_LAYOUT_H
#define FF_LAYOUT_H

#include "scan.h"

enum { FIELD_NUMBERS = 8, FIELD_SEQ = 8, FIELD_FIRST_SEQ = 9, FIELD_PREV_SEQ = 10, FIELD_SYMBOL = 11, FIELD_TIME = 12,
       FIELD_SIDE = 13, FIELD_BIDS = 14, FIELD_ASKS = 15, FIELD_COUNT = 16 };

/* What one message (or one element of it) says, before it becomes ticks. Text is valid as long as the frame is. */
typedef struct ff_fields {
    double number[FIELD_NUMBERS];
    int64_t integer[3];      /* seq, first_seq, prev_seq */
    int64_t event_ns;
    const char *text[3];     /* symbol, time, side; NULL for a boolean, which size then holds */
    uint32_t size[3];
    uint32_t level[2];       /* bids, asks: where they begin in the parser's level store */
    uint32_t levels[2];      /* and how many they are */
    uint16_t present;        /* bit per FIELD_*: has a value */
    uint16_t null;           /* bit per FIELD_*: explicitly has none */
    uint16_t message;        /* index into the program's messages */
    uint8_t sell;            /* the side, once known to mean that the aggressor sold */
} ff_fields;

enum { STEP_LITERAL, STEP_PRICE, STEP_INTEGER, STEP_TEXT, STEP_NUMBER, STEP_BOOL };

typedef struct layout_step {
    uint8_t literal[16]; /* the text before the value */
    uint16_t mask;       /* which of its bytes count */
    uint8_t size;        /* how many they are */
    uint8_t action;      /* STEP_*: what follows */
    uint8_t stop;        /* the byte right after the value */
    uint8_t field;       /* FIELD_*, or FIELD_COUNT: checked and dropped */
} layout_step;

enum { LAYOUT_STEPS = 64 };

typedef struct layout {
    layout_step step[LAYOUT_STEPS];
    uint32_t steps;
    uint16_t message;
    uint16_t present;
    uint16_t null;
} layout;

/* The value at p, checked as strictly as the parser would: its end, or NULL for a miss. */
FF_INLINE const char *layout_value(const layout_step *s, const char *p, ff_fields *f, int simd) {
    uint32_t m = simd ? scan_equal16(p, (char)s->stop) : 0;
    const char *q = m ? p + ff_ctz(m) : scan_until(p, (char)s->stop, simd);
    uint32_t n = (uint32_t)(q - p);
    double number;
    int64_t integer;
    switch (s->action) {
    case STEP_PRICE:
        if (FF_UNLIKELY(!scan_price(p, n, s->field < FIELD_NUMBERS ? &f->number[s->field] : &number, simd))) return NULL;
        return q;
    case STEP_INTEGER:
        if (FF_UNLIKELY(!scan_integer(p, n, s->field < FIELD_SYMBOL ? &f->integer[s->field - FIELD_SEQ] : &integer))) return NULL;
        return q;
    case STEP_TEXT:
        if (FF_UNLIKELY(scan_plain(p, simd) != q || *q != '"')) return NULL;
        break;
    case STEP_NUMBER:
        if (FF_UNLIKELY(scan_bare_number(p) != q)) return NULL;
        break;
    default: /* STEP_BOOL */
        if (n == 4 && memcmp(p, "true", 4) == 0) n = 1;
        else if (n == 5 && memcmp(p, "false", 5) == 0) n = 0;
        else return NULL;
        p = NULL;
    }
    if (s->field != FIELD_COUNT) {
        f->text[s->field - FIELD_SYMBOL] = p;
        f->size[s->field - FIELD_SYMBOL] = n;
    }
    return q;
}

/* 1 if the text from p to end is this layout, its values in f; 0 otherwise, f then worthless. */
FF_INLINE int layout_run(const layout *l, const char *p, const char *end, ff_fields *f, int simd) {
    const layout_step *s = l->step, *last = s + l->steps;
    for (; s < last; s++) {
        if (simd) {
            if ((scan_same16(p, s->literal) & s->mask) != s->mask) return 0;
        } else if (memcmp(p, s->literal, s->size) != 0) {
            return 0;
        }
        p += s->size;
        if (s->action == STEP_LITERAL) continue;
        p = layout_value(s, p, f, simd);
        if (p == NULL) return 0;
    }
    f->present = l->present;
    f->null = l->null;
    f->message = l->message;
    return p == end;
}

#endif
