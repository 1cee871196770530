"""Write the training text of the pocket model: documents for its pretraining and chats for what follows.

Natural text comes from the files under --data (the raw files of the public repositories named in SOURCES, each in the
folder of its data set); the rest is made up by synthetic.py. No measuring set goes in: only training splits are read,
and of boolq only the passages. The same seed and files give the same bytes.

Run: python recipes/pocket/corpus.py --data FOLDER --out FOLDER [--seed N]
"""

import argparse
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from synthetic import CHATS, DOCUMENTS
from wording import WORDS

Message = dict[str, str]
VALIDATION_SHARE, CHAT_VALIDATION_SHARE = 0.01, 0.02
SYNTHETIC_BYTES, SYNTHETIC_CHATS, CHATML_SHARE = 10_000_000, 11_500, 0.07
SYSTEM_SHARE, FOLLOW_UP_SHARE = 0.2, 0.12
CHAT_CHARACTERS = 2500  # a chat has to fit into the context of 1,024 tokens
UNKNOWN_TASK = ('"intent"', '"product"', '"urgency"')  # the quickstart teaches this one; the base must not know it


@dataclass(frozen=True)
class Document:
    """A text, and the same as a chat where it can be one."""

    text: str
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where natural text comes from, what its licence asks for, and how it is read."""

    name: str
    licence: str
    attribution: str
    commit: str
    read: Callable[[Path, Random], Iterator[Document]]


def chat(*turns: tuple[str, str]) -> tuple[Message, ...]:
    """Messages from turns: neighbours of one role become one message, and the end is the assistant's last word."""
    merged: list[Message] = []
    for role, content in turns:
        if merged and merged[-1]["role"] == role:
            merged[-1]["content"] += "\n" + content.strip()
        elif content.strip():
            merged.append({"role": role, "content": content.strip()})
    while merged and merged[-1]["role"] != "assistant":
        merged.pop()
    starts = [message["role"] for message in merged if message["role"] != "system"][:1]
    return tuple(merged) if starts == ["user"] else ()


def plain(messages: Iterable[Message]) -> str:
    """A chat as plain text."""
    return "\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in messages)


def chatml(messages: Iterable[Message]) -> str:
    """A chat with the marks of the model's chat template."""
    return "".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages)


def read_lines(path: Path) -> Iterator[Any]:
    """The rows of a JSON lines file."""
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def read_gsm8k(data: Path, rng: Random) -> Iterator[Document]:
    """Word problems of the training split without the calculator's marks; about 900 short ones also become chats."""
    for row in read_lines(data / "gsm8k" / "train.jsonl"):
        answer = re.sub(r"<<.*?>>", "", row["answer"])
        answer = re.sub(r"\n?#### *(.*)", r"\nThe answer is \1.", answer).strip()
        short = len(row["question"]) + len(answer) < 420 and rng.random() < 0.6
        messages = chat(("user", row["question"]), ("assistant", answer)) if short else ()
        yield Document(row["question"].strip() + "\n" + answer, messages)


def read_boolq(data: Path, rng: Random) -> Iterator[Document]:  # noqa: ARG001 (all readers are called alike)
    """The passages alone: questions and answers measure."""
    for row in read_lines(data / "lm_eval_a" / "boolq.jsonl"):
        passage = row["query"].removeprefix("Passage: ").rpartition("\nQuestion:")[0]
        yield Document(passage.replace("``", '"').replace("''", '"').strip())


