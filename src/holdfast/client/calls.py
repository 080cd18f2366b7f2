"""The calls of ``Memory``, each written once: ``asked`` makes of it the methods of both clients.

``self`` is positional there, so that no name in ``**scope`` can be taken for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from holdfast.client import answers
from holdfast.client.answers import Forgotten, Revoked
from holdfast.client.wire import Call, Named, asked, part
from holdfast.cube import Channel, Cube, Kind, Ref, utc
from holdfast.encode.base import Outcome, Trajectory
from holdfast.encode.turns import Content
from holdfast.errors import InputError
from holdfast.guard.lessons import Caution
from holdfast.guard.precedents import Precedents
from holdfast.memory import Added, Change, Page
from holdfast.recipes.base import Guidance, Taken
from holdfast.retrieve.context import Packed
from holdfast.retrieve.hits import Hit, Hits
from holdfast.retrieve.resemblance import Likeness
from holdfast.retrieve.utility import Useful
from holdfast.store.access import Key, Principal
from holdfast.store.doctor import Finding
from holdfast.store.grants import Grant, Right
from holdfast.store.journal import Problem
from holdfast.store.rewards import Rewarded

if TYPE_CHECKING:
    from holdfast.guard.release import Releases, Rule

Time = datetime | str | None


class Calls(Named):
    """What a memory on a server is asked, in ``Memory``'s words."""

    # --- remember ---

    @asked
    def add(
        self,
        /,
        content: Content,
        *,
        kind: str = Kind.MESSAGE,
        channel: Channel | str = Channel.USER,
        author: str | None = None,
        source: str | None = None,
        trust: float | None = None,
        at: Time = None,
        ttl: timedelta | None = None,
        data: Mapping[str, Any] | None = None,
        derived_from: Sequence[Ref] = (),
        taint: Sequence[str] = (),
        **scope: str | None,
    ) -> Call[Added]:
        """See ``Memory.add``."""
        items: Any = [content] if isinstance(content, Cube | Mapping) else content
        body = {
            "content": items if isinstance(items, str) else [_item(one) for one in items],
            "kind": str(kind),
            "channel": str(channel),
            "author": author,
            "source": source,
            "trust": trust,
            "at": _iso(at),
            "ttl_seconds": None if ttl is None else ttl.total_seconds(),
            "data": None if data is None else dict(data),
            "derived_from": _refs(derived_from),
            "taint": list(taint),
        }
        return Call("POST", "memories", answers.added, self._scope(scope), body)

    @asked
    def correct(self, /, id: str, text: str, *, reason: str = "", **scope: str | None) -> Call[Cube]:
        """See ``Memory.correct``."""
        return self._act("correct", id, reason, scope, text=text)

    @asked
    def feedback(self, /, hits: Iterable[Hit | str], reward: float, **scope: str | None) -> Call[dict[str, str]]:
        """See ``Memory.feedback``."""
        body = {"ids": [one if isinstance(one, str) else one.id for one in hits], "reward": reward}
        return Call("POST", "feedback", lambda told: dict(told["unmoved"]), self._scope(scope), body)

    @asked
    def reward(self, /, token: str, reward: float, **scope: str | None) -> Call[Rewarded]:
        """See ``Memory.reward``. As it counts once, it is tried again where no answer came."""
        body = {"token": token, "reward": reward}
        return Call("POST", "reward", answers.rewarded, self._scope(scope), body, again=True)

    # --- experience ---

    @asked
    def provide(
        self, /, task: str, phase: str = "begin", *, context: str = "", author: str | None = None, **scope: str | None
    ) -> Call[Guidance]:
        """See ``Memory.provide``; the recipe is the server's."""
        body = {"task": task, "phase": str(phase), "context": context, "author": author}
        return Call("POST", "provide", answers.guidance, self._scope(scope), body)

    @asked
    def take_in(
        self,
        /,
        trajectory: Trajectory,
        outcome: Outcome | float | None,
        *,
        author: str | None = None,
        **scope: str | None,
    ) -> Call[Taken]:
        """See ``Memory.take_in``; the recipe is the server's."""
        went = outcome if isinstance(outcome, Outcome) else Outcome(outcome)
        steps = [
            {
                "action": step.action,
                "observation": step.observation,
                "tool": step.tool,
                "arguments": dict(step.arguments),
            }
            for step in trajectory.steps
        ]
        body = {
            "task": trajectory.task,
            "steps": steps,
            "answer": trajectory.answer,
            "served": _refs(trajectory.served),
            "tokens": list(trajectory.tokens),
            "taint": list(trajectory.taint),
            "id": trajectory.id,
            "data": dict(trajectory.data),
            "reward": went.reward,
            "feedback": went.feedback,
            "author": author,
        }
        return Call("POST", "take_in", answers.taken, self._scope(scope), body)

    @asked
    def manage(self, /, **scope: str | None) -> Call[tuple[str, ...]]:
        """See ``Memory.manage``."""
        return Call("POST", "manage", lambda told: tuple(told["changed"]), self._scope(scope))

    # --- recall ---

    @asked
    def search(
        self,
        /,
        query: str,
        *,
        k: int = 10,
        kinds: Sequence[str] = (),
        neighbours: int = 0,
        now: Time = None,
        **scope: str | None,
    ) -> Call[Hits]:
        """See ``Memory.search``."""
        body = {"query": query, "k": k, "kinds": _list(kinds), "neighbours": neighbours, "now": _iso(now)}
        return Call("POST", "search", answers.hits, self._scope(scope), body, again=True)

    @asked
    def nearest(self, /, text: str, *, k: int = 10, kinds: Sequence[str] = (), **scope: str | None) -> Call[Hits]:
        """See ``Memory.nearest``; likeness is of meaning."""
        body = {"text": text, "k": k, "kinds": _list(kinds)}
        return Call("POST", "nearest", answers.hits, self._scope(scope), body, again=True)

    @asked
    def context(self, /, query: str, *, budget: int = 800, k: int = 50, **scope: str | None) -> Call[str]:
        """See ``Memory.context``; tokens are counted as it does where nothing else is said."""
        body = {"query": query, "budget": budget, "k": k}
        return Call("POST", "context", lambda told: str(told["text"]), self._scope(scope), body, again=True)

    @asked
    def pack(self, /, query: str, *, budget: int = 800, k: int = 50, **scope: str | None) -> Call[Packed]:
        """See ``Memory.pack``; tokens are counted as it does where nothing else is said."""
        body = {"query": query, "budget": budget, "k": k, "whole": True}
        return Call("POST", "context", answers.packed, self._scope(scope), body, again=True)

    @asked
    def useful(self, /, task: str, *, kinds: Sequence[str] = (), **scope: str | None) -> Call[Useful]:
        """See ``Memory.useful``; likeness and utility are weighed as it does where nothing else is said."""
        body = {"task": task, "kinds": _list(kinds)}
        return Call("POST", "useful", answers.useful, self._scope(scope), body, again=True)

    @asked
    def alike(self, /, texts: Sequence[str], *, k: int = 5, **scope: str | None) -> Call[list[Likeness]]:
        """See ``Memory.alike``."""
        body = {"texts": _list(texts, "texts"), "k": k}
        return Call("POST", "alike", answers.sessions, self._scope(scope), body, again=True)

    @asked
    def get(self, /, id: str, *, version: int | None = None, **scope: str | None) -> Call[Cube]:
        """See ``Memory.get``."""
        return self._get(f"memories/{part(id)}", answers.cube, scope, version=version)

    @asked
    def page(
        self,
        /,
        *,
        limit: int = 100,
        after: str | None = None,
        known: Time = None,
        true_at: Time = None,
        kinds: Sequence[str] = (),
        statuses: Sequence[str] = (),
        source: str | None = None,
        author: str | None = None,
        **scope: str | None,
    ) -> Call[Page]:
        """See ``Memory.page``."""
        asked_ = {"limit": limit, "cursor": after, "known": _iso(known), "true_at": _iso(true_at)}
        of = {"kind": _list(kinds), "status": _list(statuses, "statuses"), "source": source, "author": author}
        return self._get("timeline", answers.page, scope, **asked_, **of, whole=True)

    @asked
    def changed(self, /, since: datetime, *, kinds: Sequence[str] = (), **scope: str | None) -> Call[list[Cube]]:
        """See ``Memory.changed``."""
        return self._get("changed", answers.cubes, scope, since=_iso(since), kind=_list(kinds))

    # --- take back ---

    @asked
    def history(
        self, /, id: str | None = None, *, since: int = 0, until: int | None = None, **scope: str | None
    ) -> Call[list[Change]]:
        """See ``Memory.history``."""
        path, more = ("history", {"limit": 1000}) if id is None else (f"memories/{part(id)}/history", {})
        params = {**self._scope(scope), "since": since, "until": until, **more}
        return Call("GET", path, answers.changes, params, again=True, cursor="since")

    @asked
    def undo(self, /, seq: int, *, reason: str = "", **scope: str | None) -> Call[tuple[Cube, ...]]:
        """See ``Memory.undo``."""
        body = {"seq": seq, "reason": reason}
        return Call("POST", "undo", lambda told: tuple(answers.cubes(told)), self._scope(scope), body)

    @asked
    def retract(self, /, id: str, *, reason: str = "", **scope: str | None) -> Call[None]:
        """See ``Memory.retract``."""
        return Call("POST", f"memories/{part(id)}/retract", lambda _: None, self._scope(scope), {"reason": reason})

    @asked
    def restore(self, /, id: str, *, reason: str = "", **scope: str | None) -> Call[Cube]:
        """See ``Memory.restore``."""
        return self._act("restore", id, reason, scope)

    @asked
    def freeze(self, /, id: str, *, reason: str = "", **scope: str | None) -> Call[Cube]:
        """See ``Memory.freeze``."""
        return self._act("freeze", id, reason, scope)

    @asked
    def thaw(self, /, id: str, *, reason: str = "", **scope: str | None) -> Call[Cube]:
        """See ``Memory.thaw``."""
        return self._act("thaw", id, reason, scope)

    @asked
    def forget(
        self,
        /,
        ids: str | Iterable[str] = (),
        *,
        source: str | None = None,
        author: str | None = None,
        since: Time = None,
        everything: bool = False,
        reason: str = "",
        dry_run: bool = False,
        **scope: str | None,
    ) -> Call[Forgotten]:
        """See ``Memory.forget``; the server looks for what should be gone before it answers."""
        body = {
            "ids": [ids] if isinstance(ids, str) else list(ids),
            "source": source,
            "author": author,
            "since": _iso(since),
            "everything": everything,
            "reason": reason,
            "dry_run": dry_run,
        }
        return Call("POST", "forget", answers.forgotten, self._scope(scope), body)

    @asked
    def lineage(self, /, id: str, *, down: bool = True, **scope: str | None) -> Call[list[Ref]]:
        """See ``Memory.lineage``."""
        way = "derived" if down else "derived_from"
        return self._get(
            f"memories/{part(id)}/lineage", lambda told: [answers.ref(one) for one in told["refs"][way]], scope
        )

    # --- the guard ---

    @asked
    def quarantined(self, /, **scope: str | None) -> Call[list[Cube]]:
        """See ``Memory.quarantined``."""
        return Call("GET", "quarantine", answers.waiting, self._scope(scope), again=True, cursor="cursor")

    @asked
    def approve(self, /, id: str, *, reason: str = "", **scope: str | None) -> Call[Cube]:
        """See ``Memory.approve``."""
        return self._act("approve", id, reason, scope)

    @asked
    def reject(self, /, id: str, *, reason: str = "", **scope: str | None) -> Call[Cube]:
        """See ``Memory.reject``."""
        return self._act("reject", id, reason, scope)

    @asked
    def release(self, /, *, rule: Rule | None = None, dry_run: bool = False, **scope: str | None) -> Call[Releases]:
        """See ``Memory.release``."""
        body = {"dry_run": dry_run, **({} if rule is None else {"inside": rule.inside, "sites": rule.sites})}
        return Call("POST", "release", answers.releases, self._scope(scope), body)

    @asked
    def revoke(
        self,
        /,
        *,
        source: str | None = None,
        author: str | None = None,
        by: str | None = None,
        since: Time = None,
        until: Time = None,
        reason: str = "",
        dry_run: bool = False,
        **scope: str | None,
    ) -> Call[Revoked]:
        """See ``Memory.revoke``; the server looks whether it is out of recall before it answers."""
        body = {
            "source": source,
            "author": author,
            "by": by,
            "since": _iso(since),
            "until": _iso(until),
            "reason": reason,
            "dry_run": dry_run,
        }
        return Call("POST", "revoke", answers.revoked, self._scope(scope), body)

    @asked
    def canary(self, /, question: str, expects: str, **scope: str | None) -> Call[Cube]:
        """See ``Memory.canary``."""
        return Call("POST", "canaries", answers.cube, self._scope(scope), {"question": question, "expects": expects})

    @asked
    def answers(self, /, canary: Cube) -> Call[bool]:
        """See ``Memory.answers``."""
        here = canary.scope
        scope = {"tenant": here.tenant, "user": here.user, "agent": here.agent, "session": here.session}
        return Call("POST", f"canaries/{part(canary.id)}/ask", lambda told: bool(told["answered"]), scope, again=True)

    @asked
    def precedents(
        self, /, task: str, *, k: int = 12, min_sources: int = 2, learn: bool = True, **scope: str | None
    ) -> Call[Precedents]:
        """See ``Memory.precedents``; what a record would lead to is read from its data."""
        body = {"task": task, "k": k, "min_sources": min_sources, "learn": learn}
        return Call("POST", "precedents", answers.precedents, self._scope(scope), body)

    # --- care ---

    @asked
    def status(self, /, **scope: str | None) -> Call[dict[str, Any]]:
        """See ``Memory.status``, with what a scope holds; of the store as a whole, what the key's holder may know."""
        return self._get("status", lambda told: dict(told), scope)

    @asked
    def verify(self, /, head: tuple[int, str] | None = None) -> Call[list[Problem]]:
        """See ``Memory.verify``; the owner's."""
        body = None if head is None else {"seq": head[0], "hash": head[1]}
        return Call("POST", "verify", answers.problems, body=body, again=True)

    @asked
    def doctor(self, /) -> Call[list[Finding]]:
        """What ``holdfast doctor`` finds, looked at by the server; the owner's."""
        return Call("GET", "doctor", answers.findings, again=True)

    @asked
    def flush(self, /) -> Call[None]:
        """See ``Memory.flush``; the owner's."""
        return Call("POST", "flush", lambda _: None)

    # --- inside ---

    def _get(self, path: str, read: Any, scope: Mapping[str, str | None], **more: Any) -> Call[Any]:
        return Call("GET", path, read, {**self._scope(scope), **more}, again=True)

    def _act(self, what: str, id: str, reason: str, scope: Mapping[str, str | None], **more: Any) -> Call[Cube]:
        return Call("POST", f"memories/{part(id)}/{what}", answers.cube, self._scope(scope), {"reason": reason, **more})


