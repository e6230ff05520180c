"""Predicted layouts: what layout.h offers to the decoder. Declarations only; the rules stand in layout.h."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t


cdef extern from "layout.h" nogil:
    enum:
        FIELD_NUMBERS, FIELD_SEQ, FIELD_FIRST_SEQ, FIELD_PREV_SEQ, FIELD_SYMBOL, FIELD_TIME
        FIELD_SIDE, FIELD_BIDS, FIELD_ASKS, FIELD_COUNT
    enum:
        STEP_LITERAL, STEP_PRICE, STEP_INTEGER, STEP_TEXT, STEP_NUMBER, STEP_BOOL
    enum:
        LAYOUT_STEPS
    ctypedef struct ff_fields:
        double number[8]
        int64_t integer[3]
        int64_t event_ns
        const char* text[3]
        uint32_t size[3]
        uint32_t level[2]
        uint32_t levels[2]
        uint16_t present
        uint16_t null
        uint16_t message
        uint8_t sell
    ctypedef struct layout_step:
        uint8_t literal[16]
        uint16_t mask
        uint8_t size
        uint8_t action
        uint8_t stop
        uint8_t field
    ctypedef struct layout:
        layout_step step[64]
        uint32_t steps
        uint16_t message
        uint16_t present
        uint16_t null
    bint layout_run(const layout* l, const char* p, const char* end, ff_fields* f, bint simd)
