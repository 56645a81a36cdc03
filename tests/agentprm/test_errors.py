"""The tree of request errors, their codes and their statuses."""

import copy
import json
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest

from agentprm import errors, wire
from agentprm.errors import BY_CODE, AgentPRMError, NotFound, RequestError, UnexpectedReply
from model_store import errors as model_store_errors
from model_store.errors import CheckpointError

STATUSES = {
    "invalid": 422,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "model_not_found": 404,
    "too_slow": 408,
    "too_long": 413,
    "unsupported_media_type": 415,
    "overloaded": 429,
    "rate_limited": 429,
    "upstream_failed": 502,
    "not_ready": 503,
    "deadline_exceeded": 504,
    "internal": 500,
}


def test_codes_and_statuses_are_those_of_the_contract() -> None:
    assert {code: kind.status for code, kind in BY_CODE.items()} == STATUSES


def test_every_request_error_has_its_own_code() -> None:
    def below(kind: type[RequestError]) -> set[type[RequestError]]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    assert set(BY_CODE.values()) == below(RequestError) - {RequestError}


def test_everything_is_an_agentprm_error_and_stands_in_the_drawn_tree() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert all(issubclass(kind, AgentPRMError) for kind in kinds)
    assert errors.__doc__ is not None
    assert [kind.__name__ for kind in kinds if kind.__name__ not in errors.__doc__] == []


def test_a_missing_model_is_caught_as_not_found() -> None:
    assert issubclass(errors.ModelNotFound, NotFound)
    assert not issubclass(errors.ModelNotFound, CheckpointError)


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=BY_CODE.keys())
def test_an_envelope_is_the_error_reply_of_the_contract(kind: type[RequestError]) -> None:
    body = json.dumps(kind("why", details={"limit": 3}, retry_after=2).envelope())
    error = wire.ErrorReply.model_validate_json(body).error
    assert (error.code, error.message, error.details) == (kind.code, "why", {"limit": 3})
    assert body.count("why") == 1


def every_error() -> list[AgentPRMError]:
    """One error of every class of both modules, with every attribute that it can have."""

    def below(kind: type[AgentPRMError]) -> list[type[AgentPRMError]]:
        return [kind, *(deeper for child in kind.__subclasses__() for deeper in below(child))]

    modules = (errors.__name__, model_store_errors.__name__)
    return [made(kind) for kind in dict.fromkeys(below(AgentPRMError)) if kind.__module__ in modules]


def made(kind: type[AgentPRMError]) -> AgentPRMError:
    if issubclass(kind, RequestError):
        error: AgentPRMError = kind("why", details={"limit": [3]}, retry_after=2.0)
    elif issubclass(kind, UnexpectedReply):
        error = kind("why", status=502, retry_after=2.0)
    else:
        error = kind("why")
    error.add_note("while ranking")
    return error


def raise_error(index: int) -> None:
    raise every_error()[index]


def known(error: BaseException) -> tuple[object, ...]:
    return type(error), str(error), error.args, vars(error)


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_and_copies_with_all_its_attributes(error: AgentPRMError) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert known(pickle.loads(pickle.dumps(error, protocol))) == known(error)  # noqa: S301
    assert known(copy.copy(error)) == known(error)
    assert known(copy.deepcopy(error)) == known(error)


def test_every_error_comes_home_from_a_pool_of_processes() -> None:
    expected = every_error()
    assert len(expected) >= 20
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        raised = [pool.submit(raise_error, index).exception(timeout=100) for index in range(len(expected))]
    assert [error and known(error)[:3] for error in raised] == [known(error)[:3] for error in expected]
    assert [getattr(error, "retry_after", None) for error in raised] == [
        getattr(error, "retry_after", None) for error in expected
    ]


def test_an_error_reads_as_its_message() -> None:
    assert str(errors.Overloaded("the queue is full", retry_after=1)) == "the queue is full"
    assert errors.Overloaded("the queue is full").details == {}


def test_an_unexpected_reply_tells_its_status() -> None:
    error = UnexpectedReply("HTTP 502", status=502)
    assert (str(error), error.status, error.retry_after) == ("HTTP 502", 502, None)