class PastCalls(Named):
    """What a memory as it was is asked, in ``AsOf``'s words."""

    known: datetime | None
    true_at: datetime | None

    @asked
    def search(
        self, /, query: str, *, k: int = 10, kinds: Sequence[str] = (), neighbours: int = 0, **scope: str | None
    ) -> Call[Hits]:
        """See ``AsOf.search``."""
        body = {"query": query, "k": k, "kinds": _list(kinds), "neighbours": neighbours, **self._times("as_of")}
        return Call("POST", "search", answers.hits, self._scope(scope), body, again=True)

    @asked
    def context(self, /, query: str, *, budget: int = 800, k: int = 50, **scope: str | None) -> Call[str]:
        """See ``AsOf.context``."""
        body = {"query": query, "budget": budget, "k": k, **self._times("as_of")}
        return Call("POST", "context", lambda told: str(told["text"]), self._scope(scope), body, again=True)

    @asked
    def get(self, /, id: str, **scope: str | None) -> Call[Cube]:
        """See ``AsOf.get``."""
        params = {**self._scope(scope), "as_of": _iso(self.known)}
        return Call("GET", f"memories/{part(id)}", answers.cube, params, again=True)

    @asked
    def page(
        self, /, *, limit: int = 100, after: str | None = None, kinds: Sequence[str] = (), **scope: str | None
    ) -> Call[Page]:
        """See ``Memory.page``: what was known and true then."""
        more = {"limit": limit, "cursor": after, "kind": _list(kinds), "whole": True, **self._times("known")}
        return Call("GET", "timeline", answers.page, {**self._scope(scope), **more}, again=True)

    def _times(self, known: str) -> dict[str, str | None]:
        return {known: _iso(self.known), "true_at": _iso(self.true_at)}


