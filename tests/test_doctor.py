"""The doctor: finds what is wrong with a store, mends what can be made again, and never touches the memories."""

from __future__ import annotations

import importlib.machinery
import json
import sqlite3
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from holdfast.cli import main
from holdfast.cube import Cube, Kind, Origin, Scope
from holdfast.encode.base import Vectors
from holdfast.errors import EmbedderError
from holdfast.memory import Memory
from holdfast.retrieve.text import ANALYSER, fold_terms
from holdfast.store.base import Operation
from holdfast.store.doctor import LOW_DISK, check_place, examine, mend, salvage
from holdfast.store.sqlite import SqliteStore
from holdfast.store.transfer import read_jsonl

TEXTS = [
    f"Memory number {n}: on day {n} of the journey we met {name} in Lisbon"
    for n, name in enumerate(["Ana", "Rui"] * 20)
]


class Letters:
    """An embedder that counts letters; it can be told to fail."""

    model, dimension = "letters/1", 26

    def __init__(self) -> None:
        self.fails = False

    def embed(self, texts: list[str]) -> Vectors:
        if self.fails:
            raise EmbedderError("the letters are out")
        found = np.array([[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts], np.float32) + 1e-3
        return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of 40 turns of ana and one of rui, fully indexed, with a correction and a derived fact."""
    path = tmp_path / "team.holdfast"
    with Memory(path, user="ana", embedder=Letters(), encoders=(), background=False) as memory:
        ids = memory.add(TEXTS).ids
        memory.correct(ids[0], "Memory number 0, corrected")
        source = memory.get(ids[1])
        memory.add(Cube(memory.scope(), "Rui lives in Lisbon", Kind.FACT, origin=Origin(derived_from=(source.ref,))))
        memory.add("something of another user", user="rui")
        memory.flush()
    return path


def look(folder: Path, analyser: str = ANALYSER) -> dict[str, tuple[str, str]]:
    """What the doctor says: the worst of each check."""
    store = open_store(folder)
    try:
        order = {"good": 0, "note": 1, "wrong": 2}
        findings = sorted(examine(store, analyser=analyser), key=lambda finding: order[finding.level])
        return {finding.check: (finding.level, finding.what) for finding in findings}
    finally:
        store.close()


def repair(folder: Path) -> list[str]:
    store = open_store(folder)
    try:
        return mend(store, examine(store, analyser=ANALYSER), terms=fold_terms, analyser=ANALYSER)
    finally:
        store.close()


def open_store(folder: Path) -> SqliteStore:
    return SqliteStore(folder, terms=fold_terms, tasks=("embed", "enrich"))


def damage(folder: Path, *statements: str) -> None:
    """Change the file behind the store's back."""
    with sqlite3.connect(folder / "holdfast.db") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def wrong(folder: Path) -> set[str]:
    return {check for check, (level, _) in look(folder).items() if level == "wrong"}


def test_a_sound_store_is_found_sound(folder: Path) -> None:
    found = look(folder)
    assert {level for level, _ in found.values()} == {"good"}
    assert set(found) == {"database", "journal", "words", "names", "vectors", "queue", "place", "disk"}
    assert "43 events" in found["journal"][1] and "letters/1" in found["vectors"][1]
    assert repair(folder) == []


DAMAGE = {
    "words": ["DELETE FROM terms WHERE rid % 3 = 0"],
    "names": ["DELETE FROM names WHERE rid % 5 = 0"],
    "vectors": ["DELETE FROM vectors_1 WHERE rid % 4 = 0", "UPDATE vectors_1 SET body = x'00ff' WHERE rid % 4 = 1"],
    "queue": ["INSERT INTO jobs (task, rid) VALUES ('embed', 999999999)"],
}
STRAYS = {
    "words": ["INSERT INTO terms VALUES (999999999, x'00')"],
    "names": ["INSERT INTO names VALUES (999999999, x'00')", "INSERT INTO dates VALUES (999999999, x'00')"],
    "vectors": ["INSERT INTO vectors_1 VALUES (999999999, x'00')"],
}


@pytest.mark.parametrize(("check", "statements"), [*DAMAGE.items(), *STRAYS.items()])
def test_folds_are_missed_and_made_again(folder: Path, check: str, statements: list[str]) -> None:
    with Memory(folder, user="ana", embedder=Letters(), encoders=(), background=False) as memory:
        before = {hit.id for hit in memory.search("journey Lisbon Ana", k=50)}
        cubes = list(memory.select())
    damage(folder, *statements)
    assert wrong(folder) - {"journal"} == {check}  # words of a row that is not there look like a deleted memory, too
    assert repair(folder)
    with Memory(folder, user="ana", embedder=Letters(), encoders=(), background=False) as memory:
        memory.flush()
        assert {hit.id for hit in memory.search("journey Lisbon Ana", k=50)} == before
        assert list(memory.select()) == cubes
    assert wrong(folder) == set()
    assert look(folder)["queue"][0] == "good"


def test_everything_at_once(folder: Path) -> None:
    damage(
        folder, *(statement for some in (DAMAGE, STRAYS) for statements in some.values() for statement in statements)
    )
    assert wrong(folder) == {"words", "names", "vectors", "queue", "journal"}
    repair(folder)
    assert wrong(folder) == set()


def test_another_analyser_is_noticed(folder: Path) -> None:
    damage(folder, "UPDATE meta SET value = '0' WHERE key = 'analyser'")
    level, what = look(folder)["words"]
    assert level == "wrong" and "analyser 0" in what
    assert any("lexical index" in line for line in repair(folder))
    assert look(folder)["words"][0] == "good"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE cubes SET body = replace(body, 'Lisbon', 'London') WHERE rid % 7 = 2",
        "UPDATE cubes SET status = 'archived' WHERE rid % 7 = 2",
        "UPDATE journal SET reason = 'nothing happened' WHERE seq = 5",
        "DELETE FROM journal WHERE seq = 7",
        "DELETE FROM cubes WHERE rid IN (SELECT rid FROM cubes WHERE kind = 'message' LIMIT 1)",
    ],
)
def test_a_changed_past_is_found_and_not_mended(folder: Path, statement: str) -> None:
    damage(folder, statement)
    assert "journal" in wrong(folder)
    repair(folder)
    assert "journal" in wrong(folder)


