"""Symbol bytes to a dense id, for any UTF-8 of any length.

One writer; finding is safe from any thread. Ids are given once, in order of appearance, and never taken back. Nothing
is evicted: when the table is full a new symbol is refused, and refusing costs no more than finding. An alias is another
spelling that leads to the id of a symbol.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from order cimport order_load32, order_load_pointer, order_store32, order_store_pointer


cdef enum:
    NO_SYMBOL = 0xFFFFFFFF
    FIRST_ROOM = 4096
    SYMBOL_TAG = 25  # bits of a slot that hold the entry's number plus one; the rest hold a part of the hash

cdef struct symbol_entry:  # half a cache line; never moves, written before any slot names it
    uint64_t key[2]  # the last sixteen bytes, zeros before them
    char* name
    uint32_t size
    uint32_t id      # of the symbol it is, or stands for

cdef struct symbol_index:
    uint32_t* slots       # open addressing, at most a quarter full; 0: free
    uint32_t mask
    symbol_index* before  # the smaller one it replaced; kept, for somebody may still be looking in it

cdef struct symbols:
    uint32_t* slots        # the two of the newest index, doubled as symbols come
    uint32_t mask
    void* index            # for whoever finds, replaced whole: a symbol_index
    # symbols_add; through a pointer, so that what is rare is not compiled into what is hot
    uint32_t (*add)(symbols* s, const uint64_t* key, uint64_t hash, const char* text, uint32_t size) noexcept nogil
    uint32_t count
    uint32_t limit
    uint32_t aliases
    symbol_entry* entries  # by id, and from `limit` on those of the aliases, as many again


cdef inline bint symbols_open(symbols* s, uint32_t limit) noexcept nogil:
    memset(s, 0, sizeof(symbols))
    s.limit = limit
    s.add = symbols_add
    s.entries = <symbol_entry*>calloc(2 * <size_t>limit, sizeof(symbol_entry))
    return s.entries != NULL and symbols_publish(s, FIRST_ROOM)


cdef inline void symbols_close(symbols* s) noexcept nogil:
    cdef uint32_t i
    cdef symbol_index* index = <symbol_index*>s.index
    cdef symbol_index* before
    for i in range(s.count + s.aliases):
        free(symbols_entry(s, i).name)
    while index != NULL:
        before = index.before
        free(index.slots)
        free(index)
        index = before
    free(s.entries)


cdef inline symbol_entry* symbols_entry(const symbols* s, uint32_t i) noexcept nogil:
    """The entries in use, symbols then aliases."""
    return &s.entries[i if i < s.count else s.limit + (i - s.count)]


cdef inline bint symbols_publish(symbols* s, size_t room) noexcept nogil:
    """From now on an index with so much room is looked in. False if memory is out; the one there was then stays."""
    cdef symbol_index* index = <symbol_index*>malloc(sizeof(symbol_index))
    cdef uint32_t* slots = <uint32_t*>calloc(room, sizeof(uint32_t))
    cdef symbol_entry* e
    cdef uint64_t hash
    cdef uint32_t i, j
    if index == NULL or slots == NULL:
        free(index)
        free(slots)
        return False
    s.slots = slots
    s.mask = <uint32_t>(room - 1)
    for i in range(s.count + s.aliases):
        e = symbols_entry(s, i)
        hash = symbols_hash(e.key, e.name, e.size)
        j = <uint32_t>(hash >> 32)
        while slots[j & s.mask]:
            j += 1
        slots[j & s.mask] = symbols_tagged(hash, <uint32_t>(e - s.entries))
    index.slots = slots
    index.mask = s.mask
    index.before = <symbol_index*>s.index
    order_store_pointer(&s.index, index)
    return True


cdef inline void symbols_key(uint64_t* key, const char* text, uint32_t size) noexcept nogil:
    """Reads nothing but the text."""
    key[0] = key[1] = 0
    if size >= 16:
        memcpy(key, text + size - 16, 16)
    else:
        memcpy(<char*>key + 16 - size, text, size)


cdef inline uint64_t symbols_hash(const uint64_t* key, const char* text, uint32_t size) noexcept nogil:
    cdef uint64_t hash = size
    cdef uint32_t i
    for i in range(16, size):
        hash = (hash ^ <unsigned char>text[i - 16]) * <uint64_t>0x100000001B3
    hash ^= key[0] ^ (key[1] * <uint64_t>0x9E3779B97F4A7C15)
    return (hash ^ (hash >> 32)) * <uint64_t>0xD6E8FEB86659FD93


cdef inline uint32_t symbols_tagged(uint64_t hash, uint32_t entry) noexcept nogil:
    return <uint32_t>hash >> SYMBOL_TAG << SYMBOL_TAG | (entry + 1)


cdef inline uint32_t symbols_at(uint32_t slot) noexcept nogil:
    """The number of the entry that a slot names."""
    return (slot & ((<uint32_t>1 << SYMBOL_TAG) - 1)) - 1


cdef inline bint symbols_is(
    const symbols* s, uint32_t slot, const uint64_t* key, uint64_t hash, const char* text, uint32_t size
) noexcept nogil:
    cdef const symbol_entry* e = &s.entries[symbols_at(slot)]
    return (
        slot >> SYMBOL_TAG == <uint32_t>hash >> SYMBOL_TAG
        and e.key[0] == key[0]
        and e.key[1] == key[1]
        and e.size == size
        and (size <= 16 or memcmp(e.name, text, size) == 0)
    )


cdef inline uint32_t* symbols_slot(
    symbols* s, const uint64_t* key, uint64_t hash, const char* text, uint32_t size
) noexcept nogil:
    """The slot of this symbol, or the free one where it would go. The writer's."""
    cdef uint32_t* at
    cdef uint32_t i = <uint32_t>(hash >> 32)
    while True:
        at = &s.slots[i & s.mask]
        if at[0] == 0 or symbols_is(s, at[0], key, hash, text, size):
            return at
        i += 1


