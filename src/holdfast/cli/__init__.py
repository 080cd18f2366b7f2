"""The ``holdfast`` command."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import holdfast
from holdfast.cli.options import common
from holdfast.cli.screen import Screen
from holdfast.errors import HoldfastError, InputError, ScopeError

FAILED, MISUSED, INTERRUPTED, CUT_OFF = 1, 2, 130, 141

_DESCRIPTION = """\
Memory for AI agents and language models that can be traced, trusted and taken
back. `holdfast demo` shows everything in a minute."""

_EPILOG = """\
A memory belongs to a user: name one with --user, or set HOLDFAST_USER.
Exit status: 0 done, 1 failed or something is wrong, 2 misused, 130 interrupted."""

Command = Callable[[argparse.Namespace, Screen], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status. Whatever goes wrong is said on standard error, with HOLDFAST_DEBUG where."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parser().parse_args(words)
    except SystemExit as stop:  # argparse has printed its help or its complaint
        return int(stop.code or 0)
    screen = Screen.of_process(as_json=args.json)
    try:
        status: int = args.run(args, screen)
        screen.out.flush()
        return status
    except HoldfastError as error:
        _debug()
        screen.note(f"holdfast: {error}")
        return MISUSED if isinstance(error, InputError | ScopeError) else FAILED
    except KeyboardInterrupt:
        screen.note("interrupted; everything that was reported as kept is kept")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the answer has gone; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CUT_OFF
    except Exception as error:
        _debug()
        screen.note(
            f"holdfast: unexpected {type(error).__name__}: {error}. This is a fault of Holdfast, and the store is as it "
            "was before the command's last step; HOLDFAST_DEBUG=1 shows where, please report it"
        )
        return FAILED


def _debug() -> None:
    if os.environ.get("HOLDFAST_DEBUG"):
        traceback.print_exc()


class _Parser(argparse.ArgumentParser):
    """argparse, complaining in one line and with what was probably meant."""

    def error(self, message: str) -> NoReturn:
        if "invalid choice: '" in message:
            wrong, _, choices = message.partition("invalid choice: '")[2].partition("' (choose from ")
            known = choices.rstrip(")").replace("'", "").split(", ")
            close = difflib.get_close_matches(wrong, known, 1)
            message = f"there is no {wrong!r} here" + (
                f"; did you mean {close[0]}?" if close else f": {', '.join(known)}"
            )
        self.exit(MISUSED, f"{self.prog}: {message} (see: {self.prog} --help)\n")


class _Commands:
    """Adds commands, each with the options that all of them take."""

    def __init__(self, actions: Any, prefix: str = "") -> None:
        self._actions = actions
        self._prefix = prefix

    def __call__(self, name: str, run: Command | None, what: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = self._actions.add_parser(
            name,
            help=what,
            description=what[0].upper() + what[1:] + ".",
            parents=[common(inherit=True)],
            allow_abbrev=False,
        )
        if run is not None:
            parser.set_defaults(run=run)
        return parser

    def nested(self, actions: Any, prefix: str) -> _Commands:
        """For a command with commands of its own."""
        return _Commands(actions, prefix)


def _parser() -> argparse.ArgumentParser:
    from holdfast.cli import (
        access,
        care,
        carry,
        demo,
        erase,
        evolve,
        guard,
        mcp,
        move,
        past,
        precedents,
        prove,
        recall,
        redteam,
        remember,
        run,
        serve,
        skills,
    )

    parser = _Parser(
        prog="holdfast",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common(inherit=False)],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"holdfast {holdfast.__version__}")
    actions = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    commands = _Commands(actions)
    for group in (
        remember,
        recall,
        precedents,
        past,
        erase,
        guard,
        access,
        carry,
        care,
        move,
        prove,
        redteam,
        evolve,
        skills,
        run,
        mcp,
        serve,
        demo,
    ):
        group.register(commands)
    return parser
