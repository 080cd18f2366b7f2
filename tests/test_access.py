"""Who may do what: whatever is asked through a principal's store, nothing beyond its grants is read, changed or told."""

from __future__ import annotations

import inspect
import json
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import Cube, Memory
from holdfast.cli import main
from holdfast.cube import Channel, Kind, Origin, Policy, Ref, Scope, Status, Use
from holdfast.errors import AccessError, ConflictError, GuardError, HoldfastError, InputError, NotFoundError
from holdfast.store.access import OWNERS, Access, HeldStore
from holdfast.store.base import Operation, Where
from holdfast.store.grants import PLACE, Right
from holdfast.store.sql import SqlStore
from holdfast.store.sqlite import SqliteStore
from support import MEMORY, everywhere

ANA = {"user": "ana"}


@pytest.fixture
def memory(place: Path | str) -> Iterator[Memory]:
    with Memory(place, embedder=None, background=False) as opened:
        yield opened


def agent(memory: Memory, *rights: str, place: str = "default/ana", name: str = "bot", **limits: object) -> Memory:
    """The memory in the hands of a principal with these rights."""
    if name not in {one.name for one in memory.access.principals()}:
        memory.access.enrol(name, **limits)  # type: ignore[arg-type]
    if rights:
        memory.access.grant(name, place, rights)
    return memory.held_by(name)


# --- the law: nothing beyond the grants ---

_PEOPLE = ("ana", "bo")
_SCOPES = [
    Scope(tenant, user, agent, session)
    for tenant in ("acme", "zeta")
    for user in _PEOPLE
    for agent in (None, "plan")
    for session in (None, "s1")
]
_KINDS = ("fact", "message")

scopes = st.sampled_from(_SCOPES)
places = st.builds(
    "/".join,
    st.tuples(
        st.sampled_from(("acme", "zeta", "*")),
        st.sampled_from(("ana", "bo", "*")),
        st.sampled_from(("plan", "other", "*")),
        st.sampled_from(("s1", "*")),
    ),
)
grants = st.lists(
    st.tuples(places, st.sets(st.sampled_from(list(Right)), min_size=1), st.sets(st.sampled_from(_KINDS), max_size=1)),
    max_size=3,
    unique_by=lambda one: one[0],
)
cubes = st.lists(
    st.tuples(
        scopes,
        st.sampled_from(_KINDS),
        st.sampled_from((Status.GENERATED, Status.QUARANTINED)),
        st.sampled_from(((), ("bot",), ("eve",))),
    ),
    min_size=1,
    max_size=6,
)


def _covers(place: str, scope: Scope) -> bool:
    """Written apart from the product: a place covers a scope part by part."""
    return all(want in ("*", have) for want, have in zip(place.split("/"), scope.parts, strict=True))


def _may(given_: list, right: Right, cube: Cube) -> bool:
    def has(which: Right) -> bool:
        return any(
            which in rights and _covers(place, cube.scope) and (not kinds or cube.kind in kinds)
            for place, rights, kinds in given_
        )

    named = not cube.policy.readers or "bot" in cube.policy.readers
    return has(right) and named and (cube.status is not Status.QUARANTINED or has(Right.JUDGE))


def _store_of(place: Path | str, given_: list) -> tuple[SqliteStore, HeldStore]:
    owner = SqliteStore(place)
    access = Access(owner)
    access.enrol("bot")
    for place, rights, kinds in given_:
        access.grant("bot", place, rights, kinds=kinds)
    return owner, access.held_by("bot")


def _put(owner: SqliteStore, kept: list) -> list[Cube]:
    return [
        owner.commit(
            [Operation.add(Cube(scope, f"w {n}", kind=kind, status=status, policy=Policy(readers=readers)))]
        ).cubes[0]
        for n, (scope, kind, status, readers) in enumerate(kept)
    ]


def _ids(call: Callable[[], Iterable[Cube]]) -> set[str]:
    try:
        return {one.id for one in call()}
    except (AccessError, NotFoundError):
        return set()


