/* The forms of a layout, derived from its steps once it has been learned: by places, for registers, its members in any
 * order. Reads no frame; a part of layout.h, which says what the forms are. A layout that has more of anything than a
 * form has room for does without that form. */
#ifndef FF_LAYOUT_FORMS_H
#define FF_LAYOUT_FORMS_H

#include "layout.h"

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
static void layout_widen(layout *l);

/* Derive the form by places, and the others from it. */
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
        layout_widen(l);
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

/* Derive the form in any order: cut the frame at its commas. Only whole members (`"key":` and a value, no container
 * inside) may change places. */
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

/* Vectors for a field, none of them used: behind those there are. */
static layout_lanes *layout_lanes_add(layout_lanes *all, uint32_t *count, uint8_t field) {
    layout_lanes *a = &all[(*count)++];
    memset(a, 0, sizeof *a);
    memset(a->behind, 0xFF, sizeof a->behind);
    memset(a->limit, 0xFF, sizeof a->limit);
    a->field = field;
    return a;
}

/* One of them for the value v: the `back`th sixteen bytes from its end. */
static void layout_lane(const layout *l, layout_lanes *a, uint32_t lane, uint32_t v, int back, uint32_t limit) {
    for (int i = 0; i < 16; i++) {
        const uint32_t j = 16 * lane + (uint32_t)i;
        a->from[j] = l->from.comma[v];
        a->to[j] = l->to.comma[v];
        a->bytes[j] = (uint8_t)(l->to.bytes[v] + i - 16 * back);
        a->size[j] = (uint8_t)(l->to.bytes[v] + 16 - l->from.bytes[v]);
        a->behind[j] = (uint8_t)(15 - i + 16 * back);
        a->limit[j] = (uint8_t)limit;
    }
    a->used |= (uint8_t)(1u << lane);
}

/* A number: in the place of its field, or where there is one if nobody wants it. */
static int layout_widen_number(layout *l, uint32_t v) {
    layout_wide *w = &l->wide;
    layout_lanes *a = w->number, *end = a + w->numbers;
    const uint8_t field = l->action[v] == STEP_PRICE ? l->field[v] & 4 : FIELD_SEQ;
    uint32_t lane = l->field[v] & 3;
    if (l->action[v] == STEP_NUMBER) {
        while (a < end && a->used == 15) a++;
        if (a == w->number + WIDE_NUMBERS) return 0;
        if (a == end) a = layout_lanes_add(w->number, &w->numbers, FIELD_COUNT);
        lane = (uint32_t)ff_ctz(~a->used & 15u);
    } else {
        while (a < end && a->field != field) a++;
        if (a == end) a = layout_lanes_add(w->number, &w->numbers, field);
    }
    layout_lane(l, a, lane, v, 0, 15);
    a->ends |= 0x8000ull << 16 * lane;
    if (l->action[v] == STEP_INTEGER) a->whole |= 0xFFFFull << 16 * lane;
    return 1;
}

/* A text or boolean, behind those there are. */
static int layout_widen_text(layout *l, uint32_t v, uint32_t length) {
    layout_wide *w = &l->wide;
    layout_lanes *a = &w->text[w->texts ? w->texts - 1 : 0];
    const uint32_t lanes = length > 16 ? 2 : 1;
    const int truth = l->action[v] == STEP_BOOL;
    if (!w->texts || a->used >> (4 - lanes)) {
        if (w->texts == WIDE_TEXTS) return 0;
        a = layout_lanes_add(w->text, &w->texts, l->action[v] == STEP_SYMBOL ? FIELD_SYMBOL : FIELD_COUNT);
    }
    for (uint32_t back = 0; back < lanes; back++) {
        const uint32_t lane = (uint32_t)ff_ctz(~a->used & 15u);
        layout_lane(l, a, lane, v, (int)back, truth ? 5 : 16 * lanes);
        a->truths |= (uint8_t)((uint32_t)truth << lane);
        a->side |= (uint8_t)((uint32_t)(truth && l->field[v] == FIELD_SIDE) << lane);
    }
    return 1;
}

/* Derive the form for frames in registers. */
static void layout_widen(layout *l) {
    static const uint8_t ORDER[] = {STEP_PRICE, STEP_INTEGER, STEP_NUMBER, STEP_SYMBOL, STEP_TEXT, STEP_BOOL};
    layout_wide *w = &l->wide;
    uint32_t count = 0, i, k;
    int reach = 0;
    w->longest = 0;
    w->numbers = w->texts = 0;
    for (i = 0; i < 16 * l->checks; i++) {
        const int bytes = l->check.bytes[i / 16] + (int)(i % 16), far = bytes < 0 ? -bytes : bytes;
        layout_bytes *b = &w->literal[count / 64];
        const uint32_t at = count % 64;
        if (!l->text[i / 16].mask[i % 16]) continue;
        if (count == 64 * WIDE_LITERALS || far > WIDE_REACH) return;
        if (at == 0) memset(b, 0, sizeof *b);
        b->comma[at] = l->check.comma[i / 16];
        b->bytes[at] = (uint8_t)bytes;
        b->text[at] = l->text[i / 16].literal[i % 16];
        b->mask |= 1ull << at;
        if (far > reach) reach = far;
        count++;
    }
    w->literals = (count + 63) / 64;
    w->late = (1ull << l->values) - 1;
    for (k = 0; k < sizeof ORDER; k++)
        for (i = 0; i < l->values; i++) {
            const uint32_t length = l->step[l->step_of[i]].length;
            if (l->action[i] != ORDER[k]) continue;
            if (k < 3 ? length < 16 && layout_widen_number(l, i) :
                length <= 32 && (l->quoted[i] || k == 5) && layout_widen_text(l, i, length)) w->late &= ~(1ull << i);
        }
    w->longest = 255 - reach;
}

#endif
