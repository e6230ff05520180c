/* Predicted layouts: a frame whose shape has been seen before is verified by vector compares and converted on the
 * way, without being parsed. Exchanges send the same keys in the same order millions of times.
 *
 * A layout is learned only from a frame or element the strict parser accepted, without escapes or repeated keys.
 * Running one proves the same strictness (every byte is either literal text of that frame or inside a value that is
 * checked here), so a hit needs no parse; a miss says nothing. The byte behind a frame is NUL: it is in no literal and
 * in no value, so whatever goes byte by byte stops there. */
#ifndef FF_LAYOUT_H
#define FF_LAYOUT_H

#include "scan.h"

enum { FIELD_NUMBERS = 8, FIELD_SEQ = 8, FIELD_FIRST_SEQ = 9, FIELD_PREV_SEQ = 10, FIELD_TIME = 11, FIELD_SYMBOL = 12,
       FIELD_SIDE = 13, FIELD_BIDS = 14, FIELD_ASKS = 15, FIELD_COUNT = 16 };

/* What one message (or one element of it) says, before it becomes ticks. Text is valid as long as the frame is; the
 * symbol of a message that waits is its own `key`. */
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
    uint32_t ordinal;        /* which message of its frame it is of */
    uint16_t present;        /* bit per FIELD_*: has a value */
    uint16_t null;           /* bit per FIELD_*: explicitly has none */
    uint16_t message;        /* index into the program's messages */
    uint8_t flags;           /* FF_NOT_LAST by the conditions; once the side is known, FF_SELL if the aggressor sold */
    uint8_t counts;          /* it makes no tick, and only moves the numbers of its connection */
    uint8_t keyed;           /* `key` is told, of this symbol */
    uint64_t key[2];         /* its last sixteen bytes, zeros before them */
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
    uint32_t length;     /* of the value it was learned from */
} layout_step;

enum {
    LAYOUTS = 8, LAYOUT_STEPS = 64, LAYOUT_VALUES = 32, LAYOUT_COMMAS = 62, LAYOUT_LONGEST = 1024, LAYOUT_LEAD = 16,
    LAYOUT_PLACES = LAYOUT_COMMAS + 2 + 64, /* room for a whole word of commas too many */
    LAYOUT_AHEAD = 512 /* commas of an array that are found at a time, at least */
};

/* Where things lie in a frame, however long the values before them are: so many bytes from its nth comma. Comma 0
 * stands for the start of the frame, the one after the last for its end. */
typedef struct layout_places {
    FF_LINE int16_t bytes[LAYOUT_VALUES];
    uint8_t comma[LAYOUT_VALUES];
} layout_places;

enum { LAYOUT_MEMBERS = 32 };

/* One member of a flat object: what stands before its value (for one that is all literal: the whole of it), in which
 * value it ends up, and whether a quote stands behind that. */
typedef struct layout_member {
    FF_ALIGNED uint8_t literal[16]; /* left aligned */
    uint8_t mask[16];
    uint8_t size;
    uint8_t value, again;           /* LAYOUT_VALUES - 1: none; `again`: the second time of an odd one */
    uint8_t quote;                  /* the byte behind the value, 0 for a number */
    uint16_t exact;                 /* 0xFFFF: all literal */
} layout_member;

/* A layout in two forms: as steps, to be walked, and by places, where nothing waits for what is before it. A flat
 * object has a third: its members in any order, told apart by a hash of their first four bytes. */
