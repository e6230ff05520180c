# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: auto_pickle=False, embedsignature=True, freethreading_compatible=True
"""One WebSocket connection: picows frames in, the decoder called on their bytes in place, one wake-up per socket read.

The only compiled module that touches picows; of its pxd it uses WSListener and the frame's plain fields (its vtable may
change under us), the transport goes through Python. What picows leaves open is done here: fragments, reserved bits,
opcode order, UTF-8, PING, CLOSE, message size, permessage-deflate. No reconnecting, no subscriptions, no logging.
"""

import re
import zlib

from picows import WSCloseCode as CloseCode
from picows import WSMsgType as MsgType

cimport cython
from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t, uint16_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy
from picows.picows cimport WSFrame, WSListener, WSMsgType, WSTransport

from fastfeed._core cimport Decoder


cdef enum:
    PADDING = 64         # what the decoder wants to be able to read behind a frame
    VERDICT_DATA = 2
    VERDICT_MALFORMED = 3
    NO_CODE = -1         # a CLOSE without a code


OFFER = "permessage-deflate; client_max_window_bits"
_PARAMETER = re.compile(r'(?:server|client)_(?:no_context_takeover|max_window_bits=(?:"?)(?:8|9|1[0-5])"?)')


def agreed(answer):
    """Whether the server's Sec-WebSocket-Extensions accepts our `OFFER`, and whether it starts every message anew.

    Two booleans; None for the header means no. Raises ValueError for an answer to something that was not offered.
    What it says of window sizes needs no heed: the largest window reads all, and what we send is not compressed.
    """
    if answer is None or not answer.strip():
        return False, False
    name, *parameters = ["".join(part.split()) for part in answer.split(";")]
    keys = [parameter.partition("=")[0] for parameter in parameters]
    known = all(_PARAMETER.fullmatch(parameter) for parameter in parameters)
    if name != "permessage-deflate" or not known or len(set(keys)) != len(keys):
        raise ValueError(f"the server answered {answer!r} to the extension offered, {OFFER!r}")
    return True, "server_no_context_takeover" in keys


