"""Every target there is."""

from __future__ import annotations

from fuzz import answers, carried, readers, records, words
from fuzz.base import Target

TARGETS: dict[str, Target] = {
    target.name: target for module in (records, carried, words, readers, answers) for target in module.TARGETS
}
