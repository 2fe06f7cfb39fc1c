"""The maps: cells of one metre, x to the right, y up, the origin in the middle; and shortest ways."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Cell = tuple[int, int]
"""Row from the top and column from the left."""

NEIGHBOURS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Steps to the cells that share a side."""
NEAREST_GOAL = 2
"""Cells that lie at least between a start and its goal, along the shortest way."""


@dataclass(frozen=True)
class Maze:
    """One map: `#` is wall, `.` is free."""

    rows: tuple[str, ...]
    """Lines of the drawing, top to bottom, all of one length, walls all around."""
    horizon: int
    """Decisions per episode, about twice what the expert needs for the longest way."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.rows), len(self.rows[0])

    @cached_property
    def free(self) -> tuple[Cell, ...]:
        """Free cells, row by row."""
        return tuple(
            (row, column)
            for row, line in enumerate(self.rows)
            for column, letter in enumerate(line)
            if letter == "."
        )

    @cached_property
    def steps(self) -> npt.NDArray[np.int64]:
        """Cells on the shortest way between free cells, [F, F]; -1 where there is none."""
        from scipy.sparse.csgraph import shortest_path

        cells = np.array(self.free)
        adjacent = np.abs(cells[:, None] - cells).sum(axis=-1) == 1
        return np.nan_to_num(shortest_path(adjacent, unweighted=True), posinf=-1).astype(np.int64)

    @cached_property
    def _index(self) -> dict[Cell, int]:
        return {cell: number for number, cell in enumerate(self.free)}

    def neighbours(self, cell: Cell) -> list[Cell]:
        """Free cells that share a side with `cell`."""
        around = [(cell[0] + down, cell[1] + right) for down, right in NEIGHBOURS]
        return [(row, column) for row, column in around if self.rows[row][column] == "."]

    def goals(self, start: Cell) -> list[Cell]:
        """Free cells far enough from `start` to be its goal."""
        away = self.steps[self._index[start]]
        return [cell for cell, count in zip(self.free, away, strict=True) if count >= NEAREST_GOAL]

    def straight_way(self, cell: Cell, goal: Cell) -> Cell:
        """The last cell of the straight piece with which the shortest way from `cell` to `goal` begins."""
        here, step = cell, None
        while here != goal:
            onward = self._next(here, goal)
            direction = (onward[0] - here[0], onward[1] - here[1])
            if step is not None and direction != step:
                break
            here, step = onward, direction
        return here

    def centre(self, cell: Cell) -> tuple[float, float]:
        """Position of a cell's middle, x and y in metres."""
        height, width = self.shape
        return cell[1] - (width - 1) / 2.0, (height - 1) / 2.0 - cell[0]

    def cell_at(self, x: float, y: float) -> Cell:
        """The free cell nearest to a position in metres: its own, unless that one is wall."""
        height, width = self.shape
        cell = round((height - 1) / 2.0 - y), round(x + (width - 1) / 2.0)
        if cell in self._index:
            return cell
        return min(self.free, key=lambda free: sum((a - b) ** 2 for a, b in zip(free, cell, strict=True)))

    def _next(self, cell: Cell, goal: Cell) -> Cell:
        to_goal = self.steps[self._index[goal]]
        return min(self.neighbours(cell), key=lambda near: to_goal[self._index[near]])


MAZES = {
    "open": Maze(
        (
            "#######",
            "#.....#",
            "#.....#",
            "#.....#",
            "#.....#",
            "#.....#",
            "#######",
        ),
        horizon=200,
    ),
    "umaze": Maze(
        (
            "#####",
            "#...#",
            "###.#",
            "#...#",
            "#####",
        ),
        horizon=250,
    ),
    "medium": Maze(
        (
            "########",
            "#..#...#",
            "#.##.#.#",
            "#....#.#",
            "##.###.#",
            "#..#...#",
            "#.....##",
            "########",
        ),
        horizon=400,
    ),
    "large": Maze(
        (
            "############",
            "#....#.....#",
            "#.##.#.###.#",
            "#.#..#...#.#",
            "#.#.####.#.#",
            "#......#.#.#",
            "#.####.#.#.#",
            "#.#......#.#",
            "############",
        ),
        horizon=800,
    ),
}
"""Name -> map."""
