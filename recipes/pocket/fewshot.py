"""Few-shot documents of the pocket model: several examples of one task in one format, the task drawn anew each time."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from wording import PAIRS, TOPICS, WORDS, Answered, code, fill, made_up, pick, split_list, value

NUMBERS, TENS = WORDS["number"], WORDS["ten"]
CATEGORIES = ["animal", "food", "fruit", "vegetable", "plant", "colour", "tool", "vehicle", "instrument", "clothing",
              "profession", "city", "month", "day", "language", "hobby", "name", "subject"]  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One task: what it asks for, how one example of it is drawn, and the kind of its answers (choose the format)."""

    instruction: str
    draw: Callable[[Random], Answered]
    kind: str = "text"


def label_names(rng: Random, natural: list[str], plain: bool) -> list[str]:
    """As many labels: their own names (always if `plain`), or arbitrary ones, which only the examples explain."""
    count, style = len(natural), rng.random() * (0.6 if plain else 1.0)
    if style < 0.6:
        return [name.capitalize() for name in natural] if style < 0.15 else natural
    if style < 0.7:
        return [f"{natural[i][:3].upper()}" for i in range(count)]
    sets = ["ABCD", ["yes", "no", "maybe", "none"], "1234", ["left", "right", "up", "down"], "XYZW"]
    drawn = rng.choice([*sets, [made_up(rng) for _ in range(count)], rng.sample(WORDS["colour"], count)])
    names = list(drawn)[:count]
    return rng.sample(names, count)


def label_task(rng: Random, plain: bool = False) -> Task:
    """Classification of sentences or words with two to four labels."""
    sources: dict[str, list[str]] = rng.choice([
        {"positive": WORDS["positive"], "negative": WORDS["negative"]},
        {"positive": WORDS["positive"], "negative": WORDS["negative"], "neutral": WORDS["statement"]},
        {key: TOPICS[key] for key in rng.sample(list(TOPICS), rng.randint(2, 4))},
        {key: TOPICS[key] for key in rng.sample(list(TOPICS), rng.randint(2, 4))},
        {"spam": WORDS["spam"], "ham": WORDS["ham"]},
        {"question": WORDS["question"], "statement": WORDS["statement"]},
        {"order": WORDS["order"], "statement": WORDS["statement"], "question": WORDS["question"]},
        {"German": WORDS["german"], "English": WORDS["english"]},
        {key: ["{" + key + "}"] for key in rng.sample(CATEGORIES, rng.randint(2, 4))},
        {key: ["{" + key + "}"] for key in rng.sample(CATEGORIES, rng.randint(2, 4))},
    ])  # fmt: skip
    names = label_names(rng, list(sources), plain)
    lists = list(sources.values())

    def draw(rng: Random) -> Answered:
        index = rng.randrange(len(lists))
        return fill(rng, rng.choice(lists[index])), names[index]

    listed = ", ".join(names[:-1]) + " or " + names[-1]
    wordings = ["Classify the text as {}.", "Which label fits: {}?", "Label the text with {}.", "Choose {}."]
    return Task(rng.choice(wordings).format(listed), draw, "label")


KEY_NAMES = {
    "name": "name customer person who guest contact", "city": "city town place location destination",
    "amount": "amount price total cost sum", "order": "order number id code reference", "date": "date day when due",
    "colour": "colour color shade", "object": "object item thing article", "time": "time hour at start",
    "day": "day weekday when", "n": "count number quantity how_many", "surname": "surname last_name family_name",
    "profession": "job profession role work", "company": "company firm employer", "place": "place location where",
    "animal": "animal pet species", "made": "nickname user alias", "email": "email mail", "phone": "phone tel number",
    "age": "age years", "hobby": "hobby interest likes", "street": "street address road", "food": "food dish meal",
    "vehicle": "vehicle transport", "unit_item": "goods articles things", "weather": "weather sky",
    "month": "month", "language": "language", "instrument": "instrument", "state": "state condition",
}  # fmt: skip
ASKED = {key: split_list(names)[0].replace("_", " ") for key, names in KEY_NAMES.items()}
KINDS_OF_NUMBER = {"n", "age", "age_small"}


def span_task(rng: Random) -> Task:
    """Extraction of one span of a fixed kind."""
    wanted = rng.choice(["name", "city", "date", "amount", "order", "colour", "time", "object", "day", "name", "city"])
    templates = [text for text in WORDS["records"] if "{" + wanted + "}" in text]

    def draw(rng: Random) -> Answered:
        slots: dict[str, str] = {}
        return fill(rng, rng.choice(templates), slots), slots[wanted]

    return Task(
        rng.choice(["Find the {}.", "Extract the {}.", "Copy the {} from the text."]).format(ASKED[wanted]), draw
    )


