"""The web console: plain files that a server gives out as they are. Everything it shows comes from the same API that programs use.

Nothing is built, and nothing comes from elsewhere. The browser is told to run and load only what is here (``HEADERS``), and the
console itself makes text of every memory, never HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType

HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
            "trusted-types 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        "Cache-Control": "no-cache",
    }
)
"""What goes with every file of the console."""

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FOLDERS = ("", "views/")


def _read() -> dict[str, tuple[bytes, str]]:
    found = {}
    for folder in _FOLDERS:
        for file in (files(__name__) / folder).iterdir():
            ending = file.name[file.name.rfind(".") :]
            if ending in _TYPES:
                found[folder + file.name] = file.read_bytes(), _TYPES[ending]
    found[""] = found["index.html"]
    return found


def assets() -> Mapping[str, tuple[bytes, str]]:
    """Each file by its address under the console's own, with its media type; "" is the page itself."""
    return MappingProxyType(_read())
