"""Words and templates of words.json, and how a template is filled: the ground under fewshot.py and synthetic.py.

Made-up words and ids stand among the real ones, so that a model has to copy and cannot learn the answers by heart.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any


def split_list(text: str) -> list[str]:
    """A list of words.json: cut at bars if it has any, else at blanks."""
    return text.split("|") if "|" in text else text.split()


RAW: dict[str, Any] = json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8"))
WORDS = {key: split_list(value) for key, value in RAW.items() if isinstance(value, str) and key != "about"}
WORDS["name"] = WORDS["female"] + WORDS["male"]
TOPICS = {key: split_list(value) for key, value in RAW["topics"].items()}
PAIRS = {
    key: [(word.split("=")[0], word.split("=")[1]) for word in words] for key, words in WORDS.items() if "=" in words[0]
}
FEMALE = set(WORDS["female"])
PRONOUNS = {"he": "she", "him": "her", "his": "her", "himself": "herself"}
SLOT = re.compile(r"\{([A-Za-z_]+?)(\d*)\}")
Answered = tuple[str, str]  # an input and its answer


def made_up(rng: Random) -> str:
    """A word that does not exist."""
    parts = [rng.choice(WORDS["onset"]) + rng.choice("aeiou") for _ in range(rng.randint(2, 3))]
    return "".join(parts) + rng.choice(["", "", "n", "r", "x", "l", "sk", "m"])


def code(rng: Random) -> str:
    """An order number or the like."""
    letters = "".join(rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZ", k=rng.randint(1, 3)))
    digits = "".join(rng.choices("0123456789", k=rng.randint(3, 6)))
    return rng.choice([letters + "-" + digits, letters + digits, digits, "#" + digits])


def amount(rng: Random) -> str:
    """A sum of money."""
    whole = rng.choice([rng.randint(1, 99), rng.randint(100, 2500)])
    cents = rng.choice(["", "", ".50", ".99", f".{rng.randint(10, 99)}"])
    return rng.choice([f"${whole}{cents}", f"€{whole}{cents}", f"{whole}{cents} euros", f"{whole} EUR"])


def date(rng: Random) -> str:
    """A date in one of four forms."""
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1995, 2031)
    name = WORDS["month"][month - 1]
    return rng.choice([f"{year}-{month:02}-{day:02}", f"{day} {name} {year}", f"{name} {day}", f"{day:02}.{month:02}."])


def email(rng: Random) -> str:
    """A mail address at a made-up domain."""
    first = rng.choice(["Tom", "Anna", "Ravi", "Lena", "Carl", "Nina", made_up(rng)]).lower()
    return f"{first}{rng.choice(['', '.', '_'])}{made_up(rng)}@{made_up(rng)}.example"


MAKERS: dict[str, Callable[[Random], str]] = {
    "made": lambda rng: made_up(rng).capitalize(),
    "order": code,
    "amount": amount,
    "date": date,
    "email": email,
    "n": lambda rng: str(rng.choice([rng.randint(2, 12), rng.randint(13, 90)])),
    "age": lambda rng: str(rng.randint(18, 80)),
    "age_small": lambda rng: str(rng.randint(6, 15)),
    "time": lambda rng: f"{rng.randint(6, 21)}:{rng.choice(['00', '15', '30', '45'])}",
    "phone": lambda rng: "0" + str(rng.randint(100, 999)) + " " + str(rng.randint(10000, 999999)),
    "seat": lambda rng: f"{rng.randint(1, 40)}{rng.choice('ABCDEF')}",
}


def value(rng: Random, kind: str) -> str:
    """A value of a slot kind."""
    return MAKERS[kind](rng) if kind in MAKERS else rng.choice(WORDS[kind])


def fill(rng: Random, template: str, slots: dict[str, str] | None = None) -> str:
    """The template with its slots filled; a slot that `slots` already knows keeps its value, new ones are noted."""
    known = {} if slots is None else slots

    def one(match: re.Match[str]) -> str:
        kind, number = match.group(1), match.group(2)
        if kind.lower() in PRONOUNS:
            low = kind.lower()
            word = PRONOUNS[low] if known.setdefault("name" + number, value(rng, "name")) in FEMALE else low
            return word.capitalize() if kind[0].isupper() else word
        key = kind + number
        while key not in known:
            drawn = value(rng, kind)
            if not any(other.rstrip("0123456789") == kind and drawn == text for other, text in known.items()):
                known[key] = drawn
        return known[key]

    text = SLOT.sub(one, template)
    text = re.sub(r"\b([Aa]) (?=[aeio]|u(?!ni|se))", r"\1n ", text)
    return text[:1].upper() + text[1:]


def pick(rng: Random, key: str) -> str:
    """A template of a list, filled."""
    return fill(rng, rng.choice(WORDS[key]))
