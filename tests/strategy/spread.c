/* A user's C kernel on the shipped record: the mean spread of the quotes among n ticks. Knows fastfeed.h and nothing else. */
#include "fastfeed.h"

_Static_assert(sizeof(ff_tick) == 64, "one tick, one cache line");
_Static_assert(sizeof(ff_row) == 128, "one row, two cache lines");

double mean_spread(const ff_tick *ticks, long n) {
    double sum = 0;
    long quotes = 0;
    for (long i = 0; i < n; i++) {
        if (ticks[i].kind != FF_QUOTE) continue;
        sum += ticks[i].value[2] - ticks[i].value[0];
        quotes++;
    }
    return quotes ? sum / quotes : 0.0;
}
