"""Examples exactly as the model will see them, tokens coloured by whether they carry loss, and what the lengths are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table as Grid
from rich.text import Text

from fettle.data.encode import Encoded
from fettle.data.split import NAMES
from fettle.prepare import LOST_ROWS, OverlongRowsError, Rows
from fettle.tokenizer import Tokenizer

BARS = " ▁▂▃▄▅▆▇█"


@dataclass
class Lengths:
    """What the rows of a split come to."""

    total: list[int] = field(default_factory=list)
    labelled: list[int] = field(default_factory=list)
    kept: int = 0
    """Tokens that are left after cutting."""
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, encoded: Sequence[Encoded], counts: dict[str, int]) -> None:
        self.kept += sum(len(one.ids) for one in encoded)
        self.total += [len(one.ids) + one.cut_off for one in encoded]
        self.labelled += [sum(one.trained[1:]) for one in encoded]
        for key, value in counts.items():
            self.counts[key] = self.counts.get(key, 0) + value


def show(rows: Rows, console: Console, examples: int) -> None:
    """Print some training examples and the statistics of every split.

    Raises:
        DataError: a row cannot be used; rows that are only too long are counted, not refused.
    """
    shown = 0
    found = {}
    for name in NAMES:
        found[name] = Lengths()
        for indices, _, encoded, counts in _patiently(rows, name):
            found[name].add(encoded, counts)
            for index, one in zip(indices, encoded, strict=True):
                if name == "training" and shown < examples:
                    shown += 1
                    console.print(_example(rows, index, one))
    for part in (_legend(), _statistics(found, rows.limit), _losses(found, rows)):
        console.print(part, end="\n\n")
    top = max(max(lengths.total, default=1) for lengths in found.values())
    for name, lengths in found.items():
        if lengths.total:
            console.print(_histogram(name, lengths.total, top))


def _patiently(rows: Rows, name: str) -> Any:
    """The chunks of a split, without the error that overlong rows end with: preview only counts them."""
    chunks = rows.encoded(name)
    while True:
        try:
            yield next(chunks)
        except StopIteration:
            return
        except OverlongRowsError:
            return


def _example(rows: Rows, index: int, one: Encoded) -> Panel:
    labelled = sum(one.trained[1:])
    cut = f", {one.cut_off} cut off" if one.cut_off else ""
    title = f"{PurePath(rows.table.place(index)).name} · {len(one.ids)} tokens, {labelled} with loss{cut}"
    return Panel(coloured(one, rows.tokenizer), title=title, title_align="left", border_style="dim")


def coloured(one: Encoded, tokenizer: Tokenizer) -> Text:
    """The tokens of a row: those with loss in green, special tokens in reverse."""
    text = Text()
    for piece, trained, special in pieces(one, tokenizer):
        style = "green" if trained else "grey62"
        text.append(piece, f"{style} reverse" if special else style)
    return text


def pieces(one: Encoded, tokenizer: Tokenizer) -> list[tuple[str, bool, bool]]:
    """(text, carries loss, is special) of runs of tokens that are alike; the texts together are the decoded row."""
    runs: list[tuple[list[int], bool, bool]] = []
    specials = tokenizer.special_ids
    for position, (token, trained) in enumerate(zip(one.ids, one.trained, strict=True)):
        loss, special = trained and position > 0, token in specials
        if runs and runs[-1][1:] == (loss, special) and not special:
            runs[-1][0].append(token)
        else:
            runs.append(([token], loss, special))
    before: list[int] = []
    start = 0
    found = []
    for number, (ids, loss, special) in enumerate(runs, start=1):
        before += ids
        # decoded after what stands before, because some tokenizers drop a leading space at the start of a text
        text = tokenizer.decode(before, skip_special=False)
        if text.endswith("\ufffd") and number < len(runs) and not runs[number][2]:
            continue  # half of a character: it is shown with the half that follows
        found.append((text[start:], loss, special))
        start = len(text)
    return found


def _legend() -> Text:
    return Text.assemble(
        ("text with loss", "green"), ("  text the model is given", "grey62"), ("  special token", "reverse")
    )


def _statistics(found: dict[str, Lengths], limit: int | None) -> Grid:
    grid = Grid(title=f"tokens per row (limit: {limit or 'none'})", title_justify="left", title_style="bold", box=None)
    for name in ("split", "rows", "mean", "median", "95 %", "longest", "with loss"):
        grid.add_column(name, justify="left" if name == "split" else "right", header_style="dim")
    for name, lengths in found.items():
        ordered = sorted(lengths.total)
        count = len(ordered)
        figures = ["-"] * 5
        if count:
            share = sum(lengths.labelled) / lengths.kept
            middle = (ordered[count // 2], ordered[min(count - 1, count * 95 // 100)], ordered[-1])
            figures = [f"{sum(ordered) / count:.0f}", *map(str, middle), f"{share:.0%}"]
        grid.add_row(name, f"{count:,}", *figures)
    return grid


def _losses(found: dict[str, Lengths], rows: Rows) -> Text:
    """Which rows will not be seen as they are."""
    said = []
    for name, lengths in found.items():
        counts = lengths.counts
        parts = [f"{counts['overlong']:,} longer than the limit"] if counts.get("overlong") else []
        parts += [f"{counts[key]:,} {words}" for key, words in LOST_ROWS.items() if counts.get(key)]
        if counts.get("overlong") and rows.overlong == "error":
            parts.append("training will refuse them; set preprocessing.overlong_rows to truncate or drop")
        if parts:
            said.append(f"{name}: {', '.join(parts)}")
    if not said:
        return Text("no row is truncated, dropped or empty", style="green")
    return Text("\n".join(said), style="yellow")


def _histogram(name: str, lengths: list[int], top: int) -> Text:
    bins = [0] * 40
    for length in lengths:
        bins[min(39, length * 40 // (top + 1))] += 1
    most = max(bins)
    bars = "".join(BARS[(value * 8 + most - 1) // most] for value in bins)
    return Text.assemble((f"{name:<11}", "bold"), f"0 {bars} {top}", (" tokens", "dim"))
