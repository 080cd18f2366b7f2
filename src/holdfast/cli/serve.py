"""The command that serves a store over HTTP, to programs and to people: ``holdfast serve``."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path
from typing import Any

from holdfast.cli.options import announce_new, embedder, store_path
from holdfast.cli.screen import Screen
from holdfast.memory import Memory
from holdfast.retrieve import loops
from holdfast.serve.listening import listen

KEY_FILE = "holdfast-owner.key"


def register(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands("serve", serve, "serve a store over HTTP: the REST API, and the console for people")
    parser.add_argument("place", nargs="?", metavar="PATH_OR_URL", help="the store (as --store)")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8200, help="0: any that is free (default: 8200)")
    parser.add_argument(
        "--owner-key-file",
        metavar="FILE",
        default=KEY_FILE,
        help=f"holds the key that opens everything; made where it is absent (default: ./{KEY_FILE})",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="callers may know this server by this name too",
    )
    parser.add_argument("--rate", type=float, default=50.0, metavar="N", help="calls a second of one caller; 0: any")
    parser.add_argument(
        "--flow",
        type=float,
        default=16.0,
        metavar="N",
        help="MiB a second that one caller may send; 0: any (default: 16)",
    )
    parser.add_argument("--durability", choices=["full", "normal"], default="full", help="of every commit")
    parser.add_argument(
        "--recipe", metavar="NAME", help="how experience is learnt from (holdfast evolve, docs/recipes.md)"
    )
    parser.add_argument("--evidence", metavar="FOLDER", default="evidence", help="of the claims that the console shows")
    parser.add_argument("--metrics", action="store_true", help="count calls for Prometheus, at /metrics")
    parser.add_argument(
        "--traces", action="store_true", help="make spans of OpenTelemetry, which OTEL_* sends somewhere"
    )


def serve(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast serve``."""
    if args.place is not None:
        args.store = args.place
    app = importlib.import_module("holdfast.serve.app")
    calls = importlib.import_module("holdfast.serve.calls")
    limits = importlib.import_module("holdfast.serve.limits")
    uvicorn = importlib.import_module("uvicorn")
    file = Path(args.owner_key_file).expanduser()
    key, made = calls.own_key(file)
    listening = listen(args.host, args.port)
    # uvicorn raises the signal again once it has stopped: the store is closed then, and not left to its end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    new = announce_new(args)
    with (
        listening,
        Memory(
            store_path(args),
            tenant=args.tenant,
            embedder=embedder(args.embedder),
            durability=args.durability,
            recipe=args.recipe,
        ) as memory,
    ):
        # Compiling takes a core for seconds: it begins in the background now, and not when the first caller searches.
        loops.suited(memory.store.counts()["memories"])
        for note in (new, *memory.degraded):
            if note:
                screen.note(note)
        name = [] if args.host in ("0.0.0.0", "::") else [args.host]  # noqa: S104  (compared, not bound)
        served = app.create_app(
            memory,
            key,
            hosts=[*name, *args.allow_host],
            limits=limits.Limits(rate=args.rate, flow=args.flow * 2**20),
            evidence=Path(args.evidence).expanduser(),
            durability=args.durability,
            metrics=args.metrics,
            traces=args.traces,
        )
        where = f"[{args.host}]" if ":" in args.host else args.host
        screen.note(f"the owner's key {'was made and ' if made else ''}is in {file}")
        screen.note(f"listening at http://{where}:{listening.getsockname()[1]}/")
        config = uvicorn.Config(
            served,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=10,
        )
        server = uvicorn.Server(config)
        served.state.stopping = lambda: server.should_exit  # pages that are open would hold up the end
        server.run(sockets=[listening])
    return 0
