"""Symbol bytes to a dense id, for any UTF-8 of any length.

One writer; finding is safe from any thread. Ids are given once, in order of appearance, and never taken back. Nothing
is evicted: when the table is full a new symbol is refused, and refusing costs no more than finding.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from order cimport (
    order_get64, order_load32, order_load_pointer, order_set64, order_store32, order_store_pointer,
)
from scan cimport scan_load8


cdef enum:
    NO_SYMBOL = 0xFFFFFFFF
    FIRST_ROOM = 1024

cdef struct symbol_entry:
    uint64_t head   # the first eight bytes, zero padded
    uint64_t tail   # the eight after them, mixed with all that follows
    uint32_t size   # 0: free
    uint32_t id

cdef struct symbol_index:
    symbol_entry* entries
    uint32_t mask
    symbol_index* before  # the smaller one it replaced; kept, for somebody may still be looking in it

cdef struct symbols:
    symbol_entry* entries  # open addressing, at most a quarter full; doubled as symbols come
    uint32_t mask
    void* index            # the same two for whoever finds, replaced whole: a symbol_index
    # symbols_add; through a pointer, so that what is rare is not compiled into what is hot
    uint32_t (*add)(symbols* s, const symbol_entry* want, uint64_t hash, const char* text) noexcept nogil
    uint32_t count
    uint32_t limit
    char** names           # by id; bytes of the symbol
    uint32_t* sizes


cdef inline bint symbols_open(symbols* s, uint32_t limit) noexcept nogil:
    memset(s, 0, sizeof(symbols))
    s.mask = FIRST_ROOM - 1
    s.limit = limit
    s.add = symbols_add
    s.entries = <symbol_entry*>calloc(FIRST_ROOM, sizeof(symbol_entry))
    s.names = <char**>calloc(limit, sizeof(char*))
    s.sizes = <uint32_t*>calloc(limit, sizeof(uint32_t))
    return s.entries != NULL and s.names != NULL and s.sizes != NULL and symbols_publish(s, s.entries, s.mask)


cdef inline void symbols_close(symbols* s) noexcept nogil:
    cdef uint32_t i
    cdef symbol_index* index = <symbol_index*>s.index
    cdef symbol_index* before
    for i in range(s.count if s.names != NULL else 0):
        free(s.names[i])
    if index == NULL:
        free(s.entries)
    while index != NULL:
        before = index.before
        free(index.entries)
        free(index)
        index = before
    free(s.names)
    free(s.sizes)


cdef inline bint symbols_publish(symbols* s, symbol_entry* entries, uint32_t mask) noexcept nogil:
    """From now on these entries are looked in. False if memory is out."""
    cdef symbol_index* index = <symbol_index*>malloc(sizeof(symbol_index))
    if index == NULL:
        return False
    index.entries = entries
    index.mask = mask
    index.before = <symbol_index*>s.index
    order_store_pointer(&s.index, index)
    return True


cdef inline uint64_t symbols_hash(const symbol_entry* e) noexcept nogil:
    return (e.head ^ (e.tail * <uint64_t>0x9E3779B97F4A7C15) ^ e.size) * <uint64_t>0xD6E8FEB86659FD93


cdef inline uint64_t symbols_key(symbol_entry* e, const char* text, uint32_t size) noexcept nogil:
    """Fill the comparable part of an entry; the hash. `text` is padded (scan.h)."""
    cdef uint32_t i
    e.head = scan_load8(text)
    e.tail = 0
    e.size = size
    if size < 8:
        e.head &= (<uint64_t>1 << (8 * size)) - 1
    elif size > 8:
        e.tail = scan_load8(text + 8)
        if size < 16:
            e.tail &= (<uint64_t>1 << (8 * (size - 8))) - 1
        for i in range(16, size):
            e.tail = (e.tail ^ <unsigned char>text[i]) * <uint64_t>0x100000001B3
    return symbols_hash(e)


cdef inline symbol_entry* symbols_slot(
    symbols* s, const symbol_entry* want, uint64_t hash, const char* text
) noexcept nogil:
    """The entry of this symbol, or the free one where it would go."""
    cdef symbol_entry* e
    cdef uint32_t i = <uint32_t>(hash >> 32)
    while True:
        e = &s.entries[i & s.mask]
        if e.size == 0:
            return e
        if e.head == want.head and e.tail == want.tail and e.size == want.size and (
                want.size <= 16 or memcmp(s.names[e.id], text, want.size) == 0):
            return e
        i += 1


cdef inline bint symbols_grow(symbols* s) noexcept nogil:
    """Twice the room. False if memory is out; the table then stays as it is, only fuller."""
    cdef symbol_entry* old = s.entries
    cdef uint32_t i, j, room = 2 * (s.mask + 1)
    cdef symbol_entry* bigger = <symbol_entry*>calloc(room, sizeof(symbol_entry))
    if bigger == NULL:
        return False
    for i in range(s.mask + 1):
        if old[i].size:
            j = <uint32_t>(symbols_hash(&old[i]) >> 32)
            while bigger[j & (room - 1)].size:
                j += 1
            bigger[j & (room - 1)] = old[i]
    if not symbols_publish(s, bigger, room - 1):
        free(bigger)
        return False
    s.entries = bigger
    s.mask = room - 1
    return True


cdef inline uint32_t symbols_find(symbols* s, const char* text, uint32_t size) noexcept nogil:
    """The symbol's id, or NO_SYMBOL; from any thread."""
    cdef symbol_entry want
    cdef symbol_entry* e
    cdef symbol_index* index = <symbol_index*>order_load_pointer(&s.index)
    cdef uint32_t i, found
    if size == 0:
        return NO_SYMBOL
    i = <uint32_t>(symbols_key(&want, text, size) >> 32)
    while True:
        e = &index.entries[i & index.mask]
        found = order_load32(&e.size)  # written last
        if found == 0:
            return NO_SYMBOL
        if found == size and order_get64(&e.head) == want.head and order_get64(&e.tail) == want.tail and (
                size <= 16 or memcmp(s.names[e.id], text, size) == 0):
            return e.id
        i += 1


cdef inline uint32_t symbols_intern(symbols* s, const char* text, uint32_t size) noexcept nogil:
    """The symbol's id, a new one if need be; NO_SYMBOL if it is empty, or the table full, or memory out."""
    cdef symbol_entry want
    cdef symbol_entry* e
    cdef uint64_t hash
    if size == 0:
        return NO_SYMBOL
    hash = symbols_key(&want, text, size)
    e = symbols_slot(s, &want, hash, text)
    return e.id if e.size else s.add(s, &want, hash, text)


cdef inline uint32_t symbols_add(symbols* s, const symbol_entry* want, uint64_t hash, const char* text) noexcept nogil:
    cdef symbol_entry* e
    cdef char* name
    if s.count == s.limit:
        return NO_SYMBOL
    if 4 * s.count > s.mask and not symbols_grow(s) and 2 * s.count > s.mask:
        return NO_SYMBOL
    name = <char*>malloc(want.size)
    if name == NULL:
        return NO_SYMBOL
    memcpy(name, text, want.size)
    s.names[s.count] = name
    s.sizes[s.count] = want.size
    e = symbols_slot(s, want, hash, text)
    order_set64(&e.head, want.head)
    order_set64(&e.tail, want.tail)
    e.id = s.count
    order_store32(&e.size, want.size)
    order_store32(&s.count, e.id + 1)
    return e.id
