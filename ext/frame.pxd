"""A frame's way to its messages: predicted or parsed, in its encoding, where it lies or in a copy.

No Python, no clock: the caller says when. Every frame is counted in exactly one of data, control, unknown, malformed.
What its messages come to is `decoder`'s.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from binary cimport binary_frame
from decoder cimport CREDIT, decoder, decoder_flush, decoder_ticks, decoder_wait
from json cimport json_element, json_fail, json_frame, json_learn, json_next
from layout cimport LAYOUT_LEAD, LAYOUT_LONGEST, ff_fields, layout_begin, layout_keep
from message cimport message_filled, message_open
from msgpack cimport msgpack_frame
from order cimport order_expect_frame
from scan cimport FF_PADDING, scan_space
from schema cimport ENCODING_BINARY, ENCODING_JSON
from slots cimport CONTROL, DATA, MALFORMED, UNKNOWN, slots, slots_begin, slots_control, slots_reset


cdef inline void frame_begin(decoder* d, int64_t recv_ns, int64_t mono_ns, uint16_t source) noexcept nogil:
    """Messages of frames that came otherwise wait no longer."""
    if d.slots.n_waiting:
        if d.recv_ns == recv_ns and d.mono_ns == mono_ns and d.source == source:
            return
        decoder_flush(d)
    slots_reset(&d.slots)
    d.recv_ns = recv_ns
    d.mono_ns = mono_ns
    d.source = source


cdef inline bint frame_glance(decoder* d, const char* p, const char* end, bint padded, bint simd) noexcept nogil:
    """Is the frame of the likely layout? What it says is behind those that wait then. Reads nothing around it."""
    cdef ff_fields* f = d.slots.fields
    f.time_text = NULL  # these two no layout says, also where frame_predict goes on
    f.counts = False
    return d.kernel.glance != NULL and d.kernel.glance(d.layouts, p, end, padded, f) and message_filled(
        &d.slots, &d.program.messages[f.message], f, simd)


cdef inline bint frame_predict(
    decoder* d, const char* p, const char* end, uint32_t lead, bint padded, bint simd
) noexcept nogil:
    """The same of any layout that is remembered. `lead`, `padded`: see layout_kernel."""
    cdef ff_fields* f = d.slots.fields
    return frame_glance(d, p, end, padded, simd) or (
        d.kernel.find(d.layouts, p, end, lead, padded, f)
        and message_filled(&d.slots, &d.program.messages[f.message], f, simd)
    )


cdef inline const char* frame_predict_element(decoder* d, const char* p, bint simd) noexcept nogil:
    """What follows the element at p if its layout is remembered, its tick added then; else NULL."""
    cdef slots* j = &d.slots
    cdef ff_fields* f = message_open(j, 0)
    cdef const char* q
    if f == NULL:
        return NULL
    q = d.kernel.element(d.layouts, p, f)
    if q == NULL or not message_filled(j, &d.program.messages[f.message], f, simd):
        return NULL
    j.messages += 1
    f.ordinal = j.messages
    j.n_fields += 1
    return q


cdef inline void frame_missed(decoder* d) noexcept nogil:
    """A frame had to be parsed: prediction rests for a while after too many in a row."""
    if d.credit < 0:
        d.credit += 1
    elif d.layouts.count:
        d.credit -= 1
        if d.credit < 0:
            d.credit = -16 * CREDIT


cdef inline int frame_parse(decoder* d, const char* p, const char* end, bint simd) noexcept nogil:
    """The strict way, learning the frame's layout while prediction is worth it."""
    cdef int verdict
    d.slots.trace = d.trace if d.credit >= 0 else NULL
    verdict = json_frame(&d.slots, p, end, simd)
    if d.slots.trace != NULL and verdict == DATA and json_learn(&d.slots, 0, p, end, False, d.layouts):
        layout_keep(d.layouts)
    frame_missed(d)
    return verdict