def test_what_was_forgotten_must_stay_away_and_links_must_lead_somewhere(folder: Path) -> None:
    with Memory(folder, user="ana", embedder=Letters(), encoders=(), background=False) as memory:
        id = next(cube.id for cube in memory.select())
    damage(folder, f"INSERT INTO tombstones VALUES (x'{id.replace('-', '')}', 1)")
    assert "forgotten" in look(folder)["journal"][1]
    damage(folder, "DELETE FROM tombstones", "UPDATE links SET parent = x'00000000000000000000000000000000'")
    assert "lineage" in look(folder)["journal"][1]


def test_failed_jobs_are_told_with_their_error_and_made_due(folder: Path) -> None:
    letters = Letters()
    with Memory(folder, user="ana", embedder=letters, encoders=(), background=False) as memory:
        letters.fails = True
        memory.add("one more")
        memory.flush()
    level, what = look(folder)["queue"]
    assert level == "wrong" and "the letters are out" in what
    assert any("due again" in line for line in repair(folder))
    assert look(folder)["queue"][0] == "note"  # it waits, and nothing has failed since
    with Memory(folder, user="ana", embedder=Letters(), encoders=(), background=False) as memory:
        memory.flush()
    assert look(folder)["queue"][0] == "good"


def test_a_change_of_model_that_is_not_finished_is_told(folder: Path) -> None:
    store = open_store(folder)
    store.add_model("other/1", 3)
    store.close()
    level, what = look(folder)["vectors"]
    assert level == "note" and "other/1" in what


