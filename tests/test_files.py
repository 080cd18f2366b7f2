"""The file store of a run: what was written is read, what was is not lost, and nothing lies outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.agent.acceptance import weakened
from holdfast.agent.files import FileStore, confined, patched, unified
from holdfast.agent.ledger import Ledger
from holdfast.cube import Scope
from holdfast.errors import ConflictError, InputError, NotFoundError
from holdfast.store.sqlite import SqliteStore

TEXTS = st.text(st.sampled_from("ab \n-+@\\é\r"), max_size=30)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(SqliteStore(tmp_path / "s", durability="normal"), Scope("t", "u", "a", "run"))


def test_a_run_has_a_name(ledger: Ledger) -> None:
    with pytest.raises(InputError, match="session"):
        Ledger(ledger.store, Scope("t", "u", "a"))


# --- diffs ---


@given(TEXTS, TEXTS)
def test_a_diff_leads_from_one_text_to_the_other(old: str, new: str) -> None:
    diff = unified("x", old, new)
    assert (diff == "") == (old == new)
    if diff:
        assert patched(old, diff) == new


@given(TEXTS, TEXTS, TEXTS)
def test_a_diff_whose_context_is_not_there_changes_nothing(old: str, new: str, other: str) -> None:
    if old == new:
        return
    try:
        done = patched(other, unified("x", old, new))
    except InputError:
        return
    # It fitted: then every line that it takes away stood there, and every line that it adds stands now.
    body = unified("x", old, new).split("\n")[3:-1]
    assert all(line[1:] in other.split("\n") for line in body if line[:1] in "- " and line[:2] != "@@")
    assert all(line[1:] in done.split("\n") for line in body if line[:1] == "+")


def test_a_diff_of_git_says_where_the_last_newline_is_missing() -> None:
    assert patched("a\nb", "@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+b\n") == "a\nb\n"
    assert patched("a\nb\n", "@@ -1,2 +1,2 @@\n a\n-b\n+b\n\\ No newline at end of file\n") == "a\nb"
    both = "@@ -1 +1 @@\n-b\n\\ No newline at end of file\n+c\n\\ No newline at end of file\n"
    assert patched("b", both) == "c"


def test_a_hunk_with_wrong_numbers_applies_where_it_stands_once_and_only_there() -> None:
    hunk = "@@ -{} +9 @@\n one\n-two\n+2\n"
    assert patched("zero\none\ntwo\n", hunk.format(1)) == "zero\none\n2\n"
    with pytest.raises(InputError, match="2 places"):
        patched("one\ntwo\none\ntwo\n", hunk.format(2))
    with pytest.raises(InputError, match="does not fit"):
        patched("one\nthree\n", hunk.format(1))
    for nothing in ("", "hello", "@@ -1 +1 @@\n one\n"):
        with pytest.raises(InputError):
            patched("one\n", nothing)


# --- versions ---


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a.py", "d/b.md"]), st.none() | TEXTS), max_size=12))
def test_every_version_is_kept_and_can_be_made_the_newest(tmp_path_factory: pytest.TempPathFactory, changes) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("versions")
    store = SqliteStore(folder, durability="normal")
    files = FileStore(Ledger(store, Scope("t", "u", "a", "run")))
    model: dict[str, list[str | None]] = {}
    for path, text in changes:
        past = model.setdefault(path, [])
        if text is None:
            if past and past[-1] is not None:
                files.delete(path)
                past.append(None)
            else:
                with pytest.raises(NotFoundError):
                    files.delete(path)
        else:
            files.write(path, text)
            if not past or past[-1] != text:
                past.append(text)
    now = {path: past[-1] for path, past in model.items() if past and past[-1] is not None}
    again = FileStore(Ledger(store, Scope("t", "u", "a", "run")))  # as another process sees it
    assert files.all() == again.all() == now and files.digest == again.digest
    for path, past in model.items():
        if not past:
            continue
        history = again.history(path)
        assert [one.deleted for one in history] == [text is None for text in past]
        assert [again.at(path, one.version) for one in history] == [text or "" for text in past]
        again.rollback(path, 1)
        assert again.text(path) == past[0]
    assert not store.verify()
    store.close()


def test_what_fails_within_one_change_leaves_nothing(ledger: Ledger) -> None:
    files = FileStore(ledger)
    files.write("a", "1")
    with pytest.raises(InputError), ledger.together():
        files.write("a", "2")
        files.write("b", "3")
        files.write("../c", "4")
    assert files.all() == FileStore(Ledger(ledger.store, ledger.scope)).all() == {"a": "1"}


def test_two_writers_do_not_overwrite_each_other(ledger: Ledger) -> None:
    mine, other = FileStore(ledger), FileStore(Ledger(ledger.store, ledger.scope))
    mine.write("a", "1")
    other.write("a", "other")
    with pytest.raises(ConflictError):
        mine.write("a", "2")
    assert FileStore(Ledger(ledger.store, ledger.scope)).text("a") == "other"


# --- reading ---


def test_a_read_is_capped_and_says_so(ledger: Ledger) -> None:
    files = FileStore(ledger, count=len)
    files.write("a", "one\ntwo\nthree\n")
    files.write("main.py", "x")
    found = files.read("a", 2)
    assert (found.text, found.start, found.end, found.lines, found.cut) == ("two\nthree", 2, 3, 3, False)
    assert (files.read("a", cap=8).text, files.read("a", cap=7).text) == ("one\ntwo", "one")
    found = files.read("a", cap=9)
    assert (found.text, found.end, found.cut) == ("one\ntwo", 2, True)
    assert files.read("a", 3, cap=2).text == "th"
    assert files.read("a", 1, 1).text == "one"
    for start, end in ((0, 1), (4, None), (3, 2)):
        with pytest.raises(InputError):
            files.read("a", start, end)
    with pytest.raises(NotFoundError, match="did you mean main.py"):
        files.read("man.py")


def test_a_search_takes_words_as_they_stand(ledger: Ledger) -> None:
    files = FileStore(ledger)
    files.write("a", "x = (a+)+\nb")
    files.write("b", "b\nc")
    assert [(one.path, one.line) for one in files.search("(a+)+", "c")] == [("a", 1), ("b", 2)]
    assert len(files.search("b", limit=1)) == 1
    with pytest.raises(InputError):
        files.search("")


# --- confinement ---


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/.", "a\\..\\b", "C:/x", "~/x", "a\0", "a\nb", " a", "a/", "a." , "x" * 201, "e\u0301", 3],
)  # fmt: skip
def test_a_path_stays_inside(ledger: Ledger, path: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        FileStore(ledger).write(path, "x")
    assert FileStore(ledger).paths() == []


@given(st.text(max_size=30))
def test_a_path_that_is_let_in_lies_below(path: str) -> None:
    try:
        confined(path)
    except InputError:
        return
    root = Path("/some/root")
    assert root in (root / path).parents and ".." not in Path(path).parts


def test_a_path_is_a_file_or_a_folder_and_one_of_its_kind(ledger: Ledger) -> None:
    files = FileStore(ledger)
    files.write("a/b", "x")
    for clash in ("a", "a/b/c", "A/B"):
        with pytest.raises(InputError):
            files.write(clash, "x")
    for text in ("\0", "\ud800"):
        with pytest.raises(InputError):
            files.write("c", text)


def test_an_export_overwrites_nothing(ledger: Ledger, tmp_path: Path) -> None:
    files = FileStore(ledger)
    files.write("a/b.txt", "ä\r\n")
    files.export(tmp_path / "out")
    assert (tmp_path / "out/a/b.txt").read_bytes() == "ä\r\n".encode()
    with pytest.raises(ConflictError):
        files.export(tmp_path / "out")


@pytest.mark.skipif(os.name != "posix", reason="links need rights that a user may lack here")
def test_an_export_goes_through_no_link(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = FileStore(ledger)
    files.write("a/b.txt", "x")
    files.write("c.txt", "x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "link").symlink_to(outside, target_is_directory=True)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "held").mkdir()
    (tmp_path / "held/a").symlink_to(outside, target_is_directory=True)
    for folder in ("link", "dangling", "held"):
        with pytest.raises(ConflictError):
            files.export(tmp_path / folder)
    # Links that are put in its way after it looked.
    real = Path.iterdir
    for name, target in (("a", outside), ("c.txt", outside / "c.txt")):
        root = tmp_path / f"raced {name}"

        def planted(path: Path, root: Path = root, name: str = name, target: Path = target) -> Iterator[Path]:
            found = list(real(path))
            if path == root:
                (root / name).symlink_to(target)
            return iter(found)

        monkeypatch.setattr(Path, "iterdir", planted)
        with pytest.raises(ConflictError, match="meanwhile"):
            files.export(root)
        monkeypatch.setattr(Path, "iterdir", real)
    assert list(outside.iterdir()) == [] and not (tmp_path / "nowhere").exists()


# --- tests that may not be weakened ---

TEST = "from m import f\nLIMIT = 3\ndef test_a():\n    assert f(1) == LIMIT\n"


@pytest.mark.parametrize(
    "after",
    [
        "",
        TEST.replace("== LIMIT", "!= None"),
        TEST.replace("    assert", "    return\n    assert"),
        TEST + "def test_a(): pass\n",
        TEST + "LIMIT = 4\n",
        TEST + "f = len\n",
        TEST + "from other import f\n",
        TEST + "from other import *\n",
        TEST + "if True:\n    del test_a\n",
        TEST.replace("def test_a", "@skip\ndef test_a"),
        TEST + "def broken(:\n",
        "def deep():\n    return " + "-" * 1500 + "1\n" + TEST,
    ],
)
def test_a_test_that_was_there_cannot_be_weakened(after: str) -> None:
    assert weakened({"test_m.py": TEST}, {"test_m.py": after})


def test_more_tests_are_welcome_and_other_files_are_free() -> None:
    more = "import os\n" + TEST + "\n# more\ndef test_b():\n    assert True\n"
    assert weakened({"test_m.py": TEST, "m.py": "x"}, {"test_m.py": more}) == []
    assert weakened({"test_m.py": TEST}, {})