cdef inline int frame_batch_as(decoder* d, const char* p, const char* end, uint32_t lead, bint simd) noexcept nogil:
    """A frame that is an array, each element a message, predicted or parsed; the highest verdict, or MALFORMED.

    Nothing is made of any before all have been read.
    """
    cdef slots* j = &d.slots
    cdef uint32_t before, predicted = 0
    cdef bint is_tried = d.credit >= 0
    cdef int best = UNKNOWN
    cdef int one
    cdef const char* q
    slots_begin(j)
    layout_begin(d.layouts, p - lead, end)
    p = scan_space(p + 1)
    while p[0] != b"]":
        q = frame_predict_element(d, p, simd) if is_tried else NULL
        one = DATA
        if q != NULL:
            predicted += 1
        else:
            before = j.n_fields
            j.trace = d.trace if is_tried else NULL
            q = json_element(j, p, &one, simd)
            if q == NULL:
                return MALFORMED
            if j.trace != NULL and one == DATA and json_learn(j, before, p, q, True, d.layouts):
                layout_keep(d.layouts)
        best = max(best, one)
        p = json_next(j, q, b"]")
        if p == NULL:
            return MALFORMED
    p = scan_space(p + 1)
    if p != end:
        json_fail(j, p)
        return MALFORMED
    d.predicted += predicted
    if predicted:
        d.credit = CREDIT
    else:
        frame_missed(d)
    if j.failed:
        j.n_fields = 0
        return UNKNOWN
    return best


cdef inline int frame_batch(decoder* d, const char* p, const char* end, uint32_t lead) noexcept nogil:
    if d.simd:
        return frame_batch_as(d, p, end, lead, True)
    return frame_batch_as(d, p, end, lead, False)


cdef inline int frame_as(
    decoder* d, const char* p, const char* end, uint32_t lead, int64_t recv_ns, int64_t mono_ns, uint16_t source,
    bint simd
) noexcept nogil:
    """One padded frame (scan.h) through everything; its verdict.

    Its control messages stay in `slots.controls` until the next frame.
    """
    cdef bint is_batch = p[0] == b"[" and not d.program.positional
    cdef int verdict
    if d.credit >= 0 and not is_batch and frame_predict(d, p, end, lead, True, simd):
        decoder_wait(d)
        return DATA
    if is_batch:
        verdict = d.batch(d, p, end, lead)
    else:
        verdict = frame_parse(d, p, end, simd)
    if verdict == MALFORMED and d.program.plains and frame_plain(d, p, end):
        verdict = CONTROL
    return frame_settle(d, verdict, recv_ns, mono_ns, source)


cdef inline bint frame_plain(decoder* d, const char* p, const char* end) noexcept nogil:
    """Is this text, which is no JSON, one of those that are control all the same?"""
    cdef const char* t = d.program.plain
    cdef uint32_t _i, n
    for _i in range(d.program.plains):
        n = 0
        while t[n]:
            n += 1
        if n == end - p and memcmp(t, p, n) == 0:
            d.slots.messages = 1
            d.slots.n_fields = d.slots.n_controls = 0  # of what was read before it proved to be no JSON
            return slots_control(&d.slots, p, end)
        t += n + 1
    return False


cdef inline int frame_other(
    decoder* d, const char* p, const char* end, int64_t recv_ns, int64_t mono_ns, uint16_t source
) noexcept nogil:
    """One padded frame that is not text, in the encoding of the schema; its verdict."""
    cdef int verdict
    if d.program.encoding == ENCODING_BINARY:
        verdict = binary_frame(&d.slots, p, end, d.simd)
    else:
        verdict = msgpack_frame(&d.slots, d.plans, p, end, d.simd)
    return frame_settle(d, verdict, recv_ns, mono_ns, source)


cdef inline bint frame_is_one(const decoder* d, int verdict) noexcept nogil:
    """Is all that the frame came to one plain quote?"""
    cdef const slots* j = &d.slots
    return (
        verdict == DATA and j.n_fields == 1 and j.messages == 1 and not j.n_controls and not j.fields.counts
        and d.program.messages[j.fields.message].straight
    )


