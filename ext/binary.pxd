"""Records of fixed layout to slots, and from there to messages: runs the layout a schema declares. Knows no provider.

A frame is one record or a counted batch of them; a record is a header and what its type has: numbers, texts, repeating
groups. Bytes that the declaration does not cover are what a newer version appended to a block or a record. Frames are
padded (scan.h); nothing here is interned, published or counted.
"""

from libc.stdint cimport INT64_MIN, int64_t, uint16_t, uint32_t, uint64_t

from layout cimport FIELD_ASKS, FIELD_BIDS, FIELD_SEQ, FIELD_SYMBOL, ff_fields
from message cimport (
    message_at, message_close, message_count, message_end, message_find, message_number, message_open, message_put,
    message_take,
)
from number cimport number_big, number_decimal, number_little, number_real, number_scaled, number_signed
from scan cimport scan_text_fault
from schema cimport *
from slots cimport *
from tick cimport FF_CONTROL


cdef enum:
    NOT_STRAIGHT = -1  # no verdict yet: the slots must tell

cdef struct binary_bound:
    const schema_message* message  # what the record is known to be
    ff_fields* fields
    int64_t event_ns
    const binary_item* group       # whose elements are the ticks
    const char* array
    uint32_t size
    uint32_t count
    bint wrong                     # a field is of the wrong type: the message is unknown
    bint missed                    # something is absent: the slots must tell what the record is

cdef struct binary_reading:
    const binary* layout
    int64_t kept[32]  # the registers; INT64_MIN: the number is not there
    bint lost         # a record of unknown type and length: the rest of the frame cannot be read
    binary_bound bound
    ff_fields none        # where the header's prices would go, of which it has none


cdef inline const char* binary_fail(slots* j, const char* p) noexcept nogil:
    if j.fail == NULL:
        j.fail = p
    return NULL


cdef inline uint64_t binary_load(const binary* b, const char* p, uint32_t size) noexcept nogil:
    return number_big(p, size) if b.is_big else number_little(p, size)


cdef inline void binary_number(binary_reading* r, const binary_item* item, const char* p, slot* s) noexcept nogil:
    """The number at p into a slot (SLOT_OPAQUE where it is none) and the register that wants it."""
    cdef uint64_t bits = binary_load(r.layout, p, item.size)
    cdef int64_t whole = number_signed(bits, item.size) if item.type == ITEM_SIGNED else <int64_t>bits
    cdef int64_t exponent
    cdef bint negative = item.type == ITEM_SIGNED and whole < 0
    s.value.integer = whole
    if item.kept != NO_REGISTER:
        r.kept[item.kept] = whole
    if item.nullable and whole == item.null:
        s.type = SLOT_NULL
        if item.kept != NO_REGISTER:
            r.kept[item.kept] = INT64_MIN
    elif item.type == ITEM_REAL:
        s.type = SLOT_REAL
        s.value.real = number_real(bits, item.size)
    elif item.type == ITEM_BOOL:
        s.type = SLOT_TRUE if bits == 1 else SLOT_FALSE if bits == 0 else SLOT_OPAQUE
    elif item.scaled:
        exponent = item.exponent if item.scale == NO_REGISTER else r.kept[item.scale]
        s.type = SLOT_REAL
        if exponent == INT64_MIN or not number_decimal(
            -<uint64_t>whole if negative else <uint64_t>whole, negative, exponent, &s.value.real
        ):
            s.type = SLOT_OPAQUE
    else:
        s.type = SLOT_UNSIGNED if item.type == ITEM_UNSIGNED and whole < 0 else SLOT_INTEGER


cdef inline const char* binary_length(
    slots* j, const binary* b, const binary_item* item, const char* p, const char* end, uint64_t* size, uint64_t* count
) noexcept nogil:
    """What stands in front of a text, of bytes or of a group: its size and how often it comes, known to fit."""
    size[0] = binary_load(b, p, item.block) if item.block else item.size
    count[0] = 1
    if p + item.block + item.prefix > end:
        return binary_fail(j, end)
    if item.type == ITEM_GROUP:
        count[0] = binary_load(b, p + item.block, item.prefix)
    else:
        size[0] = binary_load(b, p, item.prefix)
    p += item.block + item.prefix
    # Neither is of more than four bytes, so the product is exact. Elements without length would never end.
    if size[0] * count[0] > <uint64_t>(end - p) or (count[0] and size[0] == 0 and item.type == ITEM_GROUP):
        return binary_fail(j, p)
    return p


