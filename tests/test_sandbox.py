"""Code that nobody has read: what it tries, and what comes of it. Where a guarantee does not hold, its tests say so and skip."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from holdfast.agent import sandbox
from holdfast.agent.sandbox import Guarantee, Limits, Sandbox
from holdfast.errors import InputError, SandboxError

HELD = {one for one, how in Sandbox().guarantees().items() if how}
WHY = "this machine may do without it, for this test only"


def box(**limits: float) -> Sandbox:
    """A sandbox that demands all that this machine has."""
    return Sandbox(Limits(**limits), lowered={one: WHY for one in Guarantee if one not in HELD})  # type: ignore[arg-type]


def holds(*guarantees: Guarantee) -> pytest.MarkDecorator:
    lacking = [str(one) for one in guarantees if one not in HELD]
    return pytest.mark.skipif(bool(lacking), reason=f"not guaranteed here: {', '.join(lacking)}")


# --- what works ---


def test_a_program_runs_and_leaves_its_output_and_files() -> None:
    done = box().run(
        "import json, math, threading, sys\n"
        "thread = threading.Thread(target=lambda: print('from a thread'))\n"
        "thread.start(); thread.join()\n"
        "open('made.txt', 'w').write('ä')\n"
        "print(math.sqrt(16), sys.argv, repr(sys.stdin.read()), __name__, file=sys.stderr)"
    )
    assert done.ok, done.errors
    assert done.output == "from a thread\n" and done.errors == "4.0 ['sandbox'] '' __main__\n"
    assert done.files == {"made.txt": "ä".encode()} and done.seconds > 0


def test_a_program_that_fails_says_how() -> None:
    done = box().run("raise ValueError('no')")
    assert not done.ok and done.status == 1 and "ValueError: no" in done.errors
    assert box().run("import sys; sys.exit(3)").status == 3
    assert "SyntaxError" in box().run("x = (").errors


# --- bounds ---


def test_code_that_is_no_text_fails_in_the_child() -> None:
    done = box().run("print(1)\nx = '\ud800'")  # half a pair, as JSON can hold it
    assert done.ended == "finished" and not done.ok and not done.output and done.errors


def test_an_endless_loop_ends() -> None:
    started = time.monotonic()
    done = box(wall_s=1, cpu_s=20).run("while True: pass")
    assert done.ended == "out of time" and done.status < 0 and time.monotonic() - started < 8
    assert box(wall_s=1).run("import time; time.sleep(60)").ended == "out of time"


def test_a_program_that_closes_its_streams_ends_in_time_too() -> None:
    done = box(wall_s=1).run("import os, time; os.close(1); os.close(2); time.sleep(60)")
    assert done.ended == "out of time"


@holds(Guarantee.CPU_TIME)
def test_processor_time_is_bounded_and_catching_the_signal_does_not_help() -> None:
    done = box(cpu_s=1, wall_s=30).run(
        "import signal\nsignal.signal(signal.SIGXCPU, lambda *_: None)\nwhile True: pass"
    )
    assert done.ended == "finished" and done.status < 0 and done.seconds < 20


@holds(Guarantee.MEMORY)
def test_a_memory_bomb_fails_alone() -> None:
    done = box(memory=256 * 1024 * 1024).run("x = []\nwhile True: x.append(bytearray(16 * 1024 * 1024))")
    assert not done.ok and "MemoryError" in done.errors


def test_output_is_cut_and_its_writer_ended() -> None:
    for stream in ("stdout", "stderr"):
        done = box(output=100_000, wall_s=30).run(f"import sys\nwhile True: sys.{stream}.write('x' * 65536)")
        assert done.ended == "too much output"
        assert len(done.output) + len(done.errors) <= 200_000


@holds(Guarantee.FILE_SIZE)
def test_files_are_bounded_in_size_and_number() -> None:
    done = box(file_bytes=100_000).run("open('big', 'wb').write(b'x' * 1_000_000)")
    assert not done.ok and len(done.files.get("big", b"")) <= 100_000
    assert "Too many open files" in box(open_files=16).run("x = [open(str(n), 'w') for n in range(99)]").errors


@holds(Guarantee.MEMORY, Guarantee.PROCESSES)
def test_limits_cannot_be_raised_again() -> None:
    done = box().run("import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))")
    assert not done.ok and ("PermissionError" in done.errors or "not allowed" in done.errors)


# --- processes ---


@holds(Guarantee.PROCESSES)
@pytest.mark.parametrize(
    "code",
    [
        "import os\nwhile True: os.fork()",
        "import subprocess; subprocess.run(['/bin/true'])",
        "import os; os.execv('/bin/true', ['true'])",
        "import os; os.kill(os.getppid(), 9)",
        "import os; os.kill(-1, 9)",
        "import multiprocessing as m; m.Process(target=print).start()",
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
        "import os; open(f'/proc/{os.getppid()}/environ').read()",
        "import ctypes; exit(0 if ctypes.CDLL(None).syscall(435, 0, 0) != -1 else 1)",
    ],
)
def test_no_process_is_started_signalled_or_read(code: str) -> None:
    done = box(wall_s=10).run(code)
    assert done.ended == "finished" and not done.ok, done


# --- files ---


@holds(Guarantee.READ)
@pytest.mark.parametrize(
    "code",
    [
        "print(open('/etc/passwd').read())",
        "import os; os.symlink('/etc/passwd', 'link'); print(open('link').read())",
        "import os; os.link('/etc/passwd', 'hard'); print(open('hard').read())",
        "import os; print(os.listdir('/'))",
        "import os; print(os.listdir('..'))",
        "import os; os.chdir('/etc'); print(open('passwd').read())",
        "print(open('/proc/self/root/etc/passwd').read())",
    ],
)
def test_nothing_outside_is_read(code: str) -> None:
    done = box().run(code)
    assert not done.ok and "root:" not in done.output and "Error" in done.errors


@holds(Guarantee.WRITE)
def test_nothing_outside_is_written_or_changed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("as it was")
    mine.chmod(0o600)
    before = mine.stat()
    for code in (
        f"open({str(mine)!r}, 'w').write('changed')",
        f"open({str(mine.with_name('new'))!r}, 'w').write('made')",
        f"import os; os.remove({str(mine)!r})",
        f"import os; os.rename({str(mine)!r}, 'here')",
        f"import os; os.symlink({str(tmp_path)!r}, 'out'); open('out/new', 'w')",
        f"import os; os.chmod({str(mine)!r}, 0o777)",
        f"import os; os.utime({str(mine)!r}, (0, 0))",
        f"import os; os.truncate({str(mine)!r}, 0)",
        f"import os; os.setxattr({str(mine)!r}, 'user.a', b'b')",
        f"import os; os.mkdir({str(mine.with_name('dir'))!r})",
    ):
        assert not box().run(code).ok, code
    after = mine.stat()
    assert mine.read_text() == "as it was" and [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (after.st_mode, after.st_mtime, after.st_size) == (before.st_mode, before.st_mtime, before.st_size)


def test_a_link_that_it_leaves_is_not_followed() -> None:
    done = box().run("import os; os.symlink('/etc/passwd', 'link'); open('real', 'w').write('x'); os.mkdir('sub')")
    assert done.files == {"real": b"x"}


@pytest.mark.skipif(os.name != "posix", reason="there are no modes here")
def test_a_file_that_nobody_may_read_stays_where_it_is() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "shut").touch(mode=0)
        (Path(folder) / "open").write_text("x")
        me = os.geteuid()
        try:
            os.seteuid(me or 65534)  # root may read everything
            assert sandbox._left(Path(folder), 100) == {"open": b"x"}
        finally:
            os.seteuid(me)


def test_its_folder_goes_with_it() -> None:
    done = box().run("import os; print(os.getcwd())")
    assert done.ok and not Path(done.output.strip()).exists()


# --- network ---


@holds(Guarantee.NETWORK)
def test_no_socket_is_opened_even_to_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        reached: list[object] = []

        def wait() -> None:
            try:
                reached.append(server.accept())
            except TimeoutError:
                return

        waiting = threading.Thread(target=wait)
        waiting.start()
        done = box().run(f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)")
        waiting.join()
    assert not done.ok and not reached and "PermissionError" in done.errors
    for code in (
        "socket.socket(socket.AF_UNIX)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "socket.socket(16, 3)",
    ):
        assert "PermissionError" in box().run(f"import socket; {code}").errors


# --- what is inherited ---


def test_no_environment_and_no_descriptor_is_inherited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "x.py"))
    (tmp_path / "open").write_text("secret")
    handle = os.open(tmp_path / "open", os.O_RDONLY)
    os.set_inheritable(handle, True)
    try:
        done = box().run(
            "import os\n"
            "print(sorted(os.environ))\n"
            "def usable(n):\n"
            "    try: os.fstat(n); return True\n"
            "    except OSError: return False\n"
            "print([n for n in range(3, 64) if usable(n)])"
        )
    finally:
        os.close(handle)
    names, descriptors = done.output.splitlines()
    assert "SECRET_KEY" not in names and "PYTHONSTARTUP" not in names and "hunter2" not in done.output
    assert descriptors == "[]"


def test_nothing_of_the_host_can_be_imported() -> None:
    assert "ModuleNotFoundError" in box().run("import holdfast").errors
    assert "ModuleNotFoundError" in box().run("import numpy").errors


# --- demands ---


def test_guarantees_are_said_plainly() -> None:
    said = Sandbox().guarantees()
    assert set(said) == set(Guarantee)
    assert said[Guarantee.WALL_TIME] and said[Guarantee.OUTPUT] and said[Guarantee.ENVIRONMENT]
    if sys.platform != "linux":
        assert not said[Guarantee.NETWORK]


def test_a_run_refuses_what_it_cannot_guarantee_unless_told_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_held", lambda: frozenset({"limits"}))
    with pytest.raises(SandboxError, match="no network"):
        Sandbox().run("open('x', 'w')")
    lowered = dict.fromkeys(Sandbox().missing(), "the code is our own")
    assert Guarantee.NETWORK in lowered
    assert Sandbox(lowered=lowered).run("print(1)").output == "1\n"


def test_what_cannot_be_shut_after_all_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_told", lambda limits, folder, demanded: told(limits, folder, [*demanded, "moat"]))
    told = _TOLD
    with pytest.raises(SandboxError, match="nothing was run"):
        box().run("print(1)")


_TOLD = sandbox._told


@pytest.mark.parametrize("reason", ["", "because", 3])
def test_a_demand_is_lowered_in_words(reason: object) -> None:
    with pytest.raises(InputError, match="in words"):
        Sandbox(lowered={Guarantee.NETWORK: reason})  # type: ignore[dict-item]
