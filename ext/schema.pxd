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
    TAKE_PRICE, TAKE_INTEGER, TAKE_TEXT, TAKE_LEVELS, TAKE_CONDITIONS

cdef enum time_unit:
    UNIT_S, UNIT_MS, UNIT_US, UNIT_NS, UNIT_AUTO, UNIT_ISO

cdef enum encoding:
    ENCODING_JSON, ENCODING_MSGPACK, ENCODING_BINARY

cdef enum item_type:
    ITEM_SIGNED, ITEM_UNSIGNED, ITEM_REAL, ITEM_BOOL
    ITEM_TEXT  # of a fixed size, filled up with NULs or spaces, or with its length in front
    ITEM_SKIP  # bytes that are not read, of either kind
    ITEM_GROUP

cdef enum step_operation:
    STEP_KEEP      # a whole number into its register
    STEP_MANTISSA  # a mantissa of eight bytes, the least significant first, its exponent in `scale`
    STEP_DECIMAL   # any signed mantissa, its exponent in `scale`, or `exponent`
    STEP_FLOAT
    STEP_WHOLE     # a whole number as a price
    STEP_COUNT     # a whole number as it is
    STEP_SIDE      # a bool as the side
    STEP_ITEM      # whatever else: as an item is read

cdef enum:
    NO_REGISTER = 0xFF
    NO_FIELD = 0xFF
    NO_MESSAGE = 0xFFFF
    NOT_CONDITION = 0x80000000  # beside the bits of the sets: it is neither text nor number

cdef struct schema_key:
    uint64_t head      # the key's first eight bytes, zero padded
    uint64_t tail      # its last eight, if it is longer than eight
    const char* text
    uint32_t size
    uint16_t node

cdef struct schema_match:
    uint16_t node    # NO_NODE: not to be found here
    uint8_t type
    const char* text
    uint32_t size
    double number

cdef struct schema_conditions:  # of trades that leave the last price alone
    uint64_t letters[4]  # texts of one byte, a bit each
    schema_match* others  # longer texts, and numbers
    uint16_t n_others
    bint chars           # every byte of a text is a condition

cdef struct schema_node:
    schema_key* keys     # perfect hash table; NULL where no key is known
    uint64_t multiplier
    uint8_t shift
    bint levels          # an array here is a list of depth levels
    uint16_t level_root  # the tree of one level
    uint16_t level_price
    uint16_t level_size
    bint level_pairs     # a level is [price, size, ...]
    uint32_t conditions  # an array here is a list of them: the sets that messages compare them with, one bit each
    uint16_t* indexes    # children by position; NO_NODE where not known
    uint16_t positions
    uint16_t end         # one past the last node of this subtree

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
    bint plain           # the symbol as it stands, no side, the time (if any) in a fixed unit
    bint straight        # a quote whose numbers only rise: see decoder_quote
    const char* sell     # the text that means the aggressor sold; NULL: true, or a word beginning with s or S
    uint32_t sell_size
    const char* null_text  # strings that mean "explicitly no value", each ended by a NUL
    uint32_t null_texts
    uint8_t conditions   # of TAKE_CONDITIONS: its set
    bint spares          # some of its trades leave the last price alone
    uint16_t whole       # a bit per number that has no value if it is left out
    bint shares          # its number is the message's, its ticks are the elements of an array
    bint counts          # it moves the numbers of its connection even if it makes no tick

cdef struct binary_item:
    uint8_t type            # ITEM_*
    uint8_t prefix          # TEXT, SKIP: bytes of the length in front; 0: of fixed size. GROUP: of its count
    uint8_t block           # GROUP: bytes of the length of one element, before the count; 0: `size` is that length
    uint8_t kept            # the register the number is kept in for what follows, or NO_REGISTER
    uint8_t scale           # the register that holds the exponent, or NO_REGISTER for `exponent`
    bint scaled             # a mantissa: times 10 to the exponent
    bint nullable           # the value `null` means none
    bint has_text           # GROUP: its elements have texts
    uint32_t size           # of a number, a fixed text, a group's element as declared
    uint16_t column         # where it goes, by the node it is below
    uint8_t field           # FIELD_* of the message its record is bound to, or NO_FIELD
    uint8_t action          # TAKE_*, likewise
    uint16_t first          # GROUP: its items
    uint16_t items
    uint16_t first_step     # GROUP of a bound record: those of an element
    uint16_t steps
    uint16_t present        # GROUP of a bound record: fields an element always gives
    int64_t exponent
    int64_t null

cdef struct binary_step:    # what is read of a part of fixed size, straight into a field or register
    uint8_t operation       # STEP_*
    uint8_t shift           # 64 less the bits of the number
    bint has_sign
    uint8_t kept
    uint8_t scale
    uint8_t field
    uint16_t item
    uint32_t offset         # in the part
    int64_t exponent

cdef struct binary_part:    # items of fixed size, then one that is not
    uint32_t size           # of the former
    uint16_t first          # its steps
    uint16_t steps
    uint16_t tail           # the latter, or NO_NODE at the end

cdef struct binary_record:
    int64_t id              # the value of the selecting number
    uint16_t message        # that this record always is, or NO_MESSAGE where values decide
    uint16_t present        # fields its steps always give
    bint grouped            # the elements of a group are its ticks
    uint16_t first          # its items
    uint16_t items
    uint16_t first_part
    uint16_t parts

cdef struct binary:
    binary_item* items
    binary_step* steps
    binary_part* parts
    binary_record* records
    uint16_t* columns       # [node * n_columns + column]: the child an item leads to, or NO_NODE
    uint16_t n_columns
    uint16_t n_records
    uint16_t header         # how many items, the first of all, stand in front of every record
    uint16_t header_parts   # the first of all parts
    bint is_plain           # the header is one part, of which numbers are kept and nothing else is read
    uint8_t count           # bytes of the number of records in front of a frame; 0: a frame is one record
    uint8_t select          # these four are registers, all but the first may be NO_REGISTER
    uint8_t length          # bytes of the whole record
    uint8_t block           # bytes from the header to the first group or text with its length in front
    uint8_t version
    int64_t newest          # a record of a later version may have more at its end
    bint is_big             # the most significant byte first

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
    uint8_t encoding     # ENCODING_*: of frames that are not text
    binary* binary       # of ENCODING_BINARY
    const char* plain    # texts that are no JSON but control, each ended by a NUL
    uint32_t plains
    uint16_t condition   # the node of one in a list, or NO_NODE
    schema_conditions* conditions  # sets of them
    uint16_t n_conditions


cdef inline uint64_t schema_hash(uint64_t head, uint64_t tail, uint32_t size) noexcept nogil:
    return head ^ (tail << 29 | tail >> 35) ^ size


cdef inline uint16_t schema_child(const schema_node* node, const char* key, uint32_t size) noexcept nogil:
    """The child a key leads to, or NO_NODE. Reads eight bytes from `key` on, whatever its size."""
    cdef uint64_t head = scan_load8(key)
    cdef uint64_t tail = 0
    cdef const schema_key* k
    if node.keys == NULL or size == 0:
        return NO_NODE
    head &= ~<uint64_t>0 >> (64 - 8 * (size if size < 8 else 8))
    if size > 8:
        tail = scan_load8(key + size - 8)
    k = node.keys + ((schema_hash(head, tail, size) * node.multiplier) >> node.shift)
    if k.head == head and k.tail == tail and k.size == size and (size <= 16 or memcmp(k.text, key, size) == 0):
        return k.node
    return NO_NODE
