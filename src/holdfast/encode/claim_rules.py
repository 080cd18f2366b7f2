"""The rules by which claims are read: English patterns, the words without which they cannot match, and their readers.

<NAMES> in a pattern stand for the parts below. Some parts have a second form for texts that are typed without capitals; a
rule that needs the capitals of a name is not tried on those.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from holdfast.cube import Kind
from holdfast.encode.claim_readers import (
    Reader,
    at_change,
    is_liked,
    is_noun,
    read_age,
    read_age_difference,
    read_appointment,
    read_birthday,
    read_count,
    read_favourite,
    read_kin_or_pet,
    read_quantity,
    says,
    since,
)

# --- the parts ---

# Every repetition has a bound: a word of a hundred letters is none, and a pattern that tries it whole at each of them is slow.
_CAPITAL = r"(?!I\b)[^\W\d_a-z][\w&-]{0,40}(?:['’](?!s\b)\w{1,40}){0,3}"
_KIN = (
    r"(?:(?:older|younger|big|little|elder|best|late|ex|new|old|eldest|youngest|twin|close|good|dear)[ -])?"
    r"(?:sister|brother|mother|father|mom|mum|dad|wife|husband|partner|girlfriend|boyfriend|fianc[eé]e?|son|daughter|"
    r"child|cousin|aunt|uncle|niece|nephew|grandmother|grandfather|grandma|grandpa|friend|roommate|flatmate|boss|manager|"
    r"colleague|coworker|co-worker|neighbou?r|teacher|mentor|therapist|doctor|landlord|dog|cat|puppy|kitten|bird|parrot|"
    r"hamster|rabbit|turtle|horse|pet)\b"
)
_VALUE = r"[\w'’&+/#.-]{0,60}[\w+#](?: [\w'’&+/#-]{1,60}){0,4}?"
_ITEM = r"(?!(?:and|or)\b)[\w'’&+/#.-]{0,60}[\w+#](?: (?!(?:and|or)\b)[\w'’&+/#-]{1,60})"  # of a list
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
    "OWN NAME": r"\w{1,40}",
    "PLACE": (
        r"(?!(?:an?|the|my|our|his|her|their|it|this|that|fear|peace|hope|denial|pain)\b)[^\W\d_]\w{0,40}(?: \w{1,40})?"
        r"(?:, \w{1,40})?"
    ),
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
    "VALUES": rf"{_ITEM}{{0,9}}?(?:(?:, and |, or |, | and | or ){_ITEM}{{0,4}}?){{0,6}}?",
    "QUOTED": r"[\"“][^\"”\n]{1,60}[\"”]",
    "NUMBER": r"(?:\d{1,3}|one|two|three|four|five|six|seven|eight|nine|ten)",
    "KIN": _KIN,
    "PET": r"dog|cat|puppy|pup|kitten|kitty|bird|parrot|hamster|rabbit|bunny|turtle|tortoise|horse|pony|fish|snake|lizard",
    "WORD": (
        r"(?:(?!(?:that|which|who|is|are|was|were|has|have|to|for|and|or|but|i|we|you|it|so|in|on|at|with|by|from|when|if|of|"
        r"my|our|the|a|an)\b)[A-Za-z][\w/-]{0,40})"
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

# --- the table ---


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern, the words without which it cannot match, and what it means; ``small`` is for texts without capitals."""

    triggers: frozenset[str]
    pattern: re.Pattern[str]
    small: re.Pattern[str] | None
    read: Reader


def _rule(triggers: str, template: str, read: Reader) -> Rule:
    def filled(parts: dict[str, str]) -> str:
        return re.sub(r"<([A-Z][A-Z ]*)>", lambda match: parts[match[1]], template)

    small = None if re.search("<(?:NAME|FIRM)>", template) else re.compile(filled(_PARTS | _SMALL))
    return Rule(frozenset(triggers.split()), re.compile(filled(_PARTS | _CAPITALS)), small, read)