cdef inline const char* binary_items(
    slots* j, binary_reading* r, uint32_t first, uint32_t items, uint32_t root,
    const char* p, const char* block, const char* end, bint simd,
) noexcept nogil:
    """Read items at p into the slots below `root`; what follows them, or NULL if they do not fit before `end`.

    With `block`, those up to the first group or text with its length in front must end there: a shorter block, as an
    older version has it, lacks the last of them.
    """
    cdef const binary* b = r.layout
    cdef const uint16_t* columns = b.columns + <size_t>root * b.n_columns
    cdef const binary_item* item = b.items + first
    cdef const binary_item* last = item + items
    cdef slot unwanted
    cdef uint16_t child
    cdef uint64_t size, count
    while item < last:
        child = columns[item.column]
        size = item.size
        count = 1
        if item.prefix:
            if block != NULL:
                p = block
                block = NULL
            p = binary_length(j, b, item, p, end, &size, &count)
            if p == NULL:
                return NULL
        elif block != NULL and p + size > block:
            if item.kept != NO_REGISTER:
                r.kept[item.kept] = INT64_MIN
            p = block
            item += 1
            continue
        elif size > <uint64_t>(end - p):
            return binary_fail(j, end)
        if item.type == ITEM_GROUP:
            if item.has_text and not binary_texts(j, b, item, p, <uint32_t>size, <uint32_t>count):
                return NULL
            if child != NO_NODE and not binary_group(j, r, item, child, p, <uint32_t>size, <uint32_t>count, simd):
                return binary_fail(j, p)
        elif item.type == ITEM_TEXT:
            if not binary_text(j, item, p, <uint32_t>size, slots_claim(j, child) if child != NO_NODE else NULL):
                return NULL
        elif item.type != ITEM_SKIP and (child != NO_NODE or item.kept != NO_REGISTER):
            binary_number(r, item, p, slots_claim(j, child) if child != NO_NODE else &unwanted)
        p += size * count
        item += 1
    return block if block != NULL else p


cdef inline bint binary_text(slots* j, const binary_item* item, const char* p, uint32_t size, slot* s) noexcept nogil:
    """The text at p into a slot, if one wants it; False if it is no UTF-8."""
    cdef const char* fault = scan_text_fault(p, p + size)
    if fault != NULL:
        binary_fail(j, fault)
        return False
    if s == NULL:
        return True
    if not item.prefix:
        while size and (p[size - 1] == 0 or p[size - 1] == b" "):
            size -= 1
    return slots_string(j, s, p, size)


cdef inline bint binary_texts(
    slots* j, const binary* b, const binary_item* group, const char* p, uint32_t size, uint32_t count
) noexcept nogil:
    """Are all texts in the elements of a group UTF-8, wanted or not?"""
    cdef const binary_item* first = b.items + group.first
    cdef const binary_item* item
    cdef uint32_t _i, offset
    for _i in range(count):
        item = first
        offset = 0
        while item < first + group.items and offset + <uint64_t>item.size <= size:
            if item.type == ITEM_TEXT and not binary_text(j, item, p + offset, item.size, NULL):
                return False
            offset += item.size
            item += 1
        p += size
    return True


cdef inline bint binary_group(
    slots* j, binary_reading* r, const binary_item* group, uint16_t node, const char* p, uint32_t size, uint32_t count,
    bint simd,
) noexcept nogil:
    """The slot of a group whose elements are known to lie in the frame; False if memory is out."""
    cdef const schema_node* n = &j.program.nodes[node]
    cdef slot* s = slots_claim(j, node)
    cdef slot* price
    cdef slot* amount
    cdef double* pair
    cdef uint32_t _i
    cdef bint bad = False
    s.start = p
    s.size = count
    s.level = size
    s.value.integer = group - r.layout.items
    s.type = SLOT_ARRAY
    if not n.levels:
        return True
    if not slots_grow(j, <void**>&j.levels, &j.max_levels, j.n_levels + count, 2 * sizeof(double)):
        return False
    s.level = j.n_levels
    price = &j.slots[n.level_price]
    amount = &j.slots[n.level_size]
    for _i in range(count):
        slots_forget(j, n.level_root, j.program.nodes[n.level_root].end)
        binary_items(j, r, group.first, group.items, n.level_root, p, p + size, p + size, simd)
        pair = j.levels + 2 * j.n_levels
        if not slots_has(j, n.level_price) or not message_number(price, pair):
            bad = True
        if not slots_has(j, n.level_size) or not message_number(amount, pair + 1):
            bad = True
        j.n_levels += 1
        p += size
    s.type = SLOT_BAD if bad else SLOT_LEVELS
    return True