typedef struct layout {
    layout_step step[LAYOUT_STEPS];
    uint32_t steps;
    uint16_t message;
    uint16_t present;
    uint16_t null;
    uint8_t flags;            /* of the conditions, which are literal */
    uint8_t commas;           /* of a frame of this layout; 255: it cannot be run by places */
    uint8_t enveloped;        /* its message stands in an envelope: it is of whole frames only */
    uint8_t early;            /* a vector of the frame it was learned from began before that */
    uint8_t padded;           /* a text of it is read with wide loads later: the frame must be padded */
    uint8_t checks;           /* how much literal text there is, in vectors */
    uint8_t values;           /* how many; prices and integers twice where their number is odd */
    uint8_t prices, integers, numbers, texts, truths; /* in this order */
    uint8_t symbol;           /* which value it is */
    uint8_t used;             /* since the hand of the set came by */
    uint8_t marked;           /* there are texts of time or side */
    layout_places check;      /* of its vector */
    layout_places from, to;   /* of the values; `to` of the vector that ends there */
    FF_LINE uint16_t longest[LAYOUT_VALUES]; /* longer ones are for layout_take */
    uint64_t late;            /* so are these: booleans, texts without quotes */
    uint8_t action[LAYOUT_VALUES], field[LAYOUT_VALUES], quoted[LAYOUT_VALUES], step_of[LAYOUT_VALUES];
    uint8_t members;          /* 0: no flat object, or they cannot be told apart */
    uint8_t which[LAYOUT_MEMBERS];
    uint32_t multiplier;
    layout_member member[LAYOUT_MEMBERS];
    FF_LINE struct { uint8_t literal[16], mask[16]; } text[LAYOUT_VALUES]; /* right aligned; four at a time */
} layout;

/* Exactly the n bytes at p as the inside of a string without escapes. */
static int layout_text(const char *p, uint32_t n) {
    const char *end = p + n;
    while (p < end) {
        int size = *p == '"' || *p == '\\' || (unsigned char)*p < 0x20 ? 0 : scan_utf8(p);
        if (!size) return 0;
        p += size;
    }
    return p == end;
}

/* The values a kernel leaves over: long, signed, with exponents, texts, booleans. 0: not what it should be. Reads
 * nothing behind the n bytes at p but up to the NUL at the frame's end. */
static int layout_take(uint8_t action, uint8_t field, int quoted, const char *p, uint32_t n, ff_fields *f) {
    int truth;
    switch (action) {
    case STEP_PRICE:
        return scan_price_general(p, n, &f->number[field]);
    case STEP_INTEGER:
        if (*p == '-' && field == FIELD_TIME - FIELD_SEQ) return 0; /* not even -0 is a time */
        return scan_integer(p, n, &f->integer[field]);
    case STEP_NUMBER:
        return scan_bare_number(p) == p + n;
    case STEP_BOOL:
        if (n == 4 && memcmp(p, "true", 4) == 0) truth = 1;
        else if (n == 5 && memcmp(p, "false", 5) == 0) truth = 0;
        else return 0;
        if (field == FIELD_SIDE) {
            f->side_text = NULL;
            f->side_size = (uint32_t)truth;
        }
        return 1;
    }
    if (quoted ? !layout_text(p, n) : scan_bare_number(p) != p + n) return 0;
    if (action == STEP_SYMBOL) {
        f->symbol = p;
        f->symbol_size = n;
    } else if (action == STEP_TIME_TEXT) {
        f->time_text = p;
        f->time_size = n;
    } else if (action == STEP_SIDE_TEXT) {
        f->side_text = p;
        f->side_size = n;
    }
    return 1;
}

/* An array whose elements are looked at one by one, and where its commas are from the element looked at on. */
typedef struct layout_array {
    const char *start, *end;              /* what may be read of its frame, and the frame's end */
    const char *base;                     /* what places count from; NULL: there are none yet */
    uint32_t next, count;                 /* of the places: the one in front of the element, and how many there are */
    uint16_t place[LAYOUT_AHEAD + 128];   /* room for one word of commas more, and for a vector that begins at the last */
} layout_array;

/* The layouts remembered. */
typedef struct layout_set {
    uint32_t count;
    uint32_t hand;                        /* where the next one goes that has not been `used` since it was there */
    uint32_t strangers;                   /* what layout_wanted goes by */
    uint32_t early;                       /* some of them have been early */
    layout *element;                      /* the latest right one for an element, or NULL */
    layout *likely[LAYOUT_COMMAS + 1];    /* by commas of the frame: the latest right one, or NULL */
    layout_array array;
    layout known[LAYOUTS];
    layout draft;                         /* the one being learned */
} layout_set;

