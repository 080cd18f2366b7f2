"""The options that every command takes, and the memory that they open."""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path
from typing import Any

from holdfast.cube import Scope
from holdfast.errors import InputError, ScopeError, StoreError
from holdfast.memory import Memory
from holdfast.opening import is_address, missing

STORE = "memory.holdfast"


def common(*, inherit: bool) -> argparse.ArgumentParser:
    """The global options, as a parent parser. ``inherit``: what is not given keeps the value given before the command."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)

    def add(name: str, what: str, default: str | None = None) -> None:
        group.add_argument(
            name, metavar=name.strip("-").upper(), help=what, default=argparse.SUPPRESS if inherit else default
        )

    group = parser.add_argument_group("whose memory, and where")
    add("--store", f"folder of the store (default: $HOLDFAST_STORE, else ./{STORE})")
    add("--user", "whose memory (default: $HOLDFAST_USER; there is no other default)")
    add("--tenant", "tenant (default: default)", "default")
    add("--agent", "narrow to one agent")
    add("--session", "narrow to one session")
    add("--key", "act as the holder of this key (default: $HOLDFAST_KEY; without one, as the store's owner)")
    add("--embedder", "auto, none, or an embedder's name (default: auto)", "auto")
    group.add_argument(
        "--json",
        action="store_true",
        help="print the answer as JSON",
        default=argparse.SUPPRESS if inherit else False,
    )
    return parser


def store_path(args: argparse.Namespace) -> Path | str:
    """The store's folder or address: what was named, the environment's, or the folder here."""
    return place(args.store or os.environ.get("HOLDFAST_STORE") or STORE)


def place(text: str) -> Path | str:
    """A store's folder or address, as it was written."""
    return text if is_address(text) else Path(text).expanduser()


def user(args: argparse.Namespace) -> str | None:
    """The user that was named, or the environment's."""
    named: str | None = args.user if args.user is not None else os.environ.get("HOLDFAST_USER") or None
    return named


def scope(args: argparse.Namespace) -> Scope:
    """The scope that the options name. Raises ScopeError where no user is named."""
    whose = user(args)
    if whose is None:
        raise ScopeError("whose memory? Name the user with --user NAME, or set HOLDFAST_USER")
    return Scope(args.tenant, whose, args.agent, args.session)


def open_memory(
    args: argparse.Namespace,
    *,
    create: bool = False,
    embed: bool = True,
    personal: bool = True,
    background: bool = False,
) -> Memory:
    """Open the store that the options name.

    ``create``: make it where it is absent (only commands that add do). ``embed``: open an embedder too. ``personal``: the
    command is about one user's memory, so a user must be named. ``background``: embed and enrich in a thread.
    Raises ScopeError, StoreError.
    """
    if personal:
        scope(args)
    path = store_path(args)
    if not create:
        require_store(path)
    memory = Memory(
        path,
        tenant=args.tenant,
        user=user(args),
        agent=args.agent,
        session=args.session,
        embedder=embedder(args.embedder) if embed else None,
        background=background,
    )
    key = args.key or os.environ.get("HOLDFAST_KEY")
    if not key:
        return memory
    try:
        return memory.with_key(key, closes=True)
    except BaseException:
        memory.close()
        raise


def require_store(path: Path | str) -> None:
    """Raise StoreError where there is no store: reading must not make an empty one out of a mistyped path or address."""
    if isinstance(path, Path) and path.is_file():
        raise StoreError(f"{path} is a file; a store is a folder, name it with --store FOLDER")
    if name := missing(path):
        raise StoreError(f"there is no store at {name}; name one with --store, or begin one with: holdfast add")


def announce_new(args: argparse.Namespace) -> str:
    """What to say where a command is about to make a store; "" where there is one. Raises StoreError for a file."""
    path = store_path(args)
    if isinstance(path, Path) and path.is_file():
        require_store(path)
    return f"made a new store at {name}" if (name := missing(path)) else ""


def embedder(name: str) -> str | None:
    """What ``Memory`` takes for an embedder's name on the command line."""
    if not name.strip():
        raise InputError("--embedder needs a name, 'auto' or 'none'")
    return None if name == "none" else name


def chat_options(parser: argparse.ArgumentParser, what: str, *, required: bool = True) -> None:
    """Options that name a chat model, which does ``what``."""
    parser.add_argument("--model", required=required, metavar="NAME", help=f"the chat model that {what}")
    parser.add_argument("--base-url", metavar="URL", help="its server (default: OpenAI's, with OPENAI_API_KEY)")
    parser.add_argument("--api-key", metavar="KEY", help="its key (default: $HOLDFAST_CHAT_KEY)")


def chat(args: argparse.Namespace) -> Any:
    """The model that ``chat_options`` named, None where none was. Raises InputError for a server without a model."""
    if args.model is None:
        if args.base_url or args.api_key:
            raise InputError("which model of that server? Name it with --model")
        return None
    key = args.api_key or os.environ.get("HOLDFAST_CHAT_KEY") or None
    return importlib.import_module("holdfast.agent.chat").Endpoint(args.model, base_url=args.base_url, api_key=key)
