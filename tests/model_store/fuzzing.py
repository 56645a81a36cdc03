"""Settings, checks and changed bytes that fuzz tests of a checkpoint's files share."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from model_store.errors import CheckpointError

LONGEST_SENTENCE = 6000  # a path, a reason, and perhaps an integer of as many digits as Python reads


def fuzzed(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def assert_one_sentence(error: CheckpointError) -> None:
    assert str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < LONGEST_SENTENCE


def mutated(good: bytes) -> SearchStrategy[bytes]:
    """``good`` with a few stretches of bytes replaced, removed or repeated, or cut off."""

    @st.composite
    def changed(draw: DrawFn) -> bytes:
        content = bytearray(good)
        for _ in range(draw(st.integers(1, 3))):
            start = draw(st.integers(0, len(content)))
            end = draw(st.integers(start, min(len(content), start + 20)))
            content[start:end] = draw(st.one_of(st.binary(max_size=8), st.just(bytes(content[start:end]) * 2)))
        return bytes(content)

    return st.one_of(changed(), st.integers(0, len(good) - 1).map(lambda end: good[:end]))
