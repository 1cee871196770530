"""Write tickets.jsonl: 2,000 made-up support messages, each with the JSON a ticket system would want for it.

Every message is put together from the phrases below (English and German), then roughened: typos, casing, emojis.
The answer names intent, product and urgency; no wording on urgency means "normal". The same seed, the same file.

Run: python examples/quickstart/make_tickets.py [--out FILE] [--seed N]
"""

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

URGENCY_WEIGHTS = {"low": 0.25, "normal": 0.43, "high": 0.32}
ENGLISH_SHARE = 0.65
TYPO_SHARE = 0.15
EMOJIS = ["🙂", "😕", "🙏", "🤔", "😅", "👍", ":)", ":(", ":-/"]
NAMES = ["Mara", "Jonas", "Priya", "Tom", "Aylin", "Oskar", "Nora", "Luis", "Hanna", "Emeka", "Greta", "Yuki", "Björn"]
STREETS = ["Mill Lane", "Harbour Road", "Lindenweg", "Gartenstraße", "Kirchgasse", "Station Street", "Amselweg"]


@dataclass(frozen=True)
class UrgencyWording:
    """Three places in a message where urgency can show."""

    prefixes: list[str]
    suffixes: list[str]
    sentences: list[str]


@dataclass(frozen=True)
class Language:
    """All phrases of one language. `cores` state the intent; a core without a product needs one of `topics`."""

    greetings: list[str]
    sign_offs: list[str]
    fillers: list[str]
    references: list[str]
    topics: list[str]
    days: list[str]
    urgency: dict[str, UrgencyWording]
    products: dict[str, list[str]]
    cores: dict[str, list[str]]


