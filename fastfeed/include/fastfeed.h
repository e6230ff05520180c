/* The records, declared once: the tick and the row as C, Cython, numpy and users' own code see them.
 * Layout only, no behaviour. A change here is a change of the public ABI: sizes and offsets are held by tests
 * against TICK_DTYPE and PRICE_DTYPE. Times are UTC epoch nanoseconds, prices and sizes float64, NaN where absent. */
#ifndef FASTFEED_H
#define FASTFEED_H

#include <stdint.h>

enum ff_kind {
    FF_QUOTE = 1,      /* bid bid_size ask ask_size */
    FF_TRADE = 2,      /* price size */
    FF_LEVEL = 3,      /* price size of one level of a depth message; size 0 removes; FF_SELL marks asks */
    FF_MARK = 4,       /* price index funding */
    FF_BAR = 5,        /* open high low close */
    FF_BAR_VOLUME = 6, /* volume vwap trades start; follows its FF_BAR */
    FF_CORRECTION = 7, /* price size that the trade told before as `seq` had; without a size it did not happen */
    FF_CONTROL = 255   /* recognised, but not data: never a tick */
};

enum ff_flag {
    FF_SNAPSHOT = 1,   /* part of a snapshot, not a change */
    FF_LAST_LEVEL = 2, /* the last level of its depth message */
    FF_AFTER_GAP = 4,  /* something before this tick was missed; on a row: not yet repaired */
    FF_DUPLICATE = 8,  /* seen before, or older than what was seen: not merged into the row */
    FF_NOT_LAST = 16,  /* a trade that leaves the last price, and what dates it, alone */
    FF_SELL = 32       /* the aggressor sold; on a level: an ask */
};

enum ff_status { FF_NO_DATA = 0, FF_LIVE = 1, FF_QUIET = 2, FF_SUSPECT = 3, FF_STALE = 4, FF_RECOVERING = 5, FF_CLOSED = 6 };

/* One tick: one cache line. */
typedef struct ff_tick {
    uint32_t symbol_id; /* index into the table's symbols */
    uint8_t kind;       /* enum ff_kind: which four numbers these are */
    uint8_t flags;      /* enum ff_flag */
    uint16_t source;    /* which connection of the feed it came by */
    int64_t seq;        /* the provider's sequence number or trade id, 0 where it has none */
    int64_t event_ns;   /* the provider's time, 0 where it gives none */
    int64_t recv_ns;    /* this machine's clock when the socket read returned */
    double value[4];    /* named by kind, see enum ff_kind */
} ff_tick;

/* One symbol's latest prices: two cache lines, written under a sequence lock. */
typedef struct ff_row {
    uint32_t symbol_id;
    uint8_t status;     /* enum ff_status as of the last sweep */
    uint8_t flags;      /* FF_AFTER_GAP until repaired */
    uint32_t version;   /* odd while the row is being written */
    uint32_t conflated; /* in a batch: updates this consumer skipped; 0 in the table itself */
    double bid;
    double bid_size;
    double ask;
    double ask_size;
    double last;
    double last_size;
    int64_t event_ns;   /* of the newest update of any kind */
    int64_t recv_ns;
    int64_t seq;
    uint64_t updates;   /* ticks merged into this row since it exists */
    int64_t quote_seq;
    int64_t quote_event_ns;
    int64_t trade_seq;  /* these two are of the trade that is `last` */
    int64_t trade_event_ns;
} ff_row;

#endif