class LessonCalls(Named):
    """What the lessons of a scope are asked, in ``LessonStore``'s words."""

    @asked
    def all(self, /) -> Call[list[Cube]]:
        """See ``LessonStore.all``."""
        return Call(
            "GET", "lessons", lambda told: list(map(answers.cube, told["lessons"])), self._scope({}), again=True
        )

    @asked
    def for_action(self, /, action: str, context: str) -> Call[tuple[Caution, ...]]:
        """See ``LessonStore.for_action``, of an action in words."""
        body = {"action": action, "context": context}
        return Call("POST", "lessons/cautions", answers.cautions, self._scope({}), body, again=True)

    @asked
    def confirm(self, /, id: str) -> Call[Cube]:
        """See ``LessonStore.confirm``."""
        return Call("POST", f"lessons/{part(id)}/confirm", answers.cube, self._scope({}))

    @asked
    def retract(self, /, id: str) -> Call[Cube]:
        """See ``LessonStore.retract``."""
        return Call("POST", f"lessons/{part(id)}/retract", answers.cube, self._scope({}))


class AccessCalls:
    """What is asked of who may do what, in ``Access``'s words; the owner's."""

    @asked
    def enrol(
        self,
        /,
        name: str,
        *,
        channels: Iterable[Channel | str] = (),
        authors: Iterable[str] = (),
        trust: float = 1.0,
    ) -> Call[Principal]:
        """See ``Access.enrol``."""
        body = {"name": name, "channels": list(map(str, channels)), "authors": list(authors), "trust": trust}
        return Call("POST", "access/principals", answers.principal, body=body)

    @asked
    def grant(
        self,
        /,
        name: str,
        place: str,
        rights: Iterable[Right | str],
        *,
        kinds: Iterable[str] = (),
        until: datetime | None = None,
    ) -> Call[Grant]:
        """See ``Access.grant``."""
        body = {
            "name": name,
            "place": place,
            "rights": list(map(str, rights)),
            "kinds": list(map(str, kinds)),
            "until": _iso(until),
        }
        return Call("POST", "access/grants", answers.grant, body=body)

    @asked
    def issue(self, /, name: str, *, until: datetime | None = None) -> Call[str]:
        """See ``Access.issue``."""
        return Call("POST", "access/keys", lambda told: str(told["key"]), body={"name": name, "until": _iso(until)})

    @asked
    def withdraw(self, /, what: str, *, reason: str = "") -> Call[tuple[str, ...]]:
        """See ``Access.withdraw``."""
        body = {"what": what, "reason": reason}
        return Call("POST", "access/withdraw", lambda told: tuple(told["withdrawn"]), body=body)

    @asked
    def principals(self, /) -> Call[list[Principal]]:
        """See ``Access.principals``."""
        return Call("GET", "access", lambda told: list(map(answers.principal, told["principals"])), again=True)

    @asked
    def grants(self, /, name: str | None = None) -> Call[list[Grant]]:
        """See ``Access.grants``."""

        def read(told: Any) -> list[Grant]:
            return [answers.grant(one) for one in told["grants"] if name in (None, one["name"])]

        return Call("GET", "access", read, again=True)

    @asked
    def keys(self, /, name: str | None = None) -> Call[list[Key]]:
        """See ``Access.keys``."""

        def read(told: Any) -> list[Key]:
            return [answers.key(one) for one in told["keys"] if name in (None, one["principal"])]

        return Call("GET", "access", read, again=True)


def _item(one: Any) -> Any:
    if isinstance(one, Cube):
        return {"cube": one.to_dict()}
    if isinstance(one, Mapping):
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in one.items()}
    return one


def _refs(some: Iterable[Ref]) -> list[dict[str, Any]]:
    return [{"id": ref.id, "version": ref.version} for ref in some]


def _iso(when: Time) -> str | None:
    return None if when is None else utc(when).isoformat()


def _list(some: Sequence[str], name: str = "kinds") -> list[str]:
    if isinstance(some, str):
        raise InputError(f"{name} is a list: write {name}=[{str(some)!r}]")
    return list(map(str, some))
