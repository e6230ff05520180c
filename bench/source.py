"""The server of every client bench: finished WebSocket bytes, flat out or at a pace, to one client at a time.

Cheaper than any client, so that the client is what is measured: frames are rendered once, sending is a copy. Binance's
subscriptions, massive's authentication, PING and CLOSE are answered; it is no venue otherwise (fastfeed.lab has one).
`python bench/source.py [--tls] [--times FILE]` prints its address; see `Source` for the lines it takes.
"""

import argparse
import base64
import contextlib
import hashlib
import json
import mmap
import select
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import frames
import numpy as np

HERE = Path(__file__).parent
CERTIFICATE = HERE.parent / "tests" / "localhost.pem"
CHUNK = 1 << 18  # bytes offered to the kernel at a time
BLOCK = 100_000  # frames rendered
# The update id of frame i of pass p: the passes differ in digits of their own, so that few bytes are written a pass.
FIRST_ID = 7_000_000_000_000
PASS = 1_000_000
MAX_TIMED = 4_000_000  # frames whose time of sending is kept
ANSWER_SECONDS = 300.0
SLEEP_MARGIN = 300_000  # ns before a burst is due at which sleeping becomes spinning


def place(update):  # type: ignore[no-untyped-def]
    """Number of a frame in order of sending, from its update id; an int or an array."""
    return (update - FIRST_ID) // PASS * BLOCK + update % PASS


def header(size: int) -> bytes:
    """Of an unmasked, final TEXT frame."""
    return bytes([0x81, size]) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")


class Block:
    """Finished frames end to end, `ends` their offsets, and where the digits of the pass stand in each, if any do."""

    def __init__(self, payloads: list[bytes], digits: bytes | None) -> None:
        self.ends = np.zeros(len(payloads) + 1, np.int64)
        parts = [header(len(payload)) + payload for payload in payloads]
        np.cumsum([len(part) for part in parts], out=self.ends[1:])
        self.bytes = np.frombuffer(bytearray(b"".join(parts)), np.uint8)
        self._marks = None
        if digits is not None:
            found = [part.index(digits) + len(digits) for part in parts]
            self._marks = self.ends[:-1] + found
        self._number = 0

    def turn(self, number: int) -> None:
        """Make it the frames of pass `number`."""
        if self._marks is not None:
            for place in range(6):
                digit = number // 10**place % 10
                if digit != self._number // 10**place % 10:
                    self.bytes[self._marks + (5 - place)] = ord("0") + digit
        self._number = number


def binance_block() -> Block:
    """The made quotes of now in the combined stream's envelope, as a subscriber of USD-M futures gets them."""
    now_ms = time.time_ns() // 1_000_000 - 30_000  # they span 30 s
    payloads = []
    for number, frame in enumerate(frames.quotes(BLOCK, time_ms=now_ms)):
        quote = frame.split(b",", 2)
        symbol = quote[2].split(b'"s":"', 1)[1].split(b'"', 1)[0].lower()
        rest = b'{"stream":"' + symbol + b'@bookTicker","data":' + quote[0]
        payloads.append(rest + b',"u":%d,' % (FIRST_ID + number) + quote[2] + b"}")
    return Block(payloads, b'"u":7')


def massive_block() -> Block:
    """Forex quotes as massive sends them: arrays, here of one. Shorter, no sizes and no update id."""
    names = [f"{base}/{quote}" for base in ("EUR", "GBP", "AUD", "NZD", "CAD") for quote in frames.symbols(100)]
    payloads = []
    for number in range(BLOCK):
        bid = 1 + number % 9973 / 10007
        payloads.append(
            b'[{"ev":"C","p":"%s","x":48,"a":%.5f,"b":%.5f,"t":%d}]'
            % (names[number * 7919 % len(names)].encode(), bid + 0.0001, bid, frames.TIME_MS + number)
        )
    return Block(payloads, None)


class Peer:
    """One client: its handshake, what it subscribes to, and its control frames."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._rest = b""
        request = b""
        while b"\r\n\r\n" not in request:
            more = sock.recv(1 << 16)
            if not more:
                raise ConnectionError("the client left during the handshake")
            request += more
        head, _, self._rest = request.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        self.path = lines[0].split()[1]
        (key,) = (line.split(":")[1].strip() for line in lines if line.lower().startswith("sec-websocket-key:"))
        token = key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(token.encode()).digest()).decode()
        upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        sock.sendall(f"{upgrade}Sec-WebSocket-Accept: {accept}\r\n\r\n".encode())

    def say(self, text: str) -> None:
        self.sock.sendall(header(len(text)) + text.encode())

    def frame(self) -> tuple[int, bytes]:
        """The next frame's opcode and payload; waits for it."""
        while True:
            data = self._rest
            size = data[1] & 0x7F if len(data) > 1 else 0
            start = 2 + (2 if size == 126 else 8 if size == 127 else 0)
            if size > 125 and len(data) >= start:
                size = int.from_bytes(data[2:start], "big")
            if len(data) >= start + 4 + size and len(data) > 1:
                mask = data[start : start + 4]
                payload = bytes(byte ^ mask[n % 4] for n, byte in enumerate(data[start + 4 : start + 4 + size]))
                self._rest = data[start + 4 + size :]
                return data[0] & 0x0F, payload
            more = self.sock.recv(1 << 16)
            if not more:
                raise ConnectionError("the client left")
            self._rest += more

    def subscribed(self) -> None:
        """Returns when the client has asked for everything, each request answered."""
        if self.path.startswith("/forex"):
            self.say('[{"ev":"status","status":"connected","message":"Connected Successfully"}]')
            self._text()
            self.say('[{"ev":"status","status":"auth_success","message":"authenticated"}]')
            self._text()
            return
        streams = 0
        while streams < frames.SYMBOLS:
            request = json.loads(self._text())
            streams += len(request["params"])
            self.say(json.dumps({"result": None, "id": request["id"]}))

    def _text(self) -> bytes:
        while True:
            opcode, payload = self.frame()
            if opcode in (1, 2):
                return payload
            self.answer(opcode, payload)

    def answer(self, opcode: int, payload: bytes) -> None:
        if opcode == 8:
            raise ConnectionError("the client closed")
        if opcode == 9:
            self.sock.setblocking(True)
            self.sock.sendall(bytes([0x8A, len(payload)]) + payload)

    def look(self) -> None:
        """Answer what has arrived; called between frames only. Unread bytes wait for the next look."""
        while self._rest or select.select([self.sock], [], [], 0)[0]:
            self.sock.setblocking(True)
            self.answer(*self.frame())


