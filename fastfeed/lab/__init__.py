"""The lab: venues on this machine to point a feed, a bench or a strategy at. Never imported by the feed itself.

`Venue` runs in the caller's event loop, `VenueProcess` in a process of its own; both speak an exchange's protocol, play
recorded or made markets, keep their own count of what they sent, and misbehave on command.
"""

from fastfeed.lab.load import Recording, Synthetic
from fastfeed.lab.process import VenueProcess
from fastfeed.lab.proxy import Proxy
from fastfeed.lab.venue import Venue

__all__ = ["Proxy", "Recording", "Synthetic", "Venue", "VenueProcess"]