cdef inline bint binary_each(slots* j, binary_reading* r, uint16_t message, bint simd) noexcept nogil:
    """Every element of a group through the message; False makes the whole message unknown."""
    cdef const schema_message* m = &j.program.messages[message]
    cdef const slot* array = message_at(j, m.each[0].node)
    cdef uint32_t root = m.each[0].root
    cdef uint32_t _i, end = j.program.nodes[root].end
    cdef const binary_item* group = r.layout.items + array.value.integer
    cdef const char* p = array.start
    cdef const char* q
    for _i in range(array.size):
        slots_forget(j, root, end)
        q = p + array.level
        if binary_items(j, r, group.first, group.items, root, p, q, q, simd) == NULL:
            return False
        if not message_take(j, message, simd):
            return False
        p = q
    return True


cdef inline int binary_message(
    slots* j, binary_reading* r, const char* start, const char* end, bint simd
) noexcept nogil:
    """Recognise the record from its slots and take its fields; its verdict."""
    cdef uint32_t before = j.n_fields
    cdef int i = message_find(j, 0)
    cdef bint taken
    j.messages += 1
    if i < 0:
        return UNKNOWN
    if j.program.messages[i].kind == FF_CONTROL:
        slots_control(j, start, end)
        message_count(j, <uint16_t>i, simd)
        return CONTROL
    if j.program.messages[i].n_each:
        taken = binary_each(j, r, <uint16_t>i, simd)
    else:
        taken = message_take(j, <uint16_t>i, simd)
    return message_end(j, <uint16_t>i, before, taken, simd)


# ---- straight: a record whose type alone says which message it is, into the fields without a slot ----

cdef inline void binary_put(
    slots* j, const binary_item* item, const slot* s, binary_bound* bound, bint simd
) noexcept nogil:
    """An item's value into the field it is bound to."""
    cdef schema_field want
    want.node = NO_NODE
    want.field = item.field
    want.action = item.action
    if not message_put(j, bound.message, &want, s, bound.fields, &bound.event_ns, simd):
        bound.wrong = True


cdef inline bint binary_steps(
    slots* j, binary_reading* r, uint32_t first, uint32_t steps, const char* p, double* numbers, binary_bound* bound,
    bint simd,
) noexcept nogil:
    """A part of fixed size at p, known to lie in the frame; False if it is malformed. Prices go to `numbers`."""
    cdef const binary* b = r.layout
    cdef const binary_step* step = b.steps + first
    cdef const binary_step* last = step + steps
    cdef const binary_item* item
    cdef uint64_t bits
    cdef int64_t whole, exponent
    cdef double number
    cdef uint8_t operation
    cdef bint is_big = b.is_big
    cdef bint wrong = False
    cdef slot s
    while step < last:
        operation = step.operation
        if operation == STEP_MANTISSA:
            whole = <int64_t>number_little(p + step.offset, 8)
            wrong |= not number_scaled(whole, r.kept[step.scale], numbers + step.field)
            step += 1
            continue
        bits = number_big(p + step.offset, 8) if is_big else number_little(p + step.offset, 8) << step.shift
        whole = <int64_t>bits >> step.shift
        if operation == STEP_DECIMAL:
            exponent = step.exponent if step.scale == NO_REGISTER else r.kept[step.scale]
            wrong |= not number_scaled(whole, exponent, numbers + step.field)
        elif operation == STEP_COUNT:
            bound.fields.integer[step.field - FIELD_SEQ] = whole if step.has_sign else <int64_t>(bits >> step.shift)
            wrong |= step.has_sign and whole == INT64_MIN
        elif operation == STEP_KEEP:
            r.kept[step.kept] = whole if step.has_sign else <int64_t>(bits >> step.shift)
        elif operation == STEP_SIDE:
            bound.fields.side_text = NULL
            bound.fields.side_size = <uint32_t>(bits >> step.shift)
            wrong |= bound.fields.side_size > 1
        elif operation == STEP_FLOAT:
            number = number_real(bits >> step.shift, 8 - (step.shift >> 3))
            numbers[step.field] = number
            wrong |= not number - number == 0
        elif operation == STEP_WHOLE:
            numbers[step.field] = <double>(whole if step.has_sign else <int64_t>(bits >> step.shift))
        else:
            item = b.items + step.item
            s.node = NO_NODE
            if item.type == ITEM_TEXT:
                if not binary_text(j, item, p + step.offset, item.size, &s):
                    return False
            else:
                binary_number(r, item, p + step.offset, &s)
            if item.field != NO_FIELD:
                binary_put(j, item, &s, bound, simd)
        step += 1
    bound.wrong |= wrong
    return True


