"""The command that serves one user's memory to an agent over the Model Context Protocol: ``holdfast mcp``."""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path
from typing import Any

from holdfast.cli.options import announce_new, open_memory
from holdfast.cli.screen import Screen
from holdfast.errors import InputError


def register(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands("mcp", mcp, "serve one user's memory to an agent over the Model Context Protocol")
    parser.add_argument("place", nargs="?", metavar="PATH_OR_URL", help="the store (as --store)")
    parser.add_argument("--key-file", metavar="FILE", help="act as the holder of the key in this file")
    parser.add_argument(
        "--http", metavar="HOST:PORT", help="serve over HTTP, where each caller brings a key (default: stdio)"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="callers may know this server by this name too",
    )
    parser.add_argument(
        "--closed",
        action="store_true",
        help="the agent reads nothing but this memory and its user: what it writes is taken for its own word",
    )
    parser.add_argument("--cost", action="store_true", help="print what the tools cost of a model's context, and end")


def mcp(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast mcp``."""
    if args.cost:
        return _cost(screen)
    if args.place is not None:
        args.store = args.place
    if args.key_file:
        args.key = _key(Path(args.key_file).expanduser())
    if args.http and (args.key or os.environ.get("HOLDFAST_KEY")):
        raise InputError("over HTTP each caller brings a key of its own; leave out --key, --key-file and HOLDFAST_KEY")
    if args.allow_host and not args.http:
        raise InputError("--allow-host is for --http")
    where = _address(args.http) if args.http else None
    served = importlib.import_module("holdfast.serve.mcp")
    made = announce_new(args)
    with open_memory(args, create=True, background=True) as memory:
        for note in (made, *memory.degraded):
            if note:
                screen.note(note)  # on standard error: standard output is the protocol's
        service = served.Service(memory, keyed=where is not None, closed=args.closed)
        if where is None:
            served.serve_stdio(service)
        else:
            served.serve_http(service, *where, args.allow_host, lambda url: screen.note(f"listening at {url}"))
    return 0


def _cost(screen: Screen) -> int:
    told = importlib.import_module("holdfast.serve.mcp").cost()
    total = sum(told.values())
    if screen.json:
        screen.data({"tokens": told, "total": total})
        return 0
    screen.table([*told.items(), ("together", total)], ("told to a model", "tokens, about"))
    return 0


def _key(path: Path) -> str:
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the key cannot be read from {path}: {error}") from error
    if not key:
        raise InputError(f"{path} holds no key; make one with: holdfast access key NAME")
    return key


def _address(where: str) -> tuple[str, int]:
    host, _, port = where.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if where.count(":") > 1 else host
    if not port.isdecimal() or int(port) > 65535:
        raise InputError(f"{where!r} is no address; write it as 127.0.0.1:8300, or as :8300 for this machine alone")
    return host or "127.0.0.1", int(port)
