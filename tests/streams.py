"""Cameras for tests: a video that is sent over TCP or HTTP as fast as it was taken, to who connects."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

_PACKET = 188  # bytes of a packet of MPEG-TS
_STEP = 0.05  # seconds


class Camera:
    """Sends a file over and over; a context manager.

    Args:
        file: MPEG-TS.
        seconds: how long it lasts, and takes to be sent.
        http: answers as a web server does.
        breaks_after: seconds after which a connection is cut off, whatever was sent.
    """

    def __init__(
        self, file: Path, *, seconds: float, http: bool = False, breaks_after: float | None = None
    ) -> None:
        self._content, self._seconds, self._http = file.read_bytes(), seconds, http
        self._breaks_after = breaks_after
        self._server = socket.create_server(("127.0.0.1", 0))
        self._is_over = threading.Event()
        self.num_connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"{'http' if self._http else 'tcp'}://127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.num_connections += 1
            threading.Thread(target=self._send, args=(connection,), daemon=True).start()

    def _send(self, connection: socket.socket) -> None:
        began = time.monotonic()
        per_step = _PACKET * max(1, round(len(self._content) / _PACKET * _STEP / self._seconds))
        place = 0
        with connection:
            try:
                if self._http:
                    connection.recv(65_536)
                    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")
                while not self._is_over.is_set():
                    if self._breaks_after is not None and time.monotonic() - began > self._breaks_after:
                        return
                    connection.sendall(self._content[place : place + per_step])
                    place = 0 if place + per_step >= len(self._content) else place + per_step
                    time.sleep(_STEP)
            except OSError:
                return
