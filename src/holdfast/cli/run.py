"""The command that carries out a long task under a short window, and goes on after a kill: ``holdfast run``."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from holdfast.chat import Chat, Message, Reply
from holdfast.cli.options import announce_new, chat, chat_options, open_memory
from holdfast.cli.screen import Screen, count
from holdfast.errors import HoldfastError, InputError
from holdfast.store.base import Where

CHECKS = {"syntax": "PythonSyntax", "tests": "PythonTests", "links": "CrossReferences"}


def register(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands("run", run, "carry out a long task step by step with a chat model, or go on with one")
    parser.add_argument("task", nargs="?", metavar="TASK", help="what is to be made, in words, or @FILE")
    parser.add_argument("--name", metavar="NAME", help="call the run so (default: the first free run-N)")
    parser.add_argument("--resume", metavar="NAME", help="go on with this run where it stopped")
    chat_options(parser, "does it")
    parser.add_argument("--program", metavar="FILE", help="the steps, one a line (default: the model plans them)")
    parser.add_argument(
        "--check",
        action="append",
        default=[],
        choices=sorted(CHECKS),
        help="what must pass before a step is done; may be repeated (tests run in the sandbox)",
    )
    parser.add_argument("--window", type=int, default=8192, metavar="TOKENS", help="of one context (default 8192)")
    parser.add_argument("--export", metavar="FOLDER", help="write the files to this new or empty folder at the end")


def run(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast run``; 0 only where no step was given up."""
    if bool(args.task) == bool(args.resume):
        raise InputError("give a task, or --resume NAME to go on with one")
    if args.resume and (args.name or args.program):
        raise InputError("a run that goes on has its name and its program")
    control, evaluators, ledgers, windows = (
        importlib.import_module(f"holdfast.agent.{name}") for name in ("control", "evaluators", "ledger", "window")
    )
    endpoint = chat(args)
    task, program = _words(args.task), _steps(args.program)
    made = announce_new(args)
    with open_memory(args, create=not args.resume, embed=False) as memory:
        here = memory.scope()
        if here.session is not None:
            raise InputError("a run has a session of its own: name it with --name or --resume, not with --session")
        here = replace(here, agent=here.agent or "control")
        if made:
            screen.note(made)
        tasks = memory.store.select(replace(here, session=None), Where(kinds=(control.TASK,)))
        known = sorted({str(cube.scope.session) for cube in tasks})
        name = args.resume or args.name or _free(known)
        if args.resume and args.resume not in known:
            raise InputError(f"there is no run {args.resume!r}; there are {', '.join(known) or 'none'}")
        if not args.resume and name in known:
            raise InputError(f"there is a run {name!r} already; go on with it by --resume {name}")
        ledger = ledgers.Ledger(memory.store, replace(here, session=name))
        with screen.bar(None, name, unit=" replies") as bar:
            watched = _Watched(endpoint, bar)
            unit = control.ControlUnit(
                watched,
                ledger,
                evaluators=[getattr(evaluators, CHECKS[check])() for check in dict.fromkeys(args.check)],
                budget=windows.Budget(window=args.window),
            )
            watched.unit = unit
            try:
                unit.run(task, program)
            except (HoldfastError, KeyboardInterrupt):
                bar.close()
                _tell(screen, unit, name, endpoint)
                screen.note(f"what is done is kept; go on with: holdfast run --resume {name} --model {args.model}")
                raise
        if args.export:
            unit.files.export(Path(args.export).expanduser())
        if screen.json:
            screen.data(_told(unit, name, endpoint))
        else:
            _tell(screen, unit, name, endpoint)
            if args.export:
                screen.say(f"The files are in {args.export}.")
        return 1 if unit.failed else 0


class _Watched:
    """A ``Chat`` that says on a bar which step is at hand."""

    def __init__(self, of: Chat, bar: Any) -> None:
        self._of, self._bar = of, bar
        self.unit: Any = None

    def reply(self, messages: Sequence[Message], **options: Any) -> Reply:
        """As the model replies."""
        steps = self.unit.registry.instructions if self.unit is not None else []
        done = sum(1 for one in steps if one.status in ("done", "failed"))
        self._bar.set_description_str(f"step {done + 1} of {len(steps)}" if steps else "planning", refresh=False)
        try:
            return self._of.reply(messages, **options)
        finally:
            self._bar.update()


def _words(task: str | None) -> str | None:
    if task is None or not task.startswith("@"):
        return task
    return _read(task[1:])


def _steps(file: str | None) -> list[str] | None:
    if file is None:
        return None
    steps = [line.strip() for line in _read(file).splitlines() if line.strip()]
    if not steps:
        raise InputError(f"{file} holds no step; write one a line")
    return steps


def _read(file: str) -> str:
    path = Path(file).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _free(known: Sequence[str]) -> str:
    return next(name for number in range(1, len(known) + 2) if (name := f"run-{number}") not in known)


def _told(unit: Any, name: str, endpoint: Any) -> dict[str, Any]:
    return {
        "run": name,
        "steps": [asdict(one) for one in unit.registry.instructions],
        "files": {path: len(unit.files.text(path)) for path in unit.files.paths()},
        "usage": asdict(endpoint.usage),
    }


def _tell(screen: Screen, unit: Any, name: str, endpoint: Any) -> None:
    if screen.json:
        return
    steps = unit.registry.instructions
    if steps:
        rows = [(number, str(one.status), one.turns, one.summary or one.text) for number, one in enumerate(steps, 1)]
        screen.table(rows, ("step", "status", "replies", "what came of it"), wide=3)
        screen.line()
    used = endpoint.usage
    files = ", ".join(unit.files.paths()) or "none"
    screen.say(f"{name}: {count(used.calls, 'call')}, {used.prompt:,} tokens sent, {used.completion:,} written.")
    screen.say(f"Files: {files}", hang=7)
