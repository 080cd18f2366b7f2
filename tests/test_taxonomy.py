"""The taxonomy: every mechanism has a place, every empty place a reason, and each of these rules can be broken and seen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cli import main
from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.taxonomy import (
    GAPS,
    Evolution,
    Formation,
    Function,
    MemoryProfile,
    Modality,
    Paradigm,
    Retrieval,
    Subform,
    Subject,
    Trainable,
    coverage,
    gaps,
    matrix,
    mechanisms,
    profiles,
    undeclared,
)

FLAT_FACTS = "PROFILE = MemoryProfile(Form.TEXT, Subform.FLAT, (Function.FACTS_USER,))\n"


def package(folder: Path, **modules: str) -> Path:
    """A package of a few modules; ``encode_notes`` is the file notes.py of the room encode."""
    for name, source in modules.items():
        room, _, stem = name.partition("_")
        file = folder / "house" / room / f"{stem}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    return folder / "house"


# --- the house as it is ---


def test_every_mechanism_says_what_memory_it_is() -> None:
    assert undeclared() == ()
    assert {"holdfast.encode.claims", "holdfast.retrieve.search", "holdfast.agent.mag"} <= set(mechanisms())
    assert {"holdfast.guard.admission", "holdfast.guard.consensus", "holdfast.guard.voices"} <= set(mechanisms())
    assert "holdfast.guard.strict_json" not in mechanisms()  # it cites its paper and is no memory


def test_what_the_guard_fills_is_no_gap() -> None:
    found = matrix()
    assert "holdfast.guard.consensus" in found.cells[Form.TEXT, Function.CASES]
    assert "holdfast.guard.lessons" in found.cells[Form.TEXT, Function.STRATEGIES]
    assert "holdfast.guard.lessons" in found.subtypes[Formation.DISTILL_EXPERIENCE]
    assert "holdfast.guard.consensus" not in found.cells[Form.TEXT, Function.SKILLS]


def test_every_empty_place_has_a_reason_and_no_covered_one_has() -> None:
    assert matrix().unexplained == ()
    assert matrix().outdated == ()
    assert set(gaps().values()) <= set(GAPS.values())


def test_what_is_read_from_the_source_is_what_the_modules_hold() -> None:
    """In a process of its own, where nothing else has been imported before."""
    code = (
        "import contextlib, importlib, sys\n"
        "from holdfast.errors import MissingExtraError\n"
        "from holdfast.taxonomy import profiles\n"
        "read = profiles()\n"
        "assert 'numpy' not in sys.modules and not any(name in sys.modules for name in read), 'reading imported something'\n"
        "for name, declared in read.items():\n"
        "    with contextlib.suppress(MissingExtraError):\n"
        "        held = importlib.import_module(name).PROFILE\n"
        "        assert declared == (held if isinstance(held, tuple) else (held,)), name\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- a house where something is wrong ---


def test_a_mechanism_without_a_profile_is_found(tmp_path: Path) -> None:
    house = package(
        tmp_path,
        encode_paper='"""Cites a paper (arXiv 2512.13564)."""\n',
        encode_seam="class Encoder:\n    def encode(self, experience): ...\n",
        retrieve_index="class NearIndex: ...\n",
        manage_declared=FLAT_FACTS,
        manage_seam=FLAT_FACTS + "class Manager:\n    def manage(self, store, scope, now): ...\n",
        guard_gate="class Gate:\n    def admit(self, operations): ...\n",
        guard_vote="class Vote:\n    def check(self, query, hits): ...\n",
        # None of these is a mechanism: the paper is an aside, the class is private, the file is the seam itself, or no room's.
        encode_aside='"""Helps."""\n"""arXiv 2512.13564"""\n',
        encode_later='"""Helps.\n\nAs in arXiv 2512.13564."""\n',
        retrieve_private="class _NearIndex: ...\n",
        manage_base="class Manager:\n    def manage(self, store, scope, now): ...\n",
        guard_boundary='"""Cites a paper (arXiv 2602.07398)."""\nPROFILE = ()  # no memory\n',
        cli_paper='"""arXiv 2512.13564."""\n',
    )
    missing = ("encode.paper", "encode.seam", "retrieve.index", "guard.gate", "guard.vote")
    assert undeclared(house) == tuple(f"house.{module}" for module in missing)
    assert set(mechanisms(house)) == {*undeclared(house), "house.manage.declared", "house.manage.seam"}
    assert profiles(house)["house.guard.boundary"] == ()


def test_an_empty_place_without_a_reason_is_found(tmp_path: Path) -> None:
    house = package(tmp_path, encode_notes=FLAT_FACTS)
    unexplained = matrix(house).unexplained
    assert "text: facts about the environment" in unexplained and str(Retrieval.HYBRID) in unexplained
    assert "text: facts about the user" not in unexplained  # covered
    assert "state: experience as skills" not in unexplained  # excused
    assert "no reason is given" in "".join(coverage(house)["gaps"])


def test_a_reason_for_a_place_that_is_covered_is_found(tmp_path: Path) -> None:
    source = """PROFILE = (
        MemoryProfile(Form.TEXT, Subform.FLAT, (Function.SKILLS,), retrieval=(Retrieval.GENERATIVE,)),
        MemoryProfile(Form.STATE, Subform.GENERATED, (Function.CASES,)),
    )"""
    assert set(matrix(package(tmp_path, agent_skills=source)).outdated) == {
        "state: experience as cases",
        "generated",
        "strategy: generative",
    }


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("PROFILE = make_profile()", "not make_profile()"),
        ("PROFILE: MemoryProfile", "not nothing"),
        ("PROFILE = MemoryProfile(Form.TEXT, 'flat', (Function.SKILLS,))", "not 'flat'"),
        ("PROFILE = MemoryProfile(Form.TEXT, Subform.ROUND, (Function.SKILLS,))", "not Subform.ROUND"),
        ("PROFILE = MemoryProfile(Form.TEXT, Subform.FLAT, FUNCTIONS)", "not FUNCTIONS"),
        ("PROFILE = MemoryProfile(Form.STATE, Subform.FLAT, (Function.SKILLS,))", "sub-type of text, not of state"),
        ("PROFILE = MemoryProfile(Form.TEXT, Subform.FLAT, ())", "at least one function"),
    ],
)
def test_a_profile_that_cannot_be_read_or_true_is_refused(source: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=fault.replace("(", r"\(").replace(")", r"\)")):
        profiles(package(tmp_path, encode_notes=source))


# --- laws ---


def some(kind: type) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(st.sampled_from(kind), unique=True, max_size=4).map(tuple)


@st.composite
def any_profile(draw: st.DrawFn) -> MemoryProfile:
    subform = draw(st.sampled_from(Subform))
    return MemoryProfile(
        subform.form,
        subform,
        draw(some(Function).filter(bool)),
        draw(some(Formation)),
        draw(some(Evolution)),
        draw(some(Retrieval)),
        draw(some(Subject)),
        draw(some(Modality)),
        draw(st.sampled_from(Trainable)),
    )


def written(value: object) -> str:
    """A value as source: the inverse of what reads declarations."""
    if isinstance(value, MemoryProfile):
        return f"MemoryProfile({', '.join(f'{name}={written(getattr(value, name))}' for name in value.__slots__)})"
    if isinstance(value, tuple):
        return f"({''.join(written(one) + ',' for one in value)})"
    return f"{type(value).__name__}.{value.name}"  # type: ignore[attr-defined]


@given(st.lists(any_profile(), min_size=1, max_size=3).map(tuple))
def test_what_is_declared_is_what_is_read_and_covered(tmp_path_factory: pytest.TempPathFactory, declared) -> None:
    source = f"PROFILE = {written(declared[0] if len(declared) == 1 else declared)}\n"
    house = package(tmp_path_factory.mktemp("house"), agent_one=source)
    assert profiles(house) == {"house.agent.one": declared}
    found = matrix(house)
    cells = {(one.form, function) for one in declared for function in one.function}
    assert {cell for cell, modules in found.cells.items() if modules} == cells
    subtypes = {subtype for one in declared for subtype in (one.subform, *one.dynamics)}
    assert {subtype for subtype, modules in found.subtypes.items() if modules} == subtypes
    # Every place is either covered or a gap, and none is both.
    titles = {title for kind in found.to_dict().values() for title in kind}
    covered = {title for kind in found.to_dict().values() for title, modules in kind.items() if modules}
    assert covered | set(found.gaps) == titles and not covered & set(found.gaps)


def test_the_paradigm_follows_from_form_and_function() -> None:
    def of(subform: Subform, *functions: Function) -> Paradigm:
        return MemoryProfile(subform.form, subform, functions).paradigm

    assert of(Subform.INTERNAL, Function.FACTS_USER) is Paradigm.IMPLICIT
    assert of(Subform.FLAT, Function.FACTS_USER, Function.SKILLS) is Paradigm.EXPLICIT
    assert of(Subform.REUSED, Function.WORK_MULTI) is Paradigm.AGENTIC


# --- as people see it ---


def test_doctor_prints_the_matrix_without_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["doctor", "--coverage"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    for kind in (Form, Function, Subform, Formation, Evolution, Retrieval):
        assert all(str(value) in shown for value in kind)
    flat = " ".join(shown.split())
    assert all(reason in flat for reason in gaps().values())
    assert all(module.removeprefix("holdfast.") in flat for module in mechanisms())
    assert list(tmp_path.iterdir()) == []


def test_doctor_gives_the_matrix_as_json(capsys) -> None:
    assert main(["doctor", "--coverage", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == coverage()
    rows = {row[0]: row[1:] for row in found["rows"]}
    assert all(len(row) == len(found["headers"]) for row in found["rows"])
    cells = matrix().cells
    for function in Function:
        counts = [len(cells[form, function]) for form in Form]
        assert rows[str(function)][:-1] == [str(count or "–") for count in counts]
