"""The one place where code that a model has written runs: a process of its own, behind what the kernel can shut without privileges.

On x86-64 Linux the child is held by resource limits, a Landlock ruleset (it reads Python's own files and the system's libraries,
and writes its own folder) and a seccomp filter (no socket, no other process, no signal, no change of limits, modes or owners).
Elsewhere only what the platform gives holds: ``Sandbox().guarantees()`` says what, and a run that demands more is refused. It is no
virtual machine: a hole in the kernel is a hole in it, the names and sizes of files outside can be asked for, and within its time it
may fill the disk, file by file.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

from holdfast.errors import InputError, SandboxError

_CHILD = Path(__file__).with_name("_sandbox_child.py")
_UNSHUT = 97


class Guarantee(StrEnum):
    """What a sandbox can promise. The first three hold wherever Python runs."""

    WALL_TIME = "ends in time"
    OUTPUT = "output is bounded"
    ENVIRONMENT = "no environment variable and no open file of the parent is inherited"
    MEMORY = "memory is bounded"
    CPU_TIME = "processor time is bounded"
    FILE_SIZE = "each file and their number open at once are bounded"
    READ = "no file is read but Python's own, the system's libraries and its folder"
    WRITE = "nothing is written or changed outside its folder"
    NETWORK = "no network"
    PROCESSES = "no other process is started, signalled or read"


_DOORS: Mapping[Guarantee, tuple[str, ...]] = {
    Guarantee.MEMORY: ("limits", "calls"),
    Guarantee.CPU_TIME: ("limits", "calls"),
    Guarantee.FILE_SIZE: ("limits", "calls"),
    Guarantee.READ: ("files",),
    Guarantee.WRITE: ("files", "calls"),
    Guarantee.NETWORK: ("calls",),
    Guarantee.PROCESSES: ("calls", "files"),
}
_HOW = {"limits": "resource limits", "files": "Landlock", "calls": "seccomp"}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of memory, of one file and of output; seconds of processor and of wall time; files open at once."""

    memory: int = 512 * 1024 * 1024
    cpu_s: int = 5
    wall_s: float = 10.0
    output: int = 1024 * 1024
    file_bytes: int = 16 * 1024 * 1024
    open_files: int = 64


