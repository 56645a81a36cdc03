"""Records as lines: by the converter of the project that wrote them, or as they are."""

from collections.abc import Iterator
from typing import Any, Final

from pydantic import ValidationError

from agentprm.errors import AgentPRMError, InvalidRequest
from agentprm.rollouts import OutcomeLine, TrajectoryLine, describe, read_fields
from training.rollouts.converters.agent_process_bench import AGENT_PROCESS_BENCH
from training.rollouts.converters.agentgym import AGENTGYM
from training.rollouts.converters.contract import Converter, Fields, LeftOut
from training.rollouts.converters.inspect_log import INSPECT
from training.rollouts.converters.swe_agent import SWE_AGENT
from training.rollouts.converters.tau2 import TAU2
from training.rollouts.converters.tau_bench import TAU_BENCH
from training.rollouts.places import Fault, Place

Line = TrajectoryLine | OutcomeLine

_CONVERTERS: Final = (TAU_BENCH, TAU2, SWE_AGENT, AGENTGYM, INSPECT, AGENT_PROCESS_BENCH)
AUTO: Final = "auto"
OWN: Final = "rollouts"
FORMATS: Final = (AUTO, OWN, *(converter.name for converter in _CONVERTERS))
"""``auto`` looks at each record; ``rollouts`` are lines of ``agentprm.rollouts``."""


def check_format(name: str) -> None:
    """Raises AgentPRMError if no format has this name."""
    if name not in FORMATS:
        raise AgentPRMError(f"there is no format {name!r}; there are: {', '.join(FORMATS)}")


def lines(place: Place, record: Any, name: str) -> Iterator[tuple[Place, Line | LeftOut] | Fault]:
    """Yields the lines that a record becomes, what it leaves out, and a fault for each part that cannot be read."""
    converter = _converter(record, name)
    try:
        if converter is None:
            yield place, read_fields(record)
        elif not (isinstance(record, dict) and converter.recognises(record)):
            yield Fault(place, f"it is no record of {converter.name}")
        else:
            yield from _converted(place, record, converter)
    except InvalidRequest as error:
        yield Fault(place, str(error))


def _converter(record: Any, name: str) -> Converter | None:
    for converter in _CONVERTERS:
        if name == converter.name or (name == AUTO and isinstance(record, dict) and converter.recognises(record)):
            return converter
    return None


def _converted(place: Place, record: Fields, converter: Converter) -> Iterator[tuple[Place, Line | LeftOut] | Fault]:
    for number, part in enumerate(converter.parts(record), start=1):
        where = place if place.number else Place(place.path, number, converter.unit)
        try:
            converted = converter.line(part, place.path)
            if isinstance(converted, dict):
                fields = {name: value for name, value in converted.items() if value is not None}
                yield where, read_fields(fields)
            else:
                yield where, converted
        except InvalidRequest as error:
            yield Fault(where, f"{error} ({converter.name})")
        except ValidationError as error:
            yield Fault(where, f"{describe(error)} ({converter.name})")
