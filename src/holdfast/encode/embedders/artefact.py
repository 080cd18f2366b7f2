"""Files that are built once on the user's machine and kept in a cache: written atomically, checked at every load."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from holdfast.errors import EmbedderError

_log = logging.getLogger(__name__)


def cache_directory() -> Path:
    """HOLDFAST_CACHE where it is set, else the platform's place for caches of this user."""
    if chosen := os.environ.get("HOLDFAST_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "holdfast" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "holdfast"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "holdfast"


def load_or_build(directory: Path, name: str, sha256: str, build: Callable[[], bytes]) -> bytes:
    """The bytes of the artefact ``name``, whose SHA-256 is known beforehand; built where absent or not as it should be.

    Several processes may do this at once: each writes a file of its own and renames it into place, and all write the
    same bytes. A cache that cannot be written costs a new build in every process, no more. Raises EmbedderError where
    even a fresh build has another hash: it would not give the vectors that its model id promises.
    """
    path = directory / name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        pass
    except OSError as error:
        _log.warning("%s cannot be read (%s): building it anew.", path, error)
    else:
        if hashlib.sha256(content).hexdigest() == sha256:
            return content
        _log.warning("%s is not as it should be (damaged, or of another version): building it anew.", path)
    content = build()
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise EmbedderError(
            f"{name} came out with sha256 {digest[:12]}…, expected {sha256[:12]}…: its vectors could differ from those "
            "of other machines, so it is not used. Please report this platform and its numpy version."
        )
    try:
        write_atomically(path, content)
    except OSError as error:
        _log.warning("%s cannot be kept (%s): it will be built anew by each process. Set HOLDFAST_CACHE.", path, error)
    return content


def write_atomically(path: Path, content: bytes) -> None:
    """Puts ``content`` at ``path`` so that a reader, or a crash, meets the whole of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
