"""What a study is: axes of overrides, batch sizes, panels; read from `conf/study/`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from sim.data import data_dir, names_in, read_named

MODES = {"static": ("engine=static_batch",), "served": ()}
"""Mode -> overrides that stand before all others."""


@dataclass(kw_only=True, slots=True)
class Panel:
    """One figure.

    Attributes:
        title: what it shows.
        y: a column of the table.
        x: a column, or, with `peak`, an axis.
        where: axis -> its values that are drawn; every other axis is drawn whole, a line for each of its values.
        at: batch sizes, one line each, where x is neither the batch nor an axis.
        peak: draw each case at the batch with the largest speedup.
        level: a horizontal line at this height; null for none.
        band: mark where a line stays above its maximum over the square root of 2.
    """

    title: str
    y: str
    x: str = "batch"
    where: dict[str, list[str]] = field(default_factory=dict)
    at: list[int] = field(default_factory=list)
    peak: bool = False
    level: float | None = None
    band: bool = False


@dataclass(kw_only=True, slots=True)
class Study:
    """A grid of cases, each priced as static batches of every size and simulated at some.

    Attributes:
        title: of the page.
        shows: what to look at, and the figure or table of the paper it belongs to.
        base: overrides of every case, as on the command line.
        axes: axis -> value -> its overrides; the cases are all combinations.
        batches: batch sizes, growing.
        simulated: those of them that are simulated too, request by request.
        prompt_tokens, output_tokens: of every request; priced batches have the prompt and half the output cached.
        panels: the figures.

    Raises:
        ValueError: an axis without values, batches that do not grow, simulated ones that are not among them, a panel
            that names an unknown axis or value.
    """

    title: str
    shows: str
    base: list[str] = field(default_factory=list)
    axes: dict[str, dict[str, list[str]]]
    batches: list[int]
    simulated: list[int] = field(default_factory=list)
    prompt_tokens: int = 186
    output_tokens: int = 128
    panels: list[Panel]

    def __post_init__(self) -> None:
        if not self.axes or not all(self.axes.values()):
            raise ValueError("study.axes must hold at least one axis, and each at least one value")
        if not self.batches or min(self.batches) < 1 or sorted(set(self.batches)) != list(self.batches):
            raise ValueError(f"study.batches must be >= 1 and grow, got {list(self.batches)}")
        if not set(self.simulated) <= set(self.batches):
            raise ValueError(f"study.simulated must be among study.batches, got {list(self.simulated)}")
        for name in ("prompt_tokens", "output_tokens"):
            if getattr(self, name) < 2:
                raise ValueError(f"study.{name} must be >= 2, got {getattr(self, name)}")
        for panel in self.panels:
            for axis, values in panel.where.items():
                if axis not in self.axes or not set(values) <= set(self.axes[axis]):
                    raise ValueError(f"study.panels: {panel.title!r} names {axis} {values}, which is no axis or value")

    @property
    def context_tokens(self) -> int:
        """Cached tokens of a sequence halfway through its output."""
        return self.prompt_tokens + self.output_tokens // 2

    def cases(self) -> list[tuple[dict[str, str], list[str]]]:
        """Value by axis, and overrides, of every combination."""
        names = list(self.axes)
        return [
            (
                dict(zip(names, chosen, strict=True)),
                [*self.base, *(o for name, value in zip(names, chosen, strict=True) for o in self.axes[name][value])],
            )
            for chosen in product(*(self.axes[name] for name in names))
        ]


def study_names() -> list[str]:
    """Names of the studies that come with the package."""
    return names_in(data_dir("conf") / "study")


def read_study(name: str, without_simulation: bool = False) -> Study:
    """The study `name` of `conf/study/`; an unknown name is a ValueError that lists the known ones."""
    study = read_named(data_dir("conf") / "study", name, Study, "study")
    return replace(study, simulated=[]) if without_simulation else study


def overrides_of(mode: str, case: Sequence[str], more: Sequence[str]) -> list[str]:
    """All overrides of a case: the mode's, the case's, the user's; later ones win.

    Raises:
        ValueError: an unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    return [*MODES[mode], *case, *more]