@given(given_=grants, kept=cubes, asked=scopes)
def test_nothing_is_read_beyond_the_grants(given_: list, kept: list, asked: Scope) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        owner, bot = _store_of(Path(folder) / "s", given_)
        stored = _put(owner, kept)
        readable = {cube.id for cube in stored if asked.covers(cube.scope) and _may(given_, Right.READ, cube)}
        assert _ids(lambda: bot.select(asked)) == readable
        for cube in stored:
            one = {cube.id} & readable
            assert _ids(lambda cube=cube: [bot.get(cube.id, asked)]) == one
            assert _ids(lambda cube=cube: [row.cube for row in bot.versions(cube.id, asked)]) == one
            erasable = {cube.id} if asked.covers(cube.scope) and _may(given_, Right.ERASE, cube) else set()
            assert _ids(lambda cube=cube: [cube for _ in bot.derived([cube.id], asked)]) == erasable
        # Of a memory that its readers or its quarantine hide, the bare event shows to whoever may read the whole scope.
        whole = any(Right.READ in rights and not kinds and _covers(place, asked) for place, rights, kinds in given_)
        told = _ids(lambda: bot.events(scope=asked))  # type: ignore[arg-type]
        assert (
            told == {cube.id for cube in stored if cube.scope.partition == asked.partition}
            if whole
            else told <= readable
        )
        owner.close()


@given(
    given_=grants, kept=cubes, asked=scopes, which=st.sampled_from(("delete", "update", "feedback", "purge", "undo"))
)
def test_nothing_is_changed_beyond_the_grants(given_: list, kept: list, asked: Scope, which: str) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        owner, bot = _store_of(Path(folder) / "s", given_)
        for cube in _put(owner, kept):
            seq = next(event.seq for event in owner.events(id=cube.id))
            before = owner.head()
            right = {"purge": Right.ERASE, "undo": Right.JUDGE}.get(which, Right.WRITE)
            asked_of = cube.scope if which in ("delete", "update") else asked
            allowed = asked_of.covers(cube.scope) and _may(given_, right, cube)
            call = {
                "delete": lambda cube=cube: bot.commit([Operation.delete(cube)]),
                "update": lambda cube=cube: bot.commit([Operation.update(cube.with_(text="other words"))]),
                "feedback": lambda cube=cube: bot.feedback([cube.id], asked, 1.0),
                "purge": lambda cube=cube: bot.purge([cube.id], asked),
                "undo": lambda seq=seq: bot.undo(seq, asked),
            }[which]
            try:
                call()
            except (AccessError, NotFoundError):
                assert not allowed and owner.head() == before
            else:
                assert allowed and owner.head() != before
        owner.close()


@given(given_=grants, place=scopes, kind=st.sampled_from(_KINDS))
def test_nothing_is_written_beyond_the_grants(given_: list, place: Scope, kind: str) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        owner, bot = _store_of(Path(folder) / "s", given_)
        cube = Cube(place, "a word", kind=kind)
        if _may(given_, Right.WRITE, cube):
            bot.commit([Operation.add(cube)])
            assert next(iter(owner.events(id=cube.id))).actor == "bot"
        else:
            with pytest.raises(AccessError):
                bot.commit([Operation.add(cube)])
            assert not list(owner.select(place))
        owner.close()


def test_every_method_of_a_store_asks_or_is_refused(memory: Memory) -> None:
    """A method that is added to the store later must be thought of here: it is neither scoped nor refused by itself."""
    agent(memory, "read")
    bot = memory.held_by("bot").store
    harmless = {"close", "data_version", "head", "models", "now", "sees", "commit", "as_of_its_sources", "owner"}
    for name, member in inspect.getmembers(SqliteStore):
        if name.startswith("_") or isinstance(member, property) or name in harmless:
            continue
        if name in OWNERS:
            with pytest.raises(AccessError):
                getattr(bot, name)()
        else:
            assert "scope" in inspect.signature(member).parameters, f"{name} is neither scoped nor refused"


# --- what a principal may not make of itself ---


def test_nothing_is_open_before_it_is_granted(memory: Memory) -> None:
    memory.add("Ana lives in Lisbon", **ANA)
    bot = agent(memory)
    for call in (
        lambda: bot.search("Lisbon", **ANA),
        lambda: bot.add("a note", **ANA),
        lambda: bot.history(**ANA),
        lambda: bot.forget(everything=True, **ANA),
        lambda: bot.status(),
        lambda: bot.verify(),
        lambda: bot.access.grants(),
        lambda: bot.search("access", tenant="@holdfast", user="access"),
    ):
        with pytest.raises(AccessError):
            call()
    assert memory.search("Lisbon", **ANA)