/* An empty set at a cache line of the memory to be freed; NULL if there is none. */
static layout_set *layout_open(void **memory) {
    *memory = calloc(1, sizeof(layout_set) + 64);
    return *memory == NULL ? NULL : (layout_set *)(((uintptr_t)*memory + 63) & ~(uintptr_t)63);
}

/* Is one more layout to be learned? As long as there is room; then one in four, since learning costs as much as two
 * parses and where there are more layouts than room each would soon give way to the next. Which one in four follows no
 * pattern that frames could have. */
static inline int layout_wanted(layout_set *s) {
    s->strangers = s->strangers * 1664525u + 1013904223u;
    return s->count < LAYOUTS || s->strangers >> 30 == 0;
}

/* The draft is right: remember it. */
static void layout_keep(layout_set *s) {
    s->early |= s->draft.early;
    if (s->count < LAYOUTS) {
        s->known[s->count++] = s->draft;
        return;
    }
    while (s->known[s->hand].used) {
        s->known[s->hand].used = 0;
        s->hand = (s->hand + 1) % LAYOUTS;
    }
    s->known[s->hand] = s->draft;
}

/* Is the text from p to end of a layout remembered? Its values in f then; else 0, f worthless. The byte at `end` is
 * NUL. `lead`: how many bytes in front of p may be read; `padded`: FF_PADDING bytes from `end` on may be read, else
 * none behind the NUL. A frame shorter than FF_PADDING must be padded. */
typedef int (*layout_kernel)(layout_set *s, const char *p, const char *end, uint32_t lead, int padded, ff_fields *f);

/* Is the element of an array at p of a layout remembered? Its end then, its values in f; else NULL, f worthless. The
 * frame is padded, and layout_begin was called for it. */
typedef const char *(*layout_element_kernel)(layout_set *s, const char *p, ff_fields *f);

static inline void layout_begin(layout_set *s, const char *start, const char *end) {
    s->array.start = start;
    s->array.end = end;
    s->array.base = NULL;
}

static inline void layout_fill(layout *l, ff_fields *f) {
    f->present = l->present;
    f->null = l->null;
    f->flags = l->flags;
    f->message = l->message;
    l->used = 1;
}

static inline int layout_hit(layout_set *s, layout *l, uint32_t commas, ff_fields *f) {
    layout_fill(l, f);
    s->likely[commas] = l;
    return 1;
}

/* Does the literal text of a step stand at p? */
FF_INLINE int layout_stands(const layout_step *s, const char *p, int simd) {
    return simd ? (scan_same16(p, s->literal) & s->mask) == s->mask : memcmp(p, s->literal, s->size) == 0;
}

/* Could an element be of this layout, by its first bytes? */
FF_INLINE int layout_begins(const layout *l, const char *p, int simd) {
    return !l->enveloped && layout_stands(l->step, p, simd);
}

/* One layout step by step, for kernels without places: what follows it, or NULL. Wants the frame padded. */
FF_INLINE const char *layout_walk(const layout *l, const char *p, ff_fields *f, int simd) {
    const layout_step *s = l->step, *last = s + l->steps;
    f->keyed = 0;
    for (; s < last; s++) {
        const char *q;
        if (!layout_stands(s, p, simd)) return NULL;
        p += s->size;
        if (s->action == STEP_LITERAL) continue;
        q = scan_until(p, (char)s->stop[0], simd);
        if (simd && s->action == STEP_PRICE && q - p < 16 &&
            scan_price(p, (uint32_t)(q - p), &f->number[s->field], 1)) {
            p = q;
            continue;
        }
        if (!layout_take(s->action, s->field, s->stop[0] == '"', p, (uint32_t)(q - p), f)) return NULL;
        p = q;
    }
    return p;
}

