"""Made-up training text of the pocket model besides fewshot.py and talk.py: records, sums, stories, questions.

Each kind is a pure function of a random.Random: one gives a document, or a prompt with its answer (for the chats too).
"""

import json
from collections.abc import Callable
from random import Random
from typing import Any

from fewshot import KEY_NAMES, KINDS_OF_NUMBER, dump, few_shot, few_shot_chat, json_task, number_word, zero_shot
from talk import german, identity, smalltalk, translation
from wording import PAIRS, WORDS, Answered, code, fill, made_up, pick, split_list, value

# 2. Records


def record(rng: Random) -> dict[str, Any]:
    """A record of three to six drawn fields, rarely with a made-up one."""
    fields: dict[str, Any] = {}
    for kind in rng.sample(sorted(KEY_NAMES), rng.randint(3, 6)):
        text = value(rng, kind)
        fields.setdefault(rng.choice(split_list(KEY_NAMES[kind])), int(text) if kind in KINDS_OF_NUMBER else text)
    if rng.random() < 0.2:
        fields[made_up(rng)] = rng.choice([made_up(rng), rng.randint(1, 999), True, False, None, code(rng)])
    if rng.random() < 0.2:
        fields["tags"] = [value(rng, rng.choice(["adj", "hobby", "colour"])) for _ in range(rng.randint(1, 3))]
    return fields


def rows_of_one_schema(rng: Random, count: int) -> list[dict[str, str]]:
    """Records with the same keys, all values text."""
    kinds = rng.sample(sorted(KEY_NAMES), rng.randint(2, 5))
    keys = {rng.choice(split_list(KEY_NAMES[kind])): kind for kind in kinds}
    return [{key: value(rng, kind) for key, kind in keys.items()} for _ in range(count)]


def records(rng: Random) -> str:
    """JSON, JSON lines, a markdown table, CSV or a list of fields."""
    form, rows = rng.randrange(6), rows_of_one_schema(rng, rng.randint(2, 7))
    keys = list(rows[0])
    if form == 0:
        return dump(record(rng), indent=rng.choice([None, 2]))
    if form == 1:
        return "\n".join(dump(row) for row in rows)
    if form == 2:
        lines = [keys, ["---"] * len(keys), *(list(row.values()) for row in rows)]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    if form == 3:
        return "\n".join(",".join(line) for line in [keys, *(list(row.values()) for row in rows)])
    if form == 4:
        return "\n\n".join("\n".join(f"{key}: {text}" for key, text in row.items()) for row in rows)
    return "\n".join(f"- {keys[0]}: {row[keys[0]]}" + "".join(f"\n  {k}: {row[k]}" for k in keys[1:]) for row in rows)


def record_task(rng: Random) -> Answered:
    """Fields to JSON, JSON to fields, or one value out of JSON."""
    fields = record(rng)
    key = rng.choice(list(fields))
    plain = "\n".join(f"{name}: {json.dumps(v) if not isinstance(v, str) else v}" for name, v in fields.items())
    shown = fields[key] if isinstance(fields[key], str) else json.dumps(fields[key], ensure_ascii=False)
    few = {name: fields[name] for name in rng.sample(list(fields), 2)}
    return rng.choice([
        (f"Write these fields as JSON.\n\n{plain}", dump(fields)),
        (f"Write this JSON as plain fields.\n\n{dump(fields)}", plain),
        (f"What is the value of {key}?\n\n{dump(fields)}", shown),
        (f"{dump(fields)}\n\nWhich {key} is given?", shown),
        (f"Which keys does this JSON have?\n\n{dump(fields)}", ", ".join(fields)),
        (f"Keep only {' and '.join(few)}.\n\n{dump(fields)}", dump(few)),
    ])  # fmt: skip


def prose_json(rng: Random) -> Answered:
    """A sentence and its JSON under a stated instruction."""
    task = json_task(rng, plain=True)
    text, answer = task.draw(rng)
    form = rng.choice(["{i}\n\n{t}", "{t}\n\n{i}", "{i}\nText: {t}", "Message: {t}\n{i}"])
    return form.format(i=task.instruction, t=text), answer


