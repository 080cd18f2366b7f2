"""Out and in again: the same memories, whatever they hold; damage names its line; a person's edits are taken."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cube import Channel, Cube, Form, Kind, Origin, Policy, Ref, Scope, Status, Use, utc
from holdfast.errors import InputError
from holdfast.store.base import Operation, Where
from holdfast.store.sqlite import SqliteStore
from holdfast.store.transfer import (
    Imported,
    bring_in,
    everything,
    export_jsonl,
    export_markdown,
    moved,
    read_jsonl,
    read_markdown,
)
from support import ANA, BEN, MEMORY, START, Clock, add, open_memory, open_store, update

Write = Callable[[Iterable[Cube], TextIO], int]
Read = Callable[[Iterable[str], Scope], Iterator[Cube]]
FORMS: dict[str, tuple[Write, Read]] = {
    "jsonl": (export_jsonl, read_jsonl),
    "markdown": (export_markdown, read_markdown),
}

texts = st.text(max_size=40) | st.sampled_from(
    [
        "- an item",
        "## a heading",
        "<!-- a comment -->",
        "**bold**",
        "  indented",
        "a\n\nb",
        "a\r\nb",
        "x  \ny",
        "\n",
        " ",
        "-->",
    ]
)
moments = st.datetimes(datetime(1900, 1, 1), datetime(2025, 12, 31)).map(utc)
sessions = st.sampled_from([None, "s1", "chat-7: *starred* <b>"])
floats = st.floats(-1, 1) | st.just(-0.0)


TENSORS = (2).to_bytes(8, "little") + b"{}"
"""A safetensors file without tensors: an export names files, and does not hold them."""
BLOB = hashlib.sha256(TENSORS).hexdigest()


@st.composite
def stores(draw: st.DrawFn) -> list[Cube]:
    """Cubes that can stand in one store: an id each, each derived from earlier ones."""
    cubes: list[Cube] = []
    for n in range(draw(st.integers(1, 6))):
        parents = draw(st.lists(st.sampled_from(cubes), max_size=2, unique_by=lambda cube: cube.id)) if cubes else []
        begin, end = draw(st.none() | moments), draw(st.none() | moments)
        if begin and end:
            begin, end = min(begin, end), max(begin, end)
        text = draw(texts)
        cubes.append(
            Cube(
                Scope("acme", "ana", None, draw(sessions)),
                text,
                draw(st.sampled_from([Kind.MESSAGE, Kind.FACT, "odd_kind"])).__str__(),
                Form.STATE if not text else Form.TEXT,
                None if text else BLOB,
                draw(st.dictionaries(texts, st.none() | st.booleans() | st.integers() | floats | texts, max_size=2))
                | {"n": n},
                begin,
                end,
                draw(moments),
                Origin(
                    draw(st.sampled_from(Channel)),
                    draw(st.sampled_from([None, "ana", "*Ana* <i>\n- x"])),
                    draw(st.none() | st.just("mail:1")),
                    draw(st.floats(0, 1)),
                    tuple(Ref(parent.id, 1) for parent in parents),
                ),
                draw(st.sampled_from([status for status in Status if status is not Status.PURGED])),
                Policy(draw(st.none() | moments), "secret", ("ana",)),
                draw(st.just(Use()) | st.builds(Use, st.integers(1, 9), st.none() | moments, floats, floats)),
            )
        )
    return cubes


@contextmanager
def fresh(**options: object) -> Iterator[SqliteStore]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as home:
        store = open_store(Path(home) / "s", **options)
        store.blobs.put(TENSORS, ANA)
        try:
            yield store
            assert store.verify() == []
        finally:
            store.close()


def carry(form: str, store: SqliteStore, other: SqliteStore, scope: Scope = ANA) -> Imported:
    write, read = FORMS[form]
    out = io.StringIO()
    write(everything(store, scope), out)
    written = io.TextIOWrapper(
        io.BytesIO(out.getvalue().encode()), encoding="utf-8"
    )  # as a file gives it, surrogates refused
    return bring_in(other, read(written, scope))


@pytest.mark.parametrize("form", FORMS)
@given(cubes=stores())
def test_out_and_in_again_is_the_same(form: str, cubes: list[Cube]) -> None:
    with fresh() as store, fresh() as other:
        done = add(store, *cubes)
        first = carry(form, store, other)
        ours, theirs = list(everything(store, ANA)), list(everything(other, ANA))
        assert theirs == ours == list(done.cubes) and first.notes == () and first.ids == tuple(cube.id for cube in ours)
        head = other.head()
        again = carry(form, store, other)
        assert again == Imported((), len(ours), ()) and other.head() == head, "twice changes nothing"
        assert carry(form, store, store).duplicates == len(ours)


@pytest.mark.parametrize("form", FORMS)
def test_a_memory_whose_tensor_file_is_not_here_is_noted_and_the_rest_comes_in(form: str) -> None:
    with fresh() as store, fresh() as other:
        add(store, Cube(ANA, "before"), Cube(ANA, form=Form.STATE, blob=BLOB), Cube(ANA, "after"))
        other.blobs.file(BLOB, ANA).unlink()
        done = carry(form, store, other)
        assert len(done.ids) == 2 and len(done.notes) == 1 and BLOB[:12] in done.notes[0]


@pytest.mark.parametrize("form", FORMS)
def test_only_the_current_version_is_carried(form: str) -> None:
    with fresh() as store, fresh() as other:
        cube = add(store, Cube(ANA, "tea")).cubes[0]
        update(store, cube, text="coffee")
        carry(form, store, other)
        assert [(c.id, c.text, c.version) for c in everything(other, ANA)] == [(cube.id, "coffee", 1)]


@pytest.mark.parametrize("form", FORMS)
def test_another_users_memories_get_other_ids_the_same_each_time(form: str) -> None:
    """Also in the same store, where their ids are taken; lineage comes along."""
    with fresh() as store:
        a = add(store, Cube(ANA, "said")).cubes[0]
        b = add(store, Cube(ANA, "drawn", "fact", origin=Origin(derived_from=(a.ref,)))).cubes[0]
        write, read = FORMS[form]
        out = io.StringIO()
        write(everything(store, ANA), out)
        for expected in (2, 0):
            done = bring_in(store, read(io.StringIO(out.getvalue()), BEN))
            assert len(done.ids) == expected and done.duplicates == 2 - expected and done.notes == ()
        said, drawn = everything(store, BEN)
        assert {said.id, drawn.id}.isdisjoint({a.id, b.id}) and drawn.origin.derived_from == (Ref(said.id, 1),)
        assert said.id[:18] == a.id[:18], "the time in the id stays"
        assert list(everything(store, ANA)) == [a, b]


def test_what_was_forgotten_stays_forgotten() -> None:
    with fresh() as store:
        a = add(store, Cube(ANA, "forgotten")).cubes[0]
        b = add(store, Cube(ANA, "kept")).cubes[0]
        c = add(store, Cube(ANA, "drawn", "fact", origin=Origin(derived_from=(a.ref,)))).cubes[0]
        out = io.StringIO()
        export_jsonl(everything(store, ANA), out)
        store.purge([a.id], ANA)
        done = bring_in(store, read_jsonl(io.StringIO(out.getvalue()), ANA))
        assert done.ids == () and done.duplicates == 1 and len(done.notes) == 3
        assert [cube.id for cube in everything(store, ANA)] == [b.id] and c.id not in done.ids


def test_content_that_is_held_under_another_id_is_not_doubled_and_its_children_find_it() -> None:
    with fresh() as store, fresh() as other:
        theirs = add(store, Cube(ANA, "tea")).cubes[0]
        add(store, Cube(ANA, "likes tea", "fact", origin=Origin(derived_from=(theirs.ref,))))
        mine = add(other, Cube(ANA, "tea")).cubes[0]
        done = carry("jsonl", store, other)
        assert len(done.ids) == 1 and done.duplicates == 1 and done.notes == ()
        tea, likes = everything(other, ANA)
        assert tea == mine and likes.origin.derived_from == (mine.ref,)


def test_a_source_that_is_missing_is_noted_and_the_memory_kept() -> None:
    with fresh() as store, fresh() as other:
        source = add(store, Cube(ANA, "source")).cubes[0]
        derived = add(store, Cube(ANA, "derived", origin=Origin(derived_from=(source.ref,)))).cubes[0]
        done = bring_in(other, [derived])
        assert done.ids == (derived.id,) and "not in this store" in done.notes[0]
        assert other.get(derived.id, ANA).origin.derived_from == ()


def test_one_memory_twice_in_a_file() -> None:
    with fresh() as store:
        cube = Cube(ANA, "tea")
        assert bring_in(store, [cube, cube]) == Imported((cube.id,), 1, ())


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ('{"text": "cut', "line 3"),
        ("not json", "line 3"),
        ("[1, 2]", "line 3"),
        ("5", "line 3"),
        ('{"text": "no scope"}', "line 3"),
        ('{"scope": "acme"}', "line 3"),
        ('{"scope": "acme/ana", "text": 5}', "line 3"),
        ('{"scope": "acme/ana", "text": "x", "id": "y"}', "line 3"),
        ('{"scope": "acme/ana", "text": "x", "data": {"n": NaN}}', "line 3"),
        ('{"scope": "acme/ana", "text": "x", "data": {"n": -Infinity}}', "line 3"),
        ('{"scope": "acme/ana", "text": "x", "data": {"n": ' + "9" * 5000 + "}}", "line 3"),
        ("[" * 100_000, "line 3"),
        ('{"holdfast": 99}', "format 99"),
    ],
)
def test_a_damaged_line_is_named(damage: str, says: str) -> None:
    with fresh() as store:
        add(store, Cube(ANA, "one"))
        out = io.StringIO()
        export_jsonl(everything(store, ANA), out)
        with pytest.raises(InputError, match=says):
            list(read_jsonl([*out.getvalue().splitlines(), damage], ANA))


def test_a_damaged_comment_is_named() -> None:
    out = io.StringIO()
    export_markdown([Cube(ANA, "one"), Cube(ANA, "two")], out)
    lines = out.getvalue().splitlines()
    at = max(n for n, line in enumerate(lines) if line.startswith("- <!--"))
    for broken in (
        lines[at].replace('"kind"', '"kind'),
        lines[at].replace(" -->", ""),
        lines[at].replace("message", "No Kind"),
        lines[at].replace('"scope": "', '"scope": "a/b/c/d/e/'),
    ):
        with pytest.raises(InputError, match=f"line {at + 1}"):
            list(read_markdown([*lines[:at], broken, *lines[at + 1 :]], ANA))


def test_an_import_that_broke_off_can_be_run_again() -> None:
    with fresh() as store, fresh() as other:
        add(store, *(Cube(ANA, f"turn {n}") for n in range(10)))
        out = io.StringIO()
        export_jsonl(everything(store, ANA), out)
        with pytest.raises(InputError):
            bring_in(other, read_jsonl([*out.getvalue().splitlines()[:7], "damage"], ANA), batch=4)
        assert len(list(everything(other, ANA))) == 4
        done = bring_in(other, read_jsonl(io.StringIO(out.getvalue()), ANA), batch=4)
        assert len(done.ids) == 6 and done.duplicates == 4
        assert list(everything(other, ANA)) == list(everything(store, ANA))


# --- a person's edits ---


def edited(store: SqliteStore, change: Callable[[str], str]) -> Imported:
    out = io.StringIO()
    export_markdown(everything(store, ANA), out)
    return bring_in(store, read_markdown(io.StringIO(change(out.getvalue())), ANA))


def test_words_that_were_edited_are_the_next_version() -> None:
    with fresh() as store:
        a, b = add(store, Cube(ANA, "lives in Porto", "fact", valid_from=START), Cube(ANA, "two\n\nparagraphs")).cubes
        done = edited(store, lambda text: text.replace("Porto", "Lisbon"))
        assert done == Imported((), 1, (), (a.id,))
        after = store.get(a.id, ANA)
        assert (after.text, after.version, after.valid_from) == ("lives in Lisbon", 2, START)
        assert [row.cube.text for row in store.versions(a.id, ANA)] == ["lives in Porto", "lives in Lisbon"]
        assert store.get(b.id, ANA) == b


def test_what_editors_do_to_blanks_is_no_edit() -> None:
    with fresh() as store:
        add(
            store,
            Cube(ANA, "two\n\nparagraphs  \nwith blanks \n"),
            Cube(ANA, "a\r\nb\u2028c\x0bd"),
            Cube(ANA, "half \ud800"),
        )
        head = store.head()

        def strip(text: str) -> str:
            return "\n".join(line.rstrip() for line in text.split("\n")).rstrip() + "\n\n\n"

        for change in (strip, lambda text: text.replace("\n", "\r\n"), lambda text: text.rstrip("\n")):
            assert edited(store, change) == Imported((), 3, ())
        assert store.head() == head


def test_words_that_were_edited_win_over_the_comment_also_where_it_kept_the_text() -> None:
    with fresh() as store:
        cube = add(store, Cube(ANA, "a\r\nb")).cubes[0]
        assert edited(store, lambda text: text.replace("  b", "  c")).edited == (cube.id,)
        assert store.get(cube.id, ANA).text == "a\nc"


def test_items_that_a_person_wrote() -> None:
    page = """# Memories

