"""What a frame holds, before anything is made of it: a slot per node of the schema, and the stores for its parts.

Shared by every wire format: a parser fills the slots, `message` reads them. No syntax and no meaning here. One frame
at a time; the stores grow to the largest frame seen and stay.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc

from layout cimport ff_fields
from scan cimport FF_PADDING
from schema cimport program


cdef enum slot_type:
    SLOT_STRING, SLOT_ESCAPED, SLOT_NUMBER, SLOT_TRUE, SLOT_FALSE, SLOT_NULL
    SLOT_OBJECT, SLOT_ARRAY, SLOT_LEVELS, SLOT_BAD

cdef enum verdict:  # of a frame or message; the higher one names the frame
    UNKNOWN = 0
    CONTROL = 1
    DATA = 2
    MALFORMED = 3

cdef struct slot:
    const char* start  # first byte of the value, inside the quotes of a string
    uint32_t size      # SLOT_LEVELS: how many
    uint32_t level     # SLOT_LEVELS: where they begin in the level store
    uint16_t node
    uint8_t type

cdef struct slots:
    const program* program
    slot slots[512]
    uint64_t seen[8]        # one bit a node: its slot is of this frame
    const char* fail        # where a malformed frame stops being JSON
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