FF_INLINE int layout_find(
    layout_set *s, const char *p, const char *end, int padded, ff_fields *f, int simd) {
    layout *l = s->likely[0];
    if (!padded) return 0;
    if (l != NULL && layout_walk(l, p, f, simd) == end) return layout_hit(s, l, 0, f);
    for (l = s->known; l < s->known + s->count; l++)
        if (l != s->likely[0] && layout_walk(l, p, f, simd) == end) return layout_hit(s, l, 0, f);
    return 0;
}

static int layout_find_scalar(
    layout_set *s, const char *p, const char *end, uint32_t lead, int padded, ff_fields *f) {
    (void)lead;
    return layout_find(s, p, end, padded, f, 0);
}

/* A layout_element_kernel for those without places. */
FF_INLINE const char *layout_element(layout_set *s, const char *p, ff_fields *f, int simd) {
    for (uint32_t i = 0; i <= s->count; i++) { /* the latest right one first */
        layout *l = i ? s->known + i - 1 : s->element;
        const char *q;
        if (l == NULL || (i && l == s->element) || !layout_begins(l, p, simd)) continue;
        if ((q = layout_walk(l, p, f, simd)) == NULL) continue;
        layout_fill(l, f);
        s->element = l;
        return q;
    }
    return NULL;
}

static const char *layout_element_scalar(layout_set *s, const char *p, ff_fields *f) {
    return layout_element(s, p, f, 0);
}

#if defined(FF_HAS_SSE2)

/* What to do with the right aligned text of a number: sixteen of them for each character of it, one for each byte
 * behind its last point (15: there is none). Length 16 stands for all that is left to layout_take: its digits are 0. */
typedef struct layout_shape {
    uint8_t shuffle[16]; /* which byte goes where so that the digits stand right aligned without the point */
    uint8_t padded[16];  /* has a zero where none of those digits may be one */
    double divisor;
    double unused[3];    /* a cache line each */
} layout_shape;

static FF_LINE layout_shape LAYOUT_SHAPE[17 * 16];
/* The shuffle of each shape where there is none: which bytes stay, which come from the byte before. */
static FF_ALIGNED struct { uint8_t stay[16], come[16]; } LAYOUT_SLIDES[17 * 16];
/* Masks of the last bytes of a vector (at n: of n), of the first (at 16 - n), shuffles that move them up (likewise). */
static uint8_t LAYOUT_LAST[32], LAYOUT_FIRST[32], LAYOUT_SLIDE[32];
static FF_LINE uint8_t LAYOUT_BYTES[64];  /* 0, 1, 2 ... */

static void layout_prepare(void) {
    memset(LAYOUT_LAST + 16, 0xFF, 16);
    memset(LAYOUT_FIRST, 0xFF, 16);
    memset(LAYOUT_SLIDE, 0x80, 16);
    for (int i = 0; i < 16; i++) LAYOUT_SLIDE[16 + i] = (uint8_t)i;
    for (int i = 0; i < 64; i++) LAYOUT_BYTES[i] = (uint8_t)i;
    for (int n = 0; n <= 16; n++)
        for (int behind = 0; behind < 16; behind++) {
            layout_shape *s = &LAYOUT_SHAPE[16 * n + behind];
            /* a point in first or last place is left in, and so found to be no digit */
            int taken_out = n < 16 && behind > 0 && behind < n - 1;
            int whole = taken_out ? n - 1 - behind : n, digits = n - taken_out;
            for (int i = 0; i < 16; i++) {
                int j = i - (16 - digits); /* the digit that goes here */
                s->shuffle[i] = n == 16 || j < 0 ? 0x80 : (uint8_t)(16 - n + j + (taken_out && j >= whole));
                LAYOUT_SLIDES[16 * n + behind].stay[i] = s->shuffle[i] == i ? 0xFF : 0;
                LAYOUT_SLIDES[16 * n + behind].come[i] = s->shuffle[i] == i - 1 ? 0xFF : 0;
                s->padded[i] = n == 0 || (n < 16 && j == 0 && whole > 1) ? 0 : 0xFF;
            }
            s->divisor = SCAN_POWER[taken_out ? behind : 0];
        }
}

