"""Latencies in log-linear bins (the HDR layout): 32 bins to every doubling, so a percentile is off by 3 % at most.

Values are non-negative integers of any unit. No clock, no floats on the recording side.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef enum:
    HISTOGRAM_BINS = 1920  # 32 exact ones, then 32 a doubling up to 2^63

cdef struct histogram:
    uint64_t bins[1920]
    uint64_t count
    int64_t largest


cdef extern from "scan.h" nogil:
    int ff_clz(uint64_t x)


cdef inline void histogram_record(histogram* h, int64_t value) noexcept nogil:
    cdef uint32_t shift
    if value < 0:
        value = 0
    if value > h.largest:
        h.largest = value
    h.count += 1
    shift = 58 - ff_clz(<uint64_t>value | 32)  # 0 for the exact ones too
    h.bins[32 * shift + (<uint64_t>value >> shift)] += 1


cdef inline int64_t histogram_quantile(const histogram* h, double q) noexcept nogil:
    """The value below or at which the share `q` of the records lies (upper edge of its bin); 0 without records."""
    cdef uint64_t rank = <uint64_t>(q * <double>h.count)
    cdef uint64_t seen = 0
    cdef int64_t value
    cdef uint32_t i, shift
    if h.count == 0:
        return 0
    if rank >= h.count:
        rank = h.count - 1
    for i in range(1920):
        seen += h.bins[i]
        if seen > rank:
            if i < 32:
                return i
            shift = i // 32 - 1
            value = (<int64_t>(i % 32 + 33) << shift) - 1
            return value if value < h.largest else h.largest
    return h.largest
