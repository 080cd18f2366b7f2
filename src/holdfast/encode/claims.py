"""Facts by rule: who lives where, works at what, is called how, likes what; no model, and nothing that was not said.

The claims (subject, attribute, value, unit, validity, polarity) that the contradiction layer of SuperLocalMemory needs
(arXiv 2603.14588, §3), read from first and third person statements by a table of English patterns. Precision comes before
recall: the words of a fact stand in the turn, at ``span``; questions, hypotheses, fiction, quotations and code say nothing
about anybody; pronouns are left alone. What no rule reads is still in the turn, which is kept verbatim.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from holdfast.cube import Channel, Form, Kind
from holdfast.encode.base import Experience
from holdfast.encode.dates import Grain, find_dates
from holdfast.encode.people import CALENDAR_WORDS, COMMON_WORDS
from holdfast.encode.said import Said
from holdfast.encode.slots import Claim, is_heard, said_at, settle, speaker
from holdfast.store.base import Operation
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    formation=(Formation.DISTILL_FACTS, Formation.STRUCTURE_ENTITIES),
    evolution=(Evolution.UPDATE_EXTERNAL,),
    subject=(Subject.USER, Subject.WORLD),
)


@dataclass(frozen=True, slots=True)
class ClaimEncoder:
    """Reads the claims in turns, and proposes what they change.

    An assistant's turns are not read: what a model says about its user is a guess, and its own "I" is nobody.
    """

    def encode(self, experience: Experience) -> list[Operation]:
        """Additions, ends of older values of the same slot, and ``none`` for what is known; empty where nothing is said."""
        claims = (
            (claim, turn)
            for turn in experience.turns
            if is_heard(turn) and turn.origin.channel is not Channel.ASSISTANT and turn.data.get("role") != "assistant"
            for claim in find_claims(turn.text, speaker(turn), said_at(turn, experience.now))
        )
        return settle(claims, experience)


def find_claims(text: str, author: str, when: datetime) -> tuple[Claim, ...]:
    """The claims that a text makes when ``author`` says it at ``when``, in the order of the text."""
    words = frozenset(_TOKEN.findall(text.lower()))
    found: dict[tuple[int, str], Claim] = {}
    turn = Said(text, author, when)
    for rule in _RULES:
        if rule.triggers.isdisjoint(words):
            continue
        pattern = rule.pattern if turn.has_capitals else rule.small
        for match in pattern.finditer(text) if pattern else ():
            if turn.asserts(match.start(), match.end()):
                for claim in rule.read(match, turn):
                    found.setdefault((claim.span[0], claim.key), claim)
    return tuple(sorted(found.values(), key=lambda claim: claim.span))


_TOKEN = re.compile(r"[a-z]+|[0-9%$€£]")

# --- words ---


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NUMBERS = {
    word: str(number)
    for number, word in enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), 1)
}
_ONE_ONLY = _words("mother father mom mum dad wife husband partner girlfriend boyfriend fiance fiancé fiancee fiancée")
_NOT_NOUNS = _words(
    "it its that this these those the your you how what when where who why to being seeing hearing her his him hers them my "
    "our their all every each both everything anything something nothing us me having doing getting one ones so such there "
    "here if because and or not no too very just more most much many some any i we he she they is are was were be been am do "
    "does did have has had can could will would should up out about around i'm i've it's that's we're you're they're "
    "especially particularly even mostly mainly plus yes well including"
)
_NO_TOPICS = _words(
    "part thing things moment memory memories way one time times place spot people person bit ones day reason goal idea kind "
    "sort type stuff"
)
_NO_DEEDS = _words(
    "to think say see hear know be get do have make keep seeing hearing knowing when a an the also better best more most"
)
_WITHIN_DEEDS = _words("to the and or out up about around")
_NOT_PART = _words("current currently new latest recent present now the our my")

# --- readers: from a match to claims ---

_Reader = Callable[[re.Match[str], Said], Iterable[Claim]]


def _subject(match: re.Match[str], turn: Said) -> str | None:
    """Whom a statement is about: the speaker, one of their kin or pets, or somebody by name; None for anybody else."""
    who = match.groupdict().get("who")
    if who is None or who.lower() in ("i", "we", "my", "our"):
        return turn.author
    if who.lower().startswith("my "):
        return f"{turn.author}'s {who[3:].lower()}"
    return who if _is_name(who) else None


def _is_name(text: str) -> bool:
    first = re.split(r"[ ,]", text.casefold().removeprefix("the "), maxsplit=1)[0]
    return first not in COMMON_WORDS and first not in CALENDAR_WORDS


def _is_noun(text: str) -> bool:
    """Whether a few words are the name of a thing: none of them points, asks or is a verb that carries the sentence."""
    words = re.findall(r"[\w’']+", text.casefold())
    return 0 < len(words) <= 6 and _NOT_NOUNS.isdisjoint(words)


def _is_liked(text: str) -> bool:
    """Whether a few words name a thing or something that one does: "jazz", "hiking", "to listen to music"."""
    words = re.findall(r"[\w’']+", text.casefold())
    doing = words[1:] if words[:1] == ["to"] else words
    told = 0 < len(doing) <= 10 and doing[0] not in _NO_DEEDS
    if not told or _PREPOSITIONS.fullmatch(doing[0]) or _PREPOSITIONS.fullmatch(doing[-1]):
        return False
    return (_NOT_NOUNS - _WITHIN_DEEDS).isdisjoint(doing)


def _clean(text: str) -> str:
    return text.strip(" \"“”'‘’,")


def _since(match: re.Match[str], turn: Said) -> datetime | None:
    """When a state began, where the sentence says "since ..." or "for ... years"."""
    ranges = (one for one in turn.dates(match.start(), match.end()) if one.grain is Grain.RANGE)
    return next(
        (one.first for one in ranges if one.text[:5].lower() in ("since", "for a") or one.text[:4].lower() == "for "),
        None,
    )


def _on(match: re.Match[str], turn: Said) -> datetime | None:
    """When a change happened, where the sentence holds a time expression: the one that follows soonest, or the last before."""
    dates = turn.dates(match.start(), match.end())
    after = [one for one in dates if one.start >= match.start()]
    chosen = after[0] if after else dates[-1] if dates else None
    # A change that was told has happened: the unit it fell into may reach past the telling.
    return None if chosen is None or chosen.first > turn.when else chosen.first


def _never(_match: re.Match[str], _turn: Said) -> datetime | None:
    """A state that holds when it is told; since when, nobody says."""
    return None


def _says(
    rule: str,
    attribute: str,
    affirms: str = "",
    denies: str = "",
    *,
    functional: bool = False,
    listed: bool = False,
    kind: str = Kind.FACT,
    fits: Callable[[str], bool] = _is_name,
    begins: Callable[[re.Match[str], Said], datetime | None] = _never,
) -> _Reader:
    """A reader for one value (several where ``listed``) of an attribute; where only ``denies`` is given, of a denial."""

    def read(match: re.Match[str], turn: Said) -> Iterator[Claim]:
        subject = _subject(match, turn)
        if subject is None or (match.groupdict().get("base") and subject != turn.author):
            return
        if kind == Kind.PREFERENCE and turn.is_relative(match.start()):
            return
        for value, end in _items(match) if listed else [(_clean(match["v"]), match.end("v"))]:
            if not value or not fits(value):
                return
            yield Claim(
                subject=subject,
                attribute=attribute,
                value=value,
                text=(affirms or denies).format(s=subject, v=value),
                span=(match.start(), end),
                rule=rule,
                kind=kind,
                polarity=bool(affirms),
                functional=functional,
                canonical=_NUMBERS.get(value.lower()),
                valid_from=begins(match, turn),
            )

    return read


def _items(match: re.Match[str]) -> Iterator[tuple[str, int]]:
    """The values in a list, with where each ends; one value where it is not sure how the words belong together."""
    parts = [*_ITEM.finditer(match["v"])]
    last = parts[-1].group().split()
    # "Shooting near lakes and hills", "action and comedy films": not two things that stand alone.
    shared = len(parts) == 2 and " " not in parts[0].group() and len(last) > 1 and not last[0].endswith("ing")
    if _PREPOSITIONS.search(match["v"]) or (shared and "," not in match["v"]):
        whole = match["v"].split(",")[0]
        yield _clean(whole), match.start("v") + len(whole)
        return
    for part in parts:
        yield _clean(part.group()), match.start("v") + part.end()


_ITEM = re.compile(r"(?<![^ ,])(?!(?:and|or) )[^ ,](?:(?!,| and | or ).)*")
_PREPOSITIONS = re.compile(
    r"\b(?:to|in|on|at|with|for|of|from|by|near|around|about|into|over|under|through|without|like)\b"
)


def _named(match: re.Match[str], turn: Said) -> Iterator[Claim]:
    """The name of a kin or a pet: one value for a wife, any number for a friend or a dog."""
    kin, name = match["kin"].lower(), _clean(match["v"])
    if not _is_name(name):
        return
    single = kin.split()[-1] in _ONE_ONLY
    yield Claim(
        subject=turn.author,
        attribute=f"{kin}'s name",
        value=name,
        text=f"{turn.author}'s {kin} is called {name}",
        span=match.span(),
        rule="kin or pet",
        functional=single,
    )


def _favourite(match: re.Match[str], turn: Said) -> Iterator[Claim]:
    subject, topic, value = _subject(match, turn), match["a"].lower(), _clean(match["v"])
    quoted = match["v"].startswith(('"', "“"))
    if subject is None or topic.split()[-1] in _NO_TOPICS or not (quoted or _is_noun(value)):
        return
    yield Claim(
        subject=subject,
        attribute=f"favourite {topic}",
        value=value,
        text=f"{subject}'s favourite {topic} is {value}",
        span=match.span(),
        rule="favourite",
        kind=Kind.PREFERENCE,
        functional=not turn.text[: match.start()].lower().endswith(" of "),  # "one of my favourite dishes is ..."
    )


def _age(match: re.Match[str], turn: Said) -> Iterator[Claim]:
    subject, years = _subject(match, turn), match["v"]
    if subject is None or not 0 < int(_NUMBERS.get(years.lower(), years)) < 120:
        return
    yield Claim(
        subject=subject,
        attribute="age",
        value=years,
        text=f"{subject} is {years} years old",
        span=match.span(),
        rule="age",
        unit="years",
        functional=True,
        canonical=_NUMBERS.get(years.lower()),
    )


def _older(match: re.Match[str], turn: Said) -> Iterator[Claim]:
    subject, other = _subject(match, turn), match["other"]
    if subject is None:
        return
    other = (
        turn.author if other == "me" else f"{turn.author}'s {other[3:].lower()}" if other.startswith("my ") else other
    )
    number, way, unit = _NUMBERS.get(match["v"].lower(), match["v"]), match["way"], match["unit"].rstrip("s") + "s"
    yield Claim(
        subject=subject,
        attribute=f"{way} than {other}",
        value=match["v"],
        text=f"{subject} is {match['v']} {unit} {way} than {other}",
        span=match.span(),
        rule="age difference",
        unit=unit,
        functional=True,
        canonical=number,
        extra={"other": other, "difference": int(number) if way == "older" else -int(number)},
    )


def _birthday(match: re.Match[str], turn: Said) -> Iterator[Claim]:
    subject = _subject(match, turn)
    day = next((one for one in turn.dates(match.start(), match.end()) if 0 <= one.start - match.end() <= 4), None)
    if subject is None or day is None or day.grain not in (Grain.DAY, Grain.MONTH, Grain.YEAR):
        return
    yield Claim(
        subject=subject,
        attribute="birthday",
        value=day.text,
        text=f"{subject}'s birthday is {day.text}",
        span=(match.start(), day.end),
        rule="birthday",
        functional=True,
        canonical=f"{day.first:%m-%d}" if day.grain is Grain.DAY else None,
    )


def _appointment(match: re.Match[str], turn: Said) -> Iterator[Claim]:
    """When something is due or takes place; it holds from when it is told until it is moved."""
    when = next((one for one in turn.dates(match.start(), match.end()) if 0 <= one.start - match.end() <= 1), None)
    subject, what = _subject(match, turn), " ".join(match["a"].lower().split())
    if when is not None and when.last <= turn.when and _MOVES.search(match.group()):
        # "Was moved to April 15" looks back, but not to a past April.
        due = find_dates(f"due {when.text}", turn.when)
        when = replace(when, first=due[0].first, last=due[0].last) if due and due[0].last > turn.when else None
    if subject is None or when is None or when.last <= turn.when:
        return
    if not _is_noun(what) or match.end() == match.end("a"):  # "the launch tomorrow" does not say whose
        return
    yield Claim(
        subject=subject,
        attribute=what,
        value=when.text,
        text=f"{subject}'s {what} is {when.text}",
        span=(match.start(), when.end),
        rule="appointment",
        kind=Kind.EVENT,
        # One has many meetings; "the meeting" alone names none of them, unless it is said to move.
        functional=" " in what or _MOVES.search(match.group()) is not None,
        canonical=f"{when.first.isoformat()}/{when.last.isoformat()}",
        extra={"when": [when.first.isoformat(), when.last.isoformat(), str(when.grain)]},
    )


def _quantity(match: re.Match[str], turn: Said) -> Iterator[Claim]:
    """A number with a unit that something has now; one that it had before is no claim about today."""
    subject, what = _subject(match, turn), " ".join(match["a"].lower().split())
    words = [word for word in what.split() if word not in _NOT_PART]
    unit = match["unit"] or match["currency"]
    if subject is None or not unit or not words or words[0] in _NO_TOPICS or not _is_noun(" ".join(words)):
        return
    if match["which"] and _PREPOSITION.search(turn.text[max(0, match.start() - 12) : match.start()]):
        return  # "the lag in my app, which is 500 ms": not the app's
    number = match["v"].replace(",", "")
    what = " ".join(words)
    shown = f"{match['currency'] or ''}{match['v']}{'' if match['unit'] in (None, '%', 'ms', 's') else ' '}{match['unit'] or ''}"
    yield Claim(
        subject=subject,
        attribute=what,
        value=match["v"],
        text=f"{subject}'s {what} is {shown}",
        span=match.span(),
        rule="quantity",
        unit=unit,
        functional=True,
        canonical=number,
    )


def _counted(match: re.Match[str], turn: Said) -> Iterator[Claim]:
    subject, number, what = _subject(match, turn), match["v"], match["a"].lower()
    if subject is None:
        return
    yield Claim(
        subject=subject,
        attribute=f"number of {what}",
        value=number,
        text=f"{subject} has {number} {what}",
        span=match.span(),
        rule="count",
        functional=True,
        canonical=_NUMBERS.get(number.lower()),
    )


_MOVES = re.compile(r" (?:moved|rescheduled|pushed|postponed|shifted|changed|brought|extended|delayed|due)\b")
_PREPOSITION = re.compile(r"\b(?:in|of|for|on|at|with|to|from|by|within|across) $")

# --- the table: <NAMES> stand for the parts below ---

_CAPITAL = r"(?!I\b)[^\W\d_a-z][\w&-]*(?:['’](?!s\b)\w+)*"
_KIN = (
    r"(?:(?:older|younger|big|little|elder|best|late|ex|new|old|eldest|youngest|twin|close|good|dear)[ -])?"
    r"(?:sister|brother|mother|father|mom|mum|dad|wife|husband|partner|girlfriend|boyfriend|fianc[eé]e?|son|daughter|"
    r"child|cousin|aunt|uncle|niece|nephew|grandmother|grandfather|grandma|grandpa|friend|roommate|flatmate|boss|manager|"
    r"colleague|coworker|co-worker|neighbou?r|teacher|mentor|therapist|doctor|landlord|dog|cat|puppy|kitten|bird|parrot|"
    r"hamster|rabbit|turtle|horse|pet)\b"
)
_VALUE = r"[\w'’&+/#.-]*[\w+#](?: [\w'’&+/#-]+){0,4}?"
_STOP = (
    r"(?=\s*(?:[.;!?)\]\"”\n–—]|:(?!\d)|\Z)|\s+-\s|,? (?:but|so|because|since|now|with|where|which|who|when|while|"
    r"whenever|for|at|in|as|to|by|from|after|before|until|right|these|this|last|next|on|too|also|any ?more|again|"
    r"yesterday|today|recently|lately|(?:an?|one|two|three|four|five|six|several|\d+|a few) (?:\w+ )?(?:day|week|month|year)s?|if|"
    r"though|although|however|than|more|the most|very much|a lot|i|I|i['’]m|I['’]m|we|he|she|they|it|it['’]s)\b"
)
_CAPITALS = {
    "OWN NAME": rf"{_CAPITAL}(?: {_CAPITAL}){{0,3}}",
    "NAME": rf"{_CAPITAL}(?: {_CAPITAL}){{0,3}}",
    "FIRM": rf"(?:the )?{_CAPITAL}(?:(?: (?:of|and|&|for|the))? {_CAPITAL}){{0,4}}",
    "PLACE": rf"(?:the )?{_CAPITAL}(?:(?: (?:of|de|do|da|la|del|upon))? {_CAPITAL}){{0,4}}(?:, {_CAPITAL}(?: {_CAPITAL})?)?",
    "WHO": rf"(?P<who>\bI|\b[Ww]e|\b[Mm]y {_KIN}|\b{_CAPITAL}(?: {_CAPITAL}){{0,3}})",
    "OWNER": rf"\b(?:(?P<who>[Mm]y {_KIN}(?=['’]s)|{_CAPITAL}(?: {_CAPITAL}){{0,2}}(?=['’]s))['’]s|[Mm]y)",
}
# For a text that is typed without capitals: places only where they end the clause, names of others never.
_SMALL = {
    "OWN NAME": r"\w+",
    "PLACE": r"(?!(?:an?|the|my|our|his|her|their|it|this|that|fear|peace|hope|denial|pain)\b)[^\W\d_]\w*(?: \w+)?(?:, \w+)?",
    "WHO": rf"(?P<who>\bi|\bwe|\bmy {_KIN})",
    "OWNER": rf"\b(?:(?P<who>my {_KIN}(?=['’]s))['’]s|my)",
}
_PARTS = {
    "BE": r"(?:['’](?:m|s|re)| am| is| are)",
    "HAVE": r"(?:['’](?:ve|s)| have| has)?",
    "OFTEN": (
        r"(?: (?:now|currently|still|also|actually|really|just|recently|already|finally|always|originally|only|both|mostly|"
        r"truly|absolutely|definitely|personally|especially|particularly|simply|severely|deathly|highly|very|quite|happily|"
        r"newly|officially|so))*"
    ),
    "DO NOT": r"(?: don['’]t| do not| doesn['’]t| does not)",
    "END": _STOP + r"|,|\s+(?:and|or)\b)",
    "LIST END": (  # a thing that somebody likes may hold a preposition, so only a new clause ends it
        r"(?=\s*(?:[.;!?)\]\"”\n–—]|:(?!\d)|\Z)|\s+-\s|,? (?:but|so|because|since|which|who|when|while|whenever|if|"
        r"though|although|however|than|as|too|also|any ?more|again|now|yesterday|today|recently|lately|more than|the most|"
        r"very much|a lot|i|I|i['’]m|I['’]m|"
        r"(?:and|or) (?:i|I|i['’]m|I['’]m|we|it|he|she|they|my|that|this|so|then|don['’]t|have|am|can|would))\b)"
    ),
    "VALUE": _VALUE,
    "VALUES": rf"{_VALUE}(?: [\w'’&+/#-]+){{0,5}}?(?:(?:, and |, or |, | and | or ){_VALUE}){{0,6}}?",
    "QUOTED": r"[\"“][^\"”\n]{1,60}[\"”]",
    "NUMBER": r"(?:\d{1,3}|one|two|three|four|five|six|seven|eight|nine|ten)",
    "KIN": _KIN,
    "PET": r"dog|cat|puppy|pup|kitten|kitty|bird|parrot|hamster|rabbit|bunny|turtle|tortoise|horse|pony|fish|snake|lizard",
    "WORD": (
        r"(?:(?!(?:that|which|who|is|are|was|were|has|have|to|for|and|or|but|i|we|you|it|so|in|on|at|with|by|from|when|if|of|"
        r"my|our|the|a|an)\b)[A-Za-z][\w/-]*)"
    ),
    "DIET": r"vegetarian|vegan|pescatarian|omnivore",
    "CONDITION": (
        r"lactose[- ]intolerant|gluten[- ]intolerant|gluten-free|dairy-free|celiac|coeliac|diabetic|asthmatic|"
        r"colou?r-?blind|left-handed"
    ),
    "PROFESSION": (
        r"(?:engineer|developer|programmer|teacher|nurse|doctor|lawyer|designer|manager|student|scientist|researcher|"
        r"professor|writer|author|artist|musician|photographer|chef|accountant|analyst|consultant|architect|dentist|"
        r"pharmacist|therapist|counsell?or|electrician|plumber|carpenter|mechanic|pilot|driver|farmer|journalist|editor|"
        r"translator|librarian|banker|barista|waiter|waitress|bartender|firefighter|paramedic|police officer|veterinarian|"
        r"vet|biologist|chemist|physicist|economist|psychologist|historian|entrepreneur|freelancer|director|producer|actor|"
        r"actress|singer|dancer|coach|trainer|realtor|secretary|receptionist|administrator|technician|technologist|surgeon|"
        r"tutor|nanny|postdoc|intern|attorney|paralegal|recruiter|strategist|copywriter|illustrator|animator|filmmaker|"
        r"novelist|poet|planner|specialist)"
    ),
    "EVENT": (
        r"(?:deadline|due date|meeting|appointment|interview|exam|flight|wedding|launch|release|party|presentation|call|"
        r"standup|review|kickoff|conference|trip|surgery|match|game|concert|graduation|rehearsal|demo|checkup|tournament|"
        r"competition|audition|anniversary|ceremony)"
    ),
    "MOVED": (
        r"(?: (?:is|are|has been|have been|got|will be)|['’]s| was(?= (?:moved|re|push|post|shift|chang|brought|ext|del)))?"
        r"(?: (?:now|still|currently|actually|just|recently|also))*"
        r"(?: (?:moved|rescheduled|pushed|postponed|shifted|changed|brought|set|scheduled|due|extended|delayed))?"
        r"(?: (?:back|up|forward|out))?(?: from [^.,;\n]{1,25}?)?(?: (?:to|for|on|at|by))?(?= )"
    ),
    "CHANGED": (
        r"(?:(?:improved|increased|decreased|dropped|reduced|lowered|raised|grown|risen|fallen|gone up|gone down|updated|"
        r"changed|extended|shortened|cut|bumped|expanded|climbed)(?: from [^,;\n]{1,25}?)? to|reached|at)"
    ),
    "UNIT": (
        r"(?:%|percent|ms|milliseconds?|seconds?|secs?|s|minutes?|mins?|hours?|hrs?|days?|weeks?|months?|years?|[KMGT]B|"
        r"kilometers?|km|miles?|meters?|m|cm|mm|kg|grams?|g|lbs?|pounds|°[CF]|degrees|px|fps|rpm|mph|bpm|calories|commits|"
        r"branches|users|(?:calls|requests|queries) per \w+|tokens|points|euros?|dollars|USD|EUR|words|pages|people|columns|"
        r"rows|tests|items|tasks)(?![\w%])"
    ),
}


@dataclass(frozen=True, slots=True)
class _Rule:
    """A pattern, the words without which it cannot match, and what it means; ``small`` is for texts without capitals."""

    triggers: frozenset[str]
    pattern: re.Pattern[str]
    small: re.Pattern[str] | None
    read: _Reader


def _rule(triggers: str, template: str, read: _Reader) -> _Rule:
    def filled(parts: dict[str, str]) -> str:
        return re.sub(r"<([A-Z][A-Z ]*)>", lambda match: parts[match[1]], template)

    small = None if re.search("<(?:NAME|FIRM)>", template) else re.compile(filled(_PARTS | _SMALL))
    return _Rule(frozenset(triggers.split()), re.compile(filled(_PARTS | _CAPITALS)), small, read)


_lives = _says("residence", "residence", "{s} lives in {v}", functional=True, begins=_since)
_gone = _says("no residence", "residence", denies="{s} no longer lives in {v}")
_name = _says("name", "name", "{s}'s name is {v}", functional=True)
_origin = _says("origin", "home town", "{s} is from {v}")
_birth = _says("birthplace", "birthplace", "{s} was born in {v}")
_allergy = _says("allergy", "allergy", "{s} is allergic to {v}", listed=True, fits=_is_noun)
_employer = _says("employer", "employer", "{s} works at {v}", functional=True, begins=_since)
_left = _says("no employer", "employer", denies="{s} no longer works at {v}", begins=_on)
_likes = _says("likes", "likes", "{s} likes {v}", kind=Kind.PREFERENCE, listed=True, fits=_is_liked)
_dislikes = _says(
    "dislikes", "likes", denies="{s} does not like {v}", kind=Kind.PREFERENCE, listed=True, fits=_is_liked
)

_RULES: tuple[_Rule, ...] = (
    # where somebody lives and comes from
    _rule(
        "live lives living based reside resides",
        "<WHO><OFTEN>(?:<BE><OFTEN>)? (?:(?P<base>live|reside)|lives|resides|living|based)<OFTEN> in (?P<v><PLACE>)<END>",
        _lives,
    ),
    _rule(
        "lived living",
        "<WHO>(?:['’](?:ve|s)| have| has)<OFTEN> (?:lived|been living) in (?P<v><PLACE>)(?= (?:for|since|all)\\b)",
        _lives,
    ),
    _rule(
        "moved relocated",
        r"<WHO><HAVE><OFTEN> (?:moved|relocated)(?: (?:back|over|out|down|up|away|here))*(?: from <PLACE>)? to (?P<v><PLACE>)<END>",
        _says("move", "residence", "{s} lives in {v}", functional=True, begins=_on),
    ),
    _rule(
        "moved",
        r"<WHO><HAVE><OFTEN> moved(?: (?:here|away|out))* from (?P<v><PLACE>)(?! to\b)<END>",
        _says("no residence", "residence", denies="{s} no longer lives in {v}", begins=_on),
    ),
    _rule("longer", r"<WHO><BE>? no longer (?:lives?|living|based) in (?P<v><PLACE>)<END>", _gone),
    _rule("used", r"<WHO> used to live in (?P<v><PLACE>)<END>", _gone),
    _rule("anymore any", r"<WHO><DO NOT> live in (?P<v><PLACE>) any ?(?:more|longer)\b", _gone),
    _rule("from", r"<WHO><BE>(?: originally)? from (?P<v><PLACE>)<END>", _origin),
    _rule("come comes", r"<WHO>(?: originally)? comes? from (?P<v><PLACE>)<END>", _origin),
    _rule("grew", r"<WHO> grew up in (?P<v><PLACE>)<END>", _says("grew up", "grew up in", "{s} grew up in {v}")),
    _rule("born", r"<WHO>(?: was| were) born(?: and raised)? in (?P<v><PLACE>)<END>", _birth),
    # names of people and pets
    _rule("name", r"\b[Mm]y (?:full |real )?name(?: is|['’]s) (?P<v><OWN NAME>)<END>", _name),
    _rule(
        "hi hello hey",
        r"\b(?:[Hh]i|[Hh]ello|[Hh]ey)(?: there)?[,!.]? (?:I['’]m|I am|[Tt]his is) (?P<v><NAME>)<END>",
        _name,
    ),
    _rule(
        "call called go",
        r"\b(?:[Cc]all me|I['’]m called|I am called|I go by) (?P<v><NAME>)<END>",
        _says("call name", "goes by", "{s} goes by {v}", functional=True),
    ),
    _rule(
        "name named called",
        r"\b[Mm]y (?P<kin><KIN>)(?:['’]s name(?: is|['’]s)| is (?:called|named)|,? named) (?P<v><NAME>)<END>",
        _named,
    ),
    _rule("my", r"\b[Mm]y (?P<kin><KIN>) (?P<v><NAME>)(?= |[.,;!?)]|\Z|['’]s)", _named),
    _rule("my", r"\b[Mm]y (?P<kin><KIN>), (?P<v><NAME>)(?=,)", _named),
    _rule("my", r"\b(?P<v><NAME>)(?: is|['’]s) my (?P<kin><KIN>)<END>", _named),
    _rule(
        "named called name",
        r"\b(?:I|[Ww]e)(?:['’]ve)?<OFTEN> (?:have|got|adopted|own|bought|rescued)(?: got)? an? (?:\w+ ){0,3}?(?P<kin><PET>)"
        r"(?: named| called|,? (?:and )?(?:his|her|its) name(?: is|['’]s)),? (?P<v><NAME>)<END>",
        _named,
    ),
    # age and birth
    _rule("old", r"<WHO><BE>(?: now| only| already| almost)? (?P<v><NUMBER>)[ -]years?[ -]old\b", _age),
    _rule(
        "turned",
        r"<WHO><HAVE>(?: just| recently)? turned (?P<v>\d{1,3})(?=[.,!;]|\Z| (?:years|last|this|yesterday|today|on|in|and)\b)",
        _age,
    ),
    _rule(
        "older younger",
        r"<WHO><BE> (?P<v><NUMBER>) (?P<unit>years?|months?) (?P<way>older|younger) than (?P<other>me\b|my <KIN>|<NAME>)",
        _older,
    ),
    _rule("birthday bday", r"<OWNER> (?:birthday|bday)(?: is|['’]s)(?: on)?(?= )", _birthday),
    _rule("born", r"<WHO>(?: was| were) born(?: on)?(?= )", _birthday),
    # work and study
    _rule(
        "work works working",
        r"<WHO><OFTEN>(?:<BE><OFTEN>)? (?:(?P<base>work)|works|working)(?: (?:full|part)[- ]time| now)? as "
        r"(?P<v>an? (?:[\w-]+ ){0,3}?[\w-]+)<END>",
        _says("occupation", "occupation", "{s} works as {v}", fits=_is_noun),
    ),
    _rule(
        "i my m am is s",
        r"<WHO><BE><OFTEN> (?P<v>an? (?:(?!big|huge|good|great|bad|better|very)[\w-]+ ){0,2}<PROFESSION>)<END>",
        _says("occupation", "occupation", "{s} is {v}", fits=_is_noun),
    ),
    _rule(
        "work works working",
        r"<WHO><OFTEN>(?:<BE><OFTEN>)? (?:(?P<base>work)|works|working)(?: now| (?:full|part)[- ]time)? (?:at|for) "
        r"(?P<v><FIRM>)<END>",
        _employer,
    ),
    _rule(
        "job position role working",
        r"<WHO><HAVE><OFTEN> (?:started|got|landed|accepted|began) (?:working|(?:a|my)(?: new)? (?:job|position|role))"
        r"(?: as an? [\w -]{1,30}?)? (?:at|with|for) (?P<v><FIRM>)<END>",
        _says("new employer", "employer", "{s} works at {v}", functional=True, begins=_on),
    ),
    _rule(
        "quit left resigned",
        r"<WHO><HAVE><OFTEN> (?:quit|left|resigned from) my (?:job|position|role) (?:at|with) (?P<v><FIRM>)<END>",
        _left,
    ),
    _rule("longer", r"<WHO><BE>? no longer (?:works?|working) (?:at|for) (?P<v><FIRM>)<END>", _left),
    _rule(
        "studying majoring",
        r"<WHO><BE><OFTEN> (?:studying|majoring in) (?P<v><VALUE>)<END>",
        _says("study", "studies", "{s} is studying {v}", fits=_is_noun),
    ),
    _rule(
        "speak speaks",
        r"<WHO><OFTEN> (?:(?P<base>speak)|speaks)(?: fluent| some| a little)? (?P<v><NAME>(?:(?:, and |, | and )<NAME>){0,5})<END>",
        _says("language", "speaks", "{s} speaks {v}", listed=True),
    ),
    # body, family, tastes
    _rule(
        "children kids sons daughters siblings brothers sisters dogs cats pets grandchildren",
        r"<WHO>(?: have| has|['’]ve got| have got| has got) (?P<v><NUMBER>) (?:[a-z]+ )?"
        r"(?P<a>children|kids|sons|daughters|siblings|brothers|sisters|dogs|cats|pets|grandchildren)\b",
        _counted,
    ),
    _rule("allergic", r"<WHO><BE><OFTEN> allergic to (?P<v><VALUES>)<LIST END>", _allergy),
    _rule(
        "allergy", r"<WHO>(?: have| has) an? (?:severe |mild |bad |serious )?(?P<v>\w+(?: \w+)?) allergy\b", _allergy
    ),
    _rule(
        "allergic",
        r"<WHO><BE><OFTEN> (?:not|no longer) allergic to (?P<v><VALUE>)<END>",
        _says("no allergy", "allergy", denies="{s} is not allergic to {v}", fits=_is_noun),
    ),
    _rule(
        "vegetarian vegan pescatarian omnivore",
        r"<WHO><BE><OFTEN>(?: an?)? (?P<v><DIET>)<END>",
        _says("diet", "diet", "{s} is {v}", functional=True, fits=_is_noun),
    ),
    _rule(
        "vegetarian vegan pescatarian omnivore",
        r"<WHO><BE><OFTEN> (?:not|no longer)(?: an?)? (?P<v><DIET>)<END>",
        _says("no diet", "diet", denies="{s} is not {v}", fits=_is_noun),
    ),
    _rule(
        "lactose gluten dairy celiac coeliac diabetic asthmatic color colour colorblind colourblind left",
        r"<WHO><BE><OFTEN>(?: an?)? (?P<v><CONDITION>)<END>",
        _says("condition", "condition", "{s} is {v}", fits=_is_noun),
    ),
    _rule(
        "married engaged single divorced widowed",
        r"<WHO><BE><OFTEN> (?P<v>married|engaged|single|divorced|widowed)(?! (?:in|with|for|by|at)\b)(?: to [\w' ]{1,30}?)?<END>",
        _says("marriage", "marital status", "{s} is {v}", functional=True, fits=_is_noun),
    ),
    _rule(
        "favorite favourite",
        r"<OWNER> (?:all[- ]time )?favou?rite (?P<a>[\w-]+(?: [\w-]+){0,2}?)"
        r"(?: is| are| has to be| has always been| would be)(?: (?:definitely|probably|always|actually|still|now))* "
        r"(?P<v><QUOTED>|(?:the )?(?:<VALUES><LIST END>|<VALUE><END>))",
        _favourite,
    ),
    _rule(
        "favorite favourite",
        r"(?P<v><QUOTED>|\b<NAME>) is (?P<who>my) (?:all[- ]time )?favou?rite (?P<a>[\w-]+(?: [\w-]+)?)<END>",
        _favourite,
    ),
    _rule(
        "love loves like likes enjoy enjoys adore adores",
        r"<WHO><OFTEN> (?:(?P<base>love|like|enjoy|adore)|loves|likes|enjoys|adores) (?P<v><VALUES>)<LIST END>",
        _likes,
    ),
    _rule(
        "hate hates dislike dislikes stand don doesn not longer",
        r"<WHO><OFTEN>(?:(?P<base> hate| dislike)| hates| dislikes| can['’]t stand"
        r"|(?:<DO NOT>| no longer)(?: really)? (?:likes?|enjoys?|loves?)) "
        r"(?P<v><VALUES>)<LIST END>",
        _dislikes,
    ),
    # dates and numbers that change
    _rule(
        "deadline date meeting appointment interview exam flight wedding launch release party presentation call standup review "
        "kickoff conference trip surgery match game concert graduation rehearsal demo checkup tournament competition audition "
        "anniversary ceremony",
        r"(?:<OWNER>|\b(?:[Tt]he|[Oo]ur)) (?P<a>(?:<WORD> ){0,3}?<EVENT>)<MOVED>",
        _appointment,
    ),
    _rule(
        "0 1 2 3 4 5 6 7 8 9",
        r"(?:<OWNER>|\b(?:[Tt]he|[Oo]ur)) (?!<KIN>)"
        r"(?P<a>(?:<WORD> ){0,4}?<WORD>(?: of (?:the |my |our )?<WORD>(?: <WORD>){0,2}?)?)(?P<which>,? which)?"
        r"(?:(?: is| are)(?: (?:now|currently|still|at|already))*"
        r"|(?: is| are| has| have)?(?: (?:now|currently|recently|already|since|just|been|also))* <CHANGED>)"
        r"(?: (?:about|around|approximately|roughly|exactly|just|over|under|nearly|almost))* (?P<currency>[$€£]?)"
        r"(?P<v>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)[ -]?(?P<unit><UNIT>)?"
        r"(?![\w%]|[ -](?:old|older|younger|ago|away|later|long|from|before|after|left)\b)",
        _quantity,
    ),
)
