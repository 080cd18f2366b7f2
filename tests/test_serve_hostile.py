"""The REST server under callers who mean harm, or are merely odd: half characters, slow bodies, keys spelt otherwise, broken headers."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _package in ("fastapi", "uvicorn", "httpx"):
    pytest.importorskip(_package, reason="the extra serve is not installed")
pytest.importorskip("holdfast.serve.app")

import httpx  # noqa: E402

from holdfast import Memory  # noqa: E402
from holdfast.client import Client  # noqa: E402
from holdfast.cube import Channel, Cube, Origin, Ref, Scope, new_id  # noqa: E402
from holdfast.errors import EmbedderError, NotFoundError  # noqa: E402
from holdfast.serve.limits import Limits  # noqa: E402
from serving import OWNER  # noqa: E402
from serving import serving as served  # noqa: E402
from support import open_memory  # noqa: E402

ANA = {"user": "ana"}
HALF = "half of one \ud83d here"


@contextmanager
def serving(memory: Memory, **limits: Any) -> Iterator[httpx.Client]:
    with (
        served(memory, keep_alive=1, limits=Limits(**{"rate": 0, "flow": 0, **limits})) as address,
        httpx.Client(base_url=address, headers={"Authorization": f"Bearer {OWNER}"}, timeout=20) as client,
    ):
        yield client


@pytest.fixture
def memory(folder: Path) -> Iterator[Memory]:
    with open_memory(folder, embedder=None) as memory:
        yield memory


def lines(cubes: Sequence[Cube]) -> bytes:
    return b"".join(json.dumps(cube.to_dict()).encode() + b"\n" for cube in cubes)


# --- one memory must not silence the others ---


def test_half_a_character_in_one_memory_hides_no_other(memory: Memory) -> None:
    (odd,) = memory.add(HALF, user="ana", data={"note": "\ud83d"}).ids
    (plain,) = memory.add("one plain memory here", user="ana").ids
    with serving(memory) as http:
        found = http.post("/v1/search", params=ANA, json={"query": "one here"})
        assert found.status_code == 200, found.text
        assert {hit["id"] for hit in found.json()["hits"]} == {odd, plain}
        assert [one["text"] for one in http.get("/v1/timeline", params=ANA).json()["memories"]] == [
            "one plain memory here",
            HALF,
        ]
        assert http.get(f"/v1/memories/{odd}", params=ANA).json()["text"] == HALF
        assert http.post("/v1/context", params=ANA, json={"query": "one here"}).status_code == 200
        assert http.get(f"/v1/memories/{odd}/history", params=ANA).status_code == 200
        told = [json.loads(line) for line in http.get("/v1/export", params=ANA).text.splitlines()]
        assert HALF in [one.get("text") for one in told]
        with Client(str(http.base_url), OWNER, user="ana") as client:
            assert client.get(odd) == memory.get(odd, user="ana")
            (added,) = client.add("another \udc00 of them").ids
            assert memory.get(added, user="ana").text == "another \udc00 of them"
            assert client.search("another of them", k=1)[0].id == added


# --- what is taken back stays taken back ---


def test_what_comes_in_a_later_batch_is_derived_from_what_lies_here_by_another_id(memory: Memory) -> None:
    """Or a forget of the source would leave it."""
    (held,) = memory.add("the code is 1234, says Ana", user="ana").ids
    here = Scope("default", "ana")
    same = memory.get(held, user="ana").with_(id=new_id(), recorded_at=None)
    child = Cube(here, "the code is 1234", kind="fact", origin=Origin(Channel.DERIVED, derived_from=(Ref(same.id, 1),)))
    between = [Cube(here, f"note number {n}") for n in range(300)]  # more than a batch holds
    with serving(memory) as http:
        answer = http.post("/v1/import", params=ANA, content=lines([same, *between, child]))
        told = [json.loads(line) for line in answer.text.splitlines()]
        assert len(told) > 2 and told[-1] == {"line": 302, "kept": 301, "known": 1, "done": True}
        assert [note for one in told for note in one.get("notes", ())] == []
        assert memory.get(child.id, user="ana").origin.derived_from == (Ref(held, 1),)
        gone = http.post("/v1/forget", params=ANA, json={"ids": [held]}).json()
    assert gone["verified"] and set(gone["erased"]) == {held, child.id}
    with pytest.raises(NotFoundError):
        memory.get(child.id, user="ana")


# --- nothing is told to who has no key ---


class Quoting:
    """An embedder that fails, and says of what."""

    model, dimension = "quoting", 4

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        raise EmbedderError(f"could not embed {texts[0]!r}")


def test_whether_the_server_is_ready_tells_no_word_of_a_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import holdfast.serve.health as health

    monkeypatch.setattr(health, "FAILED", 0)
    with open_memory(folder, embedder=Quoting()) as memory:
        memory.add("the secret is xyzzy", user="ana")
        memory.flush()
        assert any("xyzzy" in why for why in memory.degraded), "or this proves nothing"
        with serving(memory) as http:
            for path in ("/healthz", "/readyz"):
                told = httpx.get(f"{http.base_url}{path}")
                assert "xyzzy" not in told.text, path
            assert told.status_code == 503 and told.json()["troubles"], "it still says that something is wrong"


# --- limits ---


def test_a_key_spelt_otherwise_is_the_same_caller(memory: Memory) -> None:
    spelt = [f"Bearer {' ' * n}{OWNER}" for n in range(10)] + [f"{word} {OWNER}" for word in ("bearer", "BEARER")]
    with serving(memory, rate=0.01, burst=3) as http:
        codes = [http.get("/v1/status", params=ANA, headers={"Authorization": one}).status_code for one in spelt]
    assert codes == [200] * 3 + [429] * 9


@pytest.mark.parametrize("path", ["search", "import"])
def test_who_pauses_in_a_body_does_not_hold_a_connection(memory: Memory, path: str) -> None:
    head = (
        f"POST /v1/{path}?user=ana HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {OWNER}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    )
    with serving(memory, idle=0.3) as http:
        held = [socket.create_connection(("127.0.0.1", http.base_url.port or 0)) for _ in range(50)]
        for one in held:
            one.sendall(head.encode())
            one.settimeout(5)
        began = time.monotonic()
        assert http.post("/v1/search", params=ANA, json={"query": "anything"}).status_code == 200
        for one in held:
            told = b""
            while some := one.recv(4096):  # until the server closes it
                told += some
            assert b"paused for more than 0.3 s" in told
            one.close()
        assert time.monotonic() - began < 5


def test_a_long_line_takes_time_in_proportion(memory: Memory) -> None:
    def seconds(pieces: int) -> float:
        began = time.perf_counter()
        answer = http.post("/v1/import", params=ANA, content=(b"x" * 65_536 for _ in range(pieces)))
        assert "is not JSON" in answer.text
        return time.perf_counter() - began

    with serving(memory) as http:
        seconds(8)
        assert seconds(640) < 30 * seconds(64), "ten times as long; copied anew with every piece it would be a hundred"
        too_long = http.post("/v1/import", params=ANA, content=(b"x" * 2**20 for _ in range(66)))
        assert "a line may have" in too_long.text


# --- odd input is the caller's fault, and said to be ---


@pytest.mark.parametrize(
    "origin", ["http://[x", "null", "http://evil.example", "file://", "http://127.0.0.1.evil.example"]
)
def test_no_other_page_calls_whatever_it_calls_itself(memory: Memory, origin: str) -> None:
    with serving(memory) as http:
        answer = http.get("/v1/status", params=ANA, headers={"Origin": origin})
    assert answer.status_code == 403 and answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "query",
    [{"action": "nonsense"}, {"limit": 0}, {"limit": -1}, {"limit": 1001}, {"before": 2**70}, {"before": "x"}],
)
def test_an_audit_of_what_there_is_not_is_refused(memory: Memory, query: dict[str, Any]) -> None:
    memory.add("one", user="ana")
    with serving(memory) as http:
        answer = http.get("/v1/audit", params={**ANA, **query})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("cursor", ["--5.3", "5", "x.1", "1.2.3", "-.1", f"{'9' * 30}.1", "\u0663.1", ""])
def test_a_place_in_the_timeline_that_there_is_not_is_refused(memory: Memory, cursor: str) -> None:
    memory.add("one", user="ana")
    with serving(memory) as http:
        answer = http.get("/v1/timeline", params={**ANA, "cursor": cursor})
    assert answer.status_code == 422 and "no place in a list" in answer.text, answer.text


@pytest.mark.parametrize(
    "body",
    [b"", b"[" * 100_000, b'{"query": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}", b'{"query": "x", "k": NaN}',
     b'{"query": "x", "k": 1e999}', b'{"query": 5}', b"\xff\xfe", b'{"query": "x"' , b"null", b'{"k": "\\ud800"}'],
    ids=range(10),
)  # fmt: skip
def test_a_malformed_body_is_a_problem_and_no_fault(memory: Memory, body: bytes) -> None:
    with serving(memory) as http:
        answer = http.post("/v1/search", params=ANA, content=body, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "line",
    [b'{"a": 1}', b'{"scope": "zzz", "text": "x"}', b'{"scope": "default/ana", "text": "x", "use": {"utility": NaN}}',
     b'{"scope": "default/ana", "text": "x", "data": {"a": ' + b"[" * 3000 + b"]" * 3000 + b"}}", b"[1]", b"\xff",
     b'{"scope": "default/ana", "text": "x", "data": {"a": ' + b"9" * 5000 + b"}}"],
    ids=range(7),
)  # fmt: skip
def test_a_line_that_cannot_be_read_ends_an_import_and_keeps_what_was_acknowledged(memory: Memory, line: bytes) -> None:
    good = [Cube(Scope("default", "ana"), f"note number {n}") for n in range(300)]
    with serving(memory) as http:
        answer = http.post("/v1/import", params=ANA, content=lines(good) + line + b"\n")
    told = [json.loads(one) for one in answer.text.splitlines()]
    assert told[0]["line"] == told[-1]["line"] == 256 and "InputError" in told[-1]["error"]
    assert "done" not in told[-1] and len(list(memory.select(user="ana"))) == told[-1]["kept"] == 256


def test_an_id_of_another_user_cannot_be_taken_over(memory: Memory) -> None:
    (theirs,) = memory.add("Bo's own words", user="bo").ids
    memory.access.enrol("eve")
    memory.access.grant("eve", "default/eve", ["read", "write"])
    key = memory.access.issue("eve")
    taken = Cube(Scope("default", "eve"), "overwritten", id=theirs)
    child = Cube(
        Scope("default", "eve"), "about it", kind="fact", origin=Origin(Channel.DERIVED, derived_from=(Ref(theirs, 1),))
    )
    with serving(memory) as http:
        answer = http.post(
            "/v1/import",
            params={"user": "eve"},
            content=lines([taken, child]),
            headers={"Authorization": f"Bearer {key}"},
        )
    assert "Bo's" not in answer.text
    assert memory.get(theirs, user="bo").text == "Bo's own words" and memory.lineage(theirs, user="bo") == []


def test_a_key_that_is_withdrawn_amid_an_import_keeps_only_what_was_acknowledged(memory: Memory) -> None:
    memory.access.enrol("eve")
    memory.access.grant("eve", "default/eve", ["read", "write"])
    key = memory.access.issue("eve")
    withdrawn = threading.Event()

    def sent() -> Iterator[bytes]:
        yield lines([Cube(Scope("default", "eve"), f"note number {n}") for n in range(256)])
        while not list(memory.select(user="eve")):
            time.sleep(0.01)
        memory.access.withdraw("eve")
        withdrawn.set()
        yield lines([Cube(Scope("default", "eve"), f"late number {n}") for n in range(256)])

    with serving(memory) as http:
        answer = http.post(
            "/v1/import", params={"user": "eve"}, content=sent(), headers={"Authorization": f"Bearer {key}"}
        )
    told = [json.loads(one) for one in answer.text.splitlines()]
    assert withdrawn.is_set() and told[-1]["error"] == "AccessError" and told[-1]["line"] == 256
    assert len(list(memory.select(user="eve"))) == 256
