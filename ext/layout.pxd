"""Predicted layouts: what layout.h offers to the decoder. Declarations only; the rules stand in layout.h."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "layout.h" nogil:
    enum:
        FIELD_NUMBERS, FIELD_SEQ, FIELD_FIRST_SEQ, FIELD_PREV_SEQ, FIELD_TIME, FIELD_SYMBOL
        FIELD_SIDE, FIELD_BIDS, FIELD_ASKS, FIELD_COUNT
    enum:
        STEP_LITERAL, STEP_PRICE, STEP_INTEGER, STEP_SYMBOL, STEP_TEXT
        STEP_NUMBER, STEP_TIME_TEXT, STEP_SIDE_TEXT, STEP_BOOL
    enum:
        LAYOUT_STEPS, LAYOUT_LEAD, LAYOUT_LONGEST
    ctypedef struct ff_fields:
        double number[8]
        int64_t integer[4]
        int64_t event_ns
        const char* symbol
        const char* time_text
        const char* side_text
        uint32_t symbol_size
        uint32_t time_size
        uint32_t side_size
        uint32_t level[2]
        uint32_t levels[2]
        uint32_t ordinal
        uint16_t present
        uint16_t null
        uint16_t message
        uint8_t flags
        uint8_t counts
        uint8_t keyed
        uint64_t key[2]
    ctypedef struct layout_step:
        uint8_t literal[16]
        uint8_t stop[16]
        uint16_t mask
        uint8_t size
        uint8_t action
        uint8_t field
        uint32_t length
    ctypedef struct layout:
        layout_step step[64]
        uint32_t steps
        uint16_t message
        uint16_t present
        uint16_t null
        uint8_t flags
        uint8_t enveloped
        uint8_t padded
    ctypedef struct layout_set:
        uint32_t count
        uint32_t early
        layout draft
    ctypedef int (*layout_kernel)(
        layout_set* s, const char* p, const char* end, uint32_t lead, bint padded, ff_fields* f) noexcept nogil
    ctypedef int (*layout_glance)(
        layout_set* s, const char* p, const char* end, bint padded, ff_fields* f) noexcept nogil
    ctypedef const char* (*layout_element_kernel)(layout_set* s, const char* p, ff_fields* f) noexcept nogil
    ctypedef struct layout_choice:
        const char* name
        layout_glance glance
        layout_kernel find
        layout_element_kernel element
        bint in_place
    layout_set* layout_open(void** memory)
    void layout_begin(layout_set* s, const char* start, const char* end)
    bint layout_wanted(layout_set* s)
    void layout_keep(layout_set* s)
    void layout_arrange(layout* l)
    const layout_choice* layout_kernels()
