"""What a scenario is, and what it finds: figures with their raw samples, notes, and descriptions of plots."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from types import ModuleType
from typing import Literal, Protocol, TypeVar

from attrs import define, evolve, field, frozen

from .statistics import median, ratios

Better = Literal["lower", "higher"]
T = TypeVar("T")


@frozen
class Figure:
    """One quantity, measured several times.

    Attributes:
        samples: one for each round.
        better: which way is better; None where neither is.
        bound: what the median must not be worse than.
        group: figures of a group are shown together.
        limited: it says more about the load generator than about what was measured.
    """

    name: str
    unit: str
    samples: list[float]
    better: Better | None = None
    bound: float | None = None
    group: str = ""
    limited: bool = False

    @property
    def median(self) -> float:
        """The median of the samples."""
        return median(self.samples)

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest sample."""
        return min(self.samples), max(self.samples)

    @property
    def holds(self) -> bool | None:
        """Whether the median is within the bound; None without one."""
        if self.bound is None:
            return None
        return self.median >= self.bound if self.better == "higher" else self.median <= self.bound

    @property
    def label(self) -> str:
        """Group and name, which are unique within a scenario."""
        return f"{self.group}: {self.name}" if self.group else self.name


@frozen
class Plot:
    """What to draw. The x of bars are texts, those of lines numbers.

    Attributes:
        name: of the file.
        logarithmic: the axes whose values span decades.
    """

    name: str
    kind: Literal["bars", "lines"]
    title: str
    x: str
    y: str
    series: dict[str, list[tuple[float | str, float]]]
    logarithmic: Literal["", "x", "y", "xy"] = ""


@frozen
class Result:
    """What a scenario found."""

    figures: list[Figure] = field(factory=list)
    notes: list[str] = field(factory=list)
    plots: list[Plot] = field(factory=list)


class Display(Protocol):
    """Is told how far a scenario is."""

    def expect(self, steps: int) -> None:
        """There will be so many more steps."""

    def step(self, text: str) -> None:
        """The next step begins."""


@frozen
class Bench:
    """What a scenario is given.

    Attributes:
        quick: to see that it runs, not to quote.
    """

    quick: bool
    display: Display

    def rounds(self, full: int) -> int:
        """How many rounds to make where a full run makes so many."""
        return 2 if self.quick else full

    def choose(self, full: T, quick: T) -> T:
        """One or the other."""
        return quick if self.quick else full

    def expect(self, steps: int) -> None:
        """Say how many more steps there will be."""
        self.display.expect(steps)

    def step(self, text: str) -> None:
        """Say what is done next."""
        self.display.step(text)


@define
class Figures:
    """Collects samples, round by round."""

    _figures: dict[tuple[str, str], Figure] = field(factory=dict, init=False)

    def add(
        self,
        name: str,
        sample: float,
        unit: str,
        better: Better | None = None,
        *,
        bound: float | None = None,
        group: str = "",
    ) -> None:
        """Add one sample to a figure, which is new when nobody has added to it yet."""
        figure = self._figures.get((group, name))
        if figure is None:
            figure = self._figures[group, name] = Figure(name, unit, [], better, bound, group)
        figure.samples.append(sample)

    def relate(
        self,
        name: str,
        samples: str,
        base: str,
        better: Better | None = None,
        *,
        bound: float | None = None,
        group: str = "",
        base_group: str | None = None,
    ) -> None:
        """Add a figure: the ratio of two others of a group, round by round."""
        over = self.get(base, group if base_group is None else base_group)
        values = ratios(self.get(samples, group).samples, over.samples)
        self._figures[group, name] = Figure(name, "×", values, better, bound, group)

    def get(self, name: str, group: str = "") -> Figure:
        """A figure that was added to."""
        return self._figures[group, name]

    def forget(self, candidate: str, group: str) -> None:
        """Leave a candidate's figures out."""
        self._figures = {
            key: figure
            for key, figure in self._figures.items()
            if key[0] != group or not figure.name.endswith(f", {candidate}")
        }

    def limit(self, name: str, limit: Figure, part: float) -> None:
        """Mark the figures of this name whose median comes within a part of a limit."""
        for key, figure in self._figures.items():
            near = figure.unit == limit.unit and figure.median >= part * limit.median
            if near and figure.name.startswith(name) and figure.name != limit.name:
                self._figures[key] = evolve(figure, limited=True)

    def all(self) -> list[Figure]:
        """Every figure, by group, in the order in which they came."""
        groups = list(dict.fromkeys(group for group, _ in self._figures))
        return sorted(self._figures.values(), key=lambda figure: groups.index(figure.group))


@frozen
class Scenario:
    """A module of `benchmarks.scenarios`: its docstring says what it claims, and what would falsify that."""

    name: str
    claim: str
    run: Callable[[Bench], Awaitable[Result]]

    @classmethod
    def of(cls, module: ModuleType) -> Scenario:
        """The scenario that a module is."""
        assert module.__doc__ is not None
        return cls(module.__name__.rpartition(".")[2], inspect.cleandoc(module.__doc__), module.run)


def medians(figures: Iterable[Figure], xs: Iterable[float | str]) -> list[tuple[float | str, float]]:
    """Points of a plot."""
    return [(x, figure.median) for x, figure in zip(xs, figures, strict=True)]
