"""Simple German, and who the pocket model says it is."""

from random import Random

from wording import PAIRS, WORDS, Answered, pick, value


def german_pair(rng: Random) -> Answered:
    """An English sentence and the German one."""
    noun, de = rng.choice(PAIRS["de_noun"])
    adj, de_adj = rng.choice(PAIRS["de_adj"])
    place, de_place = rng.choice(PAIRS["de_place"])
    when, de_when = rng.choice(PAIRS["de_time"])
    article, word = de.split()
    accusative = {"der": "den"}.get(article, article) + " " + word
    a_de = {"der": "einen", "die": "eine", "das": "ein"}[article] + " " + word
    an = "an" if noun[0] in "aeio" else "a"
    name, city, price = value(rng, "name"), value(rng, "city"), rng.randint(2, 90)
    it = {"der": "Er", "die": "Sie", "das": "Es"}[article]
    return rng.choice([
        (f"The {noun} is {adj}.", f"{article.capitalize()} {word} ist {de_adj}."),
        (f"The {noun} is not {adj}.", f"{article.capitalize()} {word} ist nicht {de_adj}."),
        (f"{name} buys the {noun}.", f"{name} kauft {accusative}."), (f"I need {an} {noun}.", f"Ich brauche {a_de}."),
        (f"Where is the {noun}?", f"Wo ist {article} {word}?"), (f"We see the {noun}.", f"Wir sehen {accusative}."),
        (f"{name} is {place}.", f"{name} ist {de_place}."), (f"{name} lives in {city}.", f"{name} wohnt in {city}."),
        (f"The {noun} costs {price} euros.", f"{article.capitalize()} {word} kostet {price} Euro."),
        (f"I am looking for the {noun}. It is {adj}.", f"Ich suche {accusative}. {it} ist {de_adj}."),
        (f"I am coming {when}.", f"Ich komme {de_when}."), (f"{name} is working {when}.", f"{name} arbeitet {de_when}."),
        (f"We are going to {city} {when}.", f"Wir fahren {de_when} nach {city}."),
        (f"Do you have {an} {noun}?", f"Haben Sie {a_de}?"), rng.choice(PAIRS["de_phrase"]),
    ])  # fmt: skip


def german(rng: Random) -> str:
    """Pairs of sentences, or German sentences alone."""
    pairs = [german_pair(rng) for _ in range(rng.randint(3, 8))]
    form = rng.choice(["{} = {}", "English: {}\nGerman: {}", "{}\n{}", "EN: {}\nDE: {}", "", ""])
    if form:
        return "\n".join(form.format(*pair) for pair in pairs)
    return " ".join(rng.sample([pick(rng, "german"), pick(rng, "german"), *(de for _, de in pairs)], len(pairs)))


def translation(rng: Random) -> Answered:
    """A sentence to translate."""
    english, de = german_pair(rng)
    if rng.random() < 0.3:
        return rng.choice(["Translate into English: {}", 'What does "{}" mean?']).format(de), english
    form = ["Translate into German: {}", "Say in German: {}", "Auf Deutsch: {}", "Translate to German.\n\n{}"]
    return rng.choice(form).format(english), de


def identity(rng: Random) -> Answered:
    """A question about the model itself and an honest answer."""
    asked, named = rng.choice(WORDS["who"]), rng.choice(WORDS["who_answer"])
    if asked in {"Wer bist du?", "Wie heißt du?"}:
        named = "Ich bin Pocket, ein winziges Sprachmodell, das mit Fettle kommt."
        return asked, named + rng.choice(["", " Ich bin klein und mache oft Fehler."])
    start = "No. " if asked in {"Are you a human?", "Are you ChatGPT?", "Are you a person?", "Do you know everything?",
                                "Are you a large language model?"} else ""  # fmt: skip
    start = "Yes. " if asked in {"Are you an AI?", "Do you make mistakes?"} else start
    more = rng.sample(WORDS["who_more"], rng.randint(0, 2))
    greeting = rng.choice(["", "", "Hi! ", "Hello, ", "Please tell me: ", "One question: "])
    return greeting + asked, " ".join([start + named, *more])


def smalltalk(rng: Random) -> Answered:
    """Greetings and thanks."""
    name = value(rng, "name")
    return rng.choice([
        (f"Hello, I am {name}.", f"Hello {name}! How can I help you?"), ("Hi!", "Hi! How can I help you?"),
        (f"My name is {name}.", f"Nice to meet you, {name}."), ("Thank you!", "You are welcome."),
        ("Good morning!", "Good morning! What can I do for you?"), ("Goodbye!", "Goodbye, and have a nice day!"),
        (f"I am {value(rng, 'mood_adj')} today.", "Thank you for telling me. What can I do for you?"),
        ("How are you?", "I am a program, but I am ready to help. What do you need?"),
        ("Guten Tag!", "Guten Tag! Wie kann ich helfen?"), ("Danke!", "Gern geschehen."),
    ])  # fmt: skip