_Ended = Literal["finished", "out of time", "too much output"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    ``ended`` is ``finished`` (whatever its status), ``out of time`` or ``too much output``; a status below 0 is the signal
    that ended it. ``files`` holds the regular files that it left in its folder, as far as they fit the bound on output;
    what they and the output say is as untrusted as the code.
    """

    ended: _Ended
    status: int
    output: str
    errors: str
    seconds: float
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether it finished with status 0."""
        return self.ended == "finished" and self.status == 0


class Sandbox:
    """Runs Python code that nobody has read.

    Args:
        limits: what a run may use.
        lowered: guarantees that this caller does without, each with a reason in words. All others are demanded.
    """

    def __init__(self, limits: Limits | None = None, *, lowered: Mapping[Guarantee, str] | None = None) -> None:
        self.limits = limits or Limits()
        self._lowered = dict(lowered or {})
        for guarantee, reason in self._lowered.items():
            if not isinstance(guarantee, Guarantee) or not isinstance(reason, str) or len(reason.split()) < 2:
                raise InputError(f"say in words why {guarantee} may be done without, not {reason!r}")

    def guarantees(self) -> dict[Guarantee, str]:
        """What holds on this machine, and by what; "" for what does not. Tried out in a child, not assumed."""
        held = _held()
        plain = {
            Guarantee.WALL_TIME: "the parent ends the child's process group",
            Guarantee.OUTPUT: "the parent reads no more than the bound",
            Guarantee.ENVIRONMENT: "an empty environment, closed descriptors, python -I",
        }
        return {
            one: plain.get(one) or (" and ".join(_HOW[door] for door in doors) if set(doors) <= held else "")
            for one in Guarantee
            for doors in [_DOORS.get(one, ())]
        }

    def missing(self) -> tuple[Guarantee, ...]:
        """What is demanded and does not hold here."""
        return tuple(one for one, how in self.guarantees().items() if not how and one not in self._lowered)

    def run(self, code: str) -> Outcome:
        """Run some code in an empty folder of its own; its standard input is empty.

        Raises SandboxError where a demanded guarantee does not hold; then nothing has been run.
        """
        missing = self.missing()
        if missing:
            raise SandboxError(
                f"this machine does not guarantee: {'; '.join(missing)}. Run the code elsewhere, or say in lowered= why each "
                "may be done without"
            )
        demanded = {door for one in _DOORS if one not in self._lowered for door in _DOORS[one]}
        with tempfile.TemporaryDirectory(prefix="sandbox-") as folder:
            started = time.monotonic()
            ended, status, output, errors = self._child(code, folder, sorted(demanded))
            if status == _UNSHUT and not output and not errors:
                raise SandboxError("a guarantee that held a moment ago could not be given now; nothing was run")
            took = time.monotonic() - started
            return Outcome(ended, status, _text(output), _text(errors), took, _left(Path(folder), self.limits.output))

    def _child(self, code: str, folder: str, demanded: list[str]) -> tuple[_Ended, int, bytes, bytes]:
        with tempfile.TemporaryFile() as source:
            source.write(code.encode("utf-8", "surrogatepass"))
            source.seek(0)
            child = _start(_told(self.limits, folder, demanded), folder, source)
            with child:
                output, errors, ended = _read(child, self.limits)
                _end(child)
            return ended, child.returncode, output, errors


def _told(limits: Limits, folder: str, demanded: list[str]) -> dict[str, Any]:
    numbers = {name: int(value) for name, value in asdict(limits).items()}
    return {"limits": numbers, "folder": folder, "readable": _readable(), "demanded": demanded}


def _start(told: Mapping[str, Any], folder: str, source: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-I", "-S", "-B", str(_CHILD), json.dumps(told)],
        stdin=source,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={},
        close_fds=True,
        start_new_session=True,
    )


def _read(child: subprocess.Popen[bytes], limits: Limits) -> tuple[bytes, bytes, _Ended]:
    """Both streams until they end, the time is over, or there is more than the bound."""
    assert child.stdout is not None and child.stderr is not None
    parts: dict[int, bytearray] = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
    until = time.monotonic() + limits.wall_s
    ended: _Ended = "finished"
    with selectors.DefaultSelector() as waiting:
        for stream in (child.stdout, child.stderr):
            waiting.register(stream, selectors.EVENT_READ)
        while waiting.get_map() and ended == "finished":
            left = until - time.monotonic()
            ready = waiting.select(left) if left > 0 else []
            if not ready:
                ended = "out of time"
            for key, _ in ready:
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    waiting.unregister(key.fileobj)
                parts[key.fd] += chunk
            if sum(map(len, parts.values())) > limits.output:
                ended = "too much output"
    # A child that has closed both streams may still be running.
    if ended == "finished":
        try:
            child.wait(max(until - time.monotonic(), 0.01))
        except subprocess.TimeoutExpired:
            ended = "out of time"
    output, errors = (bytes(part[: limits.output]) for part in parts.values())
    return output, errors, ended


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child and whatever it started in its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _text(output: bytes) -> str:
    return output.decode("utf-8", errors="replace")


def _left(folder: Path, most: int) -> dict[str, bytes]:
    """The regular files in a folder, smallest first, while they fit; links are not followed."""
    found = [one for one in folder.iterdir() if one.is_file() and not one.is_symlink()]
    files: dict[str, bytes] = {}
    for one in sorted(found, key=lambda path: (path.stat().st_size, path.name)):
        most -= one.stat().st_size
        if most < 0:
            break
        with contextlib.suppress(PermissionError):  # it made one that nobody may read
            files[one.name] = one.read_bytes()
    return files


def _readable() -> list[str]:
    """Where Python's own files are, and the libraries that they load."""
    paths = sysconfig.get_paths()
    own = {paths["stdlib"], paths["platstdlib"], sysconfig.get_config_var("LIBDIR") or ""}
    system = {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo"}
    return sorted(str(Path(path).resolve()) for path in own | system if path)


@cache
def _held() -> frozenset[str]:
    """The doors that can be shut here, tried out in a child."""
    if os.name != "posix":
        return frozenset()
    with tempfile.TemporaryDirectory(prefix="sandbox-") as folder, tempfile.TemporaryFile() as nothing:
        child = _start(_told(Limits(), folder, []) | {"probe": True}, folder, nothing)
        output, errors = child.communicate(timeout=60)
    if child.returncode:
        raise SandboxError(f"the sandbox cannot start Python here: {_text(errors)[-300:]}")
    held = set(json.loads(output))
    # macOS takes the limit on memory and does not keep to it.
    return frozenset(held if sys.platform == "linux" else held - {"limits"})