_lives = says("residence", "residence", "{s} lives in {v}", functional=True, begins=since)
_gone = says("no residence", "residence", denies="{s} no longer lives in {v}")
_name = says("name", "name", "{s}'s name is {v}", functional=True)
_origin = says("origin", "home town", "{s} is from {v}")
_birth = says("birthplace", "birthplace", "{s} was born in {v}")
_allergy = says("allergy", "allergy", "{s} is allergic to {v}", listed=True, fits=is_noun)
_employer = says("employer", "employer", "{s} works at {v}", functional=True, begins=since)
_left = says("no employer", "employer", denies="{s} no longer works at {v}", begins=at_change)
_likes = says("likes", "likes", "{s} likes {v}", kind=Kind.PREFERENCE, listed=True, fits=is_liked)
_dislikes = says("dislikes", "likes", denies="{s} does not like {v}", kind=Kind.PREFERENCE, listed=True, fits=is_liked)

RULES: tuple[Rule, ...] = (
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
        says("move", "residence", "{s} lives in {v}", functional=True, begins=at_change),
    ),
    _rule(
        "moved",
        r"<WHO><HAVE><OFTEN> moved(?: (?:here|away|out))* from (?P<v><PLACE>)(?! to\b)<END>",
        says("no residence", "residence", denies="{s} no longer lives in {v}", begins=at_change),
    ),
    _rule("longer", r"<WHO><BE>? no longer (?:lives?|living|based) in (?P<v><PLACE>)<END>", _gone),
    _rule("used", r"<WHO> used to live in (?P<v><PLACE>)<END>", _gone),
    _rule("anymore any", r"<WHO><DO NOT> live in (?P<v><PLACE>) any ?(?:more|longer)\b", _gone),
    _rule("from", r"<WHO><BE>(?: originally)? from (?P<v><PLACE>)<END>", _origin),
    _rule("come comes", r"<WHO>(?: originally)? comes? from (?P<v><PLACE>)<END>", _origin),
    _rule("grew", r"<WHO> grew up in (?P<v><PLACE>)<END>", says("grew up", "grew up in", "{s} grew up in {v}")),
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
        says("call name", "goes by", "{s} goes by {v}", functional=True),
    ),
    _rule(
        "name named called",
        r"\b[Mm]y (?P<kin><KIN>)(?:['’]s name(?: is|['’]s)| is (?:called|named)|,? named) (?P<v><NAME>)<END>",
        read_kin_or_pet,
    ),
    _rule("my", r"\b[Mm]y (?P<kin><KIN>) (?P<v><NAME>)(?= |[.,;!?)]|\Z|['’]s)", read_kin_or_pet),
    _rule("my", r"\b[Mm]y (?P<kin><KIN>), (?P<v><NAME>)(?=,)", read_kin_or_pet),
    _rule("my", r"\b(?P<v><NAME>)(?: is|['’]s) my (?P<kin><KIN>)<END>", read_kin_or_pet),
    _rule(
        "named called name",
        r"\b(?:I|[Ww]e)(?:['’]ve)?<OFTEN> (?:have|got|adopted|own|bought|rescued)(?: got)? an? (?:\w+ ){0,3}?(?P<kin><PET>)"
        r"(?: named| called|,? (?:and )?(?:his|her|its) name(?: is|['’]s)),? (?P<v><NAME>)<END>",
        read_kin_or_pet,
    ),
    # age and birth
    _rule("old", r"<WHO><BE>(?: now| only| already| almost)? (?P<v><NUMBER>)[ -]years?[ -]old\b", read_age),
    _rule(
        "turned",
        r"<WHO><HAVE>(?: just| recently)? turned (?P<v>\d{1,3})(?=[.,!;]|\Z| (?:years|last|this|yesterday|today|on|in|and)\b)",
        read_age,
    ),
    _rule(
        "older younger",
        r"<WHO><BE> (?P<v><NUMBER>) (?P<unit>years?|months?) (?P<way>older|younger) than (?P<other>me\b|my <KIN>|<NAME>)",
        read_age_difference,
    ),
    _rule("birthday bday", r"<OWNER> (?:birthday|bday)(?: is|['’]s)(?: on)?(?= )", read_birthday),
    _rule("born", r"<WHO>(?: was| were) born(?: on)?(?= )", read_birthday),
    # work and study
    _rule(
        "work works working",
        r"<WHO><OFTEN>(?:<BE><OFTEN>)? (?:(?P<base>work)|works|working)(?: (?:full|part)[- ]time| now)? as "
        r"(?P<v>an? (?:[\w-]+ ){0,3}?[\w-]+)<END>",
        says("occupation", "occupation", "{s} works as {v}", fits=is_noun),
    ),
    _rule(
        "i my m am is s",
        r"<WHO><BE><OFTEN> (?P<v>an? (?:(?!big|huge|good|great|bad|better|very)[\w-]+ ){0,2}<PROFESSION>)<END>",
        says("occupation", "occupation", "{s} is {v}", fits=is_noun),
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
        says("new employer", "employer", "{s} works at {v}", functional=True, begins=at_change),
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
        says("study", "studies", "{s} is studying {v}", fits=is_noun),
    ),
    _rule(
        "speak speaks",
        r"<WHO><OFTEN> (?:(?P<base>speak)|speaks)(?: fluent| some| a little)? (?P<v><NAME>(?:(?:, and |, | and )<NAME>){0,5})<END>",
        says("language", "speaks", "{s} speaks {v}", listed=True),
    ),
    # body, family, tastes
    _rule(
        "children kids sons daughters siblings brothers sisters dogs cats pets grandchildren",
        r"<WHO>(?: have| has|['’]ve got| have got| has got) (?P<v><NUMBER>) (?:[a-z]+ )?"
        r"(?P<a>children|kids|sons|daughters|siblings|brothers|sisters|dogs|cats|pets|grandchildren)\b",
        read_count,
    ),
    _rule("allergic", r"<WHO><BE><OFTEN> allergic to (?P<v><VALUES>)<LIST END>", _allergy),
    _rule(
        "allergy", r"<WHO>(?: have| has) an? (?:severe |mild |bad |serious )?(?P<v>\w+(?: \w+)?) allergy\b", _allergy
    ),
    _rule(
        "allergic",
        r"<WHO><BE><OFTEN> (?:not|no longer) allergic to (?P<v><VALUE>)<END>",
        says("no allergy", "allergy", denies="{s} is not allergic to {v}", fits=is_noun),
    ),
    _rule(
        "vegetarian vegan pescatarian omnivore",
        r"<WHO><BE><OFTEN>(?: an?)? (?P<v><DIET>)<END>",
        says("diet", "diet", "{s} is {v}", functional=True, fits=is_noun),
    ),
    _rule(
        "vegetarian vegan pescatarian omnivore",
        r"<WHO><BE><OFTEN> (?:not|no longer)(?: an?)? (?P<v><DIET>)<END>",
        says("no diet", "diet", denies="{s} is not {v}", fits=is_noun),
    ),
    _rule(
        "lactose gluten dairy celiac coeliac diabetic asthmatic color colour colorblind colourblind left",
        r"<WHO><BE><OFTEN>(?: an?)? (?P<v><CONDITION>)<END>",
        says("condition", "condition", "{s} is {v}", fits=is_noun),
    ),
    _rule(
        "married engaged single divorced widowed",
        r"<WHO><BE><OFTEN> (?P<v>married|engaged|single|divorced|widowed)(?! (?:in|with|for|by|at)\b)(?: to [\w' ]{1,30}?)?<END>",
        says("marriage", "marital status", "{s} is {v}", functional=True, fits=is_noun),
    ),
    _rule(
        "favorite favourite",
        r"<OWNER> (?:all[- ]time )?favou?rite (?P<a>[\w-]+(?: [\w-]+){0,2}?)"
        r"(?: is| are| has to be| has always been| would be)(?: (?:definitely|probably|always|actually|still|now))* "
        r"(?P<v><QUOTED>|(?:the )?(?:<VALUES><LIST END>|<VALUE><END>))",
        read_favourite,
    ),
    _rule(
        "favorite favourite",
        r"(?P<v><QUOTED>|\b<NAME>) is (?P<who>my) (?:all[- ]time )?favou?rite (?P<a>[\w-]+(?: [\w-]+)?)<END>",
        read_favourite,
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
        read_appointment,
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
        read_quantity,
    ),
)