# fmt: off
ENGLISH = Language(
    greetings=["Hi,", "Hello,", "Hi there,", "Hey,", "Good morning,", "Dear support team,", "Hello team,", "Hiya!"],
    sign_offs=["Thanks, {name}", "Thank you!", "Best, {name}", "Kind regards\n{name}", "Cheers", "- {name}", "thx",
               "Many thanks in advance, {name}", "Greetings from {name}"],
    fillers=["I have been a customer for years.", "I am writing on behalf of my sister.", "Hope you are all well.",
             "I already tried the chat but nobody answered.", "I could not find this in your help pages.",
             "My colleague said you could help.", "First time I write to you.", "The rest of the order was fine.",
             "I bought it in your online shop in {month}.", "Sorry for the long mail.", "Great shop otherwise.",
             "Please answer by mail.", "Let me know what you need from me.", "My last mail went unanswered."],
    references=["Order number {order}.", "My order: {order}", "The order no. is {order}.", "Ref {order}.",
                "Customer no. {number}, order {order}."],
    topics=["It's about the {p}.", "This is about my {p}.", "I ordered a {p} on {day}.", "It concerns my {p}.",
            "Item: {p}.", "The product is the {p} from your shop.", "I mean the {p}."],
    days=["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    urgency={
        "high": UrgencyWording(
            prefixes=["URGENT:", "Urgent!", "Emergency -", "asap please:"],
            suffixes=["asap please", "it's urgent", "I need this sorted today", "right now please"],
            sentences=["I need an answer today still.", "Please hurry, this can't wait.", "This is very urgent.",
                       "Please deal with it immediately.", "I need this solved by tonight.", "I need help asap.",
                       "I am running out of time.", "My deadline is tomorrow morning!", "It cannot wait any longer."],
        ),
        "low": UrgencyWording(
            prefixes=["No rush:", "Not urgent -", "Low priority:", "When you have a minute:"],
            suffixes=["no hurry", "no rush", "whenever it suits you", "take your time"],
            sentences=["There is no rush.", "Whenever you get around to it.", "It is not urgent at all.",
                       "Take all the time you need.", "Next month is fine too.", "No hurry on my side.",
                       "Some time in the next weeks is fine.", "This can wait.", "It's nothing pressing."],
        ),
    },
    products={
        "router": ["router", "wifi router", "wifi box", "wireless router", "internet box"],
        "headset": ["headset", "bluetooth headset", "pair of headphones", "gaming headset"],
        "keyboard": ["keyboard", "wireless keyboard", "mechanical keyboard", "typing board"],
        "monitor": ["monitor", "screen", "27 inch monitor", "computer display"],
        "printer": ["printer", "laser printer", "inkjet", "all-in-one printer"],
        "webcam": ["webcam", "web camera", "usb camera", "video call camera"],
        "phone": ["phone", "smartphone", "mobile", "cell phone"],
        "tablet": ["tablet", "tablet pc", "drawing tablet", "10 inch tablet"],
        "speaker": ["speaker", "bluetooth speaker", "music box", "portable speaker"],
        "smartwatch": ["smartwatch", "smart watch", "fitness watch", "watch"],
    },
    cores={
        "refund": ["I sent back the {p} {small} days ago and I'm still waiting for my money.", "Please refund the {p}.",
            "I'd like my money back for the {p}.", "When will I get the refund for my {p}?",
            "The {p} is not what I expected, so I want to return it and get my money back.",
            "Could you pay back the {amount} for the {p}?", "I want a full refund.", "Where is my refund?",
            "I returned the {p} on {day}, when does the money arrive?", "The {p} doesn't suit me, refund please.",
            "You still owe me {amount} for the returned {p}.", "How do I return the {p} and get reimbursed?"],
        "cancel": ["Please cancel my order for the {p}.", "I want to cancel the {p} I ordered on {day}.",
            "I changed my mind about the {p}, please cancel it.", "Can I still cancel the {p}?",
            "I ordered the {p} by mistake, please don't send it.", "Cancel the order please.",
            "I don't need the {p} anymore, please stop the order.", "Please withdraw my order of the {p}.",
            "I accidentally ordered the {p} twice, cancel one of them please.", "I'd like to call off my order.",
            "The {p} hasn't shipped yet, so please cancel my purchase."],
        "delivery_status": ["Where is my {p}?", "My {p} still hasn't arrived.", "When will the {p} be delivered?",
            "The tracking for my {p} hasn't moved since {day}.", "Has the {p} been shipped yet?",
            "I have been waiting {small} days for the {p}.", "The parcel was supposed to be here on {day}.",
            "Could you tell me where the package with the {p} is?", "No sign of the {p} so far, has it left yet?",
            "The courier says delivered but there is no {p} here.", "What's the delivery date for my {p}?",
            "Any news on my shipment?"],
        "login_problem": ["I can't log in to set up my {p}.", "My password for the {p} account is not accepted.",
            "I can't sign in to the {p} app.", "The login for my {p} fails every time.",
            "I forgot the password for my {p} account.", "The reset link for my account never arrives.",
            "I'm locked out of the account that belongs to my {p}.", "It says wrong password when I register the {p}.",
            "The {p} portal keeps logging me out.", "How do I reset my login for the {p}?",
            "The verification code for the {p} account doesn't work.", "My account is blocked after five attempts."],
        "broken_item": ["My {p} is broken.", "The {p} stopped working on {day}.", "The {p} won't turn on anymore.",
            "The {p} arrived damaged.", "There's a crack in the {p}.", "My {p} is making weird noises and gets hot.",
            "After {small} days the {p} just died.", "The {p} is defective, I need a replacement.",
            "It doesn't work any more.", "A button on the {p} fell off.", "The {p} switches itself off all the time.",
            "I unpacked the {p} and it was smashed.", "Something inside the {p} is loose and it does not start."],
        "change_address": ["Please send the {p} to a new address: {street}.", "I moved, the {p} should go to {street}.",
            "Can you change the delivery address for my {p}?", "I typed the wrong street for the {p}, it's {street}.",
            "I need to update my address to {street}.", "The {p} must go to my office instead, {street}.",
            "My new address for the {p} is {street}.", "Please deliver the {p} to my neighbour at {street}.",
            "The house number is wrong, correct is {street}.", "Could the {p} be sent to {street} instead?"],
        "invoice_question": ["I need an invoice for the {p}.", "The invoice for my {p} shows the wrong amount.",
            "Could you send me the bill for the {p} again?", "My company name is missing on the invoice for the {p}.",
            "Why does the invoice say {amount}?", "There is no VAT on the bill for the {p}.",
            "I was charged twice on the invoice for the {p}.", "Where can I download the invoice for my {p}?",
            "Accounting needs a proper invoice with tax number for the {p}.", "The billing date of the {p} is wrong.",
            "I have a question on invoice {order}."],
        "price_question": ["How much is the {p}?", "What does the {p} cost?", "Is there a discount on the {p}?",
            "Will the {p} get cheaper soon?", "I saw the {p} for {amount} elsewhere, can you match that price?",
            "What's the price if I buy {small} pieces?", "Do students pay less for the {p}?",
            "Is the {p} still on sale for {amount}?", "Can you make me an offer for the {p}?",
            "Does the price of the {p} include shipping?", "Is {amount} the final price for the {p}?"],
    },
)

