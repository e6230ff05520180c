"""What a frame holds, before anything is made of it: a slot per node of the schema, and the stores for its parts.

Shared by every wire format: a parser fills the slots, `message` reads them. No syntax and no meaning here. One frame
at a time, but for the fields of those before it that wait; the stores grow to the largest frame seen and stay.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from layout cimport ff_fields
from scan cimport FF_PADDING
from schema cimport program


cdef enum slot_type:
    SLOT_STRING, SLOT_ESCAPED, SLOT_NUMBER, SLOT_TRUE, SLOT_FALSE, SLOT_NULL
    SLOT_OBJECT, SLOT_ARRAY, SLOT_LEVELS, SLOT_BAD
    SLOT_INTEGER, SLOT_UNSIGNED, SLOT_REAL, SLOT_TIME  # not text: their value is in `value`
    SLOT_OPAQUE  # something that no field can be
    SLOT_CONDITIONS  # an array of trade conditions: what they come to is in `value`

cdef enum verdict:  # of a frame or message; the higher one names the frame
    UNKNOWN = 0
    CONTROL = 1
    DATA = 2
    MALFORMED = 3

cdef union slot_value:
    int64_t integer    # SLOT_INTEGER; SLOT_TIME: epoch ns; a binary group: its item
    uint64_t unsigned  # SLOT_UNSIGNED: beyond int64
    double real        # SLOT_REAL

cdef struct slot:
    const char* start  # first byte of the value, inside the quotes of a string
    slot_value value   # of the types that are not text
    uint32_t size      # of a text its bytes; SLOT_LEVELS, a binary group: how many
    uint32_t level     # SLOT_LEVELS: where they begin in the level store; a binary group: bytes of an element
    uint16_t node
    uint8_t type

cdef struct slots:
    const program* program
    slot slots[512]
    uint64_t seen[8]        # one bit a node: its slot is of this frame
    const char* fail        # where a malformed frame stops being well formed
    int escaped             # this frame holds an escape
    bint repeated           # this frame repeats a known key
    bint failed             # out of memory
    slot* trace        # every scalar in order, while a layout is being learned; else NULL
    uint32_t traced
    double* levels          # price, size, price, size ...
    uint32_t n_levels
    uint32_t max_levels
    char* text              # unescaped and upper-cased strings of this frame; begins with the address of a fuller block
    uint32_t n_text
    uint32_t max_text
    ff_fields* fields       # what the frame's messages say, one per tick (per message for depth)
    uint32_t n_fields
    uint32_t max_fields
    uint32_t n_waiting      # so many of earlier frames, in front of them, are not ticks yet: see decoder_wait
    slot* controls     # the control messages of this frame, as spans of it
    uint32_t n_controls
    uint32_t max_controls
    uint32_t messages       # recognised or not, in this frame
    const char* given       # the symbol of messages that name none; NULL: there is none
    uint32_t given_size


cdef inline bint slots_grow(slots* j, void** store, uint32_t* room, uint32_t need, size_t size) noexcept nogil:
    cdef uint32_t more = need + (need >> 1) + 64
    cdef void* bigger
    if need <= room[0]:
        return True
    bigger = realloc(store[0], more * size)
    if bigger == NULL:
        j.failed = True
        return False
    store[0] = bigger
    room[0] = more
    return True


cdef inline bint slots_room(slots* j) noexcept nogil:
    """Room for one message's fields more; False if memory is out."""
    cdef uint32_t room = j.n_waiting + j.max_fields
    cdef ff_fields* first
    if j.n_fields < j.max_fields:
        return True
    first = j.fields - j.n_waiting
    if not slots_grow(j, <void**>&first, &room, room + 1, sizeof(ff_fields)):
        return False
    j.fields = first + j.n_waiting
    j.max_fields = room - j.n_waiting
    return True


cdef inline void slots_wait(slots* j) noexcept nogil:
    """The frame's only message waits; the next frame's begin behind it."""
    j.fields += 1
    j.max_fields -= 1
    j.n_waiting += 1


