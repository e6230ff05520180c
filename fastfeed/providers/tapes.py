"""Sale conditions of the United States' tapes that do not update the consolidated last price. Letters only.

For providers that pass them on as the tapes write them. Sources: the tables "trade conditions" of the specifications
of CTS (tapes A and B), UTP (tape C) and OPRA (options), as brokers and vendors publish them. Where those let the first
trade of a day pass (sold out of sequence, prior reference, derivatively priced), none does here.
"""

from __future__ import annotations

from typing import Final

# Cash, price variation, odd lot, official close, next day, prior reference, official open, seller, extended hours,
# sold out of those, contingent, sold out of sequence, derivatively priced, qualified contingent.
_BOTH: Final = tuple("CHIMNPQRTUVZ47")
CTA: Final = ("B", *_BOTH)  # B: average price
UTP: Final = ("G", "W", *_BOTH)  # G: bunched and sold; W: average price. Here B is bunched, and counts

# Cancels of four sorts (A C E G), late and out of sequence (B F), of several legs in proprietary products (t u),
# extended hours (v).
OPRA: Final = tuple("ACEGBFtuv")