GERMAN = Language(
    greetings=["Hallo,", "Guten Tag,", "Moin,", "Hi,", "Sehr geehrte Damen und Herren,", "Liebes Team,", "Servus,"],
    sign_offs=["Danke, {name}", "Vielen Dank!", "Viele Grüße\n{name}", "Mit freundlichen Grüßen\n{name}", "LG {name}",
               "MfG", "Besten Dank im Voraus, {name}", "Schöne Grüße"],
    fillers=["Ich bin seit Jahren Kunde bei euch.", "Ich schreibe für meine Mutter.", "Ich hoffe, es geht Ihnen gut.",
             "Im Chat hat leider niemand geantwortet.", "Auf der Hilfeseite habe ich nichts gefunden.",
             "Sonst war immer alles super.", "Gekauft habe ich im {month} im Onlineshop.", "Bitte per Mail antworten.",
             "Meine letzte Mail blieb ohne Antwort.", "Sagen Sie mir, was Sie noch brauchen.",
             "Das ist meine erste Anfrage."],
    references=["Bestellnummer {order}.", "Meine Bestellung: {order}", "Best.-Nr. {order}", "Auftrag {order}."],
    topics=["Es geht um {den}.", "Ich meine {den} aus der Bestellung.", "Betrifft {den}.", "Artikel: {noun}.",
            "Am {day} habe ich {den} bestellt."],
    days=["Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"],
    urgency={
        "high": UrgencyWording(
            prefixes=["DRINGEND:", "Eilt!", "Notfall -", "Bitte sofort:"],
            suffixes=["es ist dringend", "bitte noch heute", "so schnell wie möglich", "bitte sofort"],
            sentences=["Ich brauche heute noch eine Antwort.", "Es eilt sehr.", "Das ist wirklich dringend.",
                       "Bitte umgehend erledigen.", "Das kann nicht mehr warten.", "Bitte beeilen Sie sich.",
                       "Mir läuft die Zeit davon.", "Ich brauche das bis morgen früh!"],
        ),
        "low": UrgencyWording(
            prefixes=["Nicht dringend:", "Eilt nicht -", "Ohne Eile:", "Wenn mal Zeit ist:"],
            suffixes=["eilt nicht", "wann immer es passt", "hat keine Eile", "ganz ohne Stress"],
            sentences=["Es eilt nicht.", "Das hat Zeit.", "Lassen Sie sich ruhig Zeit.", "Keine Eile.",
                       "Nächsten Monat reicht auch noch.", "Wann immer es Ihnen passt.", "Es ist gar nicht dringend.",
                       "Das kann gerne warten."],
        ),
    },
    products={
        "router": ["der Router", "der WLAN-Router", "die WLAN-Box"],
        "headset": ["das Headset", "der Kopfhörer", "das Bluetooth-Headset"],
        "keyboard": ["die Tastatur", "die Funktastatur", "das Keyboard"],
        "monitor": ["der Monitor", "der Bildschirm", "der 27-Zoll-Monitor"],
        "printer": ["der Drucker", "der Laserdrucker", "der Tintenstrahldrucker"],
        "webcam": ["die Webcam", "die USB-Kamera", "die Webkamera"],
        "phone": ["das Handy", "das Smartphone", "das Telefon"],
        "tablet": ["das Tablet", "der Tablet-PC", "das Zeichentablet"],
        "speaker": ["der Lautsprecher", "die Bluetooth-Box", "die Musikbox"],
        "smartwatch": ["die Smartwatch", "die Fitnessuhr", "die Uhr"],
    },
    cores={
        "refund": ["Ich will mein Geld für {den} zurück.", "Bitte erstatten Sie mir {den}.",
            "Wo bleibt meine Erstattung?", "Ich habe {den} zurückgeschickt und noch kein Geld bekommen.",
            "{Der} gefällt mir nicht, Geld zurück.", "Wann kommt die Rückzahlung für {den}?",
            "Ich will {den} zurückgeben und die {amount} wiederhaben.",
            "Die Rücksendung kam am {day} an, wann wird {der} erstattet?"],
        "cancel": ["Bitte stornieren Sie {den}.", "Ich möchte {den} wieder abbestellen.",
            "Bitte die Bestellung stornieren.", "Ich habe {den} aus Versehen bestellt, bitte nicht verschicken.",
            "Kann ich {den} noch stornieren?", "Ich brauche {den} doch nicht mehr, bitte Auftrag stoppen.",
            "Hiermit widerrufe ich den Kauf, {noun}.", "{Der} ist noch nicht verschickt, bitte abbrechen."],
        "delivery_status": ["Wo bleibt {mein}?", "{Der} ist immer noch nicht angekommen.", "Wann wird {der} geliefert?",
            "Die Sendung steckt fest.", "Ist {der} schon verschickt?", "Ich warte seit {small} Tagen auf {den}.",
            "Das Paket mit {dem} sollte am {day} kommen.", "Angeblich zugestellt, aber {der} ist nicht da."],
        "login_problem": ["Ich kann mich nicht anmelden, um {den} einzurichten.",
            "Das Passwort für {den} wird nicht angenommen.", "Der Login in der App für {den} klappt nicht.",
            "Ich habe mein Passwort vergessen, Gerät: {noun}.", "Mein Konto ist nach drei Versuchen gesperrt.",
            "Der Link zum Zurücksetzen des Passworts kommt nie an.",
            "Beim Registrieren von {dem} steht immer falsches Kennwort.", "Ich komme nicht ins Kundenkonto mit {dem}."],
        "broken_item": ["{Mein} ist kaputt.", "{Der} geht nicht mehr an.", "{Der} kam beschädigt an.",
            "{Mein} hat einen Riss.", "Seit {day} funktioniert {der} nicht mehr.",
            "{Der} ist defekt, ich brauche Ersatz.", "{Mein} macht komische Geräusche und wird heiß.",
            "Nach {small} Tagen war {der} einfach tot.", "Das Gerät schaltet sich ständig aus."],
        "change_address": ["Bitte {den} an eine neue Adresse schicken: {street}.",
            "Ich bin umgezogen, {der} soll nach {street}.", "Können Sie die Lieferadresse für {den} ändern?",
            "Die Hausnummer stimmt nicht, richtig ist {street}.", "Bitte liefern Sie {den} ins Büro, {street}.",
            "Neue Anschrift für {den}: {street}.", "Ich habe bei {dem} die falsche Straße angegeben, es ist {street}."],
        "invoice_question": ["Ich brauche eine Rechnung für {den}.",
            "Auf der Rechnung für {den} steht ein falscher Betrag.",
            "Können Sie mir die Rechnung zu {dem} nochmal schicken?", "Warum stehen {amount} auf der Rechnung?",
            "Auf der Rechnung fehlt die Mehrwertsteuer für {den}.", "Wo finde ich die Rechnung für {den}?",
            "Die Buchhaltung braucht eine Rechnung mit Firmennamen für {den}."],
        "price_question": ["Was kostet {der}?", "Gibt es auf {den} Rabatt?", "Wird {der} bald günstiger?",
            "Ist {der} im Angebot?", "Woanders kostet {der} nur {amount}, gehen Sie beim Preis mit?",
            "Was wäre der Preis bei {small} Stück?", "Bekommen Studenten {den} billiger?",
            "Ist bei {dem} der Versand im Preis dabei?"],
    },
)
# fmt: on