def read_sgd(data: Path, rng: Random) -> Iterator[Document]:  # noqa: ARG001
    """Task dialogues; the chat is their beginning, as far as it fits."""
    for path in sorted((data / "sgd_dialogues").glob("dialogues_*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            roles = {"USER": "user", "SYSTEM": "assistant"}
            turns = [(roles[turn["speaker"]], turn["utterance"]) for turn in row["turns"]]
            yield Document(plain(chat(*turns)), chat(*turns[:12]))


def read_banking77(data: Path, rng: Random) -> Iterator[Document]:
    """Customers' questions of the training split without their labels, about ten a document."""
    with (data / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        texts = [" ".join(row["text"].split()) for row in csv.DictReader(file)]
    yield from grouped(texts, rng)


def read_stsb(data: Path, rng: Random) -> Iterator[Document]:
    """Sentences of the training split without their scores, about ten a document."""
    with (data / "stsb_en" / "stsb-en-train.csv").open(encoding="utf-8", newline="") as file:
        texts = [" ".join(cell.split()) for row in csv.reader(file) for cell in row[:2]]
    yield from grouped(texts, rng)


def grouped(texts: list[str], rng: Random) -> Iterator[Document]:
    """Different short texts, several to a document, one a line."""
    left = list(dict.fromkeys(texts))
    rng.shuffle(left)
    while left:
        count = rng.randint(7, 13)
        yield Document("\n".join(left[:count]))
        left = left[count:]


def read_shakespeare(data: Path, rng: Random) -> Iterator[Document]:
    """Whole speeches, two to three kB a document."""
    part: list[str] = []
    limit = rng.randint(2000, 3000)
    for speech in (data / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8").split("\n\n"):
        part.append(speech.strip())
        if sum(map(len, part)) >= limit:
            yield Document("\n\n".join(part))
            part, limit = [], rng.randint(2000, 3000)
    yield Document("\n\n".join(part).strip())


def read_glaive(data: Path, rng: Random) -> Iterator[Document]:  # noqa: ARG001
    """Dialogues with function calls: the call is the assistant's text, its result a turn of the user."""
    roles = {"human": "user", "observation": "user", "gpt": "assistant", "function_call": "assistant"}
    path = data / "glaive_toolcall_demo" / "glaive_toolcall_en_demo.json"
    for row in json.loads(path.read_text(encoding="utf-8")):
        turns = [
            (roles[turn["from"]], ("Result: " if turn["from"] == "observation" else "") + turn["value"])
            for turn in row["conversations"]
        ]
        tools = json.loads(row["tools"]) if row.get("tools") else []
        names = ", ".join(tool["name"] for tool in tools)
        system = [("system", f"You can call these functions: {names}.")] if names else []
        yield Document(plain(chat(*turns)), chat(*system, *turns))


def read_rasbt(data: Path, rng: Random) -> Iterator[Document]:  # noqa: ARG001
    """Short instructions."""
    path = data / "rasbt_instruction" / "instruction-data.json"
    for row in json.loads(path.read_text(encoding="utf-8")):
        given = f"\nInput: {row['input']}" if row["input"] else ""
        prompt = row["instruction"] + (f"\n\n{row['input']}" if row["input"] else "")
        text = f"Instruction: {row['instruction']}{given}\nResponse: {row['output']}"
        yield Document(text, chat(("user", prompt), ("assistant", row["output"])))


SOURCES = [
    Source("gsm8k", "MIT", "openai/grade-school-math, train split", "3101c7d5072418e28b9008a6636bde82a006892c",
           read_gsm8k),
    Source("boolq_passages", "CC BY-SA 3.0", "Wikipedia authors, passages of BoolQ by way of mosaicml/llm-foundry",
           "8c8dd48f72168c5d51e2f7b151595892a8fba43d", read_boolq),
    Source("sgd_dialogues", "CC BY-SA 4.0", "google-research-datasets/dstc8-schema-guided-dialogue, dev 001-003",
           "e852981ae34990f4358979625854259302feaa78", read_sgd),
    Source("banking77", "CC BY 4.0", "PolyAI-LDN/task-specific-datasets, texts of the train split",
           "57ec275d8078af65b7731c2a98be812d844a6d6b", read_banking77),
    Source("stsb_en", "CC BY-SA 4.0", "STS benchmark by way of PhilipMay/stsb-multi-mt, sentences of the train split",
           "30de0dec4ee199b7f42351d3f1a0b19592955385", read_stsb),
    Source("tinyshakespeare", "public domain", "William Shakespeare, by way of karpathy/char-rnn",
           "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e", read_shakespeare),
    Source("glaive_toolcall_demo", "Apache-2.0", "hiyouga/LLaMA-Factory, glaive_toolcall_en_demo",
           "ff6d4d12eeb035d6ce06805a5733dd7b29f2ac30", read_glaive),
    Source("rasbt_instruction", "Apache-2.0", "rasbt/LLMs-from-scratch, instruction-data",
           "28c65cdfbc3338e2e040016eea4b7fdf556e4d57", read_rasbt),
]  # fmt: skip


def allowed(text: str) -> bool:
    """Whether a text is not of the task that the quickstart teaches."""
    return not all(key in text for key in UNKNOWN_TASK)


def draw_validation(documents: list[Any], share: float, rng: Random) -> tuple[list[Any], list[Any]]:
    """Training and validation documents; the latter are at least one."""
    held = set(rng.sample(range(len(documents)), min(len(documents), max(1, round(share * len(documents))))))
    train = [document for index, document in enumerate(documents) if index not in held]
    return train, [documents[index] for index in sorted(held)]


def make_documents(kind: Callable[[Random], str], size: int, rng: Random, seen: set[str]) -> list[Document]:
    """Different documents of one kind, up to a number of bytes; a kind that runs dry ends earlier."""
    found: list[Document] = []
    misses = 0
    while size > 0 and misses < 500:
        text = kind(rng).strip()
        if text in seen or not allowed(text):
            misses += 1
            continue
        seen.add(text)
        found.append(Document(text))
        size -= len(text.encode())
    return found


def prompt_of(messages: Iterable[Message]) -> str:
    """What identifies a chat: all the user says."""
    return "\n".join(message["content"] for message in messages if message["role"] == "user")


def make_chats(count: int, seed: int) -> list[tuple[str, tuple[Message, ...]]]:
    """Chats of the synthetic kinds, some with further turns, each with its kind."""
    rng, weights = Random(f"{seed}:chats"), [weight for _, weight, _ in CHATS]
    seen: set[str] = set()
    found = []
    for _ in range(count):
        name, _, kind = rng.choices(CHATS, weights)[0]
        turns = [kind(rng)]
        while rng.random() < FOLLOW_UP_SHARE:
            turns.append(rng.choices(CHATS, weights)[0][2](rng))
        messages = chat(
            *((role, text) for pair in turns for role, text in zip(("user", "assistant"), pair, strict=True))
        )
        line = json.dumps(messages)
        if line not in seen and allowed("\n".join(message["content"] for message in messages)):
            seen.add(line)
            found.append((name, messages))
    return found


def with_systems(chats: list[tuple[str, tuple[Message, ...]]], seed: int) -> list[dict[str, list[Message]]]:
    """Rows in a drawn order, some opened by a system message."""
    rng = Random(f"{seed}:systems")
    rows = []
    for name, messages in chats:
        fits = len(plain(messages)) <= CHAT_CHARACTERS
        opened = rng.random() < SYSTEM_SHARE and messages[0]["role"] != "system"
        # "Give only the answer." must not stand above a chat that says who it is or solves in steps.
        wordy = name in {"identity", "smalltalk", "word_problems", "gsm8k"}
        system = rng.choice([text for text in WORDS["system"] if not (wordy and "nly the answer" in text)])
        if fits:
            rows.append({"messages": [*([{"role": "system", "content": system}] if opened else []), *messages]})
    rng.shuffle(rows)
    return rows


def split_chats(count: int, seed: int) -> tuple[list[Any], list[Any]]:
    """Synthetic chats for training and validation; equal prompts stay on one side."""
    chats = make_chats(count, seed)
    prompts = list(dict.fromkeys(prompt_of(messages) for _, messages in chats))
    held = set(draw_validation(prompts, CHAT_VALIDATION_SHARE, Random(f"{seed}:chat validation"))[1])
    train = [item for item in chats if prompt_of(item[1]) not in held]
    return train, [item for item in chats if prompt_of(item[1]) in held]


def write_rows(path: Path, rows: Iterable[Any]) -> None:
    """JSON lines with real letters."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def build(data: Path, out: Path, seed: int, synthetic_bytes: int, synthetic_chats: int) -> dict[str, Any]:
    """Write all files into `out`; the record in corpus.json is also returned."""
    seen: set[str] = set()
    pools: dict[str, tuple[list[Document], list[Document]]] = {}
    notes: dict[str, dict[str, Any]] = {}

    def keep(name: str, documents: list[Document], share: float, **about: str) -> None:
        pools[name] = draw_validation(documents, share, Random(f"{seed}:{name}:validation"))
        size = sum(len(document.text.encode()) for document in documents)
        notes[name] = {"documents": len(documents), "bytes": size, **about}

    for source in SOURCES:
        read = []
        for document in source.read(data, Random(f"{seed}:{source.name}")):
            if document.text and document.text not in seen and allowed(document.text):
                seen.add(document.text)
                read.append(document)
        keep(source.name, read, VALIDATION_SHARE, licence=source.licence, attribution=source.attribution,
             commit=source.commit)  # fmt: skip
    for name, share, kind in DOCUMENTS:
        rng = Random(f"{seed}:{name}")
        made = make_documents(kind, int(share * synthetic_bytes), rng, seen)
        keep(f"synthetic_{name}", made, VALIDATION_SHARE, licence="Apache-2.0", attribution="made up by synthetic.py")
    sides = split_chats(synthetic_chats, seed)
    rows: list[list[dict[str, list[Message]]]] = []
    for side in (0, 1):
        natural = [(name, doc.messages) for name, pool in pools.items() for doc in pool[side] if doc.messages]
        rows.append(with_systems(sides[side] + natural, seed))
    taken = {prompt_of(row["messages"]) for row in rows[0]}
    rows[1] = [row for row in rows[1] if prompt_of(row["messages"]) not in taken]
    marked = round(CHATML_SHARE * sum(len(pool[0]) for pool in pools.values()))
    texts = [[Document(chatml(row["messages"])) for row in side] for side in rows]
    # The rows are in a drawn order already, so the first ones are a fair sample.
    pools["chatml"] = (texts[0][:marked], texts[1][: max(1, marked // 100)])
    size = sum(len(document.text.encode()) for side in pools["chatml"] for document in side)
    notes["chatml"] = {"documents": sum(map(len, pools["chatml"])), "bytes": size, "attribution": "rows of chat.jsonl"}
    out.mkdir(parents=True, exist_ok=True)
    for side, name in enumerate(("", "_validation")):
        written = [{"text": doc.text, "source": source} for source, pool in pools.items() for doc in pool[side]]
        Random(f"{seed}:order").shuffle(written)
        write_rows(out / f"pretrain{name}.jsonl", written)
        write_rows(out / f"chat{name}.jsonl", rows[side])
    record = {"seed": seed, "sources": notes, "chats": len(rows[0]), "chats_validation": len(rows[1])}
    (out / "corpus.json").write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return record


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder for each data set")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--synthetic-bytes", type=int, default=SYNTHETIC_BYTES)
    parser.add_argument("--synthetic-chats", type=int, default=SYNTHETIC_CHATS)
    arguments = parser.parse_args()
    record = build(arguments.data, arguments.out, arguments.seed, arguments.synthetic_bytes, arguments.synthetic_chats)
    for name, note in record["sources"].items():
        print(f"{name:24} {note['documents']:7,} documents {note['bytes']:11,} bytes")
    print(f"chats: {record['chats']:,} and {record['chats_validation']:,} for validation")


if __name__ == "__main__":
    main()