cdef inline ff_fields* slots_awaited(slots* j) noexcept nogil:
    """The messages that waited; none waits any longer, and the next frame's are written over them."""
    j.fields -= j.n_waiting
    j.max_fields += j.n_waiting
    j.n_waiting = 0
    return j.fields


cdef inline char* slots_text(slots* j, uint32_t size) noexcept nogil:
    """Room for `size` bytes of decoded text, padded, valid as long as the frame; NULL if memory is out."""
    # Texts of this frame are pointed at, so a full block is kept in a chain until the next frame instead of moved.
    cdef char* t
    cdef char* block
    cdef uint32_t room = 2 * j.max_text + size + FF_PADDING + sizeof(void*)
    if j.n_text + size + FF_PADDING > j.max_text:
        block = <char*>malloc(room)
        if block == NULL:
            j.failed = True
            return NULL
        (<char**>block)[0] = j.text
        j.text = block
        j.n_text = sizeof(void*)
        j.max_text = room
    t = j.text + j.n_text
    j.n_text += size + 1
    return t


cdef inline void slots_reset(slots* j) noexcept nogil:
    """Forget the last frame's texts, keeping the newest (largest) block."""
    cdef char* block
    if j.text == NULL:
        return
    while (<char**>j.text)[0] != NULL:
        block = (<char**>j.text)[0]
        (<char**>j.text)[0] = (<char**>block)[0]
        free(block)
    j.n_text = sizeof(void*)


cdef inline void slots_close(slots* j) noexcept nogil:
    """Free what the stores hold, not the slots themselves."""
    slots_reset(j)
    free(j.text)
    free(j.levels)
    free(j.fields - j.n_waiting)
    free(j.controls)


cdef inline void slots_begin(slots* j) noexcept nogil:
    """Forget the last frame, but for which slots are of it: see slots_clear."""
    j.fail = NULL
    j.escaped = 0
    j.repeated = False
    j.failed = False
    j.traced = 0
    j.n_levels = j.n_fields = j.n_controls = j.messages = 0
    slots_reset(j)


cdef inline void slots_clear(slots* j) noexcept nogil:
    """Every node empty."""
    memset(j.seen, 0, sizeof(j.seen))


cdef inline bint slots_has(const slots* j, uint32_t node) noexcept nogil:
    return (j.seen[node >> 6] >> (node & 63)) & 1


cdef inline void slots_forget(slots* j, uint32_t node, uint32_t end) noexcept nogil:
    cdef uint32_t n
    for n in range(node, end):
        j.seen[n >> 6] &= ~(<uint64_t>1 << (n & 63))


cdef inline slot* slots_claim(slots* j, uint32_t node) noexcept nogil:
    """The node's slot for a new value.

    The last of repeated keys wins, so what an earlier one left below it is forgotten.
    """
    cdef slot* s = &j.slots[node]
    if slots_has(j, node):
        j.repeated = True
        slots_forget(j, node, j.program.nodes[node].end)
    j.seen[node >> 6] |= <uint64_t>1 << (node & 63)
    s.node = node
    return s


cdef inline bint slots_string(slots* j, slot* s, const char* text, uint32_t size) noexcept nogil:
    """Make the slot this text, which may end where anything begins; False if memory is out.

    Conversions of a number stop at what cannot go on with it. Text of a format without quotes that is followed by
    such a byte is copied.
    """
    cdef uint8_t behind = <uint8_t>text[size]
    cdef char* t
    if 0x2B <= behind <= 0x39 or behind | 32 == b"e":
        t = slots_text(j, size)
        if t == NULL:
            return False
        memcpy(t, text, size)
        t[size] = 0
        text = t
    s.start = text
    s.size = size
    s.type = SLOT_STRING
    return True


cdef inline bint slots_control(slots* j, const char* start, const char* end) noexcept nogil:
    """Keep this span of the frame as a control message; False if memory is out."""
    if not slots_grow(j, <void**>&j.controls, &j.max_controls, j.n_controls + 1, sizeof(slot)):
        return False
    j.controls[j.n_controls].start = start
    j.controls[j.n_controls].size = <uint32_t>(end - start)
    j.n_controls += 1
    return True