def dump(record: dict[str, Any], indent: int | None = None) -> str:
    """JSON with real letters."""
    return json.dumps(record, ensure_ascii=False, indent=indent)


def json_task(rng: Random, plain: bool = False) -> Task:
    """Sentences to JSON: spans under drawn keys (null where the text has none), or labels next to a span."""
    if rng.random() < 0.35:
        return label_json_task(rng, plain)
    base = re.findall(r"\{([a-z_]+)\}", rng.choice(WORDS["records"]))
    kinds = rng.sample(sorted(set(base) & set(KEY_NAMES)), k=min(len(set(base) & set(KEY_NAMES)), rng.randint(1, 4)))
    keys: dict[str, str] = {}
    for kind in kinds:
        keys.setdefault(rng.choice(split_list(KEY_NAMES[kind])), kind)
    upper = rng.random() < 0.1
    templates = [text for text in WORDS["records"] if all("{" + kind + "}" in text for kind in kinds)]
    others = [text for text in WORDS["records"] if "{" + kinds[0] + "}" in text]

    def draw(rng: Random) -> Answered:
        slots: dict[str, str] = {}
        text = fill(rng, rng.choice(templates if rng.random() < 0.5 else others), slots)
        record: dict[str, Any] = {}
        for key, kind in keys.items():
            found: Any = slots.get(kind)
            record[key.upper() if upper else key] = int(found) if found and kind in KINDS_OF_NUMBER else found
        return text, dump(record)

    return Task(f"Write the {', '.join(keys)} as JSON.", draw, "json")


def label_json_task(rng: Random, plain: bool) -> Task:
    """Sentences to JSON with one or two labels and perhaps a span."""
    topic_key = rng.choice(["topic", "category", "subject", "type", "area", "class"])
    mood_key = rng.choice(["mood", "tone", "sentiment", "feeling", "rating"])
    word_key = rng.choice(["name", "writer", "sender", "from", "author"])
    topics = rng.sample(list(TOPICS), 3)
    shown = dict(zip(topics, label_names(rng, topics, plain), strict=True))
    moods = rng.choice([("positive", "negative"), ("good", "bad"), ("happy", "unhappy"), ("up", "down"), ("+", "-")])
    with_word, order = rng.random() < 0.6, rng.random()

    def draw(rng: Random) -> Answered:
        topic, good, slots = rng.choice(topics), rng.random() < 0.5, {"name9": rng.choice(WORDS["name"])}
        parts = [fill(rng, rng.choice(TOPICS[topic])), pick(rng, "positive" if good else "negative")]
        rng.shuffle(parts)
        record = {topic_key: shown[topic], mood_key: moods[0] if good else moods[1]}
        if with_word:
            parts.append(fill(rng, rng.choice(["- {name9}", "Best, {name9}", "Yours, {name9}", "{name9}"]), slots))
            record[word_key] = slots["name9"]
        items = sorted(record.items()) if order < 0.5 else list(record.items())
        return " ".join(parts), dump(dict(items))

    asked = f"{topic_key} ({', '.join(shown.values())}) and {mood_key} ({', '.join(moods)})"
    return Task(f"Write {asked}{' and ' + word_key if with_word else ''} as JSON.", draw, "json")


