"""Rollouts of every kind, and files of them, for tests."""

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from agentprm.types import Conversation, Message, Step, ToolCall, Trajectory
from training.rollouts.rollout import Rollout

texts = st.text(max_size=9)
words = st.text(min_size=1, max_size=9)
shares = st.sampled_from([0.0, 0.25, 1.0])
trajectories = st.builds(Trajectory, words, st.lists(st.builds(Step, texts, words), min_size=1, max_size=3).map(tuple))


@st.composite
def chats(draw: st.DrawFn) -> Conversation:
    """Chats that end in the assistant's turn; each earlier call has its result."""
    turns = [Message("user", draw(texts))]
    for number in range(draw(st.integers(0, 2))):
        call = ToolCall(draw(words), json.dumps({"x": draw(texts)}), f"call {number}")
        turns += [Message("assistant", None, draw(st.none() | words), (call,))]
        turns += [Message("tool", draw(texts), tool_call_id=call.id)]
    answer = draw(words | st.tuples(words, words))
    tools = draw(st.sampled_from([(), ('{"type": "function", "function": {"name": "go"}}',)]))
    return Conversation((*turns, Message("assistant", answer)), tools)


@st.composite
def rollouts(draw: st.DrawFn) -> Rollout:
    history = draw(trajectories | chats())
    steps = len(history.steps) if isinstance(history, Trajectory) else len(history.step_ends)
    truncated = draw(st.booleans())
    return Rollout(
        history,
        draw(shares | st.none() if truncated else shares),
        truncated,
        draw(words),
        draw(texts) if isinstance(history, Trajectory) else "",
        continuations=draw(st.sampled_from([(), ((0.0, 1.0), (), (0.5,))[:steps]])),
        labels=draw(st.sampled_from([(), (None, 0.5, 1.0)[:steps]])),
        metadata=draw(st.sampled_from([{}, {"seed": 3}])),
    )


def write_jsonl(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
