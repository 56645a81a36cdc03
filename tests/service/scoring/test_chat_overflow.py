"""Chats that are too long for a chat template: cut as messages, and read as if they had been sent so."""

from dataclasses import replace

import pytest

from agentprm.errors import TooLong
from agentprm.types import Conversation, Message, Overflow, ToolCall, Trajectory
from model_store.text.chat_renderer import ChatRenderer
from service.scoring import overflow as overflowing
from service.scoring.history_parts import ChatParts
from service.scoring.overflow import Overflowing
from tests.service.scoring.test_chat_sequences import CHANGING, read_tokens, renderers, sequencer_of
from tests.service.scoring.test_overflow import CUTS, walk

CONTEXT = 500


def chat(steps: int, seen: int) -> Conversation:
    """A chat whose turns have reasoning and calls; each observation has ``seen`` characters."""
    turns = [Message("system", "You craft."), Message("user", "Craft a torch.")]
    for step in range(steps):
        call = ToolCall("look", '{"at": "the table"}', f"call0000{step % 10}")
        turns += [
            Message("assistant", f"I look at {step}.", "Let me think about it.", tool_calls=(call,)),
            Message("tool", f"{step} ".ljust(seen, "o"), tool_call_id=call.id),
        ]
    return Conversation((*turns, Message("assistant", "Done.")))


@renderers
@pytest.mark.parametrize("overflow", CUTS)
def test_each_step_of_a_chat_is_read_in_the_same_cut_alone_and_among_all(
    renderer: ChatRenderer, overflow: Overflow
) -> None:
    long, context = (chat(12, 200), CONTEXT) if overflow == "drop_oldest" else (chat(4, 1000), 3 * CONTEXT)
    sequencer = sequencer_of(renderer, context)
    every = Overflowing(sequencer).trajectory(long, None, overflow)
    read = read_tokens(list(every.questions))
    assert len(read) == len(long.step_ends)
    assert every.cut_tokens > 0
    for place, end in enumerate(long.step_ends):
        alone = Overflowing(sequencer).trajectory(long.until(end), 2, overflow)
        assert read_tokens(list(alone.questions))[-1] == read[place]
        assert len(read[place][0]) <= context


@renderers
def test_a_cut_chat_is_read_as_the_messages_that_are_left(renderer: ChatRenderer) -> None:
    long = chat(12, 200)
    item = Overflowing(sequencer_of(renderer, CONTEXT)).trajectory(long, 2, "drop_oldest")
    by_hand = replace(long, messages=(*long.messages[:2], *long.messages[2 + 2 * item.dropped_steps :]))
    assert by_hand == ChatParts(long).dropped(13, item.dropped_steps)
    assert list(item.questions) == sequencer_of(renderer).trajectory(by_hand, 2)
    assert item.dropped_steps > 0


@renderers
def test_candidates_are_ranked_after_the_cut_in_which_the_longest_fits(renderer: ChatRenderer) -> None:
    state = Conversation(chat(12, 200).messages[:-1])
    candidates: list[str | Message] = ["left", Message("assistant", "right " * 10)]
    item = Overflowing(sequencer_of(renderer, CONTEXT)).candidates(state, candidates, "drop_oldest")
    cut = ChatParts(state).dropped(13, item.dropped_steps)
    assert isinstance(cut, Conversation)
    plain = sequencer_of(renderer).candidates(cut, candidates)
    assert read_tokens(list(item.questions)) == read_tokens(plain)
    assert item.dropped_steps > 0


@renderers
def test_a_trajectory_is_cut_by_its_steps_also_for_a_chat_template(renderer: ChatRenderer) -> None:
    item = Overflowing(sequencer_of(renderer, CONTEXT)).trajectory(walk(40), 2, "drop_oldest")
    kept = Trajectory(walk(40).task, walk(40).steps[item.dropped_steps :])
    assert list(item.questions) == sequencer_of(renderer).trajectory(kept, 2)


def test_a_chat_is_not_rendered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overflowing, "MAX_RENDERED_STEPS", 20)
    with pytest.raises(TooLong, match="20 rendered steps"):
        Overflowing(sequencer_of(CHANGING, CONTEXT)).trajectory(chat(40, 200), None, "drop_oldest")
