"""The same tokens, reads and keys are scored of a chat, whichever route asks and whatever its template does."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentprm.errors import TooLong
from agentprm.types import Conversation, Message, State, ToolCall, Trajectory
from model_store.text.chat_renderer import ChatRenderer
from model_store.text.conversations import as_conversation, as_message
from model_store.text.runs import Unrenderable
from service.score_cache.keys import Key, KeyScope
from service.scoring import chat_sequences
from service.scoring.chat_sequences import ChatSequencer
from service.scoring.continued import Continued
from service.scoring.sequences import KeyedSequence
from tests.model_store.text.agent_chats import CHATS, renderer_for
from tests.model_store.text.agent_chats import as_conversation as chat_of
from tests.service.scoring.test_scorer import actions, states, trajectories

SCOPE = KeyScope("test", "sha256:0", 1, "float32")
STABLE, CHANGING = renderer_for("qwen2_5", empty_content=True), renderer_for("qwen3")
renderers = pytest.mark.parametrize("renderer", [STABLE, CHANGING], ids=["stable", "changing"])

words = st.text("abc <>/|é\n", min_size=1, max_size=5)
says = st.builds(Message, st.just("assistant"), words, st.none() | words)
calls = st.builds(
    lambda text, name: Message("assistant", text, tool_calls=(ToolCall(name, '{"a": 1}', "call00001"),)), words, words
)
others = st.builds(Message, st.sampled_from(["user", "tool"]), words)
chats = st.builds(
    lambda asked, turns: Conversation((Message("user", asked), *turns)), words, st.lists(says | calls | others)
)


def sequencer_of(renderer: ChatRenderer, limit: int = 2000) -> ChatSequencer:
    return ChatSequencer(renderer, SCOPE, context_length=limit)


def read_tokens(sequences: list[KeyedSequence]) -> list[tuple[list[int], Key]]:
    """For each score the tokens up to it, and its key."""
    return [
        ([*sequence.token_ids][: read + 1], key)
        for sequence in sequences
        for read, key in zip(sequence.reads, sequence.keys, strict=True)
    ]


@renderers
@given(history=st.builds(Conversation.take, chats, says) | trajectories, reads=st.integers(1, 3))
@settings(deadline=None, max_examples=40)
def test_each_step_is_read_at_the_end_of_the_chat_up_to_it(
    renderer: ChatRenderer, history: Trajectory | Conversation, reads: int
) -> None:
    sequencer, chat = sequencer_of(renderer), as_conversation(history, "user")
    whole = read_tokens(sequencer.trajectory(history, None))
    assert [tokens for tokens, _ in whole] == [renderer.token_ids(chat.until(end)) for end in chat.step_ends]
    assert read_tokens(sequencer.trajectory(history, reads)) == whole[-reads:]
    for (tokens, key), end in zip(whole, chat.step_ends, strict=True):
        assert read_tokens(sequencer.trajectory(chat.until(end), 1)) == [(tokens, key)]
    assert len({key for _, key in whole}) == len({tuple(tokens) for tokens, _ in whole})


@renderers
@given(state=chats | states, candidates=st.lists(actions | says | calls, min_size=1, max_size=4))
@settings(deadline=None, max_examples=40)
def test_a_candidate_has_the_keys_of_the_step_it_would_be(
    renderer: ChatRenderer, state: State | Conversation, candidates: list[str | Message]
) -> None:
    sequencer, chat = sequencer_of(renderer), as_conversation(state, "user")
    found = read_tokens(sequencer.candidates(state, candidates))
    before = read_tokens(sequencer.trajectory(chat.until(chat.step_ends[-1]), 1)) if chat.step_ends else []
    distinct = dict.fromkeys(candidates)
    taken = [read_tokens(sequencer.trajectory(chat.take(as_message(action)), 1))[0] for action in distinct]
    assert found == [*before, *taken]


@renderers
def test_candidates_of_one_chat_share_its_tokens(renderer: ChatRenderer) -> None:
    chat = chat_of(CHATS["system, tools, parallel calls"])
    sequences = sequencer_of(renderer).candidates(chat, [Message("assistant", text) for text in ("one", "two", "six")])
    shared = [sequence.token_ids._history for sequence in sequences if isinstance(sequence.token_ids, Continued)]
    assert len(shared) == 2
    assert shared[0] is shared[1]
    assert len(shared[0]) > 100


def test_a_stable_template_costs_one_sequence_whatever_the_length() -> None:
    chat = chat_of(CHATS["system, tools, a long way"])
    assert len(sequencer_of(STABLE).trajectory(chat, None)) == 1
    assert len(sequencer_of(CHANGING).trajectory(chat, None)) == 5


def test_chats_that_differ_in_tools_reasoning_or_ids_have_keys_of_their_own() -> None:
    chat = chat_of(CHATS["system, tools, thinking"])
    without_tools = Conversation(chat.messages)
    without_thought = Conversation(tuple(Message(turn.role, turn.content) for turn in chat.messages), chat.tools)
    sequencer = sequencer_of(CHANGING)
    keys = {read_tokens(sequencer.trajectory(one, 1))[0][1] for one in (chat, without_tools, without_thought)}
    assert len(keys) == 2, "this template leaves out the thoughts of earlier turns, and shows tools"
    thought = chat.until(3)
    assert sequencer.trajectory(thought, 1) != sequencer.trajectory(without_thought.until(3), 1)


def test_too_long_a_chat_or_candidate_is_refused_by_name() -> None:
    chat = chat_of(CHATS["system, parallel calls"])
    with pytest.raises(TooLong, match="the model reads 30") as refusal:
        sequencer_of(STABLE, 30).trajectory(chat, 2)
    assert refusal.value.details["limit"] == 30
    with pytest.raises(TooLong) as refusal:
        sequencer_of(STABLE, 900).candidates(chat, ["short", "long " * 400])
    assert refusal.value.details["candidate"] == 1


def test_a_chat_of_too_many_turns_is_refused_before_it_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_sequences, "RENDERED_TURNS", 40)
    chat = Conversation((Message("user", "go"), *[Message("assistant", "x")] * 9))
    with pytest.raises(TooLong, match="every step with all turns before it: 54 turns"):
        sequencer_of(STABLE).trajectory(chat, None)
    assert sequencer_of(STABLE).trajectory(chat, 2)
    with pytest.raises(TooLong):
        sequencer_of(STABLE).candidates(chat, ["a", "b", "c", "d"])


def test_an_item_whose_chats_take_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_sequences, "ITEM_SECONDS", -1.0)
    chat = chat_of(CHATS["system, parallel calls"])
    with pytest.raises(TooLong, match="fewer of its steps or candidates"):
        sequencer_of(STABLE).trajectory(chat, None)
    with pytest.raises(TooLong, match="fewer of its steps or candidates"):
        sequencer_of(STABLE).candidates(chat, ["a", "b"])


def test_a_chat_that_the_template_refuses_says_why() -> None:
    gemma = sequencer_of(renderer_for("gemma3"))
    with pytest.raises(Unrenderable, match="Conversation roles must alternate user/assistant"):
        gemma.trajectory(Conversation((Message("user", "a"), Message("user", "b"), Message("assistant", "c"))), 1)
