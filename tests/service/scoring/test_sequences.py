"""The same tokens, reads and keys are scored of an item, whichever route asks."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentprm.errors import TooLong
from agentprm.types import State, Step, Trajectory
from model_store.format.template import Template
from model_store.text.renderer import Renderer
from service.score_cache.keys import KeyScope
from service.scoring.continued import Continued
from service.scoring.sequences import KeyedSequence, TextSequencer
from tests.model_store.text.test_renderer import RENDERERS
from tests.model_store.tiny_checkpoints import sentence_piece
from tests.service.echo_app import byte_renderer
from tests.service.scoring.test_scorer import actions, states, trajectories

SCOPE = KeyScope("test", "sha256:0", 1, "float32")
TAGS = Template("<s>", ("", " "), ("", "\n"), ("", " ки"), "\n", tokenise="text", skip_empty_observation=True)
sequencer = TextSequencer(byte_renderer(), SCOPE, context_length=500)
of_whole_text = TextSequencer(Renderer(sentence_piece(), TAGS), SCOPE, context_length=500)
sequencers = pytest.mark.parametrize("sequencer", [sequencer, of_whole_text], ids=["segments", "whole text"])


def of_trajectory(sequencer: TextSequencer, trajectory: Trajectory, reads: int | None = None) -> KeyedSequence:
    (sequence,) = sequencer.trajectory(trajectory, reads)
    return sequence


def written_out(sequence: KeyedSequence) -> KeyedSequence:
    """The same with a list of tokens, which can be compared."""
    return sequence._replace(token_ids=[*sequence.token_ids])


@sequencers
@given(trajectory=trajectories, reads=st.integers(1, 3))
@settings(deadline=None)
def test_the_last_steps_have_the_keys_that_they_have_in_the_whole(
    sequencer: TextSequencer, trajectory: Trajectory, reads: int
) -> None:
    whole, last = of_trajectory(sequencer, trajectory), of_trajectory(sequencer, trajectory, reads)
    assert last == whole._replace(reads=whole.reads[-reads:], keys=whole.keys[-reads:])
    assert whole.reads[-1] == len(whole.token_ids) - 1


@sequencers
@given(state=states, candidates=st.lists(actions, min_size=1, max_size=4))
@settings(deadline=None)
def test_a_candidate_has_the_keys_of_the_step_it_would_be(
    sequencer: TextSequencer, state: State, candidates: list[str]
) -> None:
    sequences = [written_out(sequence) for sequence in sequencer.candidates(state, candidates)]
    taken = [of_trajectory(sequencer, state.take(action), 2) for action in dict.fromkeys(candidates)]
    assert sequences[0] == taken[0], "the first reads the step before too"
    assert sequences[1:] == [whole._replace(reads=whole.reads[-1:], keys=whole.keys[-1:]) for whole in taken[1:]]


SEQUENCE = KeyedSequence([5, 6, 7, 8, 9], [1, 2, 4], [b"a", b"b", b"c"])


@pytest.mark.parametrize(
    ("known", "left"),
    [
        ([], SEQUENCE),
        ([b"a"], KeyedSequence([5, 6, 7, 8, 9], [2, 4], [b"b", b"c"])),
        ([b"c"], KeyedSequence([5, 6, 7], [1, 2], [b"a", b"b"])),
        ([b"b", b"c"], KeyedSequence([5, 6], [1], [b"a"])),
        ([b"a", b"b", b"c"], None),
    ],
)
def test_what_is_left_to_compute_ends_at_the_last_unknown_score(known: list[bytes], left: KeyedSequence | None) -> None:
    assert SEQUENCE.without(known) == left


def test_what_is_too_long_is_told_by_place_and_size() -> None:
    with pytest.raises(TooLong) as refused:
        sequencer.trajectory(Trajectory("t" * 500, (Step("", "a"),)), None)
    assert refused.value.details == {"tokens": 508, "limit": 500}
    with pytest.raises(TooLong) as refused:
        sequencer.candidates(State("t"), ["a", "b" * 500])
    assert refused.value.details == {"candidate": 1, "tokens": 508, "limit": 500}


token_ids = st.lists(st.integers(0, 9), max_size=6)
bounds = st.one_of(st.none(), st.integers(-15, 15))


@given(history=token_ids, added=token_ids, start=bounds, stop=bounds, step=st.sampled_from([None, 1, 2, -1]))
def test_a_continued_history_is_the_sequence_of_both_lists(
    history: list[int], added: list[int], start: int | None, stop: int | None, step: int | None
) -> None:
    continued, joined = Continued(history, added), history + added
    assert [*continued] == [continued[at] for at in range(len(continued))] == joined
    assert continued[start:stop:step] == joined[start:stop:step]
    with pytest.raises(IndexError):
        continued[len(joined)]
    assert joined == [] or continued[-1] == joined[-1]


def test_candidates_do_not_hold_their_history_many_times() -> None:
    state, candidates = State("t" * 20_000), [f"go {index}" for index in range(64)]
    long = TextSequencer(byte_renderer(), SCOPE, context_length=30_000)
    tracemalloc.start()
    sequences = long.candidates(state, candidates)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(len(sequence.token_ids) for sequence in sequences) > 64 * 20_000
    assert held < 4 * 20_000 * 8, "four lists of 20,000 references"


def test_unknown_tokens_are_counted_once_for_each_sequence() -> None:
    sequencer = TextSequencer(RENDERERS["word level"], SCOPE, context_length=500)
    assert of_trajectory(sequencer, Trajectory("get 1", (Step("2", "craft oak_log"),))).unknown == 0
    assert of_trajectory(sequencer, Trajectory("get gold", (Step("no 1", "smelt iron"),))).unknown == 4
    ranked = sequencer.candidates(State("get gold", (), "1"), ["get oak_log", "smelt iron"])
    assert [sequence.unknown for sequence in ranked] == [1, 3]