# 3. Sums


def word_problem(rng: Random) -> Answered:
    """A small story with numbers, solved in steps."""
    slots: dict[str, str] = {"unit_item": value(rng, "unit_item")}
    a, b, c = rng.randint(3, 40), rng.randint(2, 12), rng.randint(2, 9)
    gone = rng.randint(1, a - 1)
    problems = [
        (f"{{name}} has {a} {{unit_item}} and gets {b} more from {{name2}}. How many {{unit_item}} does {{he}} have?",
         f"{a} + {b} = {a + b}. {{name}} has {a + b} {{unit_item}}.", a + b),
        (f"{{name}} has {a} {{unit_item}} and gives {gone} to {{name2}}. How many are left?",
         f"{a} - {gone} = {a - gone}. {{name}} has {a - gone} {{unit_item}} left.", a - gone),
        (f"There are {b} boxes with {c} {{unit_item}} each. How many {{unit_item}} are there?",
         f"{b} * {c} = {b * c}. There are {b * c} {{unit_item}}.", b * c),
        (f"{{name}} shares {b * c} {{unit_item}} equally among {b} friends. How many does each friend get?",
         f"{b * c} / {b} = {c}. Each friend gets {c} {{unit_item}}.", c),
        (f"{{name}} buys {b} {{unit_item}} for ${c} each and a {{object}} for ${a}. How much does {{he}} pay?",
         f"The {{unit_item}} cost {b} * {c} = ${b * c}. Together with the {{object}} it is {b * c} + {a} = "
         f"${b * c + a}.", b * c + a),
        (f"{{name}} had {a} {{unit_item}}. {{He}} lost {gone} and then found {b}. How many does {{he}} have now?",
         f"After losing {gone}, {{he}} had {a} - {gone} = {a - gone}. Then {{he}} had {a - gone} + {b} = "
         f"{a - gone + b}.", a - gone + b),
        (f"{{name}} works {c} hours a day for {b} days and earns $10 an hour. How much does {{he}} earn?",
         f"{{He}} works {c} * {b} = {c * b} hours. {{He}} earns {c * b} * 10 = ${c * b * 10}.", c * b * 10),
    ]  # fmt: skip
    question, steps, result = rng.choice(problems)
    text = fill(rng, question, slots)
    return text, f"{fill(rng, steps, slots)} The answer is {result}."


def small_sum(rng: Random) -> Answered:
    """Arithmetic, comparison, sequence, date or unit."""
    a, b, step = rng.randint(0, 99), rng.randint(0, 99), rng.randint(1, 10)
    c, d = rng.randint(2, 12), rng.randint(2, 12)
    days, months = WORDS["day"], WORDS["month"]
    i, j = rng.randrange(7), rng.randrange(12)
    small, large = rng.choice([("metre", "kilometre"), ("gram", "kilogram"), ("millilitre", "litre")])
    compared = "is greater than" if a > b else "is less than" if a < b else "is equal to"
    start = rng.randint(0, 50)
    return rng.choice([
        (f"What is {a} + {b}?", f"{a} + {b} = {a + b}"), (f"What is {max(a, b)} - {min(a, b)}?",
         f"{max(a, b)} - {min(a, b)} = {abs(a - b)}"), (f"What is {c} * {d}?", f"{c} * {d} = {c * d}"),
        (f"{c} times {d}?", str(c * d)), (f"{c * d} / {c} =", str(d)), (f"{a} + {b} =", str(a + b)),
        (f"Add {number_word(a)} and {number_word(b)}.", f"{number_word(a)} plus {number_word(b)} is "
         f"{number_word(a + b)}."), (f"Which is larger, {a} or {b + 100}?", str(b + 100)),
        (f"Compare {a} and {b}.", f"{a} {compared} {b}."),
        (f"Continue: {', '.join(str(start + step * n) for n in range(4))}", ", ".join(
            str(start + step * n) for n in range(4, 7))),
        (f"Which day comes after {days[i]}?", days[(i + 1) % 7]),
        (f"Which day comes before {days[i]}?", days[i - 1]),
        (f"Which month comes after {months[j]}?", months[(j + 1) % 12]),
        (f"How many {small}s are {c} {large}s?", f"{c} {large}s are {c * 1000} {small}s."),
        (f"How many minutes are {c} hours?", f"{c} hours are {c * 60} minutes."),
        (f"How many days are {c} weeks?", f"{c} weeks are {c * 7} days."),
        (f"Is {a} an even number?", "Yes." if a % 2 == 0 else f"No, {a} is odd."),
        (f"Write {a * 7} as a word.", number_word(a * 7)), (f"What is half of {2 * a}?", str(a)),
        (f"What is the double of {a}?", str(2 * a)),
    ])  # fmt: skip