typedef struct layout_span {
    uint8_t action, field, quoted, from_comma, to_comma, step;
    int16_t from_bytes, to_bytes;
} layout_span;

static int layout_put(layout *l, uint32_t i, const layout_span *v) {
    if (i >= LAYOUT_VALUES) return 0;
    l->from.comma[i] = v->from_comma;
    l->from.bytes[i] = v->from_bytes;
    l->to.comma[i] = v->to_comma;
    l->to.bytes[i] = (int16_t)(v->to_bytes - 16);
    l->action[i] = v->action;
    l->field[i] = v->field;
    l->quoted[i] = v->quoted;
    l->step_of[i] = v->step;
    if (v->action == STEP_PRICE || v->action == STEP_INTEGER || v->action == STEP_NUMBER) l->longest[i] = 15;
    else if (v->quoted) l->longest[i] = 16;
    else l->late |= 1ull << i;
    return 1;
}

static void layout_loosen(layout *l);

/* Derive the form by places from the steps. A frame that has more of anything than there is room for does without. */
static void layout_arrange(layout *l) {
    static const uint8_t ORDER[] = {STEP_PRICE, STEP_INTEGER, STEP_NUMBER, STEP_TEXT, STEP_BOOL};
    layout_span found[LAYOUT_STEPS], *v = found;
    char text[16 * LAYOUT_STEPS];
    uint32_t i, k, size = 0, values = 0, comma = 0, spans = 0;
    uint32_t so_far = 0; /* bytes of the frame it is learned from */
    uint8_t *counts[] = {&l->prices, &l->integers, &l->numbers, &l->texts, &l->truths};
    l->commas = 255;
    l->checks = l->early = l->marked = l->members = 0;
    memset(&l->check, 0, sizeof l->check);
    memset(&l->from, 0, sizeof l->from);
    memset(&l->to, 0, sizeof l->to);
    memset(l->longest, 0xFF, sizeof l->longest);
    l->late = 0;
    for (i = 0; i < l->steps; i++) {
        const layout_step *s = &l->step[i];
        int is_last = i + 1 == l->steps;
        uint32_t at;
        int16_t bytes;
        memcpy(text + size, s->literal, s->size);
        size += s->size;
        if (s->action == STEP_LITERAL && !is_last) continue;
        /* one whole literal: it ends the value before it and begins the next */
        for (k = 0; k < size && text[k] != ','; k++) {}
        if (values) {
            if (k == size && !is_last) return; /* JSON has a comma between any two values */
            found[values - 1].to_comma = (uint8_t)(comma + 1);
            found[values - 1].to_bytes = (int16_t)-(int)k;
        }
        bytes = (int16_t)size;
        for (k = 0; k < size; k++)
            if (text[k] == ',') {
                comma++;
                bytes = (int16_t)(size - k);
            }
        if (comma > LAYOUT_COMMAS) return;
        at = comma + (uint32_t)is_last;
        if (is_last) bytes = 0;
        if (!values) { /* the first begins where the frame does */
            at = 0;
            bytes = (int16_t)size;
        }
        so_far += size;
        for (k = 0; k < size; k += 16) {
            uint32_t end = size - k < 16 ? size : k + 16, m = end < 16 ? end : 16;
            uint32_t skip = so_far < 16 && !values ? 0 : 16 - m; /* nothing in front of the frame: to the left */
            if (l->checks == LAYOUT_VALUES) return;
            memset(&l->text[l->checks], 0, sizeof l->text[0]);
            memcpy(l->text[l->checks].literal + skip, text + end - m, m);
            memset(l->text[l->checks].mask + skip, 0xFF, m);
            l->check.comma[l->checks] = (uint8_t)at;
            l->check.bytes[l->checks] = (int16_t)(bytes - (int)(size - end) - (int)(skip + m));
            l->early |= so_far - (size - end) < skip + m;
            l->checks++;
        }
        if (is_last) break;
        v = &found[values++];
        v->step = (uint8_t)i;
        v->from_comma = (uint8_t)at;
        v->from_bytes = bytes;
        v->action = s->action;
        v->field = s->field;
        v->quoted = s->stop[0] == '"';
        so_far += s->length;
        l->early |= so_far < 16;
        size = 0;
    }
    for (i = 1; i < values; i++) /* prices in the order of their fields: neighbours are stored together */
        for (k = i; k > 0 && found[k - 1].field > found[k].field; k--) {
            layout_span swap = found[k];
            found[k] = found[k - 1];
            found[k - 1] = swap;
        }
    for (k = 0; k < sizeof ORDER; k++) {
        *counts[k] = 0;
        for (i = 0; i < values; i++) {
            layout_span *now = &found[i];
            int is_marked = now->action == STEP_TIME_TEXT || now->action == STEP_SIDE_TEXT;
            if ((is_marked || now->action == STEP_SYMBOL ? STEP_TEXT : now->action) != ORDER[k]) continue;
            if (now->action == STEP_SYMBOL) l->symbol = (uint8_t)spans;
            l->marked |= is_marked;
            v = now;
            if (!layout_put(l, spans++, v)) return;
            ++*counts[k];
        }
        /* the last of an odd number is done twice, so that two at a time are */
        if (k < 2 && *counts[k] % 2) {
            if (!layout_put(l, spans++, v)) return;
            ++*counts[k];
        }
    }
    for (; l->checks % 4; l->checks++) memset(&l->text[l->checks], 0, sizeof l->text[0]);
    l->values = (uint8_t)spans;
    if (l->prices <= FIELD_NUMBERS && l->integers <= 4) {
        l->commas = (uint8_t)comma;
        layout_loosen(l);
    }
}

