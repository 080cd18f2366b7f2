"""A sandbox that runs each script once: what is deterministic need not run again in every arm and order of a claim.

Scripts that are known beforehand run many in one child, each with names of its own. That is for a claim's own scripts, which do not
tamper with one another; a memory runs each item's code in a child of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.agent.coding import LIMITS, printing
from holdfast.agent.sandbox import Limits, Sandbox
from holdfast.claims.sheet_players import calling
from holdfast.encode.sheet_trials import tried
from holdfast.errors import ClaimError

_BATCH = """\
import contextlib, io, json
for script in json.loads({scripts!r}):
    shown, errors = io.StringIO(), ""
    try:
        with contextlib.redirect_stdout(shown):
            exec(compile(script, "<sandbox>", "exec"), {{"__name__": "__main__"}})
    except Exception as error:
        errors = f"{{type(error).__name__}}: {{error}}"
    print(json.dumps([shown.getvalue(), errors]))
"""
_TOGETHER = 150


@dataclass(frozen=True, slots=True)
class Ended:
    """How a script ended."""

    ok: bool
    output: str
    errors: str = ""


class Box:
    """A ``Runner``. ``children``: how many processes it has started; ``scripts``: how many scripts they ran."""

    def __init__(self) -> None:
        self._one = Sandbox(LIMITS)
        self._many = Sandbox(Limits(cpu_s=60, wall_s=60.0))
        self._known: dict[str, Ended] = {}
        self._wanted: dict[str, None] | None = None
        self._warm: dict[str, dict[str, None]] = {}
        self.children = 0

    @property
    def scripts(self) -> int:
        """How many different scripts were run."""
        return len(self._known)

    def run(self, code: str) -> Ended:
        """What a script comes to."""
        if code in self._known:
            return self._known[code]
        if self._wanted is not None:
            self._wanted[code] = None
            return Ended(False, "")
        done = self._one.run(code)
        self.children += 1
        self._known[code] = Ended(done.ok, done.output, done.errors)
        return self._known[code]

    def warm(self, code: str, questions: Sequence[str]) -> None:
        """Run beforehand what trials and generators will ask of a code on these questions."""
        known = self._warm.setdefault(code, {})
        new = [question for question in questions if question not in known]
        if not new:
            return
        others = (
            {one: list(its) for one, its in self._warm.items() if one != code and _checks(one)} if not known else {}
        )
        known |= dict.fromkeys(new)
        checks = [one for one in self._warm if _checks(one)]
        for _ in range(2):  # answers, then what the checks say of them
            self._wanted = {}
            for question in new:
                self.run(printing(calling(code, question)))
                if _checks(code):
                    tried(self, {0: code}, {0: [question]}, checks)
            for one, its in others.items() if _checks(code) else ():
                for question in its:
                    tried(self, {0: one}, {0: [question]}, [code])
            wanted, self._wanted = list(self._wanted), None
            for start in range(0, len(wanted), _TOGETHER):
                self._together(wanted[start : start + _TOGETHER])

    def _together(self, scripts: Sequence[str]) -> None:
        done = self._many.run(_BATCH.format(scripts=json.dumps(scripts)))
        self.children += 1
        lines = done.output.splitlines()
        if not done.ok or len(lines) != len(scripts):
            raise ClaimError(
                f"scripts of the claim did not run to their end in the sandbox: {done.ended}, {done.errors[-200:]}"
            )
        for script, line in zip(scripts, lines, strict=True):
            output, errors = json.loads(line)
            self._known[script] = Ended(not errors, output, errors)


def _checks(code: str) -> bool:
    return "def check(" in code
