"""What follows the word `advise`: its own words, overrides for every drafter, overrides for one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

WORDS = ("drafters", "acceptance", "most", "run", "fit", "out")
ACCEPTANCES = ("given", "preset", "unknown")
MOST_CONSIDERED = 16
_NAME = re.compile(r"[A-Za-z_][\w-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The command as given.

    Attributes:
        drafters: options of the group `speculation`; empty for the configuration's own.
        acceptance: which acceptances count as known: `given`, those that an override names; `preset`, all; `unknown`,
            none.
        most: longest draft length considered; 0 for 5, or the configuration's where that is longer.
        runs: measured runs without SD.
        fit: how many of them are fitted on; 0 for the default.
        out: folder to write into; "" for a new one under `outputs/`.
        overrides: of every drafter.
        own: drafter -> overrides of it alone, as if it were the only one.
    """

    drafters: tuple[str, ...] = ()
    acceptance: str = "given"
    most: int = 0
    runs: tuple[str, ...] = ()
    fit: int = 0
    out: str = ""
    overrides: tuple[str, ...] = ()
    own: dict[str, tuple[str, ...]]

    def overrides_of(self, drafter: str) -> list[str]:
        """All overrides with which a drafter's experiment is composed."""
        chosen = [f"speculation={drafter}"] if drafter in self.drafters else []
        return [*chosen, *self.overrides, *self.own.get(drafter, ())]

    @property
    def chosen_drafter(self) -> str:
        """The option of `speculation=` among the overrides, "" where none chooses."""
        return next(
            (text.partition("=")[2] for text in reversed(self.overrides) if text.startswith("speculation=")), ""
        )

    def acceptance_given(self, drafter: str) -> bool:
        """Whether an override names the drafter's acceptance."""
        return any("speculation/acceptance" in text or "speculation.acceptance" in text
                   for text in self.overrides_of(drafter))  # fmt: skip


def parse(arguments: Sequence[str]) -> Arguments:
    """Read the command.

    Raises:
        ValueError: neither a word nor an override, a word twice or out of bounds, or `speculation=` beside `drafters=`.
    """
    words, overrides = _split(arguments)
    drafters = tuple(_listed(words.get("drafters", "")))
    for name in drafters:
        if not _NAME.fullmatch(name) or name == "off":
            raise ValueError(f"drafters must be options of the group speculation other than off, got {name!r}")
    if len(set(drafters)) < len(drafters):
        raise ValueError(f"drafters must differ, got {', '.join(drafters)}; compare settings of one by two runs")
    shared, own = _by_drafter(overrides, drafters)
    if drafters and any(text.startswith("speculation=") for text in shared):
        raise ValueError("speculation= has no effect beside drafters=, which chooses among several; leave one out")
    acceptance = words.get("acceptance", ACCEPTANCES[0])
    if acceptance not in ACCEPTANCES:
        raise ValueError(
            f"acceptance must be one of {', '.join(ACCEPTANCES)}, got {acceptance!r}; an acceptance itself is set by "
            "speculation/acceptance= and its fields"
        )
    return Arguments(
        drafters=drafters,
        acceptance=acceptance,
        most=_whole(words, "most", 1, MOST_CONSIDERED),
        runs=tuple(_listed(words.get("run", ""))),
        fit=_whole(words, "fit", 1, None),
        out=words.get("out", ""),
        overrides=tuple(shared),
        own=own,
    )


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    words: dict[str, str] = {}
    overrides = []
    for argument in arguments:
        name, sign, value = argument.partition("=")
        name = "out" if name == "hydra.run.dir" else name
        if sign and name in WORDS:
            if name in words:
                raise ValueError(f"{name}= must be given once, got {words[name]!r} and {value!r}")
            if not value:
                raise ValueError(f"{name}= must have a value, got none; leave it out for its default")
            words[name] = value
        elif sign or argument.startswith("~"):
            overrides.append(argument)
        else:
            known = ", ".join(f"{word}=" for word in WORDS)
            raise ValueError(f"arguments must be {known} or overrides such as model=qwen3_8b, got {argument!r}")
    if "fit" in words and "run" not in words:
        raise ValueError(f"fit has no effect without run=, got {words['fit']}; leave it out")
    return words, overrides


def _by_drafter(overrides: list[str], drafters: tuple[str, ...]) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """`eagle3.length.drafts=3` and `eagle3/acceptance=beta` set `speculation` for the drafter eagle3 alone."""
    shared: list[str] = []
    own: dict[str, list[str]] = {}
    for text in overrides:
        plus, rest = ("+", text[1:]) if text.startswith("+") else ("", text)
        name = next((name for name in drafters if rest.startswith((f"{name}.", f"{name}/"))), None)
        if name is None:
            shared.append(text)
        else:
            own.setdefault(name, []).append(f"{plus}speculation{rest[len(name) :]}")
    return shared, {name: tuple(found) for name, found in own.items()}


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.strip("[]").split(",") if part.strip()]


def _whole(words: dict[str, str], name: str, least: int, most: int | None) -> int:
    text = words.get(name)
    if text is None:
        return 0
    if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
        bound = f"lie in [{least}, {most}]" if most is not None else f"be >= {least}"
        raise ValueError(f"{name} must {bound}, got {text!r}")
    return int(text)
