"""A scheduler for pytest-xdist that keeps the tests of a model, or of a method on it, on one worker.

`--dist loadgroup` does nothing with pytest 9.2 and xdist 3.8, so this overrides where `loadscope` cuts.
"""

from __future__ import annotations

import functools

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from xai_assert.testing import CELL
from xai_assert.testing.workers import Group, groups


class CellScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """One unit of work for each group of tests."""

    @functools.cached_property
    def _groups(self) -> dict[str, Group]:
        return groups(next(iter(self.registered_collections.values())), self.numnodes)

    def _split_scope(self, nodeid: str) -> str:
        return "+".join(self._groups[nodeid])

    def remove_node(self, node: WorkerController) -> str | None:
        """Hand the work of a worker on. If it crashed in a cell, the other cells of that model and method are lost
        with it: they share the computation that crashed, and would take one worker after another down."""
        work = self.assigned_work.pop(node)
        unfinished = [nodeid for unit in work.values() for nodeid, done in unit.items() if not done]
        if not unfinished:
            return None
        crashed: str = unfinished[0]
        for scope, unit in work.items():
            left = {i: done for i, done in unit.items() if i in unfinished and not shares_computation(i, crashed)}
            if left:
                self.workqueue[scope] = left
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed


def shares_computation(nodeid: str, other: str) -> bool:
    """Whether two tests are the same, or cells of the same model and method."""
    mine, its = CELL.search(nodeid), CELL.search(other)
    return nodeid == other or bool(mine and its and mine.groups() == its.groups())