def sums(rng: Random) -> str:
    """A word problem, or several small sums in one form."""
    if rng.random() < 0.45:
        return "\n".join(word_problem(rng))
    form = rng.choice(["{}\n{}", "Q: {}\nA: {}", "{} {}"])
    return "\n".join(form.format(*small_sum(rng)) for _ in range(rng.randint(2, 8)))


# 4. Stories and descriptions


def told_story(rng: Random) -> tuple[str, dict[str, str]]:
    """A story and who and what is in it."""
    slots: dict[str, str] = {"name": value(rng, "name")}

    def tell(*keys: str) -> str:
        return " ".join(fill(rng, rng.choice(WORDS["story_" + key]), slots) for key in keys)

    slots["object"] = value(rng, "object")
    first = tell("open", "thing")
    paragraphs = [first, tell("trouble", "feel"), tell("friend", "try"), tell("end_good", "last")]
    if rng.random() < 0.3:
        paragraphs.pop(2 if rng.random() < 0.3 else 1)
    return rng.choice(["\n\n", "\n", " "]).join(paragraphs), slots


def story(rng: Random) -> str:
    """A story, a description, a page of a diary or a letter."""
    kind, slots = rng.random(), {"name": value(rng, "name")}
    if kind < 0.6:
        text, slots = told_story(rng)
        title = fill(rng, rng.choice(["{name} and the {object}", "The {adj} {object}", "The lost {object}"]), slots)
        return f"{title}\n\n{text}" if rng.random() < 0.4 else text
    if kind < 0.75:
        slots = {"place": value(rng, "place")}
        opening = "In the {place} there is a {adj} {object}."
        later = rng.sample(WORDS["describe"], rng.randint(4, 7))
    elif kind < 0.87:
        opening, later = "{day}, {n} {month}.", rng.sample(WORDS["diary"], rng.randint(5, 8))
        opening = f"{value(rng, 'day')}, {rng.randint(1, 28)} {value(rng, 'month')}\n\nDear diary,"
    else:
        opening = rng.choice(["Dear {name3},\n\n", "Hello {name3},\n\n", "Hi {name3},\n\n"])
        later = [*rng.sample(WORDS["mail"], rng.randint(3, 5)), "\n\nBest wishes,\n{name}"]
    return " ".join(fill(rng, text, slots) for text in [opening, *later]).replace("\n ", "\n").replace(" \n", "\n")


# 5. Questions


