# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""The least a compiled client can do: a picows listener that counts its frames and looks into none.

What any client of picows pays, fastfeed included; the floor that its cost per message is held against.
"""

from picows.picows cimport WSFrame, WSListener, WSMsgType, WSTransport


cdef class Noop(WSListener):
    """Tells `saw(count)` once per socket read."""

    cdef object _saw
    cdef object _connected
    cdef long _count

    def __init__(self, connected, saw):
        self._connected = connected
        self._saw = saw

    cpdef on_ws_connected(self, WSTransport transport):
        self._connected(transport)

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        if frame.msg_type == WSMsgType.TEXT:
            self._count += 1
        if frame.last_in_buffer:
            self._saw(self._count)
