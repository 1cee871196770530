"""The house's budgets: sizes of files and functions, and what the light verbs cost. Exits 1 where one is broken."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_LINES, FUNCTION_LINES, FUNCTION_MEDIAN = 400, 80, 12
HELP_SECONDS, CHECK_SECONDS = 0.25, 0.6
ROOT = Path(__file__).resolve().parent.parent
QUICKSTART = ROOT / "examples" / "quickstart"
# Runs a verb in this interpreter and tells its processor seconds and which heavy modules it loaded.
PROBE = """
import sys, time
from fettle.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert end.code == 0, end.code
heavy = [name for name in ("torch", "transformers", "datasets", "peft", "trl") if name in sys.modules]
sys.stderr.write(f"{time.process_time()} {','.join(heavy) or '-'}")
"""


def functions(tree: ast.Module) -> Iterator[tuple[str, int, int]]:
    """(name, line, length) of every function."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            yield node.name, node.lineno, node.end_lineno - node.lineno + 1


def sizes() -> Iterator[str]:
    """What is too long."""
    lengths = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT)
        if text.count("\n") > FILE_LINES:
            yield f"{name}: {text.count(chr(10))} lines, at most {FILE_LINES}"
        for function, line, length in functions(ast.parse(text)):
            lengths.append(length)
            if length > FUNCTION_LINES:
                yield f"{name}:{line}: {function} has {length} lines, at most {FUNCTION_LINES}"
    median = statistics.median(lengths)
    print(f"{len(lengths)} functions, median {median:g} lines, longest {max(lengths)}")
    if median > FUNCTION_MEDIAN:
        yield f"the median function has {median:g} lines, at most {FUNCTION_MEDIAN}"


def cost(*arguments: str) -> tuple[float, str]:
    """(processor seconds, heavy modules) of a verb: the least of five runs, because machines are noisy."""
    found = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            return float("inf"), done.stderr
        seconds, heavy = done.stderr.rsplit("\n", 1)[-1].split()
        found.append((float(seconds), heavy))
    return min(found)


def speeds() -> Iterator[str]:
    """Which light verb costs too much."""
    check = ("check", "--config", str(QUICKSTART / "config.yaml"), "--dataset", str(QUICKSTART / "tickets.jsonl"))
    for verb, most in ((("--help",), HELP_SECONDS), (check, CHECK_SECONDS)):
        seconds, heavy = cost(*verb)
        print(f"fettle {verb[0]}: {seconds:.2f} s of processor time, budget {most} s; heavy modules: {heavy}")
        if seconds > most:
            yield f"fettle {verb[0]} took {seconds:.2f} s of processor time, at most {most}"
        if heavy != "-":
            yield f"fettle {verb[0]} imports {heavy}"


def main() -> None:
    broken = [*sizes(), *speeds()]
    for line in broken:
        print(f"over budget: {line}")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