/* Find the multiplier that gives every member its own place in `which`. */
static int layout_tell_apart(layout *l) {
    uint32_t first[LAYOUT_MEMBERS], multiplier = 0x9E3779B1u;
    for (uint32_t i = 0; i < l->members; i++) memcpy(&first[i], l->member[i].literal, 4);
    for (int tries = 0; tries < 1000; tries++, multiplier = multiplier * 1664525u + 1013904223u) {
        uint32_t taken = 0, i;
        for (i = 0; i < l->members; i++) {
            const uint32_t at = first[i] * (multiplier | 1) >> 27;
            if (taken >> at & 1) break;
            taken |= 1u << at;
            l->which[at] = (uint8_t)i;
        }
        if (i == l->members) {
            l->multiplier = multiplier | 1;
            return 1;
        }
    }
    return 0;
}

/* Derive the third form: cut the frame at its commas. Only whole members (`"key":` and a value, no container inside)
 * may change places. */
static void layout_loosen(layout *l) {
    uint8_t text[16];
    uint32_t size = 0, quotes = 0, value = LAYOUT_STEPS, members = 0;
    int colon = 0;
    l->members = 0;
    memset(l->which, 0, sizeof l->which);
    for (uint32_t i = 0; i < l->steps; i++) {
        const layout_step *s = &l->step[i];
        for (uint32_t k = 0; k < s->size; k++) {
            const uint8_t c = s->literal[k];
            const int is_last = i + 1 == l->steps && k + 1 == s->size;
            if (i == 0 && k == 0) {
                if (c != '{') return;
                continue;
            }
            if (c == ',' || is_last) {
                layout_member *m = &l->member[members];
                if (is_last && c != '}') return;
                if (members == LAYOUT_MEMBERS || !colon || quotes % 2 || size < 4) return;
                memset(m, 0, sizeof *m);
                m->exact = value == LAYOUT_STEPS ? 0xFFFF : 0;
                m->quote = !m->exact && quotes == 4 ? '"' : 0;
                m->size = (uint8_t)size;
                m->value = m->again = LAYOUT_VALUES - 1;
                memcpy(m->literal, text, size);
                memset(m->mask, 0xFF, size);
                for (uint32_t v = 0; v < l->values; v++)
                    if (!m->exact && l->step_of[v] == value) {
                        if (m->value == LAYOUT_VALUES - 1) m->value = (uint8_t)v;
                        else m->again = (uint8_t)v;
                    }
                members++;
                size = quotes = 0;
                colon = 0;
                value = LAYOUT_STEPS;
                continue;
            }
            if (c == '{' || c == '}' || c == '[' || c == ']' || (size == 0 && c != '"')) return;
            quotes += c == '"';
            colon |= c == ':' && quotes == 2;
            if (value != LAYOUT_STEPS) {
                if (c != '"' || quotes != 4) return; /* behind a value there is nothing but its quote */
            } else {
                if (size == 16) return;
                text[size++] = c;
            }
        }
        if (s->action != STEP_LITERAL) value = i;
    }
    l->members = (uint8_t)members;
    if (l->values >= LAYOUT_VALUES || !layout_tell_apart(l)) l->members = 0;
}