def number_word(number: int) -> str:
    """Numbers below one thousand in words."""
    if number >= 100:
        rest = number % 100
        return NUMBERS[number // 100] + " hundred" + (" and " + number_word(rest) if rest else "")
    if number < 20:
        return NUMBERS[number]
    return TENS[number // 10 - 2] + ("-" + NUMBERS[number % 10] if number % 10 else "")


def word_list(rng: Random, low: int = 2, high: int = 5) -> list[str]:
    """Different words of one kind, or made-up ones."""
    if rng.random() < 0.35:
        return [made_up(rng) for _ in range(rng.randint(low, high))]
    key = rng.choice(
        ["animal", "fruit", "vegetable", "colour", "name", "adj", "vehicle", "instrument", "tool", "plant"]
    )
    return rng.sample(sorted(set(WORDS[key])), rng.randint(low, high))


LIST_TASKS: dict[str, Callable[[list[str]], str]] = {
    "Reverse the order of the words.": lambda words: " ".join(reversed(words)),
    "Sort the words.": lambda words: " ".join(sorted(words, key=str.lower)),
    "Write the first word.": lambda words: words[0],
    "Write the last word.": lambda words: words[-1],
    "Write the second word.": lambda words: words[1],
    "Leave out the first word.": lambda words: " ".join(words[1:]),
    "How many words are there?": lambda words: str(len(words)),
    "Write the number of words as a word.": lambda words: NUMBERS[len(words)],
    "Copy the text.": " ".join,
    "Write the words with commas.": ", ".join,
    "Write the words in capitals.": lambda words: " ".join(words).upper(),
    "Write the words in small letters.": lambda words: " ".join(words).lower(),
    "Start each word with a capital.": lambda words: " ".join(word.capitalize() for word in words),
    "Write the first letters.": lambda words: "".join(word[0] for word in words),
    "Write the words as a JSON list.": lambda words: json.dumps(words, ensure_ascii=False),
    "Swap the first and the last word.": lambda words: " ".join([words[-1], *words[1:-1], words[0]]),
    "Write each word twice.": lambda words: " ".join(f"{word} {word}" for word in words),
}
PAIR_TASKS = {
    "antonym": "Write the opposite.", "past": "Write the past tense.", "plural": "Write the plural.",
    "country_capital": "Name the capital.", "young": "Name the young animal.", "sound": "What does the animal do?",
    "kind_of": "What kind of animal is it?", "number_de": "Translate into German.", "de_noun": "Translate into German.",
    "de_adj": "Translate into German.", "legs": "How many legs does it have?", "de_phrase": "Translate into German.",
}  # fmt: skip


def list_task(rng: Random) -> Task:
    """One operation on lists of words; casing varies, since some operations are about casing."""
    instruction = rng.choice(list(LIST_TASKS))
    operation, comma = LIST_TASKS[instruction], rng.random() < 0.15 and "Copy" not in instruction
    cases: list[Callable[[str], str]] = [str, str, str.lower, str.upper, str.capitalize]
    case = rng.choice(cases) if "letters" in instruction else str

    def draw(rng: Random) -> Answered:
        words = [case(word) for word in word_list(rng)]
        return (", " if comma else " ").join(words), operation(words)

    return Task(instruction, draw)


def pair_task(rng: Random) -> Task:
    """A table of word pairs, in either direction for translations."""
    key = rng.choice(list(PAIR_TASKS))
    pairs, back = PAIRS[key], rng.random() < 0.3 and PAIR_TASKS[key].startswith("Translate")
    instruction = "Translate into English." if back else PAIR_TASKS[key]

    def draw(rng: Random) -> Answered:
        left, right = rng.choice(pairs)
        return (right, left) if back else (left, right)

    return Task(instruction, draw)


def rule_task(rng: Random) -> Task:
    """A rule that only the examples show, often on made-up words, ids and numbers."""
    add, word, key = rng.randint(1, 9), made_up(rng), rng.choice(["object", "animal", "name", "food"])

    def number(rng: Random) -> int:
        return rng.randint(1, 99)

    def of(make: Callable[[Random], str], answer: Callable[[str], str]) -> Callable[[Random], Answered]:
        return lambda rng: (lambda text: (text, answer(text)))(make(rng))

    drawn: list[tuple[str, Callable[[Random], Answered]]] = [
        (f"Add {add}.", of(lambda rng: str(number(rng)), lambda text: str(int(text) + add))),
        ("Write the number as a word.", of(lambda rng: str(number(rng)), lambda text: number_word(int(text)))),
        ("Is the number even or odd?", of(lambda rng: str(number(rng)), lambda t: "odd" if int(t) % 2 else "even")),
        (f"Put {word} before the word.", of(lambda rng: value(rng, key), lambda text: f"{word} {text}")),
        (f"Put {word} after the word.", of(lambda rng: value(rng, key), lambda text: f"{text} {word}")),
        ("Copy the code.", of(code, str)),
        ("Copy the word.", of(made_up, str)),
        ("Write the code in brackets.", of(code, lambda text: f"[{text}]")),
        ("Write the word backwards with blanks.", of(made_up, lambda text: " ".join(reversed(text)))),
        ("Spell the word.", of(made_up, lambda text: " ".join(text))),
        ("Write the first letter.", of(lambda rng: value(rng, key), lambda text: text[0])),
        ("Write the word in capitals.", of(lambda rng: value(rng, key), str.upper)),
        ("Copy the sentence.", of(lambda rng: pick(rng, "statement"), str)),
        ("Write the sentence in capitals.", of(lambda rng: pick(rng, "statement"), str.upper)),
        ("Sort the numbers.", of(lambda rng: " ".join(str(number(rng)) for _ in range(rng.randint(3, 5))),
                                 lambda text: " ".join(sorted(text.split(), key=int)))),
        ("Write the larger number.", of(lambda rng: f"{number(rng)} {number(rng)}",
                                        lambda text: str(max(map(int, text.split()))))),
    ]  # fmt: skip
    return Task(*rng.choice(drawn))


def any_task(rng: Random, plain: bool = False) -> Task:
    """A task of any family; labels and JSON most often, since fine-tuning is mostly about them."""
    if rng.random() < 0.56:
        return rng.choice([label_task, json_task])(rng, plain)
    return rng.choices([span_task, list_task, pair_task, rule_task], [14, 12, 8, 10])[0](rng)


FORMATS: list[tuple[str, str, str]] = [
    ("Input: ", "\nOutput: ", "\n\n"), ("Q: ", "\nA: ", "\n\n"), ("", " -> ", "\n"), ("", " => ", "\n"),
    ("Text: ", "\nAnswer: ", "\n\n"), ("", ": ", "\n"), ("- ", " = ", "\n"), ("In: ", " Out: ", "\n"),
    ("### Input\n", "\n### Output\n", "\n\n"), ("Example: ", "\nResult: ", "\n\n"), ("Question: ", "\nAnswer: ", "\n"),
    ("\"", "\" -> ", "\n"), ("Given: ", "\nWrite: ", "\n---\n"), ("", " | ", "\n"), ("", "\n> ", "\n\n"),
]  # fmt: skip
KIND_FORMATS: dict[str, list[tuple[str, str, str]]] = {
    "label": [("Text: ", "\nLabel: ", "\n\n"), ("Sentence: ", "\nClass: ", "\n\n"), ("Message: ", "\nLabel: ", "\n\n"),
              ("Review: ", "\nCategory: ", "\n\n"), ("", "\nLabel: ", "\n\n")],
    "json": [("Message: ", "\nJSON: ", "\n\n"), ("Text: ", "\nJSON: ", "\n\n"), ("", "\n", "\n\n"),
             ("Message: ", "\n", "\n\n"), ("Note: ", "\nRecord: ", "\n\n"), ("Input: ", "\nOutput: ", "\n\n")],
    "text": [],
}  # fmt: skip


def task_format(rng: Random, task: Task) -> tuple[str, str, str]:
    """A format that fits the task's answers."""
    own = KIND_FORMATS[task.kind]
    return rng.choice(own) if own and rng.random() < 0.6 else rng.choice(FORMATS)


def examples(rng: Random, task: Task, count: int) -> list[Answered]:
    """Examples with different inputs where the task has as many."""
    found: dict[str, str] = {}
    for _ in range(count * 4):
        text, answer = task.draw(rng)
        # A label seen half of the time already waits, so that the examples show more than one.
        if task.kind == "label" and 2 * sum(label == answer for label in found.values()) > count:
            continue
        found.setdefault(text, answer)
        if len(found) == count:
            break
    return list(found.items())


def few_shot(rng: Random) -> str:
    """Examples of one task in one format, now and then under the instruction."""
    task = any_task(rng)
    before, between, after = task_format(rng, task)
    rows = examples(rng, task, rng.randint(3, 8) if rng.random() < 0.8 else rng.randint(9, 14))
    body = after.join(f"{before}{text}{between}{answer}" for text, answer in rows)
    return f"{task.instruction}\n\n{body}" if rng.random() < 0.45 else body


def zero_shot(rng: Random) -> Answered:
    """One example as an instruction and its input; no examples, so the labels must speak for themselves."""
    task = any_task(rng, plain=True)
    text, answer = task.draw(rng)
    form = rng.choice(["{i}\n\n{t}", "{i}\n{t}", "{i} {t}", "{t}\n\n{i}", "{i}\nText: {t}", "{i}\n\nInput: {t}"])
    return form.format(i=task.instruction, t=text), answer


def few_shot_chat(rng: Random) -> Answered:
    """Examples inside one prompt; the last one is left to answer."""
    task = any_task(rng)
    before, between, after = task_format(rng, task)
    *rows, (text, answer) = examples(rng, task, rng.randint(3, 6))
    body = after.join(f"{before}{shown}{between}{result}" for shown, result in rows)
    prompt = f"{body}{after}{before}{text}{between}".rstrip()
    return (f"{task.instruction}\n\n{prompt}" if rng.random() < 0.6 else prompt), answer