cdef inline int frame_settle(
    decoder* d, int verdict, int64_t recv_ns, int64_t mono_ns, uint16_t source
) noexcept nogil:
    """Count a frame that was parsed and make ticks of what it holds, at once or with those behind it; its verdict."""
    cdef const ff_fields* f = d.slots.fields
    if frame_is_one(d, verdict):
        d.n_parsed += 1
        decoder_wait(d)
        return DATA
    decoder_flush(d)
    d.frames += 1
    if verdict == MALFORMED:
        d.slots.n_controls = 0
        d.malformed += 1
        return MALFORMED
    d.streams.before = <uint32_t>d.messages
    d.messages += d.slots.messages
    if verdict == DATA:
        d.data += 1
    elif verdict == CONTROL:
        d.control += 1
    else:
        d.unknown += 1
    if d.slots.n_fields:
        decoder_ticks(d, f, d.slots.n_fields, recv_ns, mono_ns, source)
    if d.watch.on:
        d.end_shared(d, f, d.slots.n_fields, recv_ns, mono_ns)
    return verdict


cdef inline int frame_read(
    decoder* d, const char* p, const char* end, uint32_t lead, int64_t recv_ns, int64_t mono_ns, uint16_t source,
    bint text
) noexcept nogil:
    """The parser and its kernel are chosen here, once per frame. `text`: it is JSON, whatever the schema's encoding."""
    frame_begin(d, recv_ns, mono_ns, source)
    if d.program.encoding != ENCODING_JSON and not text:
        return frame_other(d, p, end, recv_ns, mono_ns, source)
    if d.simd:
        return frame_as(d, p, end, lead, recv_ns, mono_ns, source, True)
    return frame_as(d, p, end, lead, recv_ns, mono_ns, source, False)


cdef inline int frame_in_place(
    decoder* d, char* p, size_t size, size_t readable, int64_t recv_ns, int64_t mono_ns, uint16_t source, bint text
) noexcept nogil:
    """A frame in a buffer, where `readable` bytes behind it may be read and written meanwhile, and none in front of it.

    Usually a glance is enough. Else the byte behind it is lent to the NUL, or the frame is copied: where less than
    FF_PADDING is readable, and where a layout wants to read in front of it, unless it is long.
    """
    cdef char behind
    cdef int verdict
    order_expect_frame(p + size + 64)  # the next one, most likely; its first bytes came with the last of this
    if d.credit >= 0 and (text or d.program.encoding == ENCODING_JSON):
        frame_begin(d, recv_ns, mono_ns, source)
        if frame_glance(d, p, p + size, False, True):
            decoder_wait(d)
            return DATA
    if readable < FF_PADDING or (d.layouts.early and d.kernel.in_place and size <= LAYOUT_LONGEST):
        return frame_copied(d, p, size, recv_ns, mono_ns, source, text)
    behind = p[size]
    p[size] = 0
    verdict = frame_read(d, p, p + size, 0, recv_ns, mono_ns, source, text)
    p[size] = behind
    return verdict


cdef inline int frame_led(
    decoder* d, const char* p, size_t size, int64_t recv_ns, int64_t mono_ns, uint16_t source, bint text
) noexcept nogil:
    """A frame with LAYOUT_LEAD readable bytes in front of it and a NUL behind, beyond which nothing may be read.

    It is copied only if it has to be parsed.
    """
    cdef bint is_json = text or d.program.encoding == ENCODING_JSON
    if d.credit >= 0 and is_json and p[0] != b"[" and size >= FF_PADDING and d.kernel.in_place:
        frame_begin(d, recv_ns, mono_ns, source)
        if frame_predict(d, p, p + size, LAYOUT_LEAD, False, True):
            decoder_wait(d)
            return DATA
    return frame_copied(d, p, size, recv_ns, mono_ns, source, text)


cdef inline int frame_copied(
    decoder* d, const char* p, size_t size, int64_t recv_ns, int64_t mono_ns, uint16_t source, bint text
) noexcept nogil:
    """A frame around which nothing may be read. One there is no memory for counts as malformed."""
    cdef char* room
    if LAYOUT_LEAD + size + FF_PADDING > d.scratch_size:
        room = <char*>calloc(1, LAYOUT_LEAD + 2 * size + FF_PADDING) if size < 0x7FFFFFFF else NULL
        if room == NULL:
            d.frames += 1
            d.malformed += 1
            return MALFORMED
        free(d.scratch)
        d.scratch = room
        d.scratch_size = LAYOUT_LEAD + 2 * size + FF_PADDING
    room = d.scratch + LAYOUT_LEAD
    memcpy(room, p, size)
    memset(room + size, 0, FF_PADDING)
    return frame_read(d, room, room + size, LAYOUT_LEAD, recv_ns, mono_ns, source, text)