cdef inline const char* binary_tail(
    slots* j, binary_reading* r, const binary_item* item, const char* p, const char* end, binary_bound* bound, bint simd
) noexcept nogil:
    """The item of no fixed size at p; what follows it, or NULL."""
    cdef slot s
    cdef uint64_t size, count
    cdef const char* fault
    p = binary_length(j, r.layout, item, p, end, &size, &count)
    if p == NULL:
        return NULL
    if item.type == ITEM_GROUP:
        if item.has_text and not binary_texts(j, r.layout, item, p, <uint32_t>size, <uint32_t>count):
            return NULL
        if item.field == FIELD_BIDS or item.field == FIELD_ASKS:
            binary_levels(j, r, item, p, <uint32_t>size, <uint32_t>count, bound, simd)
        bound.missed |= size < item.size and count != 0
        if item.steps and item.field == NO_FIELD:
            bound.group = item
            bound.array = p
            bound.size = <uint32_t>size
            bound.count = <uint32_t>count
    elif item.type == ITEM_TEXT and item.field == FIELD_SYMBOL:
        fault = scan_text_fault(p, p + size)
        if fault != NULL:
            return binary_fail(j, fault)
        bound.fields.symbol = p
        bound.fields.symbol_size = <uint32_t>size
        bound.fields.present |= <uint16_t>(1 << FIELD_SYMBOL)
    elif item.type == ITEM_TEXT:
        s.node = NO_NODE
        if not binary_text(j, item, p, <uint32_t>size, &s):
            return NULL
        if item.field != NO_FIELD:
            binary_put(j, item, &s, bound, simd)
    return p + size * count


cdef inline void binary_levels(
    slots* j, binary_reading* r, const binary_item* group, const char* p, uint32_t size, uint32_t count,
    binary_bound* bound, bint simd,
) noexcept nogil:
    """The elements of a group as depth levels; too short ones are left to the slots."""
    cdef double* pair
    cdef uint32_t _i
    if size < group.size:
        return
    if not slots_grow(j, <void**>&j.levels, &j.max_levels, j.n_levels + count, 2 * sizeof(double)):
        bound.wrong = True
        return
    pair = j.levels + 2 * j.n_levels
    bound.fields.level[group.field - FIELD_BIDS] = j.n_levels
    bound.fields.levels[group.field - FIELD_BIDS] = count
    bound.fields.present |= <uint16_t>(1 << group.field)
    j.n_levels += count
    for _i in range(count):
        binary_steps(j, r, group.first_step, group.steps, p, pair, bound, simd)
        pair += 2
        p += size


cdef inline const char* binary_parts(
    slots* j, binary_reading* r, uint32_t first, uint32_t parts, const char* p, const char* block, const char* end,
    binary_bound* bound, bint simd,
) noexcept nogil:
    """A header or record straight; what follows it, or NULL if it does not fit before `end`."""
    cdef const binary_part* part = r.layout.parts + first
    cdef const binary_part* last = part + parts
    while part < last:
        if block != NULL and part.size > block - p:
            bound.missed = True
            return p
        if part.size > end - p:
            return binary_fail(j, end)
        if not binary_steps(j, r, part.first, part.steps, p, bound.fields.number, bound, simd):
            return NULL
        p += part.size
        if block != NULL:
            p = block
            block = NULL
        if part.tail != NO_NODE:
            p = binary_tail(j, r, r.layout.items + part.tail, p, end, bound, simd)
            if p == NULL:
                return NULL
        part += 1
    return p


cdef inline int binary_straight(
    slots* j, binary_reading* r, const binary_record* record, const char* p, const char* block, const char* end,
    const char** rest, bint simd,
) noexcept nogil:
    """Read a record that is bound to one message straight into its fields; its verdict, or NOT_STRAIGHT."""
    cdef binary_bound* bound = &r.bound
    cdef ff_fields outer
    cdef ff_fields* f = message_open(j, record.message)
    cdef uint32_t _i, before = j.n_fields
    bound.message = &j.program.messages[record.message]
    if f == NULL or bound.message.counts:  # which counts without a tick too
        return NOT_STRAIGHT
    bound.fields = f
    bound.event_ns = 0
    bound.count = 0
    bound.wrong = bound.missed = False
    f.present = record.present
    rest[0] = binary_parts(j, r, record.first_part, record.parts, p, block, end, bound, simd)
    if rest[0] == NULL:
        return MALFORMED
    if bound.missed:
        return NOT_STRAIGHT
    j.messages += 1
    if bound.wrong:
        return UNKNOWN
    if not record.grouped:
        return DATA if message_close(j, bound.message, f, bound.event_ns, simd) else UNKNOWN
    if bound.count > 1:
        outer = f[0]
    p = bound.array
    for _i in range(bound.count):
        if _i:
            f = message_open(j, record.message)
            if f == NULL:
                break
            f[0] = outer
        f.present |= bound.group.present
        bound.fields = f
        if not binary_steps(j, r, bound.group.first_step, bound.group.steps, p, f.number, bound, simd):
            return MALFORMED
        if bound.wrong or not message_close(j, bound.message, f, bound.event_ns, simd):
            j.n_fields = before
            return UNKNOWN
        p += bound.size
    return DATA