CASES = {
    "der": {"den": "den", "dem": "dem", "mein": "mein"},
    "die": {"den": "die", "dem": "der", "mein": "meine"},
    "das": {"den": "das", "dem": "dem", "mein": "mein"},
}


def pick(rng: random.Random, phrases: list[str]) -> str:
    """As in a real inbox, a few phrases are common: the earlier in its list, the more often."""
    return rng.choices(phrases, weights=[1 / (place + 1) for place in range(len(phrases))])[0]


def product_slots(name: str, language: Language) -> dict[str, str]:
    """The product as English noun, or as German noun in the cases which the templates ask for."""
    if language is ENGLISH:
        return {"p": name}
    article, noun = name.split(" ", 1)
    slots = {"der": name} | {slot: f"{word} {noun}" for slot, word in CASES[article].items()}
    return slots | {"noun": noun, "Der": "D" + slots["der"][1:], "Mein": "M" + slots["mein"][1:]}


def fill_slots(rng: random.Random, language: Language, product: str) -> dict[str, str]:
    """Draw a value for everything a template may name."""
    order = rng.choice(["#{}", "{}", "A-{}", "2025-{}"]).format(rng.randint(10000, 99999))
    cents = rng.choice(["", ".90", ".99", ".50"] if language is ENGLISH else ["", ",90", ",99", ",50"])
    currencies = [" euros" if language is ENGLISH else " Euro", " €", "€"]
    return product_slots(pick(rng, language.products[product]), language) | {
        "order": order,
        "amount": f"{rng.randint(15, 480)}{cents}{rng.choice(currencies)}",
        "day": rng.choice(language.days),
        "month": rng.choice(["April", "August", "September", "November"]),
        "small": str(rng.randint(3, 20)),
        "number": str(rng.randint(1000, 9999)),
        "street": f"{rng.choice(STREETS)} {rng.randint(1, 120)}",
        "name": rng.choice(NAMES),
    }


