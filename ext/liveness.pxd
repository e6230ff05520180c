"""When each (symbol, channel) last arrived, on the monotonic clock, and how late it was by the provider's own time.

One writer; ages may be read from any thread. Knows no prices. Only data touches it: heartbeats, acks, errors and
repeats never make anything fresh.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from order cimport (
    order_expect, order_fence, order_get32, order_load64, order_scan32, order_scan64, order_set32, order_set64,
    order_store64,
)


cdef extern from "scan.h" nogil:
    int ff_ctz(uint64_t x)

cdef enum:
    REQUIRED = 0x80000000  # in `wanted`: the set was asked for and does not grow by itself

cdef struct arrival:
    int64_t mono_ns   # the newest; 0: never
    int64_t usual_ns  # the learned 99th percentile of the inter-arrival times; 0 until two arrivals
    bint silent       # as of the last sweep

cdef struct liveness:
    arrival* arrivals   # [channel * symbols + symbol]: the symbols of one channel lie together
    int64_t* as_of_ns   # likewise: the newest arrival less what it was late by the provider's own time; 0: never
    uint32_t* wanted    # per symbol: channels that must be fresh, one bit each; until REQUIRED, those that ever arrived
    uint32_t symbols
    uint32_t channels
    uint32_t priced     # channels that carry prices, one bit each
    int64_t offset_ns   # what to take off every lag: this machine's clock minus the provider's


cdef inline bint liveness_open(liveness* l, uint32_t symbols, uint32_t channels, uint32_t priced) noexcept nogil:
    memset(l, 0, sizeof(liveness))
    l.symbols = symbols
    l.channels = channels
    l.priced = priced
    l.arrivals = <arrival*>calloc(<size_t>symbols * channels, sizeof(arrival))
    l.as_of_ns = <int64_t*>calloc(<size_t>symbols * channels, sizeof(int64_t))
    l.wanted = <uint32_t*>calloc(symbols, sizeof(uint32_t))
    return l.arrivals != NULL and l.as_of_ns != NULL and l.wanted != NULL


cdef inline void liveness_close(liveness* l) noexcept nogil:
    free(l.arrivals)
    free(l.as_of_ns)
    free(l.wanted)


cdef inline arrival* liveness_at(const liveness* l, uint32_t symbol_id, uint32_t channel) noexcept nogil:
    return &l.arrivals[<size_t>channel * l.symbols + symbol_id]


cdef inline void liveness_expect(const liveness* l, uint32_t symbol_id, uint32_t channel) noexcept nogil:
    """Have what an arrival reads on its way."""
    order_expect(liveness_at(l, symbol_id, channel))
    order_expect(&l.wanted[symbol_id])


cdef inline void liveness_touch(
    liveness* l, uint32_t symbol_id, uint32_t channel, int64_t mono_ns, int64_t lag_ns
) noexcept nogil:
    """Data arrived. `lag_ns`: receipt minus event time as the two clocks stand; 0 where the provider gives none."""
    cdef size_t at = <size_t>channel * l.symbols + symbol_id
    cdef arrival* a = &l.arrivals[at]
    cdef uint32_t bit = l.priced & (<uint32_t>1 << channel)
    cdef uint32_t wanted = l.wanted[symbol_id]
    cdef int64_t gap = mono_ns - a.mono_ns
    cdef int64_t late = lag_ns - l.offset_ns if lag_ns else 0
    if gap > 0 and a.mono_ns:
        # A frugal quantile: up by an eighth, down by a 1,024th, so it rests where one gap in 129 is longer.
        if gap > a.usual_ns:
            order_set64(&a.usual_ns, a.usual_ns + (a.usual_ns >> 3) + 1 if a.usual_ns else gap)
        else:
            order_set64(&a.usual_ns, a.usual_ns - (a.usual_ns >> 10))
    order_set64(&a.mono_ns, mono_ns)
    # Released: whoever finds it fresh finds the price that made it so.
    order_store64(<uint64_t*>&l.as_of_ns[at], mono_ns - (late if late > 0 else 0))
    if bit & ~wanted and not wanted & <uint32_t>REQUIRED:
        order_set32(&l.wanted[symbol_id], wanted | bit)


cdef inline void liveness_forget(liveness* l, uint32_t symbol_id, uint32_t channel) noexcept nogil:
    """Past arrivals no longer vouch for anything; what was learned stays."""
    order_set64(&liveness_at(l, symbol_id, channel).mono_ns, 0)
    order_set64(&l.as_of_ns[<size_t>channel * l.symbols + symbol_id], 0)


cdef inline int64_t liveness_age(
    const liveness* l, uint32_t symbol_id, uint32_t channel, int64_t mono_ns
) noexcept nogil:
    """Age of the newest data in ns, what it was late included; -1 if there never was any."""
    cdef int64_t as_of_ns = order_load64(<const uint64_t*>&l.as_of_ns[<size_t>channel * l.symbols + symbol_id])
    return mono_ns - as_of_ns if as_of_ns else -1


cdef inline int64_t liveness_oldest(const liveness* l, uint32_t symbol_id, int64_t mono_ns) noexcept nogil:
    """The age of the least fresh channel that must be fresh; -1 if one of them never arrived, or there is none."""
    cdef uint32_t wanted = order_get32(&l.wanted[symbol_id]) & ~<uint32_t>REQUIRED
    cdef int64_t age, oldest = -1
    while wanted:
        age = liveness_age(l, symbol_id, <uint32_t>ff_ctz(wanted), mono_ns)
        wanted &= wanted - 1
        if age < 0:
            return -1
        if age > oldest:
            oldest = age
    return oldest


cdef inline void liveness_mask(
    const liveness* l, uint32_t symbols, int64_t mono_ns, int64_t max_age_ns, int channel, uint8_t* fresh
) noexcept nogil:
    """Clear `fresh` of every symbol that is not: channel by channel, each a straight run through memory."""
    cdef const int64_t* as_of_ns
    cdef uint32_t bit, i, c, all_wanted = 0
    if channel < 0:
        for i in range(symbols):
            all_wanted |= order_scan32(&l.wanted[i])
            fresh[i] &= (order_scan32(&l.wanted[i]) & ~<uint32_t>REQUIRED) != 0
    else:
        all_wanted = <uint32_t>1 << channel
    for c in range(l.channels):
        bit = <uint32_t>1 << c
        if not all_wanted & bit:
            continue
        as_of_ns = l.as_of_ns + <size_t>c * l.symbols
        for i in range(symbols):
            fresh[i] &= ((order_scan32(&l.wanted[i]) & bit) == 0 and channel < 0) | (
                (order_scan64(&as_of_ns[i]) != 0) & (mono_ns - order_scan64(&as_of_ns[i]) <= max_age_ns))
    order_fence()  # the rows are read behind it


cdef inline int liveness_sweep(
    liveness* l, uint32_t symbol_id, uint32_t channel, int64_t mono_ns,
    int64_t fixed_ns, double factor, int64_t floor_ns, int64_t ceiling_ns
) noexcept nogil:
    """1 if the channel has fallen silent since the last sweep, -1 if it is heard again, 0 if neither or never heard.

    Silent is longer than `fixed_ns`, or (0) than `factor` times its usual gap, kept between floor and ceiling.
    """
    cdef arrival* a = liveness_at(l, symbol_id, channel)
    cdef int64_t limit = fixed_ns
    cdef bint silent
    if a.mono_ns == 0:
        return 0
    if limit == 0:
        limit = <int64_t>(factor * <double>a.usual_ns)
        if a.usual_ns == 0 or limit > ceiling_ns:
            limit = ceiling_ns  # its pace not known yet: in no hurry
        elif limit < floor_ns:
            limit = floor_ns
    silent = mono_ns - a.mono_ns > limit
    if silent == a.silent:
        return 0
    a.silent = silent
    return 1 if silent else -1
