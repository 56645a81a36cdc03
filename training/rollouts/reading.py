"""Rollout files of every kind, read as far as they can be: rollouts, what is wrong where, and what was left out."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentprm.errors import AgentPRMError
from training.rollouts.containers import files_of, records
from training.rollouts.converters.contract import LeftOut
from training.rollouts.formats import AUTO, Line, check_format, lines
from training.rollouts.joining import Joiner
from training.rollouts.places import Fault, Place
from training.rollouts.rollout import Rollout


@dataclass(frozen=True, slots=True)
class Reading:
    """What files hold.

    Attributes:
        rollouts: those with an end: an outcome, or truncated.
        places: where each of them stands; of several recordings, the one that was kept.
        faults: what cannot be read as it is, in the order of files and lines.
        notes: sentences on what was left out, and on queries that compare nothing.
    """

    rollouts: list[Rollout]
    places: list[Place]
    faults: list[Fault]
    notes: list[str]

    def whole(self) -> list[Rollout]:
        """Returns the rollouts, for training.

        Raises:
            AgentPRMError: there is a fault, or no rollout.
        """
        if self.faults:
            raise AgentPRMError(
                f"{len(self.faults)} lines are bad, the first is {self.faults[0]}; "
                "`python -m training check` names all of them"
            )
        if not self.rollouts:
            raise AgentPRMError("; ".join(["the files hold no trajectory with an outcome", *self.notes]))
        return self.rollouts


def read(paths: Iterable[Path], format: str = AUTO) -> Reading:  # noqa: A002 (the name of the option)
    """Reads files, and of directories the files with a known suffix. It goes on past a bad line.

    Raises:
        AgentPRMError: a path does not exist, a directory has no file of a known kind, or there is no such format.
    """
    check_format(format)
    joiner = Joiner()
    rollouts: list[Rollout] = []
    places: list[Place] = []
    faults: list[Fault] = []
    for found in _found(paths, format, joiner):
        if isinstance(found, Fault):
            faults.append(found)
        else:
            places.append(found[0])
            rollouts.append(found[1])
    faults.sort(key=lambda fault: fault.place)
    notes = [f"left out: {count} {what}" for what, count in sorted(joiner.left_out.items())]
    return Reading(rollouts, places, faults, notes + queries_that_compare_nothing(rollouts))


def _found(paths: Iterable[Path], name: str, joiner: Joiner) -> Iterator[tuple[Place, Rollout] | Fault]:
    for path in files_of(paths):
        for found in _lines(path, name):
            if isinstance(found, Fault):
                yield found
            elif isinstance(found[1], LeftOut):
                joiner.left_out[found[1].reason] += 1
            else:
                yield from joiner.add(found[0], found[1])
    yield from joiner.joined()


def _lines(path: Path, name: str) -> Iterator[tuple[Place, Line | LeftOut] | Fault]:
    try:
        for found in records(path):
            if isinstance(found, Fault):
                yield found
            else:
                yield from lines(*found, name)
    except OSError as error:
        yield Fault(Place(path), f"the file cannot be read: {error.strerror or error}")


def queries_that_compare_nothing(rollouts: Iterable[Rollout]) -> list[str]:
    """Returns notes on queries with one attempt, and on queries whose attempts all came out the same."""
    outcomes: dict[str, Counter[Any]] = {}
    for rollout in rollouts:
        outcomes.setdefault(rollout.query, Counter())[rollout.outcome] += 1
    single = sum(counts.total() == 1 for counts in outcomes.values())
    same = sum(counts.total() > 1 and len(counts) == 1 for counts in outcomes.values())
    notes = []
    if single:
        notes.append(f"{single} of {len(outcomes)} queries have one attempt only: best-of-n compares nothing there")
    if same:
        notes.append(f"{same} of {len(outcomes)} queries have several attempts that all have the same outcome")
    return notes