def flat_out(peer: Peer, block: Block, count: int) -> None:
    """As fast as the client takes them. Its pings are answered between passes of 100,000 frames."""
    peer.sock.setblocking(True)
    number = 0
    while count > 0:
        block.turn(number)
        size = int(block.ends[min(count, BLOCK)])
        view = memoryview(block.bytes)
        for start in range(0, size, CHUNK):
            peer.sock.sendall(view[start : min(start + CHUNK, size)])
        count -= BLOCK
        number += 1
        peer.look()


def paced(peer: Peer, block: Block, size: int, rate: float, seconds: float, times: np.ndarray) -> None:
    """Bursts of `size` frames, `rate` frames a second on average.

    Into `times` goes when each frame came to be, CLOCK_MONOTONIC: if the client does not take it, it waits here and
    grows old. Every burst is due at its own time, however late the one before it was sent.
    """
    bursts = int(rate * seconds) // size
    total = bursts * size
    passes = []
    for number in range(-(-total // BLOCK)):
        block.turn(number)
        passes.append(block.bytes.copy())
    stream = np.concatenate(passes)
    starts = np.arange(len(passes))[:, None] * block.ends[-1]
    ends = np.append((starts + block.ends[:-1]).ravel(), len(stream))
    view = memoryview(stream)
    peer.sock.setblocking(False)
    interval = round(1e9 * size / rate)
    start = time.monotonic_ns() + 100_000_000
    made = sent = made_end = 0
    while sent < made_end or made < total:
        now = time.monotonic_ns()
        due = start + made // size * interval
        if made < total and now >= due:
            times[made : made + size] = now
            made += size
            made_end = int(ends[made])
        if sent < made_end:
            with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError):
                sent += peer.sock.send(view[sent : min(made_end, sent + CHUNK)])
        elif due - now > SLEEP_MARGIN:
            time.sleep((due - now - SLEEP_MARGIN) / 1e9)


def serve(listener: socket.socket, context: ssl.SSLContext | None, times: np.ndarray) -> None:
    """One client after another; each is played to when stdin says how."""
    blocks: dict[str, Block] = {}
    while True:
        accepted, _ = listener.accept()
        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with accepted if context is None else context.wrap_socket(accepted, server_side=True) as sock:
                peer = Peer(sock)
                kind = "massive" if peer.path.startswith("/forex") else "binance"
                if kind not in blocks:
                    blocks[kind] = massive_block() if kind == "massive" else binance_block()
                peer.subscribed()
                line = sys.stdin.readline()
                if not line:
                    return
                options = json.loads(line)
                if "frames" in options:
                    flat_out(peer, blocks[kind], options["frames"])
                else:
                    paced(peer, blocks[kind], options["size"], options["rate"], options["seconds"], times)
                sock.setblocking(True)
                with contextlib.suppress(OSError):
                    while sock.recv(1 << 16):  # until the client has had enough
                        pass
        except (OSError, ConnectionError) as error:
            print(f"source: {error}", file=sys.stderr, flush=True)


class Source:
    """The process: `with Source(tls=False) as source: source.url`; `play(...)` once a client says it is ready.

    `times` is what the clients are given to look up when a frame came to be: a file of int64, CLOCK_MONOTONIC ns.
    """

    def __init__(self, *, tls: bool = False, times: Path | None = None) -> None:
        command = [sys.executable, str(HERE / "source.py")] + (["--tls"] if tls else [])
        command += [] if times is None else ["--times", str(times)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def play(self, **options: float) -> None:
        """`frames=` flat out, or `size=`, `rate=`, `seconds=` in bursts."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(options) + "\n")
        self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def time_file(folder: Path) -> Iterator[Path]:
    """An empty file of times, in memory if the folder is."""
    path = folder / "times"
    with path.open("wb") as file:
        file.truncate(8 * MAX_TIMED)
    yield path
    path.unlink()


def read_times(path: Path) -> np.ndarray:
    """What the source writes into it, seen by every process that maps it."""
    with path.open("r+b") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0), np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--times", type=Path)
    options = parser.parse_args()
    context = None
    if options.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
    times = np.zeros(MAX_TIMED, np.int64) if options.times is None else read_times(options.times)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        scheme, host = ("wss", "localhost") if options.tls else ("ws", "127.0.0.1")
        print(f"{scheme}://{host}:{listener.getsockname()[1]}", flush=True)
        serve(listener, context, times)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
