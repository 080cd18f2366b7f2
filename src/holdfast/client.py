"""``Memory`` over HTTP: what keeps, finds, looks and takes back, by the same names, with the same records and the same errors.

    with Client("http://127.0.0.1:8200", key, user="ana") as memory:
        memory.add("I moved to Lisbon in May")
        memory.search("where does Ana live?")[0].why

Only what changes nothing is tried again where the connection fails.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

from holdfast import errors
from holdfast.cube import Cube, Scope
from holdfast.errors import HoldfastError, InputError, MissingExtraError, StoreError
from holdfast.memory import Added
from holdfast.retrieve.hits import Hit, Hits

try:
    import httpx
except ImportError as error:
    raise MissingExtraError("this needs the extra: pip install 'holdfast[client]'") from error

AGAIN = 3
"""So often a call that changes nothing is tried."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What the server's receipt says. ``verified``: whether it then looked for what should be gone, and found nothing."""

    erased: tuple[str, ...]
    derived: tuple[str, ...]
    notes: tuple[str, ...]
    verified: bool
    receipt: Mapping[str, Any]


class Client:
    """A memory behind a server.

    Args:
        address: the server's.
        key: the owner's or a principal's.
        tenant, user, agent, session: the scope of every call that names no other.
        timeout: seconds.
        http: a client of one's own, with its address; it is closed by whoever made it.

    Every call raises what ``Memory`` raises, and StoreError where the server cannot be reached.
    """

    def __init__(
        self,
        address: str,
        key: str,
        *,
        tenant: str = "default",
        user: str | None = None,
        agent: str | None = None,
        session: str | None = None,
        timeout: float = 30.0,
        http: httpx.Client | None = None,
    ) -> None:
        self._own = http is None
        self._http = http or httpx.Client(base_url=address, timeout=timeout)
        self._headers = {"Authorization": f"Bearer {key}"}
        self._defaults = {"tenant": tenant, "user": user, "agent": agent, "session": session}

    # --- remember ---

    def add(self, content: str | Sequence[Mapping[str, str]], *, at: str | None = None, **more: Any) -> Added:
        """See ``Memory.add``: ``kind``, ``channel``, ``author``, ``source``, ``trust``, ``data``, and the scope."""
        scope = self._scope(more)
        body = {"content": content if isinstance(content, str) else list(content), "at": at, **more}
        told = self._post("memories", scope, {name: value for name, value in body.items() if value is not None})
        return Added(*(tuple(told[name]) for name in ("ids", "duplicates", "reasons", "quarantined")))

    def correct(self, id: str, text: str, *, reason: str = "", **scope: str | None) -> Cube:
        """See ``Memory.correct``."""
        return self._act("correct", id, reason, scope, text=text)

    def bring(self, cubes: Iterable[Cube], **scope: str | None) -> Iterator[dict[str, Any]]:
        """Send cubes; what the server acknowledges, batch after batch, each once it is durable. Where it broke off: again."""

        def lines() -> Iterator[bytes]:
            for cube in cubes:
                yield json.dumps(cube.to_dict()).encode() + b"\n"

        with (
            _reaching(),
            self._http.stream(
                "POST", "/v1/import", params=self._scope(scope), content=lines(), headers=self._headers
            ) as answer,
        ):
            if answer.status_code >= 400:
                answer.read()
                _raise(answer)
            for line in answer.iter_lines():
                record = json.loads(line)
                if "error" in record:
                    raise _error(record["error"], record["detail"])
                yield record

    # --- recall ---

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        kinds: Sequence[str] = (),
        as_of: str | None = None,
        true_at: str | None = None,
        **scope: str | None,
    ) -> Hits:
        """See ``Memory.search``; ``as_of`` and ``true_at`` as ``Memory.as_of``. The hits' neighbours come along."""
        body = {"query": query, "k": k, "kinds": list(kinds), "as_of": as_of, "true_at": true_at}
        told = self._post("search", self._scope(scope), body, again=True)
        hits = [
            Hit(
                Cube.from_dict(one["cube"]),
                one["score"],
                one["relevance"],
                one["channels"],
                tuple(map(Cube.from_dict, one["before"])),
                tuple(map(Cube.from_dict, one["after"])),
            )
            for one in told["hits"]
        ]
        return Hits(hits, abstain=told["abstain"], reason=told["reason"], degraded=tuple(told["degraded"]))

    def context(self, query: str, *, budget: int = 800, **scope: str | None) -> str:
        """See ``Memory.context``."""
        body = {"query": query, "budget": budget}
        return str(self._post("context", self._scope(scope), body, again=True)["text"])

    def feedback(self, hits: Iterable[Hit | str], reward: float, **scope: str | None) -> dict[str, str]:
        """See ``Memory.feedback``."""
        ids = [one if isinstance(one, str) else one.id for one in hits]
        return dict(self._post("feedback", self._scope(scope), {"ids": ids, "reward": reward})["unmoved"])

    # --- look ---

    def get(self, id: str, *, version: int | None = None, **scope: str | None) -> Cube:
        """See ``Memory.get``."""
        return Cube.from_dict(self._get(f"memories/{_named(id)}", self._scope(scope), version=version))

    def history(self, id: str, **scope: str | None) -> list[dict[str, Any]]:
        """The events of one memory, oldest first, each with the version that it made."""
        found: list[dict[str, Any]] = self._get(f"memories/{_named(id)}/history", self._scope(scope))["changes"]
        return found

    def lineage(self, id: str, **scope: str | None) -> dict[str, list[dict[str, Any]]]:
        """What a memory was made from ("derived_from") and what was made of it ("derived"), with the steps between."""
        found: dict[str, list[dict[str, Any]]] = self._get(f"memories/{_named(id)}/lineage", self._scope(scope))
        return found

    def status(self, **scope: str | None) -> dict[str, Any]:
        """See ``Memory.status``; what a key's holder may know of it."""
        return dict(self._get("status", self._scope(scope)))

    # --- take back ---

    def retract(self, id: str, *, reason: str = "", **scope: str | None) -> None:
        """See ``Memory.retract``."""
        self._act("retract", id, reason, scope)

    def restore(self, id: str, *, reason: str = "", **scope: str | None) -> Cube:
        """See ``Memory.restore``."""
        return self._act("restore", id, reason, scope)

    def freeze(self, id: str, *, reason: str = "", **scope: str | None) -> Cube:
        """See ``Memory.freeze``."""
        return self._act("freeze", id, reason, scope)

    def thaw(self, id: str, *, reason: str = "", **scope: str | None) -> Cube:
        """See ``Memory.thaw``."""
        return self._act("thaw", id, reason, scope)

    def undo(self, seq: int, **scope: str | None) -> tuple[Cube, ...]:
        """See ``Memory.undo``."""
        return tuple(map(Cube.from_dict, self._post("undo", self._scope(scope), {"seq": seq})["memories"]))

    def forget(
        self,
        ids: str | Iterable[str] = (),
        *,
        source: str | None = None,
        reason: str = "",
        dry_run: bool = False,
        **scope: str | None,
    ) -> Forgotten:
        """See ``Memory.forget``; the server looks for what should be gone before it answers."""
        named = [ids] if isinstance(ids, str) else list(ids)
        body = {"ids": named, "source": source, "reason": reason, "dry_run": dry_run}
        told = self._post("forget", self._scope(scope), body)
        erased, derived, notes = (tuple(told[name]) for name in ("erased", "derived", "notes"))
        return Forgotten(erased, derived, notes, bool(told.get("verified")), told)

    # --- trust ---

    def quarantined(self, **scope: str | None) -> list[Cube]:
        """See ``Memory.quarantined``."""
        place, found, cursor = self._scope(scope), list[Cube](), None
        while True:
            page = self._get("quarantine", place, cursor=cursor)
            found += [Cube.from_dict(one["memory"]) for one in page["waiting"]]
            if (cursor := page["next"]) is None:
                return found

    def approve(self, id: str, *, reason: str = "", **scope: str | None) -> Cube:
        """See ``Memory.approve``."""
        return self._act("approve", id, reason, scope)

    def reject(self, id: str, *, reason: str = "", **scope: str | None) -> Cube:
        """See ``Memory.reject``."""
        return self._act("reject", id, reason, scope)

    def revoke(
        self,
        *,
        source: str | None = None,
        author: str | None = None,
        reason: str = "",
        dry_run: bool = False,
        **scope: str | None,
    ) -> dict[str, Any]:
        """See ``Memory.revoke``; its record."""
        body = {"source": source, "author": author, "reason": reason, "dry_run": dry_run}
        return dict(self._post("revoke", self._scope(scope), body))

    def close(self) -> None:
        """Close the connections that it made itself."""
        if self._own:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside ---

    def _scope(self, more: dict[str, Any]) -> dict[str, str]:
        named = {name: more.pop(name, before) for name, before in self._defaults.items()}
        Scope(named["tenant"], named["user"] or "", named["agent"], named["session"])  # raises what ``Memory`` raises
        return {name: value for name, value in named.items() if value is not None}

    def _act(self, what: str, id: str, reason: str, scope: dict[str, Any], **more: Any) -> Cube:
        return Cube.from_dict(
            self._post(f"memories/{_named(id)}/{what}", self._scope(scope), {"reason": reason, **more})
        )

    def _get(self, path: str, scope: Mapping[str, str], **more: Any) -> Any:
        params = {**scope, **{name: value for name, value in more.items() if value is not None}}
        return self._call("GET", path, params, None, again=True)

    def _post(self, path: str, scope: Mapping[str, str], body: Any, *, again: bool = False) -> Any:
        return self._call("POST", path, scope, body, again=again)

    def _call(self, method: str, path: str, params: Mapping[str, Any], body: Any, *, again: bool) -> Any:
        address = f"/v1/{path}"
        # In ASCII, as a text may hold half of a character.
        written, typed = (None, {}) if body is None else (json.dumps(body), {"Content-Type": "application/json"})
        for left in range((AGAIN if again else 1) - 1, -1, -1):
            try:
                with _reaching():
                    answer = self._http.request(
                        method, address, params=params, content=written, headers={**self._headers, **typed}
                    )
                break
            except StoreError:
                if not left:
                    raise
                time.sleep(0.2)
        if answer.status_code >= 400:
            _raise(answer)
        return answer.json()


@contextmanager
def _reaching() -> Iterator[None]:
    """Turns what httpx raises into ours."""
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StoreError(f"the server does not answer ({error}); is it running there?") from error


def _named(id: str) -> str:
    return quote(id, safe="")


def _raise(answer: httpx.Response) -> None:
    try:
        told = answer.json()
        title, detail = str(told["title"]), str(told["detail"])
    except (ValueError, KeyError, TypeError):
        title, detail = "StoreError", f"the server answered {answer.status_code}: {answer.text[:200]}"
    raise _error(title, detail)


def _error(title: str, detail: str) -> HoldfastError:
    kind: Any = errors.AccessError if title == "UnknownKeyError" else getattr(errors, title, InputError)
    if not (isinstance(kind, type) and issubclass(kind, HoldfastError)) or kind is HoldfastError:
        kind = InputError
    try:
        error: HoldfastError = kind(detail)
    except TypeError:  # of a kind that takes more
        return InputError(detail)
    return error
