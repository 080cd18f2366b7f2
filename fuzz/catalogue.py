"""Every target there is."""

from __future__ import annotations

from fuzz import answers, carried, readers, records, slow, sources, words
from fuzz.base import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (records, carried, words, readers, answers, sources, slow)
    for target in module.TARGETS
}