def add_urgency(rng: random.Random, sentences: list[str], core: int, wording: UrgencyWording) -> None:
    """Put the wording before the message, behind the core sentence or in a sentence of its own."""
    place = rng.choices(["prefix", "suffix", "sentence"], weights=[2, 3, 5])[0]
    if place == "prefix":
        sentences[0] = f"{pick(rng, wording.prefixes)} {sentences[0]}"
    elif place == "suffix":
        joint, end = rng.choice([", ", " - ", "... "]), rng.choice([".", "!", ""])
        sentences[core] = sentences[core].rstrip(".?!") + joint + pick(rng, wording.suffixes) + end
    else:
        sentences.insert(rng.choice([core, core + 1, len(sentences)]), pick(rng, wording.sentences))


def write_sentences(rng: random.Random, language: Language, intent: str, urgency: str) -> list[str]:
    """One to four sentences, still with slots."""
    core = pick(rng, language.cores[intent])
    sentences = [core]
    if not any(slot in core for slot in ("{p}", "{noun}", "{de", "{De", "{mein}", "{Mein}")):
        sentences.insert(rng.randint(0, 1), pick(rng, language.topics))
    if rng.random() < 0.25:
        sentences.insert(rng.randint(0, len(sentences)), pick(rng, language.fillers))
    if rng.random() < 0.25 and len(sentences) < 3:
        sentences.append(rng.choice(language.references))
    if urgency in language.urgency:
        add_urgency(rng, sentences, sentences.index(core), language.urgency[urgency])
    return sentences


def add_typo(rng: random.Random, text: str) -> str:
    """Swap, drop or double one letter inside a word."""
    spots = [i for i in range(1, len(text) - 2) if text[i - 1 : i + 2].isalpha()]
    if not spots:
        return text
    i = rng.choice(spots)
    swapped, dropped, doubled = text[i + 1] + text[i], text[i + 1], text[i] + text[i : i + 2]
    return text[:i] + rng.choice([swapped, dropped, doubled]) + text[i + 2 :]


def roughen(rng: random.Random, text: str, language: Language) -> str:
    """Make a clean text look typed: typos, spelled-out umlauts, casing, lost punctuation, emojis."""
    if rng.random() < TYPO_SHARE:
        for _ in range(rng.choice([1, 1, 2])):
            text = add_typo(rng, text)
    if language is GERMAN and rng.random() < 0.12:
        for umlaut, plain in {"ä": "ae", "ö": "oe", "ü": "ue", "Ü": "Ue", "ß": "ss"}.items():
            text = text.replace(umlaut, plain)
    casing = rng.random()
    if casing < 0.08:
        text = text.lower()
    elif casing < 0.085:
        text = text.upper()
    if rng.random() < 0.15:
        text = text.rstrip(".!?")
    elif rng.random() < 0.08:
        text = text.replace("?", "??").replace("!", "!!!")
    return f"{text} {rng.choice(EMOJIS)}" if rng.random() < 0.12 else text


def write_message(rng: random.Random, intent: str, product: str, urgency: str) -> str:
    """One support message in English or German."""
    language = ENGLISH if rng.random() < ENGLISH_SHARE else GERMAN
    text = " ".join(write_sentences(rng, language, intent, urgency))
    if rng.random() < 0.5:
        text = pick(rng, language.greetings) + rng.choice([" ", " ", "\n"]) + text
    if rng.random() < 0.45:
        text += rng.choice([" ", " ", "\n"]) + pick(rng, language.sign_offs)
    return roughen(rng, text.format_map(fill_slots(rng, language, product)), language)


def make_rows(seed: int, count: int = 2000) -> list[dict[str, str]]:
    """Rows with pairwise different messages, also when casing is ignored."""
    rng = random.Random(seed)
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < count:
        intent = rng.choice(list(ENGLISH.cores))
        product = rng.choice(list(ENGLISH.products))
        urgency = rng.choices(list(URGENCY_WEIGHTS), weights=list(URGENCY_WEIGHTS.values()))[0]
        message = write_message(rng, intent, product, urgency)
        answer = json.dumps({"intent": intent, "product": product, "urgency": urgency})
        rows.setdefault(message.casefold(), {"message": message, "answer": answer})
    return list(rows.values())


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("tickets.jsonl"))
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in make_rows(args.seed)]
    args.out.write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
