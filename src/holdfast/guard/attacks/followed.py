"""Which hosts a text would be fetched from by a client that renders Markdown or HTML: how a memory can carry something off.

A picture needs no click (SpAIware, 2024: an instruction in an assistant's memory rendered one with each answer). Addresses are read
as browsers read them: character references are decoded, tabs and line ends within an address are dropped, a backslash counts as a
slash, and ``//host`` takes the scheme of the page.
"""

from __future__ import annotations

import html
import re

_SCHEME = r"(?:https?|wss?|ftp)"
_AUTHORITY = re.compile(rf"^(?:{_SCHEME}:)?//+(?:[^/?#@]*@)?\[?(?P<host>[^/?#:\]@\s]+)", re.IGNORECASE)
_MARKDOWN = (
    re.compile(r"\]\(\s*<?([^)>]*)"),  # [text](address), ![text](address)
    re.compile(r"^\s{0,3}\[[^\]]+\]:\s*<?(\S+)", re.MULTILINE),  # [name]: address
)
_TAG = re.compile(r"<[a-z][^>]*", re.IGNORECASE)
_ATTRIBUTES = (
    re.compile(r"\b(?:src|href|srcset|action|poster|background|data)\s*=\s*[\"']?([^\"'>]+)", re.IGNORECASE),
    re.compile(r"\burl\(\s*[\"']?([^\"')]+)", re.IGNORECASE),  # in a style
)
_BARE = re.compile(rf"\b(?:{_SCHEME}://|www\.)[^\s<>\"')\]]+", re.IGNORECASE)
_DROPPED = re.compile(r"[\t\r\n]")
_EDGES = "".join(map(chr, range(0x21))) + "\u00a0"


def hosts(text: str) -> set[str]:
    """The hosts in a text, in lower case, that a client would fetch from or link to; empty where there are none."""
    addresses = [address for place in _MARKDOWN for address in place.findall(text)]
    addresses += [found for tag in _TAG.findall(text) for place in _ATTRIBUTES for found in place.findall(tag)]
    addresses += [bare if "://" in bare else f"https://{bare}" for bare in _BARE.findall(text)]
    return {host for address in addresses if (host := _host(address))}


def follows(text: str, host: str) -> bool:
    """Whether a client that renders a text would fetch from or link to a host, or one of its subdomains."""
    return any(one == host or one.endswith(f".{host}") for one in hosts(text))


def _host(address: str) -> str:
    plain = _DROPPED.sub("", html.unescape(address).strip(_EDGES)).replace("\\", "/")
    match = _AUTHORITY.match(plain)
    return match["host"].rstrip(".").casefold() if match else ""