def fact(rng: Random) -> Answered:
    """A question about the small tables of facts."""
    key = rng.choice(["country_capital", "country_capital", "job_does", "thing_is", "thing_is", "planet", "colour_of",
                      "antonym", "young", "sound", "legs", "kind_of", "past", "plural"])  # fmt: skip
    left, right = rng.choice(PAIRS[key])
    a = "an" if left[0] in "aeio" or left == "umbrella" else "a"
    b = "an" if right[0] in "aeiou" else "a"
    legs = f"{a.capitalize()} {left} has {right} legs."
    plain: dict[str, list[Answered]] = {
        "country_capital": [(f"What is the capital of {left}?", f"The capital of {left} is {right}."),
                            (f"Which country has the capital {right}?", f"{right} is the capital of {left}."),
                            (f"Is {right} the capital of {left}?", f"Yes, {right} is the capital of {left}.")],
        "job_does": [(f"What does {a} {left} do?", f"{a.capitalize()} {left} {right}."),
                     (f"Who {right}?", f"{a.capitalize()} {left} {right}.")],
        "thing_is": [(f"What is {a} {left}?", f"{a.capitalize()} {left} is {right}."),
                     (f"Define \"{left}\".", f"{a.capitalize()} {left} is {right}."),
                     (f"Explain the word {left}.", f"{a.capitalize()} {left} is {right}.")],
        "planet": [(f"What is {left}?", f"{left} is {right}."), (f"Which planet is {right}?", f"{left} is {right}.")],
        "colour_of": [(f"What colour is {left}?", f"{left[:1].upper() + left[1:]} is {right}.")],
        "antonym": [(f"What is the opposite of {left}?", f"The opposite of {left} is {right}."),
                    (f"Give me the opposite of \"{right}\".", left)],
        "young": [(f"What is a young {left} called?", f"A young {left} is called {b} {right}.")],
        "sound": [(f"What sound does {a} {left} make?", f"{a.capitalize()} {left} {right}.")],
        "legs": [(f"How many legs does {a} {left} have?", legs)],
        "kind_of": [(f"What kind of animal is {a} {left}?", f"{a.capitalize()} {left} is {b} {right}."),
                    (f"Is {a} {left} {b} {right}?", f"Yes, {a} {left} is {b} {right}.")],
        "past": [(f"What is the past tense of \"{left}\"?", f"The past tense of \"{left}\" is \"{right}\".")],
        "plural": [(f"What is the plural of \"{left}\"?", f"The plural of \"{left}\" is \"{right}\".")],
    }  # fmt: skip
    return rng.choice(plain[key])


def listing(rng: Random) -> Answered:
    """A list on demand."""
    key, count = rng.choice(["animal", "fruit", "vegetable", "colour", "tool", "vehicle", "instrument", "plant",
                             "profession", "city", "hobby", "clothing"]), rng.randint(2, 6)  # fmt: skip
    plural = {"city": "cities", "hobby": "hobbies", "clothing": "pieces of clothing"}.get(key, key + "s")
    found = rng.sample(sorted(set(WORDS[key])), count)
    shown = rng.choice([", ".join(found), "\n".join(f"- {word}" for word in found),
                        "\n".join(f"{i}. {word}" for i, word in enumerate(found, 1))])  # fmt: skip
    verb = rng.choice(["Name", "List", "Write down", "Give me", "Tell me"])
    bullets = "\n- " in "\n" + shown
    how = " as a list" if bullets and rng.random() < 0.5 else ""
    return f"{verb} {number_word(count) if rng.random() < 0.6 else count} {plural}{how}.", shown


def rewrite(rng: Random) -> Answered:
    """A short text put politely, shorter, as a question, in capitals."""
    order = pick(rng, "order")
    polite = rng.choice(["Could you please {}?", "Would you mind? Please {}.", "Please {}, if you can."])
    soft = order if order[:2] == "I " else order[:1].lower() + order[1:]
    statement = pick(rng, "statement")
    slots = {"name": value(rng, "name"), "city": value(rng, "city")}
    sentence = fill(rng, "{name} went to {city} on {day} and bought a {adj} {object} for {amount}.", slots)
    state = fill(rng, "{name} bought a {object} in {city}.", slots)
    other = value(rng, "name")
    return rng.choice([
        (f"Rewrite politely: {order}.", polite.format(soft)),
        (f"Make this sentence polite.\n\n{order}!", polite.format(soft)),
        (f"Write in capitals: {statement}", statement.upper()),
        (f"Shorten: {sentence}", state),
        (f"Say it in fewer words.\n\n{sentence}", state),
        (f"Replace {slots['name']} by {other}: {sentence}", sentence.replace(slots["name"], other)),
        (f"Repeat: {statement}", statement),
    ])  # fmt: skip