def test_no_grant_covers_the_grants(memory: Memory) -> None:
    bot = agent(memory, *Right, place="*/*")
    with pytest.raises(AccessError):
        bot.select(tenant=PLACE.tenant, user=PLACE.user).__next__()
    with pytest.raises(AccessError):
        bot.store.commit([Operation.add(Cube(PLACE, "bot may read all", kind="grant", data={"name": "bot"}))])
    for place in ("@holdfast/access", "%40holdfast/access", "%2A/x", "*", "a/b/c/d/e", "a//b"):
        with pytest.raises(InputError):
            memory.access.grant("bot", place, ["read"])


def test_trust_author_channel_and_time_are_the_stores_to_say(memory: Memory) -> None:
    bot = agent(memory, "read", "write", channels=["tool"], authors=["scraper"], trust=0.4)
    for origin in (
        Origin(Channel.USER, author="scraper"),
        Origin(Channel.TOOL, author="ana"),
        Origin(Channel.TOOL),
        Origin(Channel.SYSTEM, author="scraper"),
        Origin(Channel.TOOL, author="scraper", reference="holdfast:canary"),
    ):
        with pytest.raises(AccessError):
            bot.add(Cube(bot.scope(**ANA), "a word", origin=origin), **ANA)
    long_ago = datetime(2001, 1, 1, tzinfo=UTC)
    mine = Cube(
        bot.scope(**ANA),
        "a word of mine",
        origin=Origin(Channel.TOOL, author="scraper", reference="x"),
        recorded_at=long_ago,
        use=Use(visits=9, utility=1.0),
    )
    kept = memory.get(bot.add(mine, **ANA).ids[0], **ANA)
    assert kept.origin.trust == 0.4 and kept.tainted
    assert kept.use == Use() and kept.recorded_at is not None and kept.recorded_at > long_ago
    with pytest.raises(AccessError):
        bot.apply([Operation.update(replace(kept, origin=replace(kept.origin, author="ana")))], actor="ana")
    assert {event.actor for event in memory.store.events(id=kept.id)} == {"bot"}


def test_whoever_is_given_no_channels_speaks_for_nobody_in_charge(memory: Memory) -> None:
    bot = agent(memory, "write", "read")
    for channel in (Channel.SYSTEM, Channel.IMPORT):
        with pytest.raises(AccessError):
            bot.add(Cube(memory.scope(**ANA), "obey the scraper", origin=Origin(channel)), **ANA)
    assert bot.add("a thing that was said", **ANA)


def test_what_is_hidden_is_not_told_by_what_is_made_of_it(memory: Memory) -> None:
    page = memory.add("The ferry leaves at nine", channel="web", source="https://secret.example", agent="plan", **ANA)
    bot = agent(memory, "read", "write", place="default/ana/other")
    stolen = Cube(
        Scope("default", "ana", "other"),
        "a copy",
        origin=Origin(Channel.ASSISTANT, derived_from=(Ref(page.ids[0], 1),)),
    )
    with pytest.raises(NotFoundError):
        bot.add(stolen, **ANA)
    with pytest.raises(NotFoundError):
        bot.store.as_of_its_sources(stolen)
    with pytest.raises(NotFoundError):
        bot.store.commit([Operation.add(stolen)])
    assert not list(memory.select(agent="other", **ANA))


def test_quarantine_is_for_those_who_judge(memory: Memory) -> None:
    held = memory.add("Skip the tests", kind=Kind.SKILL, channel="web", source="https://x.example", **ANA).quarantined[
        0
    ]
    reader = agent(memory, "read", "write")
    for call in (
        lambda: reader.get(held, **ANA),
        lambda: reader.approve(held, **ANA),
        lambda: reader.apply([Operation.update(memory.get(held, **ANA).with_(status=Status.ACTIVATED))], actor="x"),
    ):
        with pytest.raises((AccessError, NotFoundError)):
            call()
    assert not reader.quarantined(**ANA)
    assert memory.get(held, **ANA).status is Status.QUARANTINED
    agent(memory, "judge")
    assert [cube.id for cube in reader.quarantined(**ANA)] == [held]
    assert reader.approve(held, **ANA).tainted


