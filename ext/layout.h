/* Predicted layouts: a frame whose shape has been seen before is verified by vector compares and converted on the
 * way, without being parsed. Exchanges send the same keys in the same order millions of times.
 *
 * A layout is learned only from a frame or element the strict parser accepted, without escapes or repeated keys.
 * Running one proves the same strictness (every byte is either literal text of that frame or inside a value that is
 * checked here), so a hit needs no parse; a miss says nothing. Whatever goes byte by byte stops behind a value: at the
 * literal text there, once that is known to be right, or else at the NUL behind the frame, which is in no value. */
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

/* Sixty-four bytes of literal text, and where each is: so many bytes from its nth comma. */
typedef struct layout_bytes {
    FF_LINE uint8_t comma[64], bytes[64], text[64];
    uint64_t mask;                    /* which of them there are */
} layout_bytes;

/* Four vectors, each of the sixteen bytes that end where a value does, or where its last sixteen begin. All is said for
 * each byte. */
typedef struct layout_lanes {
    FF_LINE uint8_t from[64], to[64]; /* the commas by which its value begins and ends */
    uint8_t bytes[64];                /* it is so many from the latter */
    uint8_t size[64];                 /* the value has so many more than lie between the two */
    uint8_t behind[64];               /* it is of the value if that has more than so many */
    uint8_t limit[64];                /* that may have so many */
    uint64_t ends, whole;             /* the last bit of each number; all bits of those that may have no point */
    uint8_t field;                    /* of the first number: 0, 4, FIELD_SEQ; of the first text; FIELD_COUNT: none */
    uint8_t used, truths, side;       /* a bit per vector: it is anything, a boolean, the side */
} layout_lanes;

enum {
    WIDE_LITERALS = 4, WIDE_NUMBERS = 8, WIDE_TEXTS = 2,
    WIDE_REACH = 100 /* from a comma: so a value that ended before it began, by twice as much, would seem too long */
};

/* A layout for frames that lie in registers: see layout_wide.h. */
typedef struct layout_wide {
    int32_t longest;                  /* frame, whose every place fits a byte; 0: none */
    uint32_t literals, numbers, texts;
    uint64_t late;                    /* values that are left to layout_take */
    layout_bytes literal[WIDE_LITERALS];
    layout_lanes number[WIDE_NUMBERS], text[WIDE_TEXTS];
} layout_wide;

/* A layout in its forms: as steps, to be walked; by places, where nothing waits for what is before it; for frames that
 * lie in registers; and a flat object's members in any order, told apart by a hash of their first four bytes. */
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
    layout_wide wide;
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

/* The values a kernel leaves over: long, signed, with exponents, texts, booleans. 0: not what it should be. Reads what
 * follows the n bytes at p as far as a value could go on, and of an integer eight bytes from p on. */
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
    int32_t widest;                       /* the longest frame that lies in registers for some of them */
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
    if (s->widest < s->draft.wide.longest) s->widest = s->draft.wide.longest;
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

/* Is the text of the layout that texts with as many commas had last? Its values in f then; else 0, f worthless. Nothing
 * around it is read, nor need a NUL follow; `padded` as above, for what is made of it. */
typedef int (*layout_glance)(layout_set *s, const char *p, const char *end, int padded, ff_fields *f);

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

static void layout_prepare(void) {
    memset(LAYOUT_LAST + 16, 0xFF, 16);
    memset(LAYOUT_FIRST, 0xFF, 16);
    memset(LAYOUT_SLIDE, 0x80, 16);
    for (int i = 0; i < 16; i++) LAYOUT_SLIDE[16 + i] = (uint8_t)i;
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

#include "layout_forms.h"

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
#include "layout_wide.h"
#define FF_AVX512 1
#define FF_KERNEL(name) layout_##name##_avx512
#define FF_TARGET FF_WIDE
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
    layout_glance glance; /* to be tried first; NULL: there is none */
    layout_kernel find;
    layout_element_kernel element;
    int in_place;         /* `find` takes frames that are not padded */
} layout_choice;

static const layout_choice *layout_kernels(void) {
    static layout_choice found[6];
    layout_choice *next = found;
    if (found[0].name) return found;
    layout_prepare();
#if defined(FF_HAS_SSE2) && defined(__GNUC__)
    if (wide_prepare())
        *next++ = (layout_choice){"avx512", wide_glance, layout_find_avx512, layout_element_avx512, 1};
    if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt"))
        *next++ = (layout_choice){"sse4", NULL, layout_find_sse4, layout_element_sse4, 1};
#endif
#if defined(FF_HAS_SSE2)
    *next++ = (layout_choice){"sse2", NULL, layout_find_sse2, layout_element_sse2, 1};
#elif defined(FF_HAS_NEON)
    *next++ = (layout_choice){"neon", NULL, layout_find_neon, layout_element_neon, 0};
#endif
    *next = (layout_choice){"scalar", NULL, layout_find_scalar, layout_element_scalar, 0};
    return found;
}

#endif