cdef inline const char* binary_header(
    slots* j, binary_reading* r, const char* p, const char* end, bint simd
) noexcept nogil:
    """The numbers of the header that the layout needs; what follows it, or NULL."""
    cdef const binary* b = r.layout
    cdef const binary_step* step = b.steps
    cdef const binary_step* last = step + b.parts[0].steps
    cdef uint64_t bits
    if not b.is_plain:
        return binary_parts(j, r, 0, b.header_parts, p, NULL, end, &r.bound, simd)
    if b.parts[0].size > end - p:
        return binary_fail(j, end)
    while step < last:
        bits = number_big(p + step.offset, 8) if b.is_big else number_little(p + step.offset, 8) << step.shift
        r.kept[step.kept] = <int64_t>bits >> step.shift if step.has_sign else <int64_t>(bits >> step.shift)
        step += 1
    return p + b.parts[0].size


cdef inline const char* binary_next(
    slots* j, binary_reading* r, const char* start, const char* end, int* verdict, bint simd
) noexcept nogil:
    """Read one record and take its fields; what follows it, or NULL if it does not fit before `end`.

    One of an unknown type is passed over: by its length, or for want of that to the end.
    """
    cdef const binary* b = r.layout
    cdef const binary_record* record = b.records
    cdef const binary_record* last = record + b.n_records
    cdef const char* block = NULL
    cdef const char* p = binary_header(j, r, start, end, simd)
    cdef const char* q = NULL
    cdef int64_t size
    if p == NULL:
        return NULL
    if b.length != NO_REGISTER:
        size = r.kept[b.length]
        if not p - start <= size <= end - start:
            return binary_fail(j, start)
        end = start + size
    if b.block != NO_REGISTER:
        size = r.kept[b.block]
        if not 0 <= size <= end - p:
            return binary_fail(j, p)
        block = p + size
    while record < last and record.id != r.kept[b.select]:
        record += 1
    verdict[0] = NOT_STRAIGHT
    if record < last and record.message != NO_MESSAGE:
        verdict[0] = binary_straight(j, r, record, p, block, end, &q, simd)
        if verdict[0] == MALFORMED:
            return NULL
    if verdict[0] == NOT_STRAIGHT:
        slots_clear(j)
        binary_items(j, r, 0, b.header, 0, start, NULL, end, simd)
        q = end
        if record < last:
            q = binary_items(j, r, record.first, record.items, 0, p, block, end, simd)
        else:
            r.lost = b.length == NO_REGISTER
    if q == NULL:
        return NULL
    if b.length != NO_REGISTER or (b.version != NO_REGISTER and r.kept[b.version] > b.newest):
        q = end
    if verdict[0] == NOT_STRAIGHT:
        verdict[0] = binary_message(j, r, start, q, simd)
    return q


cdef inline int binary_frame(slots* j, const char* p, const char* end, bint simd) noexcept nogil:
    """Read a padded frame and take its messages. The verdict.

    The rest is in `fields`, `levels`, `controls`, `messages`, `fail`.
    """
    cdef binary_reading r
    cdef const binary* b = j.program.binary
    cdef uint64_t _i, count = 1
    cdef int best = UNKNOWN
    cdef int one = UNKNOWN
    slots_begin(j)
    r.layout = b
    r.lost = False
    r.bound.fields = &r.none
    if b.count:
        count = binary_load(b, p, b.count)
        p += b.count
    for _i in range(count):
        if p >= end or r.lost:
            break
        p = binary_next(j, &r, p, end, &one, simd)
        if p == NULL:
            break
        if one > best:
            best = one
    if p != end or (j.messages != count and not r.lost):
        binary_fail(j, p if p != NULL else end)
        j.n_fields = 0
        return MALFORMED
    if j.failed:
        j.n_fields = 0
        return UNKNOWN
    return best