def test_a_store_without_vectors_is_no_fault(tmp_path: Path) -> None:
    with Memory(tmp_path / "s", user="ana", embedder=None, encoders=(), background=False) as memory:
        memory.add("tea")
        memory.flush()
    found = look(tmp_path / "s")
    assert found["vectors"][0] == "note" and not wrong(tmp_path / "s")
    assert found["queue"][0] == "note" and "1 waiting" in found["queue"][1]


def test_indexes_of_sqlite_are_made_again(folder: Path) -> None:
    row = "rid = (SELECT min(rid) FROM cubes)"
    damage(folder, f"UPDATE cubes SET source = 'elsewhere' WHERE {row}")
    with sqlite3.connect(folder / "holdfast.db") as connection:
        index = connection.execute("SELECT * FROM sqlite_master WHERE name = 'cubes_source'").fetchone()
    connection.close()
    # Take the index out of the schema, change the table, put it back: it now holds an entry for a row that has none.
    damage(folder, "PRAGMA writable_schema = ON", "DELETE FROM sqlite_master WHERE name = 'cubes_source'")
    damage(folder, f"UPDATE cubes SET source = NULL WHERE {row}")
    with sqlite3.connect(folder / "holdfast.db") as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", index)
    connection.close()
    level, what = look(folder)["database"]
    assert level == "wrong" and "cubes_source" in what
    assert any("SQLite's indexes" in line for line in repair(folder))
    assert wrong(folder) == set()
    assert (folder / "backups" / "before-doctor.db").exists()


def test_a_full_disk_and_a_network_disk_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.errors import StoreError

    class Usage:
        free = LOW_DISK - 1

    def refuse(_: Path) -> None:
        raise StoreError("lies on a network file system")

    monkeypatch.setattr("holdfast.store.doctor.shutil.disk_usage", lambda _: Usage)
    monkeypatch.setattr("holdfast.store.doctor.refuse_network", refuse)
    (folder / "backups").mkdir(exist_ok=True)
    (folder / "backups" / "schema-1.db").write_bytes(b"")
    levels = {finding.check: finding.level for finding in check_place(folder)}
    assert levels == {"place": "wrong", "disk": "wrong", "backups": "note"}


# --- a file that cannot be read whole ---


def overwrite(folder: Path, page: int, pages: int = 1) -> None:
    store = open_store(folder)
    store.fold_log()
    store.close()
    file = folder / "holdfast.db"
    with file.open("r+b") as out:
        size = 4096
        out.seek(page * size)
        out.write(b"\xa5" * size * pages)


def test_salvage_of_a_sound_file_gives_everything(folder: Path) -> None:
    saved = salvage(folder / "holdfast.db")
    assert saved.whole
    with Memory(folder, user="ana", embedder=None, encoders=(), background=False) as memory:
        mine = list(memory.select())
    assert [cube for cube in saved.cubes if cube.scope.user == "ana"] == mine


