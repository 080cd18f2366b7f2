"""Why a text holds nothing worth extracting: the reason that ``add`` gives when no fact comes of it.

Users take silence for a defect, so an empty result always has a reason. The text itself is kept all the same. A bare "yes"
or "no" is never called empty: it may answer a question.
"""

from __future__ import annotations

import re
import unicodedata


def why_nothing(text: str) -> str | None:
    """The reason why a text is not worth extracting from, or None where it may be."""
    stripped = text.strip()
    if not stripped:
        return "it is empty"
    if not any(unicodedata.category(character)[0] in "LN" for character in stripped):
        return "it has no words, only punctuation or symbols"
    if len(stripped) <= _LONGEST and _is_stock(stripped):
        return "it is only a greeting, thanks or an acknowledgement"
    return None


_LONGEST = 120  # characters; a longer text says something besides
_ADDRESSED = (
    r"hi|hello|hey|thanks|thank you|bye|goodbye|see you|see ya|take care|good morning|good evening|good night|cheers"
)
_PHRASES = (
    _ADDRESSED,
    r"hiya|howdy|greetings|good afternoon|good day|welcome|nice to meet you|nice to see you|there|again|many thanks",
    r"thx|ty|a lot|so much|very much|thank you so much|much appreciated|for that|for this|for your help|for your advice",
    r"you(?:'| a)re welcome|no problem|no worries|my pleasure|anytime|of course|farewell|later|soon|then|around|tomorrow",
    r"good luck|have an? (?:good|nice|great|lovely|wonderful) (?:one|day|evening|night|weekend|week)|talk to you|talk|bye bye",
    r"sweet dreams|ok|okay|alright|all right|got it|i see|understood|noted|sounds good|cool|great|nice|awesome|perfect|wow",
    r"oh|ah|hmm*|haha|lol|and|too|to you|hola|buen[oa]s (?:d[ií]as|tardes|noches)|gracias|muchas gracias|adi[oó]s|bonjour",
    r"salut|merci|merci beaucoup|au revoir|hallo|guten (?:morgen|tag|abend)|danke|danke schön|tschüss|ciao|grazie|buongiorno",
    r"olá|bom dia|obrigad[oa]|tchau|merhaba|teşekkürler|привет|здравствуйте|спасибо|пока|γεια|ευχαριστώ|你好|您好|谢谢|再见",
    r"早上好|晚安|こんにちは|おはよう|ありがとう|さようなら|안녕하세요|감사합니다|مرحبا|شكرا|नमस्ते|धन्यवाद|שלום|תודה|สวัสดี|ขอบคุณ",
)
# Atomic, or a long row of "bye bye bye" would be tried in every grouping.
_STOCK = re.compile(rf"(?>(?:{'|'.join(_PHRASES)})(?: |\Z))++", re.I)
_ADDRESS = re.compile(rf"\b(?:{_ADDRESSED})\b", re.I)


def _is_stock(text: str) -> bool:
    words = "".join(
        one if one == "'" or unicodedata.category(one)[0] in "LNM" else " " for one in text.replace("’", "'")
    )
    phrase = " ".join(words.split())
    if _STOCK.fullmatch(phrase):
        return True
    rest, _, name = phrase.rpartition(" ")  # "Thanks, Melanie!"
    return name.istitle() and _ADDRESS.search(rest) is not None and _STOCK.fullmatch(rest) is not None