Some words before.

- Ana plays the cello
- a longer one
  that goes on here
and here without the indent

  and after a blank line

## Another heading

- last
-
"""
    with fresh() as store:
        done = bring_in(store, read_markdown(page.splitlines(keepends=True), ANA))
        found = list(everything(store, ANA))
        assert [cube.text for cube in found] == [
            "Ana plays the cello",
            "a longer one\nthat goes on here\nand here without the indent\n\nand after a blank line",
            "last",
        ]
        assert {(cube.kind, cube.origin.channel, cube.origin.trust) for cube in found} == {
            ("fact", Channel.IMPORT, 0.8)
        }
        assert len(done.ids) == 3
        assert bring_in(store, read_markdown(page.splitlines(), ANA)).duplicates == 3


def test_an_item_that_was_taken_out_or_emptied_changes_nothing() -> None:
    with fresh() as store:
        a, b = add(store, Cube(ANA, "one"), Cube(ANA, "two")).cubes
        assert edited(store, lambda text: text.replace("  one\n", "")) == Imported((), 1, ())
        assert list(everything(store, ANA)) == [a, b]


def test_an_edit_of_an_older_version_is_not_taken() -> None:
    with fresh() as store:
        cube = add(store, Cube(ANA, "Porto")).cubes[0]
        out = io.StringIO()
        export_markdown(everything(store, ANA), out)
        update(store, cube, text="Lisbon")
        done = bring_in(store, read_markdown(io.StringIO(out.getvalue().replace("Porto", "Faro")), ANA))
        assert done.edited == () and "version 2" in done.notes[0] and store.get(cube.id, ANA).text == "Lisbon"


def test_an_edit_of_what_is_frozen_is_not_taken() -> None:
    with fresh() as store:
        cube = add(store, Cube(ANA, "Porto")).cubes[0]
        update(store, cube, status=Status.FROZEN)
        done = edited(store, lambda text: text.replace("Porto", "Faro"))
        assert done.edited == () and "frozen" in done.notes[0]


# --- the scope, and nothing but cubes ---


def test_agents_and_sessions_stay_unless_the_target_names_its_own() -> None:
    cube = Cube(Scope("acme", "ana", "bot", "s1"), "x")
    assert moved(cube, Scope("acme", "ana")) == cube
    assert moved(cube, Scope("acme", "ana", "other")).scope == Scope("acme", "ana", "other", "s1")
    other = moved(cube, BEN)
    assert other.scope == Scope("acme", "ben", "bot", "s1") and other.id != cube.id and moved(cube, BEN) == other


def test_no_index_is_needed(folder: Path) -> None:
    """Every fold is thrown away; out and in again is still the same, and the import is found."""
    with open_memory(folder) as memory:
        memory.add(["tea with Ben", "coffee on Monday"])
        memory.flush()
        with memory.store.connections.writing() as connection:
            for table in ("terms", "names", "dates", "jobs", "arrivals", "meta"):
                connection.execute(f"DELETE FROM {table}")
        before = list(everything(memory.store, memory.scope()))
        out = io.StringIO()
        export_jsonl(before, out)
    with open_memory(folder.with_name("b.holdfast")) as other:
        bring_in(other.store, read_jsonl(io.StringIO(out.getvalue()), other.scope()))
        assert list(everything(other.store, other.scope())) == before
        assert other.search("coffee")[0].text == "coffee on Monday"


def test_the_lines_of_an_export_are_ascii_and_one_memory_each() -> None:
    out = io.StringIO()
    count = export_jsonl([Cube(ANA, "é\u2028\x85\n\ud800🦊"), Cube(ANA, "two")], out)
    lines = out.getvalue().splitlines()
    assert count == 2 and len(lines) == 3 and out.getvalue().isascii()
    assert json.loads(lines[0]) == {"holdfast": 1}


def test_time_of_learning_comes_along() -> None:
    clock = Clock()
    with fresh(clock=clock) as store, fresh() as other:
        cube = add(store, Cube(ANA, "tea")).cubes[0]
        carry("jsonl", store, other)
        assert other.get(cube.id, ANA).recorded_at == START
        assert [c.text for c in other.select(ANA, Where(known_at=START))] == ["tea"]
        store.commit([Operation.delete(cube)])
