"""Where a server listens."""

from __future__ import annotations

import socket

from holdfast.errors import InputError


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve at. Raises InputError where that cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise InputError(f"{host}:{port} cannot be listened at: {error}") from error
    # asyncio does so for sockets that say they are TCP's, and these do not: an answer in two parts would wait 40 ms for an
    # acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