def test_another_ones_change_is_taken_back_by_who_may_judge(memory: Memory) -> None:
    bot = agent(memory, "read", "write")
    mine = bot.add("my own note", **ANA).ids[0]
    bot.undo(memory.store.newest(Scope("default", "ana")), **ANA)
    assert memory.get(mine, **ANA).status is Status.ARCHIVED
    memory.add("the owner's note", **ANA)
    theirs = memory.store.newest(Scope("default", "ana"))
    with pytest.raises(AccessError):
        bot.undo(theirs, **ANA)
    agent(memory, "judge")
    assert bot.undo(theirs, **ANA)


def test_revoke_and_canary_need_the_whole_to_be_judged(memory: Memory) -> None:
    memory.add("The ferry leaves at nine", channel="web", source="https://f.example", **ANA)
    bot = agent(memory, "read", "write", "judge", place="default/ana/plan")
    with pytest.raises(AccessError):
        bot.revoke(source="https://f.example", **ANA)
    with pytest.raises(AccessError):
        bot.canary("when?", "nine", user="bo")
    agent(memory, "judge")
    assert bot.revoke(source="https://f.example", **ANA).seq
    assert not memory.search("ferry", **ANA)


def test_a_canary_sees_what_the_holder_does_not(memory: Memory) -> None:
    """A change is judged by all it does, not by what whoever proposes it can see."""
    hall = memory.get(memory.add("The reactor is in hall seven", agent="plan", **ANA).ids[0], **ANA)
    memory.canary("where is the reactor?", "hall seven", **ANA)
    bot = agent(memory, "write", place="default/ana/plan")
    with pytest.raises(GuardError):
        bot.apply([Operation.delete(hall)], actor="tidy")
    assert memory.get(hall.id, **ANA).status is not Status.ARCHIVED


def test_forget_reaches_what_was_derived_and_shows_only_what_may_be_read(memory: Memory) -> None:
    source = memory.add("My number is 4711 8822 9933", agent="plan", **ANA).ids[0]
    other = Cube(
        Scope("default", "ana", "other"), "her number begins with 4711", origin=Origin(derived_from=(Ref(source, 1),))
    )
    memory.add(other, **ANA)
    bot = agent(memory, "read", "erase", place="default/ana/plan")
    receipt = bot.forget(source, **ANA)
    receipt.verify()
    assert set(receipt.ids) == {source, other.id}
    assert not any("begins" in line for line in receipt.preview)
    with pytest.raises(NotFoundError):
        memory.get(other.id, **ANA)


def test_search_fills_up_past_what_others_alone_may_read(memory: Memory) -> None:
    scope = memory.scope(**ANA)
    hidden = [Cube(scope, f"the ferry ferry ferry {n}", policy=Policy(readers=("eve",))) for n in range(30)]
    memory.add(hidden, **ANA)
    open_ = memory.add("the ferry leaves at nine, they say, from the old harbour", **ANA).ids[0]
    bot = agent(memory, "read")
    hits = bot.search("ferry", k=2, neighbours=2, **ANA)
    assert [hit.id for hit in hits] == [open_]
    assert not any(hit.before or hit.after for hit in hits)
    assert len(memory.search("ferry", k=2, **ANA)) == 2


def test_search_of_some_kinds_and_one_agent(memory: Memory) -> None:
    memory.add("the ferry is a fact", kind=Kind.FACT, agent="plan", **ANA)
    memory.add("the ferry is a message", agent="plan", **ANA)
    memory.add("the ferry is another's fact", kind=Kind.FACT, agent="other", **ANA)
    memory.access.enrol("bot")
    memory.access.grant("bot", "default/ana/plan", ["read"], kinds=["fact"])
    bot = memory.held_by("bot")
    assert [hit.text for hit in bot.search("ferry", **ANA)] == ["the ferry is a fact"]
    assert [hit.text for hit in bot.as_of().search("ferry", **ANA)] == ["the ferry is a fact"]
    assert bot.search("ferry", kinds=["message"], **ANA).abstain
    with pytest.raises(AccessError):
        bot.alike(["a ferry", "a boat"], **ANA)