/* The places of a layout that has too many for one vector of them. */
static void layout_locate(const layout_places *want, uint32_t n, const uint16_t *place, uint16_t *out) {
    for (uint32_t i = 0; i < n; i++) out[i] = (uint16_t)(place[want->comma[i]] + want->bytes[i]);
}

#define FF_KERNEL(name) layout_##name##_sse2
#define FF_TARGET
#include "layout_run.h"
#undef FF_KERNEL
#undef FF_TARGET

#if defined(__GNUC__)
#include <smmintrin.h>
#define FF_SSE4 1
#define FF_KERNEL(name) layout_##name##_sse4
#define FF_TARGET __attribute__((target("sse4.2,popcnt")))
#include "layout_run.h"
#undef FF_KERNEL
#undef FF_TARGET
#include <immintrin.h>
#define FF_AVX512 1
#define FF_KERNEL(name) layout_##name##_avx512
#define FF_TARGET __attribute__((target("avx2,avx512f,avx512bw,avx512vl,avx512vbmi2,bmi,lzcnt,popcnt")))
#include "layout_run.h"
#undef FF_KERNEL
#undef FF_TARGET
#undef FF_AVX512
#undef FF_SSE4
#endif

#else
static void layout_prepare(void) {}
static void layout_arrange(layout *l) { l->commas = 255; }
#if defined(FF_HAS_NEON)
static int layout_find_neon(
    layout_set *s, const char *p, const char *end, uint32_t lead, int padded, ff_fields *f) {
    (void)lead;
    return layout_find(s, p, end, padded, f, 1);
}
static const char *layout_element_neon(layout_set *s, const char *p, ff_fields *f) {
    return layout_element(s, p, f, 1);
}
#endif
#endif

/* The kernels this build and machine have, best first, ended by NULL. */
typedef struct layout_choice {
    const char *name;
    layout_kernel find;
    layout_element_kernel element;
    int in_place; /* it takes frames that are not padded */
} layout_choice;

static const layout_choice *layout_kernels(void) {
    static layout_choice found[6];
    layout_choice *next = found;
    if (found[0].name) return found;
    layout_prepare();
#if defined(FF_HAS_SSE2) && defined(__GNUC__)
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vbmi2"))
        *next++ = (layout_choice){"avx512", layout_find_avx512, layout_element_avx512, 1};
    if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt"))
        *next++ = (layout_choice){"sse4", layout_find_sse4, layout_element_sse4, 1};
#endif
#if defined(FF_HAS_SSE2)
    *next++ = (layout_choice){"sse2", layout_find_sse2, layout_element_sse2, 1};
#elif defined(FF_HAS_NEON)
    *next++ = (layout_choice){"neon", layout_find_neon, layout_element_neon, 0};
#endif
    *next = (layout_choice){"scalar", layout_find_scalar, layout_element_scalar, 0};
    return found;
}

#endif
