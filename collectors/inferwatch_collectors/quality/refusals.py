"""Refusals: does an answer begin as those do that decline to answer?

A lexicon of openers, anchored at the first sentences, in the languages that models are asked in most. It says nothing
of one answer for sure: a model that lectures in place of saying sorry is not found, and "I cannot help but wonder" is,
if it opens so. It is a rate, and what counts is the change of the rate: each model and tenant has its own reference.

Pure.
"""

import re
from typing import Final

# Refusals open with it; what comes later may be quoted.
OPENING_CHARS: Final = 200

_APOSTROPHES: Final = str.maketrans({"’": "'", "‘": "'", "`": "'"})

_ENGLISH_VERBS: Final = (
    "help|assist|provide|answer|comply|fulfil|do|create|write|share|discuss|support|engage|participate|give|offer|"
    "generate|recommend|respond|be able|in good conscience|with"
)

_OPENERS: Final = (
    # English
    r"(?:i'?m|i am) (?:really |very |so |truly |deeply )?sorry,? (?:but|i can|that i can)",
    rf"(?:i'?m|i am) (?:not able|unable) to (?:{_ENGLISH_VERBS})",
    r"(?:i'?m|i am) not (?:comfortable|going to|allowed|permitted)\b",
    (
        r"i (?:can'?t|cannot|can not|won'?t|will not|must decline|have to decline|must refuse|refuse to|decline to)"
        rf"(?: (?:{_ENGLISH_VERBS})\b|[.,]|$)"
    ),
    r"(?:sorry|apologies|my apologies|i apologi[sz]e)[,.!]? (?:but )?(?:i|this|that|as an)\b",
    r"as an? (?:ai|artificial|language model|assistant)\b.{0,60}?\b(?:can'?t|cannot|not able|unable|don'?t|do not)\b",
    r"(?:that|this) (?:is|request is|isn'?t|would be) (?:not )?(?:something i (?:can'?t|cannot|can|won'?t)|against)",
    r"it (?:would be|is|'s) (?:not appropriate|inappropriate|unethical|against my)",
    # German
    r"(?:es )?tut mir (?:sehr )?leid|leider (?:kann|darf) ich",
    (
        r"ich (?:kann|darf|werde) (?:dir |ihnen |das |dabei |diese |dieser |leider )*"
        r"nicht (?:helfen|weiterhelfen|dabei|beantworten|unterstützen|erfüllen|geben)"
    ),
    r"entschuldigung, (?:aber )?(?:ich|das)|als (?:ki|sprachmodell)\b.{0,60}?\b(?:nicht|keine?)\b",
    # French
    r"(?:je suis |vraiment )?désolée?,? (?:mais )?je",
    r"je ne (?:peux|suis|pourrai|saurais) (?:malheureusement )?pas",
    r"(?:malheureusement|excusez-moi),? je ne|en tant qu(?:e modèle|'ia|'intelligence)",
    # Spanish
    r"lo siento(?: mucho)?,? (?:pero )?(?:no|como)",
    r"no puedo (?:ayudar|proporcionar|responder|cumplir|hacer|ofrecer|generar)",
    r"lamento|lamentablemente,? no puedo|disculpa,? (?:pero )?no|como (?:modelo de lenguaje|inteligencia|ia)\b",
    # Italian
    r"mi dispiace,? (?:ma )?(?:non|come)|(?:purtroppo )?non posso (?:aiutar|fornir|rispondere|soddisfare|fare|creare)",
    r"spiacente,? (?:ma )?non|in quanto (?:modello|ia|intelligenza)",
    # Portuguese
    r"(?:sinto muito|desculpe|desculpa|lamento),? (?:mas )?(?:não|eu|como)",
    r"(?:infelizmente,? )?não posso (?:ajudar|fornecer|responder|atender|fazer|criar)",
    # Dutch
    r"(?:het )?spijt me,? (?:maar )?|sorry, (?:maar )?ik",
    r"(?:helaas )?(?:kan|mag) ik (?:je |u )?(?:hier |daar )?(?:helaas )?niet",
    # Russian
    r"(?:извините|простите|к сожалению|мне жаль),? (?:но )?(?:я|это|не)",
    r"я не (?:могу|буду) (?:помочь|вам|ответить|выполнить|предоставить|помогать)",
    # Chinese, Japanese, Korean
    r"(?:很|非常|十分)?(?:抱歉|对不起|對不起)",
    r"我(?:无法|不能|無法)(?:提供|回答|帮助|协助|幫助|满足|完成)|作为(?:一个|一名)?(?:人工智能|ai|语言模型)",
    r"申し訳(?:ありません|ございません)|(?:すみません|ごめんなさい)(?:が|、)",
    r"お(?:手伝い|答え)(?:する(?:こと)?が|は)?できません",
    r"죄송(?:합니다|하지만)|(?:도와|답변)(?:드릴|해 드릴) 수 없",
)

# A greeting, a filler or a heading may stand before it.
_LEAD: Final = (
    r"[\s\W]*(?:(?:hello|hi|hey|well|hm+|oh|unfortunately|thank you[^.!,]{0,60}|i understand[^.!]{0,120})"
    r"[\s,.!:…-]+(?:but )?)?"
)

_REFUSAL: Final = re.compile(f"{_LEAD}(?:{'|'.join(_OPENERS)})", re.IGNORECASE | re.DOTALL)


def is_refusal(answer: str) -> bool:
    """Tell whether an answer begins as a refusal does. Only its first OPENING_CHARS are looked at."""
    return _REFUSAL.match(answer[:OPENING_CHARS].translate(_APOSTROPHES)) is not None