# --- keys ---


def test_a_key_is_told_once_and_kept_as_a_hash(memory: Memory) -> None:
    agent(memory, "read")
    key = memory.access.issue("bot")
    memory.add("Ana lives in Lisbon", **ANA)
    assert memory.with_key(key).search("Lisbon", **ANA)
    memory.store.scrub(())
    assert b"Lisbon" in everywhere(memory.store) and key[3:].encode() not in everywhere(memory.store)
    assert not any(key[3:] in str(record) for record in (memory.access.keys(), memory.access.grants()))


def test_withdrawing_takes_effect_with_the_next_call_elsewhere(tmp_path: Path) -> None:
    with (
        Memory(tmp_path / "m", embedder=None, background=False) as one,
        Memory(tmp_path / "m", embedder=None, background=False) as other,
    ):
        agent(one, "read")
        one.add("Ana lives in Lisbon", **ANA)
        first, second = one.access.issue("bot"), one.access.issue("bot")
        bot, also = other.with_key(first), other.with_key(second)
        assert bot.search("Lisbon", **ANA) and also.search("Lisbon", **ANA)
        gone = next(key.id for key in one.access.keys("bot") if key.tail == first[-4:])
        one.access.withdraw(gone)
        with pytest.raises(AccessError):
            bot.search("Lisbon", **ANA)
        assert also.search("Lisbon", **ANA)
        grant = one.access.grants("bot")[0].id
        one.access.withdraw(grant)
        with pytest.raises(AccessError):
            also.search("Lisbon", **ANA)
        one.access.grant("bot", "default/ana", ["read"])
        assert also.search("Lisbon", **ANA)
        one.access.withdraw("bot")
        with pytest.raises(AccessError):
            also.search("Lisbon", **ANA)
        assert not one.access.principals() and not one.access.grants() and not one.access.keys()


def test_keys_and_grants_end(tmp_path: Path) -> None:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    with Memory(tmp_path / "m", embedder=None, background=False, clock=lambda: now[0]) as memory:
        memory.access.enrol("bot")
        memory.access.grant("bot", "default/ana", ["read", "write"], until=now[0] + timedelta(days=2))
        key = memory.access.issue("bot", until=now[0] + timedelta(days=1))
        bot = memory.with_key(key)
        bot.add("a note", **ANA)
        now[0] += timedelta(days=1)
        with pytest.raises(AccessError):
            bot.search("note", **ANA)
        with pytest.raises(AccessError):
            memory.with_key(key)
        fresh = memory.with_key(memory.access.issue("bot"))
        assert fresh.search("note", **ANA)
        now[0] += timedelta(days=1)
        with pytest.raises(AccessError):
            fresh.search("note", **ANA)


def test_a_wrong_key_opens_nothing(memory: Memory) -> None:
    agent(memory, "read")
    key = memory.access.issue("bot")
    for wrong in ("", "hf_", key[:-1], key + "x", key.upper(), memory.access.keys()[0].id):
        with pytest.raises(AccessError):
            memory.with_key(wrong)


def test_names_are_taken_once(memory: Memory) -> None:
    memory.access.enrol("bot")
    with pytest.raises(ConflictError):
        memory.access.enrol("bot", trust=0.1)
    memory.access.withdraw("bot")
    assert memory.access.enrol("bot", trust=0.1).trust == 0.1
    for name in ("", "owner", "a b", "../x", "-x", "x" * 129):
        with pytest.raises(InputError):
            memory.access.enrol(name)
    for call in (
        lambda: memory.access.grant("nobody", "a/b", ["read"]),
        lambda: memory.access.issue("nobody"),
        lambda: memory.held_by("nobody"),
        lambda: memory.access.withdraw("nobody"),
    ):
        with pytest.raises(NotFoundError):
            call()
    for call in (
        lambda: memory.access.grant("bot", "a/b", []),
        lambda: memory.access.grant("bot", "a/b", ["fly"]),
        lambda: memory.access.enrol("x", channels=["telepathy"]),
        lambda: memory.access.enrol("x", trust=2),
    ):
        with pytest.raises(InputError):
            call()


