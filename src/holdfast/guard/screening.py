"""What the words of something from outside give away: signals for admission, never a guarantee.

Language models that look for poison miss two thirds of it (Agent Security Bench, arXiv 2410.02644), and a paraphrase passes any
list of words. So nothing here admits anything: a signal can only hold back what would otherwise come in.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

from holdfast.letters import INVISIBLE, composed, visible

READ = 50_000
"""So many characters of a text are read."""

# Tag characters stand for letters. But for the flags of England, Scotland and Wales, nobody has a use for them.
_TAG = "\U000e0020-\U000e007e"
_FLAG = re.compile(
    "\U0001f3f4(?:"
    + "|".join("".join(chr(0xE0000 + ord(letter)) for letter in name) for name in ("gbeng", "gbsct", "gbwls"))
    + ")\U000e007f"
)
_TAGS = re.compile(f"(?:[{_TAG}](?:(?![{_TAG}])[{INVISIBLE}])*){{4,}}")
# Characters that join letters of Persian and Indic scripts, or emoji, do so between others.
_SPLIT = re.compile(f"[A-Za-z](?:(?![\u202a-\u202e\u2066-\u2069])[{INVISIBLE}])+[A-Za-z]")
_OVERRIDE = re.compile("[\u202a-\u202e\u2066-\u2069]")
_WORD = re.compile(r"[^\W\d_]{4,}")
_RUN = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")

_LOOKALIKES = str.maketrans("аеорсухіјѕԁԛԝһӏАВЕКМНОРСТХІЈЅοαερτυικ", "aeopcyxijsdqwhlABEKMHOPCTXIJSoaeptuik")

_GAP, _SHORT = r"[^.!?\n]{0,40}", r"[^.!?\n]{0,20}"
_ORDERS = re.compile(
    rf"\b(?:ignore|disregard|forget|override|bypass)\b{_GAP}\b(?:previous|prior|above|earlier|all|any|your|the)\b{_GAP}"
    r"\b(?:instructions?|prompts?|rules|directions?|guidelines|context|messages?)\b"
    r"|\b(?:required|mandatory) actions? *\((?:agent|assistant|ai|model)\)"
    rf"|\b(?:important|urgent|attention)\b{_GAP}\b(?:message|instructions?|note) "
    r"(?:from|for|to) (?:me|the user|the agent|the assistant|you)\b"
    rf"|\bbefore you (?:can |could )?(?:solve|do|answer|complete|continue with)\b{_GAP}\b(?:task|question|request)\b"
    r"|\b(?:do not|don't|never|without) (?:tell|telling|inform|informing|mention(?:ing)?|alert(?:ing)?|reveal(?:ing)?)\b"
    rf"{_GAP}\b(?:user|this|anyone)\b"
    r"|\b(?:you are now|from now on,? you|new system prompt|act as (?:an?|the) (?:unrestricted|admin|root))\b"
    rf"|\b(?:ai|llm|language model|chat ?bot|assistant|agent)s?\b{_SHORT}[:,]? "
    r"(?:please |you )?(?:must|should|have to|need to|are required to)\b"
    rf"|\b(?:execute|run) (?:the|this|these)\b{_GAP}\b(?:block|script|command|code)s? "
    r"(?:below|exactly|as (?:written|is)|above)\b"
    rf"|\b(?:remember|memorize|save|store) (?:this|that|the following)\b{_GAP}\b"
    r"(?:for (?:all|every|future)|always|permanently|in every)\b"
    rf"|ignorier\w* (?:alle|die|sämtliche){_GAP}(?:anweisung|vorgaben|regeln)"
    rf"|ignore[zr]? (?:toutes? )?(?:les|vos) {_SHORT}(?:instructions|consignes)"
    rf"|ignora (?:todas )?(?:las|tus) {_SHORT}instrucciones"
    r"|忽略[^。]{0,12}(?:指令|指示|提示)|(?:無視|无视)[^。]{0,12}(?:指示|指令|命令)",
    re.IGNORECASE,
)
_SPOOF = re.compile(
    r"<\s*+/?\s*+memor(?:y|ies)\b|<\|?(?:im_start|im_end|system|assistant|endoftext)\|?>|\[/?INST\]|<</?SYS>>"
    r"|</?(?:tool_call|function_call|INFORMATION)\b"
    r"|^[^\S\n]*+(?:(?:thought|action(?: input)?|observation|final answer)\s*:|(?:system|assistant|developer)\s*:\s)"
    r"|\bis_success ?= ?(?:true|false)\b|\bready to WriteAnalysisCode\b",
    re.IGNORECASE | re.MULTILINE,
)
_OWN_PRAISE = re.compile(
    r"\b(?:pre-?)?(?:validated|verified|approved|certified|vetted|trusted|signed[- ]off|sanctioned|endorsed)\b"
    rf"(?:{_SHORT}\b(?:safe|success(?:es)?|pattern|by (?:security|admin|compliance|legal|the team|management))\b|\s*,\s*safe\b)"
    r"|\b(?:trust(?: level| score)?|confidence) ?[:=] ?(?:1(?:\.0+)?|100 ?%|high|max)\b"
    r"|\bknown[- ]good\b|\bsafe to (?:run|execute|trust)\b",
    re.IGNORECASE,
)
_CARRY_OFF = re.compile(
    r"!\[[^\[\]]{0,500}\]\(\s{0,20}https?://[^)?&=]{0,500}[?&=]"
    r"|\b(?:send|forward|upload|post|email|e-mail|transmit|bcc|copy)\b[^.!?\n]{0,60}\b(?:to|at)\b[^.!?\n]{0,20}(?:https?://|[\w.+-]+@[\w-]+\.\w)",
    re.IGNORECASE,
)
_SHORTCUT = re.compile(
    r"(?:curl|wget)\b[^\n|]{0,120}\|\s*(?:sudo )?(?:ba|z|da)?sh\b|(?:curl|wget)\b[^\n|]{0,120}\|\s*python"
    r"|--no-verify\b|--skip-(?:tests?|checks?)\b|\bSKIP_\w+ ?= ?(?:1|true)\b|\bFORCE_OK\b|\bexit 0\b[^\n]{0,20}regardless"
    rf"|\b(?:skip|disable|bypass|turn off)\b{_GAP}\b"
    r"(?:validation|verification|schema checks?|tests|review|audit|safety|security checks?)\b",
    re.IGNORECASE,
)
_ASKED = re.compile(r"^\s*[^.?!\n]{15,300}\?\s+\S")
_PATTERNS = {
    "order": (_ORDERS, 1.0),
    "spoof": (_SPOOF, 0.8),
    "praise": (_OWN_PRAISE, 0.5),
    "carries_off": (_CARRY_OFF, 0.7),
    "shortcut": (_SHORTCUT, 0.7),
    "asks": (_ASKED, 0.3),
}


def signals(text: str) -> Mapping[str, float]:
    """How strongly each thing that poison does is there, between 0 and 1; what is not there is left out.

    hidden: characters that a reader does not see; lookalike: words of letters from two scripts; encoded: readable words in
    base64; order: words that address an agent; spoof: what only the agent's own trace or our own fence would hold; praise: a
    text that vouches for itself; carries_off: an address that something is to be sent to; shortcut: a check that is to be
    skipped; asks: a text that begins with a question.
    """
    text = _FLAG.sub("\U0001f3f4", text[:READ])
    found: dict[str, float] = {}
    if text.isascii():  # nothing hides in it
        plain = text
    else:
        if _TAGS.search(text):
            found["hidden"] = 1.0
        elif _SPLIT.search(text) or _OVERRIDE.search(text):
            found["hidden"] = 0.8
        if any(_mixed(word) for word in _WORD.findall(text)):
            found["lookalike"] = 0.6
        plain = seen(text)
    for run in _RUN.findall(plain):
        if (words := _decoded(run)) is not None:
            found["encoded"] = 1.0 if _ORDERS.search(words) or _SHORTCUT.search(words) else 0.5
            plain += "\n" + words
    return found | {name: strength for name, (pattern, strength) in _PATTERNS.items() if pattern.search(plain)}


def seen(text: str) -> str:
    """A text as a reader sees it: compatibility forms and lookalike letters folded, what is invisible taken out.

    Invisible tag characters are turned into the letters that they stand for, so that what hides in them is read too.
    """
    text = _TAGS.sub(_told, text)
    text = visible(composed(visible(text)))
    return composed(" ".join(_latin(word) for word in text.split(" ")))


def _told(run: re.Match[str]) -> str:
    return "\n" + "".join(chr(ord(c) - 0xE0000) for c in run[0] if "\U000e0020" <= c <= "\U000e007e") + "\n"


def _mixed(word: str) -> bool:
    return any(c.isascii() for c in word) and any(c != c.translate(_LOOKALIKES) for c in word)


def _latin(word: str) -> str:
    return word.translate(_LOOKALIKES) if _mixed(word) else word


def _decoded(run: str) -> str | None:
    """The words in a run of base64, None where there are none."""
    try:
        words = base64.b64decode(run + "=" * (-len(run) % 4), validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    return words if words.isprintable() and words.count(" ") >= 3 else None