cdef class Wire(WSListener):
    """The listener of one connection.

    `handler` is called in the read: wire_connected, wire_control, wire_pong, wire_read, wire_closed.
    """

    cdef Decoder _decoder
    cdef object _handler
    cdef object _transport
    cdef uint16_t _source
    cdef Py_ssize_t _max_message
    cdef char* _parts         # the fragments of an unfinished message, joined
    cdef Py_ssize_t _parts_size
    cdef Py_ssize_t _parts_room
    cdef bint _fragmented
    cdef bint _text           # the unfinished message is TEXT
    cdef bint _deflated       # and compressed
    cdef object _inflater     # of compressed messages; None: not negotiated
    cdef bint _anew           # every message is compressed by itself
    cdef bint _reading        # inside a socket read: its times are taken
    cdef bint _ticked
    cdef bint _dead           # closed by either side: what still arrives is ignored
    cdef bint _closed         # wire_closed has been told
    cdef int _code            # why we closed; 0: we did not
    cdef str _reason
    cdef int64_t _recv_ns
    cdef readonly int64_t last_read_mono_ns
    cdef readonly uint64_t bytes_received
    cdef readonly uint64_t frames_received
    cdef readonly uint64_t pings_answered

    def __init__(self, Decoder decoder not None, handler, *, uint16_t source=0, Py_ssize_t max_message=10 * 2**20):
        self._decoder = decoder
        self._handler = handler
        self._source = source
        self._max_message = max_message
        self._reason = ""

    def __dealloc__(self):
        free(self._parts)

    def inflate(self, *, bint anew):
        """Before the first frame: compressed messages may come (RFC 7692). `anew`: each is compressed by itself."""
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._anew = anew

    # ---- what the feed may do ----

    def send(self, text not None):
        """Send one TEXT message, or a BINARY one of bytes."""
        if isinstance(text, bytes):
            self._transport.send(MsgType.BINARY, text)
        else:
            self._transport.send(MsgType.TEXT, text.encode())

    def ping(self, bytes payload=b""):
        """Send a protocol PING; its PONG comes to `wire_pong` with the same payload."""
        self._transport.send_ping(payload)

    def close(self, int code=1000, str reason=""):
        """Send CLOSE and disconnect; `wire_closed` follows with this code. Idempotent."""
        self._shut(code, reason)

    def abort(self):
        """Drop the connection without a word."""
        self._dead = True
        if self._transport is not None:
            self._transport.disconnect(False)

    # ---- what picows tells ----

    cpdef on_ws_connected(self, WSTransport transport):
        self._transport = transport
        self._decoder.connected(self._source)
        self._handler.wire_connected(self)

    cpdef on_ws_disconnected(self, WSTransport transport):
        cdef int code = self._code
        cdef str reason = self._reason
        if self._closed:
            return
        self._closed = self._dead = True
        self._end_read()
        if not code:
            handshake = transport.close_handshake
            # sent alone: picows itself closed for a violation
            info = None if handshake is None else handshake.recv or handshake.sent
            code = 1006 if info is None else int(info.code) or 1005
            reason = "" if info is None else info.reason or ""
        self._handler.wire_closed(self, code, reason)

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        if self._dead:
            return
        if not self._reading:
            self._reading = True
            self._decoder.clock.now(&self.last_read_mono_ns, &self._recv_ns)
        self.frames_received += 1
        self.bytes_received += frame.payload_size
        if frame.rsv2 or frame.rsv3 or (frame.rsv1 and not self._may_be_deflated(frame)):
            self._shut(1002, "a reserved bit is set that no negotiated extension uses")
        elif frame.msg_type == WSMsgType.TEXT or frame.msg_type == WSMsgType.BINARY:
            self._begin(frame)
        elif frame.msg_type == WSMsgType.CONTINUATION:
            self._join(frame)
        else:
            self._control(frame)
        if frame.last_in_buffer or self._dead:
            self._end_read()

    # ---- messages ----

    cdef bint _may_be_deflated(self, WSFrame frame) noexcept:
        """Only the first frame of a message says that it is."""
        return self._inflater is not None and (
            frame.msg_type == WSMsgType.TEXT or frame.msg_type == WSMsgType.BINARY)

    cdef int _begin(self, WSFrame frame) except -1:
        if self._fragmented:
            self._shut(1002, "a new message began before the fragmented one ended")
        elif frame.fin and frame.rsv1:
            self._inflated(frame.payload_ptr, frame.payload_size, frame.msg_type == WSMsgType.TEXT)
        elif frame.fin:
            self._message(frame.payload_ptr, frame.payload_size, frame.tail_size, frame.msg_type == WSMsgType.TEXT)
        else:
            self._fragmented = True
            self._text = frame.msg_type == WSMsgType.TEXT
            self._deflated = frame.rsv1
            self._parts_size = 0
            self._append(frame)
        return 0

    cdef int _join(self, WSFrame frame) except -1:
        if not self._fragmented:
            self._shut(1002, "a continuation of no message")
        elif self._append(frame) and frame.fin:
            self._fragmented = False
            if self._deflated:
                self._inflated(self._parts, self._parts_size, self._text)
            else:
                self._message(self._parts, self._parts_size, PADDING, self._text)
        return 0

    cdef int _inflated(self, char* payload, Py_ssize_t size, bint text) except -1:
        """Decode one compressed message, unless it is too large or none."""
        cdef bytes message
        try:
            message = self._inflate(PyMemoryView_FromMemory(payload, size, PyBUF_READ))
        except zlib.error as error:
            self._shut(1007, f"a message that cannot be inflated: {error}")
            return 0
        if message is None:
            self._shut(1009, f"a message of more than {self._max_message} bytes")
            return 0
        return self._message(PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message), 0, text)

    cdef bytes _inflate(self, payload):
        """What a message is, inflated; None if that is more than a message may be."""
        cdef bytes found = b""
        cdef object rest
        cdef int ends = 0
        if self._anew:
            self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        for part in (payload, b"\0\0\xff\xff"):  # the sender has cut this end off
            rest = part
            while len(rest):
                found += self._inflater.decompress(rest, self._max_message + 1 - len(found))
                if len(found) > self._max_message:
                    return None
                rest = self._inflater.unused_data
                if self._inflater.eof:  # a block may say that it is the last: what follows begins afresh
                    ends += 1
                    if ends > 1:
                        raise zlib.error("more than one last block")
                    self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        return found

    cdef bint _append(self, WSFrame frame) except -1:
        """Add a fragment to the one reused buffer, which keeps the decoder's padding behind it."""
        cdef Py_ssize_t need = self._parts_size + frame.payload_size
        cdef char* bigger
        if need > self._max_message:
            self._shut(1009, f"a message of more than {self._max_message} bytes")
            return False
        if need + PADDING > self._parts_room:
            bigger = <char*>realloc(self._parts, 2 * need + PADDING)
            if bigger == NULL:
                raise MemoryError
            self._parts = bigger
            self._parts_room = 2 * need + PADDING
        memcpy(self._parts + self._parts_size, frame.payload_ptr, frame.payload_size)
        self._parts_size = need
        return True

    cdef int _message(self, char* payload, Py_ssize_t size, Py_ssize_t readable, bint text) except -1:
        """Decode one whole message; control messages go up as bytes."""
        cdef int verdict
        with cython.critical_section(self._decoder.prices):  # who changes the table holds its lock: _core.pyx
            verdict = self._decoder.frame(
                payload, size, readable, self._recv_ns, self.last_read_mono_ns, self._source, text
            )
        if verdict == VERDICT_DATA:
            self._ticked = True
        if verdict == VERDICT_MALFORMED:
            if text:
                self._check_text(payload, size)
        elif self._decoder.spoke():
            self._tell_controls()
        return 0

    cdef int _tell_controls(self) except -1:
        for message in self._decoder.controls():
            self._handler.wire_control(self, message)
        return 0

    cdef int _check_text(self, const char* payload, Py_ssize_t size) except -1:
        """A TEXT message must be UTF-8 (RFC 6455, 8.1).

        Well-formed JSON always is, so only malformed ones are looked at.
        """
        try:
            payload[:size].decode("utf-8")
        except UnicodeDecodeError:
            self._shut(1007, "a text message that is not UTF-8")
        return 0

    # ---- control frames ----

    cdef int _control(self, WSFrame frame) except -1:
        cdef bytes payload = PyBytes_FromStringAndSize(frame.payload_ptr, frame.payload_size)
        self._flush()
        if frame.msg_type == WSMsgType.PING:
            self._transport.send_pong(payload)
            self.pings_answered += 1
        elif frame.msg_type == WSMsgType.PONG:
            self._handler.wire_pong(self, payload)
        else:
            self._answer_close(int.from_bytes(payload[:2], "big") if payload else NO_CODE)
        return 0

    cdef int _answer_close(self, int code) except -1:
        """With the code received (RFC 6455, 5.5.1). picows has already refused invalid reasons."""
        if code != NO_CODE and not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
            self._shut(1002, f"a CLOSE with code {code}, which may not be sent")
            return 0
        self._dead = True
        if not self._transport.is_close_frame_sent:
            self._transport.send_close(_close_code(code)) if code != NO_CODE else self._transport.send_close()
        self._transport.disconnect()
        return 0

    cdef int _shut(self, int code, str reason) except -1:
        """We close, and say why; later frames are ignored."""
        if self._dead or self._transport is None:
            return 0
        self._dead = True
        self._code = code
        self._reason = reason
        if not self._transport.is_close_frame_sent:
            self._transport.send_close(_close_code(code), reason.encode()[:123])
        self._transport.disconnect()
        return 0

    cdef int _flush(self) except -1:
        """Whoever is told something finds in the table all that came before it."""
        with cython.critical_section(self._decoder.prices):
            self._decoder.flush()
        return 0

    cdef int _end_read(self) except -1:
        """The one wake-up of this read."""
        cdef bint ticked = self._ticked
        if not self._reading:
            return 0
        self._flush()
        self._reading = False
        self._ticked = False
        self._handler.wire_read(self, ticked)
        return 0


cdef object _close_code(int code):
    try:
        return CloseCode(code)
    except ValueError:
        return code  # a private code (3000-4999): picows takes the number