def summary(rng: Random) -> Answered:
    """A story in one sentence, or a question about it."""
    text, slots = told_story(rng)
    name, thing = slots["name"], slots["object"]
    whole = [
        (
            f"Summarise the story in one sentence.\n\n{text}",
            f"{name} has trouble with a {thing}" + (f" and {slots['name2']} helps." if "name2" in slots else "."),
        )
    ]
    whole += [
        (f"{text}\n\nWho is the story about?", f"The story is about {name}."),
        (f"{text}\n\nWhich thing is the story about?", f"It is about a {slots.get('adj', '')} {thing}."),
    ]
    if "name2" in slots:
        whole.append((f"{text}\n\nWho helped {name}?", f"{slots['name2']} helped {name}."))
    if "profession" in slots:
        whole.append((f"{text}\n\nWhat was {name}'s job?", f"{name} was a {slots['profession']}."))
    if "city" in slots:
        whole.append((f"{text}\n\nWhich city is named?", slots["city"]))
    prompt, answer = rng.choice(whole)
    return prompt, fill(rng, answer).replace("  ", " ")


READ: dict[str, str] = {
    "name": "Who is named in the text?", "city": "Which city is named?", "amount": "How much money is it?",
    "day": "On which day?", "time": "At what time?", "date": "On which date?", "colour": "Which colour is named?",
    "company": "Which company is named?", "order": "Which number or code is given?", "object": "Which thing is named?",
}  # fmt: skip


def reading(rng: Random) -> Answered:
    """Two or three sentences and a question that one of them answers, or a yes/no question."""
    slots: dict[str, str] = {}
    key = rng.choice(list(READ))
    text = fill(rng, rng.choice([text for text in WORDS["records"] if "{" + key + "}" in text]), slots)
    around = [pick(rng, "diary") for _ in range(rng.randint(0, 2))] if key not in {"name", "day", "time"} else []
    around = [line for line in around if not any(word in line for word in ("$", "€", "EUR", "euros"))]
    around = around if key not in {"city", "colour", "object"} else []
    whole = " ".join(rng.sample([text, *around], len(around) + 1))
    if rng.random() < 0.35:
        truth = rng.random() < 0.5
        shown = slots[key] if truth else value(rng, key)
        answer = "Yes." if shown in whole else rng.choice(["No.", f"No, it names {slots[key]}."])
        return f"{whole}\n\nDoes the text name {shown}?", answer
    return (f"{whole}\n\n{READ[key]}" if rng.random() < 0.6 else f"{READ[key]}\n\n{whole}"), slots[key]


def question(rng: Random) -> Answered:
    """Any of the above."""
    kinds: list[Callable[[Random], Answered]] = [fact, listing, rewrite, summary, reading]
    return rng.choices(kinds, [30, 12, 18, 15, 25])[0](rng)


def questions(rng: Random) -> str:
    """One or several questions with their answers as plain text, or the facts as a paragraph."""
    if rng.random() < 0.12:
        return " ".join(rng.sample(WORDS["fact"], 3) + [fact(rng)[1] for _ in range(3)])
    form = rng.choice(["{}\n{}", "Question: {}\nAnswer: {}", "{}\n\n{}", "Instruction: {}\nResponse: {}"])
    return "\n\n".join(form.format(*question(rng)) for _ in range(rng.randint(1, 3)))


def as_text(pair: Callable[[Random], Answered]) -> Callable[[Random], str]:
    """Documents from prompts and answers."""
    return lambda rng: "\n\n".join(pair(rng))


# Name, how many bytes of ten million, and the function.
DOCUMENTS: list[tuple[str, float, Callable[[Random], str]]] = [
    ("few_shot", 0.36, few_shot), ("records", 0.06, records), ("record_tasks", 0.04, as_text(record_task)),
    ("prose_json", 0.05, as_text(prose_json)), ("sums", 0.09, sums), ("stories", 0.20, story),
    ("questions", 0.15, questions), ("german", 0.05, german),
]  # fmt: skip
CHATS: list[tuple[str, float, Callable[[Random], Answered]]] = [
    ("zero_shot", 0.22, zero_shot), ("few_shot", 0.14, few_shot_chat), ("record_tasks", 0.07, record_task),
    ("prose_json", 0.10, prose_json), ("sums", 0.06, small_sum), ("word_problems", 0.06, word_problem),
    ("questions", 0.22, question), ("german", 0.07, translation), ("identity", 0.04, identity),
    ("smalltalk", 0.02, smalltalk),
]  # fmt: skip
