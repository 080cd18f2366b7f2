"""A real server on a free port of this machine, for the tests that speak to one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from holdfast import Memory
from holdfast.serve.app import create_app
from holdfast.serve.limits import Limits
from holdfast.serve.listening import listen

OWNER = "the-owners-own-key-of-these-tests-0123456789"


@contextmanager
def serving(memory: Memory, *, keep_alive: int = 5, port: int = 0, **more: Any) -> Iterator[str]:
    """Its address, for as long as the block lasts.

    ``keep_alive``: seconds that a connection may idle. ``port``: 0 for any that is free. ``more``: what the application is told, beside having no limit of calls and bytes.
    """
    app = create_app(memory, OWNER, **{"limits": Limits(rate=0, flow=0), **more})
    with listen("127.0.0.1", port) as listening:
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1, timeout_keep_alive=keep_alive)
        server = uvicorn.Server(config)
        app.state.stopping = lambda: server.should_exit
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)
