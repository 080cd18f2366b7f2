"""Runs inside the sandbox's child process, before the code: shuts the doors, one by one, and says which of them are shut.

Started as ``python -I -S`` with its settings as JSON in the one argument and the code on standard input. It imports nothing of
Holdfast. With ``probe`` it prints what holds; else it ends with status 97 where a demanded door stays open, before it reads any
code.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import struct
import sys

UNSHUT = 97

# System calls of x86-64 Linux that are refused. Resource limits could be raised again by root; modes, owners, times and attributes
# of files are not Landlock's business; io_uring would open sockets behind the filter's back.
_NETWORK = (41, 425)  # socket, io_uring_setup
_PROCESSES = (
    *(57, 58, 59, 322),  # fork, vfork, execve, execveat
    *(62, 200, 234, 129, 297, 424, 434),  # kill, tkill, tgkill, the queued signals, pidfd_send_signal, pidfd_open
    *(101, 310, 311),  # ptrace, process_vm_readv, process_vm_writev
    *(160, 302),  # setrlimit, prlimit64
)
_FILES = (
    *(90, 91, 268, 452, 92, 93, 94, 260),  # chmod and chown
    *(132, 235, 261, 280),  # utime
    *(188, 189, 190, 197, 198, 199),  # extended attributes
)
_SYSTEM = (
    *(
        165,
        166,
        155,
        161,
        272,
        308,
        428,
        429,
        430,
        442,
    ),  # mount, umount, pivot_root, chroot, unshare, setns, the new mount calls
    *(321, 298, 323, 246, 320, 175, 313, 176),  # bpf, perf, userfaultfd, kexec, kernel modules
    *(
        248,
        249,
        250,
        103,
        163,
        164,
        227,
        159,
        305,
        167,
        168,
        169,
        170,
        171,
        172,
        173,
        179,
    ),  # keys, clocks, swap, reboot, names, ports
)
_CLONE, _CLONE3, _THREAD = 56, 435, 0x10000
_X86_64, _X32 = 0xC000003E, 0x40000000


def limits(settings: dict[str, int]) -> bool:
    """Resource limits, soft and hard alike."""
    try:
        import resource
    except ImportError:
        return False
    for name, value in (
        ("RLIMIT_AS", settings["memory"]),
        ("RLIMIT_CPU", settings["cpu_s"]),
        ("RLIMIT_FSIZE", settings["file_bytes"]),
        ("RLIMIT_NOFILE", settings["open_files"]),
        ("RLIMIT_CORE", 0),
    ):
        resource.setrlimit(getattr(resource, name), (value, value))
    return True


def landlock(folder: str, readable: list[str]) -> bool:
    """Files: only Python's own may be read, and only the folder be written. False where the kernel has no Landlock."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(444, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    rights = 0x1FFF | (0x2000 if version >= 2 else 0) | (0x4000 if version >= 3 else 0)
    ruleset = libc.syscall(444, ctypes.byref(ctypes.c_uint64(rights)), ctypes.c_size_t(8), 0)
    if ruleset < 0:
        return False
    read = 1 << 2 | 1 << 3
    for path, allowed in [(folder, rights & ~1), *((path, read) for path in readable)]:
        try:
            handle = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        rule = ctypes.create_string_buffer(struct.pack("<Qi", allowed, handle))
        added = libc.syscall(445, ruleset, 1, rule, 0)
        os.close(handle)
        if added < 0:
            return False
    libc.prctl(38, 1, 0, 0, 0)
    shut = libc.syscall(446, ruleset, 0) == 0
    os.close(ruleset)
    return bool(shut)


def seccomp() -> bool:
    """System calls: no network, no other process, no change of limits. False where it is not x86-64 Linux."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, refuse, missing = 0x7FFF0000, 0x80000000, 0x00050000 | 1, 0x00050000 | 38
    program = [(load, 0, 0, 4), (equal, 1, 0, _X86_64), (give, 0, 0, kill), (load, 0, 0, 0)]
    program += [(at_least, 0, 1, _X32), (give, 0, 0, kill)]
    for call in (*_NETWORK, *_PROCESSES, *_FILES, *_SYSTEM):
        program += [(equal, 0, 1, call), (give, 0, 0, refuse)]
    # A library that is told there is no clone3 falls back on clone, whose flags a filter can read.
    program += [(equal, 0, 1, _CLONE3), (give, 0, 0, missing), (equal, 0, 3, _CLONE), (load, 0, 0, 16)]
    program += [(any_bit, 1, 0, _THREAD), (give, 0, 0, refuse), (give, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    libc = ctypes.CDLL(None, use_errno=True)
    whole = Program(len(program), ctypes.addressof(code))
    return bool(libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(whole), 0, 0) == 0)


def shut(settings: dict[str, int], folder: str, readable: list[str]) -> list[str]:
    """Shut every door there is, and name those that are shut."""
    held = ["limits"] if limits(settings) else []
    if sys.platform == "linux":
        held += ["files"] if landlock(folder, readable) else []
        held += ["calls"] if seccomp() else []
    return held


def main() -> None:
    """Shut the doors, then run what comes on standard input as ``__main__``."""
    told = json.loads(sys.argv[1])
    held = shut(told["limits"], told["folder"], told["readable"])
    if told.get("probe"):
        print(json.dumps(held))
        return
    if not set(told["demanded"]) <= set(held):
        os._exit(UNSHUT)
    source = sys.stdin.buffer.read().decode("utf-8")
    sys.path[:] = [path for path in sys.path if path]
    sys.argv = ["sandbox"]
    exec(compile(source, "<sandbox>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})  # noqa: S102


if __name__ == "__main__":
    main()
