"""A message schema compiled to a program: trees of known keys, and per message what to match and what to take.

Structs and the key lookup only. The program is built by `_core.Program` from what `fastfeed.schema` compiled; nothing
here changes after that. Nodes are numbered in preorder, so a subtree is a range of numbers and a node's number is also
the slot its value goes to.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp

from scan cimport scan_load8


cdef enum:
    NO_NODE = 0xFFFF
    MAX_NODES = 512

cdef enum match_type:
    MATCH_STRING, MATCH_NUMBER, MATCH_TRUE, MATCH_FALSE, MATCH_NULL, MATCH_MISSING, MATCH_PRESENT

cdef enum field_action:
    TAKE_PRICE, TAKE_INTEGER, TAKE_TEXT, TAKE_LEVELS

cdef enum time_unit:
    UNIT_S, UNIT_MS, UNIT_US, UNIT_NS, UNIT_AUTO, UNIT_ISO

cdef struct schema_key:
    uint64_t head      # the key's first eight bytes, zero padded
    uint64_t tail      # its last eight, if it is longer than eight
    const char* text
    uint32_t size
    uint16_t node

cdef struct schema_node:
    schema_key* keys     # perfect hash table; NULL where no key is known
    uint64_t multiplier
    uint8_t shift
    bint levels          # an array here is a list of depth levels
    uint16_t level_root  # the tree of one level
    uint16_t level_price
    uint16_t level_size
    bint level_pairs     # a level is [price, size, ...]
    uint16_t* indexes    # children by position; NO_NODE where not known
    uint16_t positions
    uint16_t end         # one past the last node of this subtree

cdef struct schema_match:
    uint16_t node    # NO_NODE: not to be found here
    uint8_t type
    const char* text
    uint32_t size
    double number

cdef struct schema_field:
    uint16_t node
    uint8_t field    # FIELD_*
    uint8_t action   # TAKE_*

cdef struct schema_each:
    uint16_t node    # the array
    uint16_t root    # the tree of its elements

cdef struct schema_message:
    schema_match* matches
    schema_field* fields
    schema_each* each
    uint16_t n_matches
    uint16_t n_fields
    uint16_t n_each
    uint8_t kind         # FF_QUOTE ... or FF_CONTROL; FF_LEVEL for depth
    uint8_t flags        # FF_SNAPSHOT
    uint8_t rule         # SEQUENCE_*
    uint8_t channel
    uint8_t stream       # sequence state it keeps per symbol
    uint8_t unit         # UNIT_*
    int64_t time_scale   # nanoseconds in the unit; 0 where the value decides
    int64_t time_most    # the latest time in the unit that fits int64 nanoseconds
    char symbol_until    # cut the symbol at this byte; 0: take it whole
    bint symbol_upper
    const char* sell     # the text that means the aggressor sold; NULL: true, or a word beginning with s or S
    uint32_t sell_size
    const char* null_text  # strings that mean "explicitly no value", each ended by a NUL
    uint32_t null_texts

cdef struct program:
    schema_node* nodes
    schema_message* messages  # first as they are found bare, then as they are found in the envelope
    uint16_t n_nodes
    uint16_t n_messages  # of one such set
    uint16_t n_compiled  # of both
    uint16_t n_channels
    uint16_t n_streams
    uint16_t envelope    # the node the payload sits at inside an envelope, or NO_NODE
    uint16_t matched[512]  # per node: used by a match (its value decides the message)
    bint positional      # some message is a positional array at the top


cdef inline uint64_t schema_hash(uint64_t head, uint64_t tail, uint32_t size) noexcept nogil:
    return head ^ (tail << 29 | tail >> 35) ^ size


cdef inline uint16_t schema_child(const schema_node* node, const char* key, uint32_t size) noexcept nogil:
    """The child a key leads to, or NO_NODE. Reads eight bytes from `key` on, whatever its size."""
    cdef uint64_t head = scan_load8(key)
    cdef uint64_t tail = 0
    cdef const schema_key* k
    if node.keys == NULL or size == 0:
        return NO_NODE
    if size < 8:
        head &= (<uint64_t>1 << (8 * size)) - 1
    elif size > 8:
        tail = scan_load8(key + size - 8)
    k = node.keys + ((schema_hash(head, tail, size) * node.multiplier) >> node.shift)
    if k.head == head and k.tail == tail and k.size == size and (size <= 16 or memcmp(k.text, key, size) == 0):
        return k.node
    return NO_NODE
