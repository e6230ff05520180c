"""MessagePack to slots, and from there to messages: one strict parser that runs a schema program. Knows no provider.

As strict as the reference reader: one value a frame, UTF-8 in every string, text or bytes as keys, no code 0xc1, no
false timestamp. A map is what an object is in JSON, an array an array; numbers stay what they are. Frames are padded
(scan.h); nothing here is interned, published or counted.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from layout cimport FIELD_SEQ, FIELD_SYMBOL, FIELD_TIME, LAYOUT_STEPS, ff_fields
from message cimport (
    message_at, message_close, message_count, message_end, message_find, message_is_array, message_judge, message_open,
    message_price, message_put, message_take,
)
from number cimport number_big, number_real, number_signed
from scan cimport scan_same16, scan_text_fault
from schema cimport *
from slots cimport *
from tick cimport FF_CONTROL, FF_LEVEL


cdef enum:
    MSGPACK_DEPTH = 1024  # containers inside each other; the reference reader's limit, and JSON's
    TIMESTAMP = -1        # the type of extension that is a time

cdef enum msgpack_sort:
    SORT_NONE, SORT_NIL, SORT_FALSE, SORT_TRUE, SORT_UNSIGNED, SORT_SIGNED, SORT_REAL
    SORT_TEXT, SORT_BYTES, SORT_EXTENSION, SORT_ARRAY, SORT_MAP

cdef enum plan_action:
    PLAN_NONE
    PLAN_PRICE, PLAN_WHOLE, PLAN_SYMBOL  # wanted, and usually a float, a whole number, a text
    PLAN_TAKE    # wanted, whatever it is
    PLAN_SCALAR  # a value of a known key that this message does not take: an array there would make it another
    PLAN_SKIP    # any value of a key nobody knows

cdef enum:
    PLANS = 4             # remembered at a time
    PLAN_CREDIT = 64      # maps a good record lets plans fail in a row
    PLAN_ROOM = 1024 - 64  # depth at which a skipped value starts: deeper ones are left to the parser

cdef struct msgpack_step:
    uint8_t literal[16]  # the bytes before the value: keys and heads
    uint32_t rest        # a bit for each that does not count
    uint8_t size         # how many they are
    uint8_t action       # PLAN_*
    uint8_t field        # of `want`; of PLAN_WHOLE less FIELD_SEQ
    const schema_field* want

cdef struct msgpack_plan:  # a map as it has been seen before: read without looking up a key
    msgpack_step step[64]
    uint32_t steps
    uint16_t message
    uint16_t present       # of the numbers and the symbol, unless one proves to be something else
    bint is_element        # of an array that is the frame; else the whole frame

cdef struct msgpack_plans:
    msgpack_plan draft
    msgpack_plan plan[4]
    uint8_t order[4]       # in which they are tried: the latest right one first
    uint32_t count
    int32_t credit         # below zero, plans rest for as many maps
    slot trace[64]         # the values of the map being learned, each with its bytes

cdef struct msgpack_head:
    uint8_t sort
    uint64_t value  # of a number its bits; else how many bytes or elements follow


cdef inline const char* msgpack_fail(slots* j, const char* p) noexcept nogil:
    if j.fail == NULL:
        j.fail = p
    return NULL


# ---- the parser: each function takes the bytes at p and gives those after its value, or NULL ----

cdef inline const char* msgpack_open(slots* j, const char* p, const char* end, msgpack_head* h) noexcept nogil:
    """The head of any value: its sort and its number, length or count. Of a number that is the whole of it."""
    cdef uint8_t code = <uint8_t>p[0]
    cdef uint32_t size = 0  # of what is in the head behind the code
    if p >= end:
        return msgpack_fail(j, end)
    h.value = code
    if code < 0x80:
        h.sort = SORT_UNSIGNED
        return p + 1
    if code >= 0xE0:
        h.sort = SORT_SIGNED
        h.value = <uint64_t>(<int64_t>code - 256)
        return p + 1
    if code < 0xC0:
        if code >= 0xA0:
            h.sort = SORT_TEXT
            h.value = code & 31
        else:
            h.sort = SORT_ARRAY if code >= 0x90 else SORT_MAP
            h.value = code & 15
        return p + 1
    if code == 0xCB:
        h.sort = SORT_REAL
        size = 8
    elif code == 0xCA:
        h.sort = SORT_REAL
        size = 4
    elif 0xCC <= code <= 0xCF:
        h.sort = SORT_UNSIGNED
        size = <uint32_t>1 << (code - 0xCC)
    elif 0xD0 <= code <= 0xD3:
        h.sort = SORT_SIGNED
        size = <uint32_t>1 << (code - 0xD0)
    elif 0xD4 <= code <= 0xD8:
        h.sort = SORT_EXTENSION
        h.value = <uint64_t>1 << (code - 0xD4)
    elif 0xD9 <= code <= 0xDB:
        h.sort = SORT_TEXT
        size = <uint32_t>1 << (code - 0xD9)
    elif code >= 0xDC:
        h.sort = SORT_ARRAY if code <= 0xDD else SORT_MAP
        size = 2 if code == 0xDC or code == 0xDE else 4
    elif 0xC4 <= code <= 0xC6:
        h.sort = SORT_BYTES
        size = <uint32_t>1 << (code - 0xC4)
    elif code >= 0xC7:
        h.sort = SORT_EXTENSION
        size = <uint32_t>1 << (code - 0xC7)
    elif code == 0xC1:
        return msgpack_fail(j, p)
    else:
        h.sort = SORT_NIL if code == 0xC0 else SORT_FALSE if code == 0xC2 else SORT_TRUE
        return p + 1
    if size:
        if size > end - p - 1:
            return msgpack_fail(j, end)
        h.value = number_big(p + 1, size)
        if h.sort == SORT_SIGNED:
            h.value = <uint64_t>number_signed(h.value, size)
    return p + 1 + size


cdef inline const char* msgpack_text(slots* j, const char* p, const char* end, uint64_t size) noexcept nogil:
    """The end of the text at p."""
    cdef const char* fault
    if size > <uint64_t>(end - p):
        return msgpack_fail(j, end)
    fault = scan_text_fault(p, p + size)
    return msgpack_fail(j, fault) if fault != NULL else p + size


cdef inline const char* msgpack_time(
    slots* j, const char* p, const char* end, uint64_t size, slot* s
) noexcept nogil:
    """A timestamp in one of its three forms. One beyond int64 nanoseconds is no time, but nothing malformed."""
    cdef uint64_t bits = 0
    cdef int64_t seconds
    if size != 4 and size != 8 and size != 12:
        return msgpack_fail(j, p)
    if size == 4:
        seconds = <int64_t>number_big(p, 4)
    elif size == 8:
        bits = number_big(p, 8)
        seconds = bits & <uint64_t>0x3FFFFFFFF
        bits >>= 34
    else:
        bits = number_big(p, 4)
        seconds = <int64_t>number_big(p + 4, 8)
    if bits > 999999999:
        return msgpack_fail(j, p)
    if -<int64_t>9223372036 < seconds < <int64_t>9223372036:
        s.type = SLOT_TIME
        s.value.integer = seconds * 1000000000 + <int64_t>bits
    return p + size


cdef inline const char* msgpack_scalar(
    slots* j, const char* p, const char* q, const char* end, const msgpack_head* h, slot* s, bint wanted
) noexcept nogil:
    """The rest of a value that is no container: its head is from p to q. Its slot is complete only if wanted."""
    cdef const char* text
    if h.sort == SORT_REAL:
        s.type = SLOT_REAL
        s.value.real = number_real(h.value, <uint32_t>(q - p - 1))
    elif h.sort == SORT_UNSIGNED:
        s.type = SLOT_INTEGER if h.value <= <uint64_t>0x7FFFFFFFFFFFFFFF else SLOT_UNSIGNED
        s.value.unsigned = h.value
    elif h.sort == SORT_SIGNED:
        s.type = SLOT_INTEGER
        s.value.unsigned = h.value
    elif h.sort == SORT_TEXT:
        text = q
        q = msgpack_text(j, text, end, h.value)
        if q != NULL and wanted and not slots_string(j, s, text, <uint32_t>h.value):
            return msgpack_fail(j, p)
    elif h.sort == SORT_EXTENSION:
        s.type = SLOT_OPAQUE
        if h.value >= <uint64_t>(end - q):
            return msgpack_fail(j, end)
        if <signed char>q[0] == TIMESTAMP:
            return msgpack_time(j, q + 1, end, h.value, s)
        q += 1 + h.value
    elif h.sort == SORT_BYTES:
        s.type = SLOT_OPAQUE
        if h.value > <uint64_t>(end - q):
            return msgpack_fail(j, end)
        q += h.value
    elif h.sort == SORT_NIL:
        s.type = SLOT_NULL
    else:
        s.type = SLOT_TRUE if h.sort == SORT_TRUE else SLOT_FALSE
    return q


cdef inline const char* msgpack_value(
    slots* j, const char* p, const char* end, uint32_t node, int depth, bint simd
) noexcept nogil:
    """Any value. Its slot is noted when a node is given; NO_NODE only checks it. `depth`: containers open around it."""
    cdef slot unwanted
    cdef slot* s = &unwanted
    cdef slot* trace = j.trace
    cdef msgpack_head h
    cdef const char* q = msgpack_open(j, p, end, &h)
    if q == NULL:
        return NULL
    if node != NO_NODE:
        s = slots_claim(j, node)
    if h.sort < SORT_ARRAY:
        q = msgpack_scalar(j, p, q, end, &h, s, node != NO_NODE)
    else:
        s.type = SLOT_ARRAY if h.sort == SORT_ARRAY else SLOT_OBJECT
        s.start = p
        if node == NO_NODE:
            j.trace = NULL  # what nobody knows is one value, whatever it holds
        if h.sort == SORT_MAP:
            q = msgpack_map(j, q, end, h.value, node, depth + 1, simd)
        elif node != NO_NODE and j.program.nodes[node].levels:
            q = msgpack_levels(j, q, end, h.value, s, depth + 1, simd)
        elif node != NO_NODE and j.program.nodes[node].conditions:
            j.trace = NULL
            q = msgpack_conditions(j, q, end, h.value, s, depth + 1, simd)
        else:
            q = msgpack_array(j, q, end, h.value, node, depth + 1, simd)
        j.trace = trace
        if node != NO_NODE and s.type != SLOT_CONDITIONS:
            return q
    if trace != NULL and q != NULL:
        if j.traced < LAYOUT_STEPS:
            trace[j.traced].start = p
            trace[j.traced].size = <uint32_t>(q - p)
            trace[j.traced].node = <uint16_t>node
        j.traced += 1
    return q


cdef inline const char* msgpack_key(
    slots* j, const char* p, const char* end, uint32_t node, uint16_t* child
) noexcept nogil:
    """A key; `child` is where it leads below `node`. Keys that are bytes lead nowhere, others are malformed."""
    cdef msgpack_head h
    cdef const char* q = msgpack_open(j, p, end, &h)
    child[0] = NO_NODE
    if q == NULL:
        return NULL
    if h.sort != SORT_TEXT and h.sort != SORT_BYTES:
        return msgpack_fail(j, p)
    if h.value > <uint64_t>(end - q):
        return msgpack_fail(j, end)
    if h.sort == SORT_BYTES:
        return q + h.value
    if node != NO_NODE:
        child[0] = schema_child(&j.program.nodes[node], q, <uint32_t>h.value)
        if child[0] != NO_NODE:
            return q + h.value
    return msgpack_text(j, q, end, h.value)


cdef inline const char* msgpack_map(
    slots* j, const char* p, const char* end, uint64_t count, uint32_t node, int depth, bint simd
) noexcept nogil:
    cdef uint16_t child
    cdef uint64_t _i
    if depth > MSGPACK_DEPTH:
        return msgpack_fail(j, p)
    for _i in range(count):
        p = msgpack_key(j, p, end, node, &child)
        if p == NULL:
            return NULL
        p = msgpack_value(j, p, end, child, depth, simd)
        if p == NULL:
            return NULL
    return p


cdef inline const char* msgpack_array(
    slots* j, const char* p, const char* end, uint64_t count, uint32_t node, int depth, bint simd
) noexcept nogil:
    cdef uint16_t child
    cdef uint64_t i
    if depth > MSGPACK_DEPTH:
        return msgpack_fail(j, p)
    for i in range(count):
        child = NO_NODE
        if node != NO_NODE and i < j.program.nodes[node].positions:
            child = j.program.nodes[node].indexes[i]
        p = msgpack_value(j, p, end, child, depth, simd)
        if p == NULL:
            return NULL
    return p


cdef inline const char* msgpack_levels(
    slots* j, const char* p, const char* end, uint64_t count, slot* s, int depth, bint simd
) noexcept nogil:
    """A list of depth levels, checked and converted in the same pass. One that is no level makes the slot SLOT_BAD."""
    cdef const schema_node* n = &j.program.nodes[s.node]
    cdef double* pair
    cdef uint64_t _i
    cdef bint bad = False
    if depth > MSGPACK_DEPTH:
        return msgpack_fail(j, p)
    s.level = j.n_levels
    for _i in range(count):
        if not slots_grow(j, <void**>&j.levels, &j.max_levels, j.n_levels + 1, 2 * sizeof(double)):
            return msgpack_fail(j, p)
        slots_forget(j, n.level_root, j.program.nodes[n.level_root].end)
        p = msgpack_value(j, p, end, n.level_root, depth, simd)
        if p == NULL:
            return NULL
        pair = j.levels + 2 * j.n_levels
        if not message_price(j, n.level_price, pair, simd) or not message_price(j, n.level_size, pair + 1, simd):
            bad = True
        j.n_levels += 1
    s.type = SLOT_BAD if bad else SLOT_LEVELS
    s.size = j.n_levels - s.level
    return p


cdef inline const char* msgpack_conditions(
    slots* j, const char* p, const char* end, uint64_t count, slot* s, int depth, bint simd
) noexcept nogil:
    """A list of trade conditions, judged in the same pass."""
    cdef uint32_t one = j.program.condition
    cdef uint64_t _i, found = 0
    if depth > MSGPACK_DEPTH:
        return msgpack_fail(j, p)
    for _i in range(count):
        slots_forget(j, one, one + 1)
        p = msgpack_value(j, p, end, one, depth, simd)
        if p == NULL:
            return NULL
        found |= message_judge(j, j.program.nodes[s.node].conditions, &j.slots[one])
    s.type = SLOT_CONDITIONS
    s.value.unsigned = found
    return p


# ---- messages ----

cdef inline bint msgpack_each(slots* j, uint16_t message, uint32_t link, const char* end, bint simd) noexcept nogil:
    """Every element of an array (already checked) through the message; False makes the whole message unknown."""
    cdef const schema_message* m = &j.program.messages[message]
    cdef slot* array = message_at(j, m.each[link].node)
    cdef uint32_t root = m.each[link].root
    cdef msgpack_head h
    cdef const char* p
    cdef uint64_t _i
    j.trace = NULL
    if array == NULL:
        return True
    if not message_is_array(array):
        return False
    p = msgpack_open(j, array.start, end, &h)
    for _i in range(h.value):
        slots_forget(j, root, j.program.nodes[root].end)
        p = msgpack_value(j, p, end, root, 0, simd)
        if p == NULL:
            return False
        if link + 1 < m.n_each:
            if not msgpack_each(j, message, link + 1, end, simd):
                return False
        elif not message_take(j, message, simd):
            return False
    return True


cdef inline int msgpack_message(
    slots* j, const char* start, const char* end, uint16_t first, const char* frame_end, bint simd
) noexcept nogil:
    """Recognise the message from `start` to `end`, `first` on in the program, and take its fields; its verdict."""
    cdef uint32_t before = j.n_fields
    cdef int i = message_find(j, first)
    cdef bint taken
    j.messages += 1
    if i < 0:
        return UNKNOWN
    if j.program.messages[i].kind == FF_CONTROL:
        slots_control(j, start, end)
        message_count(j, <uint16_t>i, simd)
        return CONTROL
    if j.program.messages[i].n_each:
        taken = msgpack_each(j, <uint16_t>i, 0, frame_end, simd)
    else:
        taken = message_take(j, <uint16_t>i, simd)
    return message_end(j, <uint16_t>i, before, taken, simd)


# ---- plans: maps that look like one seen before ----

cdef inline bint msgpack_literal(msgpack_plan* plan, const char* p, const char* end) noexcept nogil:
    """Append the bytes from p to end as steps of at most 16 of them; False if there is no room."""
    cdef msgpack_step* step
    cdef uint32_t n
    while True:
        if plan.steps == LAYOUT_STEPS:
            return False
        step = &plan.step[plan.steps]
        plan.steps += 1
        n = <uint32_t>(end - p) if end - p < 16 else 16
        step.size = <uint8_t>n
        step.action = PLAN_NONE
        memcpy(step.literal, p, n)
        step.rest = <uint32_t>0xFFFF << n & 0xFFFF
        p += n
        if p == end:
            return True


cdef inline void msgpack_wanted(msgpack_step* step, const schema_field* want, uint8_t unit) noexcept nogil:
    """How a value that a message wants is read, if it is of the usual type."""
    step.field = want.field
    step.action = PLAN_TAKE
    if want.action == TAKE_PRICE:
        step.action = PLAN_PRICE
    elif want.action < TAKE_TEXT or (want.field == FIELD_TIME and unit != UNIT_ISO):
        step.action = PLAN_WHOLE
        step.field -= FIELD_SEQ
    elif want.field == FIELD_SYMBOL:
        step.action = PLAN_SYMBOL


cdef inline bint msgpack_learn(
    const slots* j, uint32_t before, const char* p, const char* end, bint is_element, msgpack_plan* plan
) noexcept nogil:
    """Make the plan of the map just parsed, whose tick is `fields[before]`; False if it has none.

    Whatever decides which message this is stays literal, and what is no value of a key, too.
    """
    cdef const schema_message* m
    cdef const slot* s
    cdef const char* mark = p
    cdef msgpack_step* step
    cdef const schema_field* want
    cdef uint32_t i, k
    if j.repeated or j.traced > LAYOUT_STEPS or j.n_fields != before + 1:
        return False
    plan.message = j.fields[before].message
    plan.is_element = is_element
    plan.steps = 0
    plan.present = 0
    m = &j.program.messages[plan.message]
    if m.n_each or m.kind == FF_LEVEL:
        return False
    for i in range(j.traced):
        s = &j.trace[i]
        want = NULL
        for k in range(m.n_fields):
            if s.node != NO_NODE and m.fields[k].node == s.node:
                if want != NULL:
                    return False  # two fields from one value
                want = &m.fields[k]
        if s.node != NO_NODE and j.program.matched[s.node]:
            if want != NULL:
                return False  # taken as well as matched
            continue
        if not msgpack_literal(plan, mark, s.start):
            return False
        mark = s.start + s.size
        step = &plan.step[plan.steps - 1]
        step.want = want
        step.action = PLAN_SCALAR
        if s.node == NO_NODE or j.program.nodes[s.node].conditions:
            step.action = PLAN_SKIP
        if want != NULL:
            msgpack_wanted(step, want, m.unit)
            if step.action < PLAN_TAKE:
                plan.present |= <uint16_t>(1 << want.field)
    return msgpack_literal(plan, mark, end)


cdef inline const char* msgpack_run(
    slots* j, const msgpack_plan* plan, const char* p, const char* end, bint simd
) noexcept nogil:
    """Read a map by a plan, its tick added; what follows the map, or NULL for a miss, which says nothing."""
    cdef const schema_message* m = &j.program.messages[plan.message]
    cdef const msgpack_step* step = plan.step
    cdef const msgpack_step* last = step + plan.steps
    cdef ff_fields* f = message_open(j, plan.message)
    cdef msgpack_head h
    cdef const char* q
    cdef slot s
    cdef double real, nothing = 0    # NaN once a number was not finite
    cdef int64_t whole, over = 0     # negative once a number was too large
    cdef int64_t event_ns = 0
    cdef uint32_t size
    cdef uint8_t code, action
    s.node = NO_NODE
    if f == NULL:
        return NULL
    f.present = plan.present
    while step < last:
        if scan_same16(p, step.literal) | step.rest != 0xFFFF:
            return NULL
        p += step.size
        action = step.action
        if action == PLAN_NONE:
            step += 1
            continue
        if p >= end:
            return NULL
        code = <uint8_t>p[0]
        if code == 0xCB and action == PLAN_PRICE:
            real = number_real(number_big(p + 1, 8), 8)
            nothing += real - real
            f.number[step.field] = real
            p += 9
        elif action <= PLAN_WHOLE and (code < 0x80 or 0xCC <= code <= 0xCF):
            whole = code
            if code >= 0x80:
                size = <uint32_t>1 << (code - 0xCC)
                whole = <int64_t>number_big(p + 1, size)
                over |= whole
                p += size
            p += 1
            if action == PLAN_PRICE:
                f.number[step.field] = <double>whole
            else:
                f.integer[step.field] = whole
        elif action >= PLAN_SCALAR and code < 0x80:
            p += 1
        elif action >= PLAN_SCALAR and 0xCB <= code <= 0xCF:
            p += 9 if code == 0xCB else 1 + (1 << (code - 0xCC))
        elif code & 0xE0 == 0xA0 and (action == PLAN_SYMBOL or action == PLAN_SKIP):
            q = p + 1 + (code & 31)
            if q > end or scan_text_fault(p + 1, q) != NULL:
                return NULL
            if action == PLAN_SYMBOL:
                f.symbol = p + 1
                f.symbol_size = code & 31
            p = q
        elif action == PLAN_SKIP:
            p = msgpack_value(j, p, end, NO_NODE, PLAN_ROOM, simd)
            if p == NULL:
                return NULL
        else:
            q = msgpack_open(j, p, end, &h)
            if q == NULL:
                return NULL
            if h.sort < SORT_ARRAY:
                p = msgpack_scalar(j, p, q, end, &h, &s, step.want != NULL)
            elif h.sort == SORT_ARRAY and step.want != NULL and step.want.action == TAKE_CONDITIONS:
                p = msgpack_value(j, p, end, step.want.node, PLAN_ROOM, simd)
                s = j.slots[step.want.node]
            else:
                return NULL
            if p == NULL:
                return NULL
            if step.want != NULL:
                f.present &= <uint16_t>~(1 << step.want.field)
                if not message_put(j, m, step.want, &s, f, &event_ns, simd):
                    return NULL
        step += 1
    if over < 0 or not nothing == 0 or p > end or not message_close(j, m, f, event_ns, simd):
        return NULL
    j.messages += 1
    return p


cdef inline const char* msgpack_planned(
    slots* j, msgpack_plans* plans, const char* p, const char* end, bint is_element, bint simd
) noexcept nogil:
    """Try the remembered plans on the map at p, the latest right one first; NULL if none fits."""
    cdef uint32_t i
    cdef const msgpack_plan* plan
    cdef const char* q
    j.trace = NULL
    if plans == NULL:
        return NULL
    if plans.credit < 0:
        plans.credit += 1
        return NULL
    for i in range(plans.count):
        plan = &plans.plan[plans.order[i]]
        if plan.is_element != is_element:
            continue
        q = msgpack_run(j, plan, p, end, simd)
        if q == NULL or (not is_element and q != end):
            continue
        if i:
            plans.order[i], plans.order[0] = plans.order[0], plans.order[i]
        plans.credit = PLAN_CREDIT
        return q
    j.fail = NULL
    if plans.count:
        plans.credit -= 1
        if plans.credit < 0:
            plans.credit = -16 * PLAN_CREDIT
    j.trace = plans.trace
    j.traced = 0
    j.repeated = False
    return NULL


cdef inline void msgpack_remember(
    slots* j, msgpack_plans* plans, uint32_t before, const char* p, const char* end, bint is_element
) noexcept nogil:
    """Learn the map just parsed, if it was traced, in the place of the plan that is tried last."""
    cdef uint32_t i
    if plans == NULL or j.trace == NULL or not msgpack_learn(j, before, p, end, is_element, &plans.draft):
        return
    i = plans.order[PLANS - 1]
    if plans.count < PLANS:
        i = plans.count
        plans.order[i] = <uint8_t>i
        plans.count += 1
    plans.plan[i] = plans.draft


# ---- frames ----

cdef inline int msgpack_elements(
    slots* j, const char* p, const char* end, uint32_t root, uint16_t first, bint simd
) noexcept nogil:
    """Each element of the array at p, already checked, as a message of its own; the highest verdict."""
    cdef int best = UNKNOWN
    cdef int one
    cdef msgpack_head h
    cdef const char* q
    cdef uint64_t _i
    j.trace = NULL
    p = msgpack_open(j, p, end, &h)
    for _i in range(h.value):
        slots_forget(j, root, j.program.nodes[root].end)
        q = msgpack_value(j, p, end, root, 1, simd)
        one = msgpack_message(j, p, q, first, end, simd)
        if one > best:
            best = one
        p = q
    return best


cdef inline int msgpack_batch(
    slots* j, msgpack_plans* plans, const char* p, const char* end, const char** rest, bint simd
) noexcept nogil:
    """A frame that is an array, each element a message; the highest verdict, or MALFORMED.

    Only once is it read: an element's fields are taken while its slots are there. `rest` is what follows the array.
    """
    cdef int best = UNKNOWN
    cdef int one
    cdef msgpack_head h
    cdef const char* q
    cdef uint64_t _i
    cdef uint32_t before
    p = msgpack_open(j, p, end, &h)
    if p == NULL:
        return MALFORMED
    for _i in range(h.value):
        q = msgpack_planned(j, plans, p, end, True, simd)
        one = DATA
        if q == NULL:
            slots_clear(j)
            before = j.n_fields
            q = msgpack_value(j, p, end, 0, 1, simd)
            if q == NULL:
                return MALFORMED
            one = msgpack_message(j, p, q, 0, end, simd)
            if one == DATA:
                msgpack_remember(j, plans, before, p, q, True)
        if one > best:
            best = one
        p = q
    rest[0] = p
    return best


cdef inline int msgpack_frame(slots* j, msgpack_plans* plans, const char* p, const char* end, bint simd) noexcept nogil:
    """Parse a padded frame and take its messages. The verdict.

    The rest is in `fields`, `levels`, `controls`, `messages`, `fail`.
    """
    cdef const char* q = NULL
    cdef bint is_array = p < end and (p[0] & 0xF0 == 0x90 or p[0] & 0xFE == 0xDC)
    cdef int found = UNKNOWN
    slots_begin(j)
    if is_array and not j.program.positional:
        found = msgpack_batch(j, plans, p, end, &q, simd)
    elif not is_array and msgpack_planned(j, plans, p, end, False, simd) != NULL:
        return DATA
    else:
        if is_array:
            j.trace = NULL
        slots_clear(j)  # a plan that did not fit may have filled some
        q = msgpack_value(j, p, end, 0, 0, simd)
        if q == end:
            found = msgpack_whole(j, p, end, is_array, simd)
            if found == DATA and not is_array:
                msgpack_remember(j, plans, 0, p, end, False)
    if found != MALFORMED and q != NULL and q != end:
        msgpack_fail(j, q)
    if found == MALFORMED or q != end:
        j.n_fields = 0
        return MALFORMED
    if j.failed:
        j.n_fields = 0
        return UNKNOWN
    return found


cdef inline int msgpack_whole(slots* j, const char* p, const char* end, bint is_array, bint simd) noexcept nogil:
    """The verdict on a value read whole: one message, or an array of them, bare or in the envelope."""
    cdef const slot* payload = message_at(j, j.program.envelope)
    cdef int found = UNKNOWN
    if is_array:
        found = msgpack_message(j, p, end, 0, end, simd)
        if found != UNKNOWN:
            return found
        j.messages = j.n_fields = 0
        return msgpack_elements(j, p, end, 0, 0, simd)
    if payload != NULL and payload.type == SLOT_OBJECT:
        return msgpack_message(j, p, end, j.program.n_messages, end, simd)
    if payload != NULL and payload.type == SLOT_ARRAY:
        return msgpack_elements(j, payload.start, end, payload.node, j.program.n_messages, simd)
    return msgpack_message(j, p, end, 0, end, simd)
