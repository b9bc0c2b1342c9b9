"""All that a grid's page is made of."""

from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from jtcore.grids.contrasts import Factor, compared, factors
from jtcore.grids.effects import Effects, Statement
from jtcore.grids.grid import Grid
from jtcore.grids.readings import Reading, brief_name
from jtcore.pages.results import ARROWS


@frozen(eq=False)
class Shown:
    """All that a page is made of."""

    folder: Path
    grid: Grid
    readings: Sequence[Reading]
    found: Sequence[Effects]
    statements: Sequence[Statement]

    @property
    def factors(self) -> list[Factor]:
        return factors(self.grid) or [compared(self.grid)]

    @property
    def measures(self) -> list[str]:
        return list(dict.fromkeys(name for each in self.readings for name in each.measures))

    def headed(self, name: str) -> str:
        """With which way is better."""
        better = next((r.better[name] for r in self.readings if name in r.better), None)
        return brief_name(name) + ARROWS[better]
