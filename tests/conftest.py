"""Settings of the whole suite: one thread for numerics, the same examples at every run."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before numpy is imported

import tempfile  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from server import Server  # noqa: E402
from support import MEMORY  # noqa: E402

settings.register_profile(
    "ci",
    max_examples=int(os.environ.get("HOLDFAST_EXAMPLES", "40")),
    stateful_step_count=25,
    derandomize="HOLDFAST_EXAMPLES" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("ci")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a store may be made: in memory where there is such a place, so that no test waits for a disk."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as home:
        yield Path(home) / "a.holdfast"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server; where it cannot be started, the tests that need it fail."""
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    """The address of a fresh database."""
    with server.database() as address:
        yield address


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of a store runs over both engines, but for one that looks into the files of the folder."""
    if "place" in metafunc.fixturenames:
        engines = ["embedded"] if "folder" in metafunc.fixturenames else ["embedded", "server"]
        metafunc.parametrize("place", engines, indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Path | str:
    """Where a store may be made: a folder, or a database of a server."""
    found: Path | str = request.getfixturevalue("folder" if request.param == "embedded" else "database")
    return found


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread for torch: with several, small models are slower on a machine that others share."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