cdef inline uint32_t symbols_find(symbols* s, const char* text, uint32_t size) noexcept nogil:
    """The symbol's id, or NO_SYMBOL; from any thread."""
    cdef const symbol_index* index = <const symbol_index*>order_load_pointer(&s.index)
    cdef uint64_t key[2]
    cdef uint64_t hash
    cdef uint32_t i, slot
    if size == 0:
        return NO_SYMBOL
    symbols_key(key, text, size)
    hash = symbols_hash(key, text, size)
    i = <uint32_t>(hash >> 32)
    while True:
        slot = order_load32(&index.slots[i & index.mask])  # written after its entry
        if slot == 0:
            return NO_SYMBOL
        if symbols_is(s, slot, key, hash, text, size):
            return s.entries[symbols_at(slot)].id
        i += 1


cdef inline uint32_t symbols_known(
    symbols* s, const uint64_t* key, const char* text, uint32_t size
) noexcept nogil:
    """The id of a symbol that has one, or NO_SYMBOL. The writer's."""
    cdef uint32_t slot = symbols_slot(s, key, symbols_hash(key, text, size), text, size)[0]
    return s.entries[symbols_at(slot)].id if slot else NO_SYMBOL


cdef inline uint32_t symbols_intern(
    symbols* s, const uint64_t* key, const char* text, uint32_t size
) noexcept nogil:
    """The symbol's id, a new one if need be; NO_SYMBOL if it is empty, or the table full, or memory out."""
    cdef uint64_t hash
    cdef uint32_t slot
    if size == 0:
        return NO_SYMBOL
    hash = symbols_hash(key, text, size)
    slot = symbols_slot(s, key, hash, text, size)[0]
    return s.entries[symbols_at(slot)].id if slot else s.add(s, key, hash, text, size)


cdef inline uint32_t symbols_add(
    symbols* s, const uint64_t* key, uint64_t hash, const char* text, uint32_t size
) noexcept nogil:
    cdef symbol_entry* e = &s.entries[s.count]
    if s.count == s.limit or not symbols_fill(s, e, s.count, key, text, size):
        return NO_SYMBOL
    order_store32(symbols_slot(s, key, hash, text, size), symbols_tagged(hash, s.count))
    order_store32(&s.count, s.count + 1)
    return s.count - 1


cdef inline bint symbols_fill(
    symbols* s, symbol_entry* e, uint32_t symbol_id, const uint64_t* key, const char* text, uint32_t size
) noexcept nogil:
    """Make the entry this text, with room in the index for it; False if memory is out."""
    cdef size_t used = <size_t>s.count + s.aliases
    cdef size_t room = <size_t>s.mask + 1
    if 4 * used >= room and not symbols_publish(s, 2 * room) and used + 1 >= room:
        return False
    e.name = <char*>malloc(size)
    if e.name == NULL:
        return False
    memcpy(e.name, text, size)
    e.key[0] = key[0]
    e.key[1] = key[1]
    e.size = size
    e.id = symbol_id
    return True


cdef inline uint32_t symbols_alias(symbols* s, const char* text, uint32_t size, uint32_t symbol_id) noexcept nogil:
    """The id that this text leads to from now on, which is another one if it did so before.

    NO_SYMBOL if it is empty, there are as many aliases as there may be, or memory is out.
    """
    cdef uint32_t at = s.limit + s.aliases
    cdef uint64_t key[2]
    cdef uint64_t hash
    cdef uint32_t known = symbols_find(s, text, size)
    if known != NO_SYMBOL or size == 0:
        return known
    symbols_key(key, text, size)
    if s.aliases == s.limit or (at + 1) >> SYMBOL_TAG:
        return NO_SYMBOL
    if not symbols_fill(s, &s.entries[at], symbol_id, key, text, size):
        return NO_SYMBOL
    hash = symbols_hash(key, text, size)
    s.aliases += 1
    order_store32(symbols_slot(s, key, hash, text, size), symbols_tagged(hash, at))
    return symbol_id