def test_salvage_reads_around_the_damage(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s", terms=fold_terms)
    scope = Scope("default", "ana")
    texts = [f"number {n} " + "blah " * 300 for n in range(300)]
    store.commit([Operation.add(Cube(scope, text)) for text in texts])
    with store.connections.reading() as connection:
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    store.close()
    overwrite(tmp_path / "s", (tmp_path / "s" / "holdfast.db").read_bytes().index(b"number 150 blah") // size)
    saved = salvage(tmp_path / "s" / "holdfast.db")
    assert not saved.whole
    got = [cube.text for cube in saved.cubes]
    assert 150 < len(got) < 300 and set(got) < set(texts)
    assert texts[0] in got and texts[-1] in got  # from both ends


def test_nothing_but_rubbish_is_said_to_be_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "holdfast.db").write_bytes(b"rubbish" * 4096)
    assert main(["--store", str(tmp_path / "s"), "doctor"]) == 1
    assert "--repair" in capsys.readouterr().out
    assert main(["--store", str(tmp_path / "s"), "doctor", "--repair"]) == 1
    assert "nothing can be read" in " ".join(capsys.readouterr().out.split())


# --- the command ---


@pytest.fixture
def doctor(folder: Path, capsys: pytest.CaptureFixture[str]):
    def run(*argv: str) -> tuple[int, dict[str, object]]:
        capsys.readouterr()
        status = main(["--store", str(folder), "--embedder", "none", "doctor", "--json", *argv])
        return status, json.loads(capsys.readouterr().out)

    return run


def lexical(folder: Path) -> None:
    """Leave the store without vectors, as one that no embedder ever served: the tests' embedder has no name to open by."""
    damage(folder, "DELETE FROM models", "DROP TABLE vectors_1", "DELETE FROM jobs")


def test_doctor_exits_1_until_repaired(folder: Path, doctor) -> None:
    lexical(folder)
    assert doctor()[0] == 0
    damage(folder, "DELETE FROM terms", "DELETE FROM names")
    status, answer = doctor()
    assert status == 1 and answer["ok"] is False
    status, answer = doctor("--repair")
    assert status == 0 and answer["ok"] is True and len(answer["repaired"]) >= 2
    assert doctor()[1]["repaired"] == []


def test_a_head_noted_earlier_proves_that_nothing_was_cut_off(folder: Path, doctor) -> None:
    lexical(folder)
    store = open_store(folder)
    seq, hash = store.head()
    store.close()
    assert doctor("--head", f"{seq}:{hash}")[0] == 0
    damage(folder, f"DELETE FROM journal WHERE seq = {seq}", f"DELETE FROM cubes WHERE seq = {seq}")
    status, answer = doctor("--head", f"{seq}:{hash}")
    assert status == 1 and any("cut or rewritten" in finding["what"] for finding in answer["findings"])
    assert main(["--store", str(folder), "doctor", "--head", "5"]) == 2


def test_coverage_is_printed_where_there_is_a_taxonomy(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    found = {"headers": ["kind", "parts"], "rows": [["implicit", "none"]], "gaps": ["implicit memory"]}
    fake = types.ModuleType("holdfast.taxonomy")
    fake.__spec__ = importlib.machinery.ModuleSpec("holdfast.taxonomy", None)
    fake.coverage = lambda: found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "holdfast.taxonomy", fake)
    assert main(["doctor", "--coverage"]) == 0
    assert "gap: implicit memory" in capsys.readouterr().out
    assert main(["doctor", "--coverage", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found


def test_doctor_says_that_the_stores_embedder_is_missing(doctor) -> None:
    status, answer = doctor()
    (finding,) = [finding for finding in answer["findings"] if finding["check"] == "embedder"]
    assert status == 1 and finding["level"] == "wrong" and "letters/1" in finding["what"]


def test_doctor_salvages_what_can_be_read_into_files_that_import_reads(folder: Path, capsys) -> None:
    with sqlite3.connect(folder / "holdfast.db") as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'journal'").fetchone()[0]
    connection.close()
    overwrite(folder, root - 1)
    assert main(["--store", str(folder), "doctor"]) == 1
    capsys.readouterr()
    assert main(["--store", str(folder), "doctor", "--repair"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "import" in shown
    files = sorted(folder.with_name("team.holdfast-salvaged").iterdir())
    assert [file.name for file in files] == ["default+ana.jsonl", "default+rui.jsonl"]
    texts = {cube.text for cube in read_jsonl(files[0].read_text().splitlines(), Scope("default", "ana"))}
    assert set(TEXTS[1:]) <= texts and "Memory number 0, corrected" in texts
    assert (
        main(["--store", str(folder.with_name("new")), "--user", "ana", "--embedder", "none", "import", str(files[0])])
        == 0
    )
    assert main(["--store", str(folder.with_name("new")), "doctor"]) == 0