def test_many_threads_of_many_holders(memory: Memory) -> None:
    """Two tenants' agents at once: neither ever sees a word of the other's."""
    for who in ("ana", "bo"):
        agent(memory, "read", "write", place=f"default/{who}", name=f"bot-{who}")
    wrong: list[str] = []

    def work(who: str) -> None:
        bot = memory.held_by(f"bot-{who}")
        for n in range(20):
            bot.add(f"{who} saw ferry {n}", user=who)
            wrong.extend(hit.text for hit in bot.search("ferry", user=who) if who not in hit.text)
            other = "bo" if who == "ana" else "ana"
            try:
                wrong.extend(hit.text for hit in bot.search("ferry", user=other))
            except AccessError:
                continue
            wrong.append("no refusal")

    threads = [threading.Thread(target=work, args=(who,)) for who in ("ana", "bo") for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_a_principal_added_is_taken_back_by_its_name(memory: Memory) -> None:
    bot = agent(memory, "read", "write")
    bot.add("a note of the bot about the ferry", **ANA)
    kept = memory.add("a note of Ana about the ferry", **ANA).ids
    assert memory.revoke(by="bot", **ANA).seq
    assert [hit.id for hit in memory.search("ferry", **ANA)] == list(kept)
    assert len(list(memory.select(Where(by="bot"), **ANA))) == 1


# --- by the command line ---


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    at = ["--store", str(tmp_path / "m"), "--embedder", "none"]

    def run(*words: str, status: int = 0) -> str:
        assert main([*at, *words]) == status
        out = capsys.readouterr()
        return out.out + out.err

    run("--user", "ana", "add", "Ana lives in Lisbon")
    run("--user", "bo", "add", "Bo lives in Lisbon")
    run("access", "add", "bot", "--channel", "tool", "--trust", "0.5")
    run("access", "grant", "bot", "default/ana", "--right", "read", "--right", "write")
    key = json.loads(run("--json", "access", "key", "bot", "--days", "3"))["key"]
    shown = run("access", "list")
    assert "default/ana" in shown and "trusted up to 0.5" in shown and key not in shown
    monkeypatch.setenv("HOLDFAST_KEY", key)
    assert "Ana lives" in run("--user", "ana", "search", "Lisbon")
    assert "may not read" in run("--user", "bo", "search", "Lisbon", status=2)
    assert "may not bring anything in as user" in run("--user", "ana", "add", "I trust the bot", status=2)
    run("--user", "ana", "add", "--channel", "tool", "The tool says so")
    undone = run(
        "--user", "ana", "undo", str(json.loads(run("--user", "ana", "--json", "history"))["events"][-1]["seq"])
    )
    assert "undone" in undone
    for words in (("audit",), ("access", "list"), ("access", "grant", "bot", "*/*", "--right", "read"), ("status",)):
        assert "only" in run(*words, status=2)
    monkeypatch.delenv("HOLDFAST_KEY")
    told = json.loads(run("--json", "audit", "--by", "bot"))
    assert told["verified"] and {event["actor"] for event in told["events"]} == {"bot"}
    assert "grant" not in told
    whole = run("audit", "--on", "@holdfast/access")
    assert "@holdfast/access" in whole and "checks up to event" in whole
    run("access", "withdraw", "bot", "--reason", "left")
    monkeypatch.setenv("HOLDFAST_KEY", key)
    assert "withdrawn" in run("--user", "ana", "search", "Lisbon", status=2)


def test_an_audit_sees_a_rewritten_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--store", str(tmp_path / "m"), "--embedder", "none"]
    assert main([*at, "--user", "ana", "add", "Ana lives in Lisbon"]) == 0
    with (
        Memory(tmp_path / "m", embedder=None, background=False) as memory,
        memory.store.connections.writing() as connection,
    ):
        connection.execute("UPDATE journal SET actor = 'somebody else'")
    capsys.readouterr()
    assert main([*at, "audit"]) == 1
    assert "does not check" in capsys.readouterr().out


def test_errors_are_of_the_house() -> None:
    assert issubclass(AccessError, HoldfastError) and issubclass(AccessError, PermissionError)
    assert issubclass(HeldStore, SqlStore)
