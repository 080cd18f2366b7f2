"""Commands about memory skills: ``holdfast skills show`` and ``holdfast skills train``."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from holdfast.cli.options import chat, chat_options, embedder
from holdfast.cli.screen import Screen, count
from holdfast.encode.skill_files import read_bank, write_skill
from holdfast.encode.skills import SkillBank, Stats, seeds
from holdfast.errors import EmbedderError, InputError
from holdfast.opening import choose


def register(commands: Any) -> None:
    """Add these commands to the parser."""
    parser = commands(
        "skills", None, "skills that write memories: what a bank holds, and training on your own questions"
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="show|train")
    add = commands.nested(actions, "skills")
    shown = add("show", show, "the skills of a bank, and how they have served")
    shown.add_argument("folder", nargs="?", metavar="FOLDER", help="a bank (default: the four that one begins with)")
    shown.add_argument("--skill", metavar="NAME", help="one skill as a whole, in Markdown")

    trained = add("train", train, "train a controller, and have a model mend the skills, from questions with answers")
    trained.add_argument(
        "--log", required=True, metavar="FILE", help='lines {"turns": [...], "questions": [{"question", "answer"}]}'
    )
    chat_options(trained, "carries skills out, answers, and designs")
    trained.add_argument("--skills", metavar="FOLDER", help="begin with this bank (default: the four)")
    trained.add_argument("--out", required=True, metavar="FOLDER", help="write bank and controller here")
    trained.add_argument("--rounds", type=int, default=5, metavar="N", help="default 5")
    trained.add_argument("--updates", type=int, default=20, metavar="N", help="of the controller, a round (default 20)")
    trained.add_argument("--batch", type=int, default=4, metavar="N", help="histories an update (default 4)")
    trained.add_argument("--turns", type=int, default=8, metavar="N", help="of a history in a span (default 8)")
    trained.add_argument("--fixed", action="store_true", help="leave the skills as they are")
    trained.add_argument("--yes", action="store_true", help="approve every change of the skills unseen")
    trained.add_argument("--seed", type=int, default=0, metavar="N")


def show(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast skills show``."""
    bank = _bank(args.folder)
    if args.skill is not None:
        skill = bank.named(args.skill)
        if screen.json:
            screen.data({**_told(bank, skill.name), "markdown": write_skill(skill)})
        else:
            screen.say(write_skill(skill))
    elif screen.json:
        screen.data([_told(bank, skill.name) for skill in bank.skills])
    else:
        rows = [
            (
                one["name"],
                one["edits"],
                one["uses"],
                f"{one['mean reward']:.2f}" if one["uses"] else "",
                one["description"],
            )
            for one in (_told(bank, skill.name) for skill in bank.skills)
        ]
        screen.table(rows, ("skill", "edits", "uses", "reward", "applies to"), wide=4)
    return 0


def train(args: argparse.Namespace, screen: Screen) -> int:
    """``holdfast skills train``."""
    trainer, episodes, logs, design = (
        importlib.import_module(name)
        for name in (
            "holdfast.train.skill_trainer",  # raises where torch is missing
            "holdfast.train.skill_episodes",
            "holdfast.train.skill_logs",
            "holdfast.manage.skill_design",
        )
    )
    if not args.yes and not args.fixed and not screen.can_ask():
        raise InputError("nobody is there to approve changes of the skills: give --yes, or --fixed to leave them")
    histories = logs.read_log(Path(args.log).expanduser(), args.turns)
    model = chat(args)
    chosen, degraded = choose(embedder(args.embedder), [])
    if chosen is None:
        raise EmbedderError(f"skills are chosen by meaning, and nothing embeds here: {'; '.join(degraded)}")

    def approve(proposal: Any) -> bool:
        screen.note(proposal.diff)
        return bool(args.yes) or screen.ask("Try these changes? They are kept only where they do better.")

    plan = trainer.Plan(rounds=args.rounds, updates=args.updates, batch=args.batch)
    training = trainer.SkillTrainer(
        episodes.Stage(chosen, episodes.executor(model), logs.reader(model)),
        histories,
        _bank(args.skills),
        plan,
        args.seed,
        None if args.fixed else design.SkillDesigner(model),
        approve,
    )
    with screen.bar(plan.rounds * plan.updates, "train", unit=" updates") as bar:

        def progress(number: int, update: int, score: float) -> None:
            bar.set_postfix_str(f"round {number}, score {score:.3f}", refresh=False)
            bar.update((number - 1) * plan.updates + update - bar.n)

        learnt = training.train(progress)
    out = Path(args.out).expanduser()
    learnt.save(out)
    rounds = [
        {
            "reward": one.reward,
            "kept": one.kept,
            "changes": [{"skill": change.skill.name, "new": change.new} for change in one.changes],
        }
        for one in learnt.rounds
    ]
    if screen.json:
        screen.data(
            {
                "reward": learnt.reward,
                "rounds": rounds,
                "skills": [_told(learnt.bank, one.name) for one in learnt.bank.skills],
            }
        )
        return 0
    rows = [
        (
            number,
            f"{one['reward']:.3f}",
            "kept" if one["kept"] else "taken back",
            ", ".join(c["skill"] for c in one["changes"]),
        )
        for number, one in enumerate(rounds, 1)
    ]
    screen.table(rows, ("round", "score", "", "changed skills"))
    screen.line()
    screen.say(
        f"The best bank has {count(len(learnt.bank.skills), 'skill')}, and scores {learnt.reward:.3f} on its last batches."
    )
    screen.say(
        f"Use it with SkillWriter({str(out)!r}, model=...), or Memory(..., recipe=memskill({str(out)!r}), chat=...)."
    )
    return 0


def _bank(folder: str | None) -> SkillBank:
    return seeds() if folder is None else read_bank(Path(folder).expanduser())


def _told(bank: SkillBank, name: str) -> dict[str, Any]:
    skill = bank.named(name)
    stats = bank.stats.get(skill.number, Stats())
    return {
        "name": skill.name,
        "edits": str(skill.edits),
        "uses": stats.uses,
        "mean reward": stats.mean,
        "description": skill.description,
    }
