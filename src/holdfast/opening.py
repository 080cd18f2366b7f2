"""What a memory is opened with: its embedder, its encoders, its guard, where the caller does not bring them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from holdfast.cube import Cube
from holdfast.encode.base import Embedder, Encoder
from holdfast.encode.checked import Checked
from holdfast.errors import EmbedderError, InputError
from holdfast.guard.base import Guard
from holdfast.store.sql import SqlStore
from holdfast.store.sqlite import SqliteStore


def is_address(place: str | Path) -> bool:
    """Whether a place of a store is a server's database, and not a folder."""
    return isinstance(place, str) and place.startswith(("postgresql://", "postgres://"))


def missing(place: str | Path) -> str:
    """What a place is called that holds no store yet, which ``open_store`` would make; "" where one is there.

    Raises StoreError where a server does not say.
    """
    if is_address(place):
        from holdfast.store.postgres import missing  # needs the extra

        return missing(str(place))
    return "" if (Path(place) / "holdfast.db").is_file() else str(place)


def open_store(
    place: str | Path,
    *,
    terms: Callable[[Cube], bytes] | None = None,
    tasks: Sequence[str] = (),
    clock: Callable[[], datetime] | None = None,
    durability: str = "full",
) -> SqlStore:
    """The store at a place: a folder's embedded one, or with ``postgresql://...`` the one in a server's database.

    Raises StoreError where it cannot be opened, and says what to do.
    """
    if is_address(place):
        from holdfast.store.postgres import PostgresStore  # needs the extra

        return PostgresStore(str(place), terms=terms, tasks=tasks, clock=clock, durability=durability)
    if str(place).startswith(("postgresql:/", "postgres:/")):
        raise InputError(f"{place} is an address made a path, which took a slash from it; give it as a string")
    return SqliteStore(place, terms=terms, tasks=tasks, clock=clock, durability=durability)


def choose(
    embedder: Embedder | str | None, models: Sequence[tuple[int, str, int, bool]]
) -> tuple[Embedder | None, list[str]]:
    """The embedder for a store that has vectors of some models (number, name, dimension, serving), and what is degraded.

    Raises EmbedderError where the store's vectors are of another model, or of the same one in another dimension.
    """
    serving = next((name for _, name, _, active in models if active), None)
    if embedder is None:
        lost = f"the store has vectors of {serving}, and this program opened it without an embedder"
        return None, [lost] if serving else []
    if embedder == "auto":
        return _automatic(serving)
    chosen = opened(embedder)
    for _, name, dimension, _ in models:
        if name == chosen.model and dimension != chosen.dimension:
            raise EmbedderError(
                f"this store holds vectors of {name} with {dimension} dimensions, and it now gives {chosen.dimension}; "
                "nothing was changed. Give the new model another name, and change to it with: holdfast doctor --reembed"
            )
    if serving is not None and chosen.model != serving:
        raise EmbedderError(
            f"this store's vectors are of {serving}, not of {chosen.model}; open it with embedder='auto', or change "
            f"the model of the whole store once: holdfast doctor --reembed {chosen.model}"
        )
    return chosen, []


def _automatic(serving: str | None) -> tuple[Embedder | None, list[str]]:
    from holdfast.encode.embedders import default_embedder, open_embedder, why_no_embedder

    if serving is None:
        found = default_embedder()
        return (None, [why_no_embedder()]) if found is None else (Checked(found), [])
    try:
        return Checked(open_embedder(serving)), []
    except Exception as error:
        return None, [f"the store's embedder {serving} cannot be opened ({error}); search is lexical"]


def opened(embedder: Embedder | str) -> Embedder:
    """An embedder, by its name where it is one, whose vectors are checked."""
    if isinstance(embedder, str):
        from holdfast.encode.embedders import open_embedder

        embedder = open_embedder(embedder)
    return Checked(embedder)


def default_guard(guard: Guard | str | None) -> Guard | None:
    """The guard that is meant: "default" is ``guard.admission``. Raises InputError for another name."""
    if isinstance(guard, str):
        if guard != "default":
            raise InputError(f"guard must be 'default', None or a Guard, not {guard!r}")
        from holdfast.guard.admission import Admission

        return Admission()
    return guard


def default_encoders() -> tuple[Encoder, ...]:
    """The rules, which need no language model."""
    from holdfast.encode.claims import ClaimEncoder
    from holdfast.encode.standing import StandingEncoder

    return (ClaimEncoder(), StandingEncoder())
