"""Lines of any order joined to rollouts: recordings of one trajectory with each other and with their outcome."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from agentprm import wire
from agentprm.errors import InvalidRequest
from agentprm.rollouts import OutcomeLine, TrajectoryLine
from training.rollouts.lines import from_line
from training.rollouts.places import Fault, Place
from training.rollouts.recordings import Recordings, with_action
from training.rollouts.rollout import Rollout


@dataclass(slots=True)
class _Joined:
    """All lines of one id."""

    recordings: Recordings = field(default_factory=Recordings)
    outcomes: dict[float, Place] = field(default_factory=dict)
    queries: dict[str, Place] = field(default_factory=dict)
    actions: dict[str, tuple[Place, str | wire.Message]] = field(default_factory=dict)
    truncated: bool = False

    def add(self, place: Place, line: TrajectoryLine | OutcomeLine) -> None:
        if line.outcome is not None:
            _keep_last(self.outcomes, line.outcome, place)
        if line.query is not None:
            _keep_last(self.queries, line.query, place)
        self.truncated |= line.truncated
        if isinstance(line, TrajectoryLine):
            self.recordings.add(place, line)
        elif line.action is not None:
            key = line.action if isinstance(line.action, str) else line.action.model_dump_json(exclude_none=True)
            self.actions[key] = (place, line.action)

    def disagreement(self) -> Fault | None:
        for name, values in (("outcome", self.outcomes), ("query", self.queries)):
            if len(values) > 1:
                shown = " and ".join(repr(value) for value in sorted(values)[:2])
                return Fault(max(values.values()), f"{name} differs among the lines of one trajectory_id: {shown}")
        if len(self.actions) > 1:
            places = [place for place, _ in self.actions.values()]
            return Fault(max(places), "action differs among the outcomes of one trajectory_id")
        return None

    def end(self, line: TrajectoryLine) -> TrajectoryLine:
        """Returns the line with what all lines say of its end."""
        known = {"outcome": next(iter(self.outcomes), None), "query": next(iter(self.queries), None)}
        return line.model_copy(update={**known, "truncated": self.truncated})


K = TypeVar("K")


def _keep_last(places: dict[K, Place], value: K, place: Place) -> None:
    places[value] = max(place, places.get(value, place))


class Joiner:
    """Takes lines in any order. ``left_out`` counts what is in no rollout, by a phrase that says why."""

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        self._by_id: dict[str, _Joined] = {}

    def add(self, place: Place, line: TrajectoryLine | OutcomeLine) -> Iterator[tuple[Place, Rollout] | Fault]:
        """Yields the rollout of a line that stands alone. One with a ``trajectory_id`` waits for the others."""
        if line.trajectory_id:
            self._by_id.setdefault(line.trajectory_id, _Joined()).add(place, line)
        else:
            assert isinstance(line, TrajectoryLine)
            yield from self._rollout(place, line)

    def joined(self) -> Iterator[tuple[Place, Rollout] | Fault]:
        """Yields the rollouts of all lines with a ``trajectory_id``, once every line was added."""
        for joined in self._by_id.values():
            if fault := joined.disagreement():
                yield fault
            else:
                yield from self._resolve(joined)

    def _resolve(self, joined: _Joined) -> Iterator[tuple[Place, Rollout] | Fault]:
        recordings = list(joined.recordings.longest.values())
        if not recordings:
            self.left_out["outcomes of no trajectory"] += 1
            return
        if strays := joined.recordings.strays:
            self.left_out["recordings that are no beginning of the longest one of their trajectory"] += strays
        for place, action in joined.actions.values():
            try:
                recordings = list(_that_end_in(action, recordings))
            except InvalidRequest as error:
                yield Fault(place, str(error))
                return
            if not recordings:
                yield Fault(place, "action is not the last one of the trajectory that was recorded")
                return
        if len(recordings) > 1:
            self.left_out["trajectories whose longest recordings differ, where no outcome has the action taken"] += 1
            return
        (place, line), *_ = recordings
        yield from self._rollout(place, joined.end(line))

    def _rollout(self, place: Place, line: TrajectoryLine) -> Iterator[tuple[Place, Rollout] | Fault]:
        has_end = line.outcome is not None or line.truncated
        is_unscored = line.step_count == 0 and bool(line.trajectory_id)  # it was recorded before the first action
        if has_end or not is_unscored:
            try:
                rollout = from_line(line)
            except InvalidRequest as error:
                yield Fault(place, str(error))
                return
            if has_end:
                yield place, rollout
                return
        self.left_out["trajectories without an outcome that were not truncated"] += 1


def _that_end_in(
    action: str | wire.Message, recordings: Iterable[tuple[Place, TrajectoryLine]]
) -> Iterator[tuple[Place, TrajectoryLine]]:
    for place, line in recordings:
        if (ended := with_action(line, action)) is not None:
            yield place, ended
