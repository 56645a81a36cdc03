"""Histories that are too long: what is cut, what stays, and that a cut history scores as if it had been sent so."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentprm.errors import TooLong
from agentprm.types import Conversation, Message, Overflow, State, Step, ToolCall, Trajectory
from service.queue.terms import Terms
from service.score_cache.keys import KeyScope
from service.scoring.cut_ladders import CAPS
from service.scoring.history_parts import ChatParts, StepParts, shorten
from service.scoring.overflow import MAX_CUTS, Overflowing
from service.scoring.scorer import Scorer
from service.scoring.sequences import KeyedSequence, TextSequencer
from service.scoring.source import ItemQuestions
from tests.service.echo_app import byte_renderer
from tests.service.scoring.test_scorer import scoring

CONTEXT = 200
CUTS: list[Overflow] = ["drop_oldest", "shorten_observations"]


def sequencer(context_length: int = CONTEXT) -> TextSequencer:
    return TextSequencer(byte_renderer(), KeyScope("test", "0", 1, "float32"), context_length=context_length)


def overflowing(context_length: int = CONTEXT) -> Overflowing:
    return Overflowing(sequencer(context_length))


def walk(steps: int) -> Trajectory:
    """Steps of 20 bytes and 4 tokens of the template."""
    names = [f"{step:03d}" for step in range(steps)]
    return Trajectory("Craft.", tuple(Step(name.ljust(10, "o"), name.ljust(10, "a")) for name in names))


def reading(steps: int, chars: int) -> Trajectory:
    """Steps with long observations and short actions."""
    return Trajectory("Craft.", tuple(Step(f"{step:03d}".ljust(chars, "o"), f"{step:03d}") for step in range(steps)))


def chat(steps: int, chars: int = 10) -> Conversation:
    turns = [Message("system", "You craft."), Message("user", "Craft.")]
    for step in range(steps):
        call = ToolCall("look", "{}", f"call {step}")
        turns += [Message("assistant", f"{step:03d}".ljust(chars, "a"), tool_calls=(call,))]
        turns += [Message("tool", f"{step:03d}".ljust(chars, "o"), tool_call_id=call.id)]
    return Conversation(tuple(turns[:-1]))


def text(sequence: KeyedSequence) -> str:
    """The bytes of a sequence; tokens of the template are dropped."""
    tokenizer = byte_renderer()._runs._tokenizers
    return next(iter(tokenizer.values())).decode(list(sequence.token_ids), skip_special_tokens=True)


def reads(item: ItemQuestions[KeyedSequence]) -> list[bytes]:
    return [key for sequence in item.questions for key in sequence.keys]


@pytest.mark.parametrize("overflow", CUTS)
def test_a_history_that_fits_is_never_cut(overflow: Overflow) -> None:
    whole = sequencer().trajectory(walk(5), None)
    item = overflowing().trajectory(walk(5), None, overflow)
    assert item == ItemQuestions(whole)


def test_whole_oldest_steps_go_and_the_task_stays() -> None:
    item = overflowing().trajectory(walk(12), 2, "drop_oldest")
    (sequence,) = item.questions
    assert 0 < item.dropped_steps < 12
    kept = replace(walk(12), steps=walk(12).steps[item.dropped_steps :])
    assert item.questions == sequencer().trajectory(kept, 2)
    assert len(sequence.token_ids) + item.cut_tokens == len(sequencer(10_000).trajectory(walk(12), 1)[0].token_ids)


def test_the_cut_stays_the_same_while_a_quarter_of_the_context_fills() -> None:
    dropped = [overflowing(1000).trajectory(walk(steps), 2, "drop_oldest").dropped_steps for steps in range(20, 120)]
    assert dropped == sorted(dropped)
    changes = [at for at, (before, after) in enumerate(pairwise(dropped)) if after != before]
    step_tokens = 24
    assert len(changes) >= 8
    assert all(after - before >= 1000 // 4 // step_tokens for before, after in pairwise(changes))


def test_a_growing_history_keeps_its_prefix_over_several_steps() -> None:
    """The prefix cache shares what two sequences have in common: all but the new step, except where the cut moves."""
    sequences = [
        list(overflowing(1000).trajectory(walk(steps), 2, "drop_oldest").questions[0].token_ids)
        for steps in range(40, 100)
    ]
    kept = [after[: len(before)] == before for before, after in pairwise(sequences)]
    assert kept.count(False) <= 60 * 24 // 250 + 1
    assert kept.count(True) >= 50


@pytest.mark.parametrize("overflow", CUTS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_step_is_cut_in_the_same_way_alone_and_among_all_steps(overflow: Overflow, data: st.DataObject) -> None:
    long = st.integers(1, 60).map(lambda chars: "o" * chars) | st.integers(100, 400).map(lambda chars: "p" * chars)
    steps = data.draw(st.lists(st.builds(Step, long, st.just("act")), min_size=1, max_size=30).map(tuple))
    trajectory, context = Trajectory("Craft.", steps), 600 if overflow == "drop_oldest" else 2000
    try:
        whole = reads(overflowing(context).trajectory(trajectory, None, overflow))
    except TooLong:
        return
    alone = [
        reads(overflowing(context).trajectory(replace(trajectory, steps=steps[:end]), 1, overflow))[-1]
        for end in range(1, len(steps) + 1)
    ]
    assert whole == alone


@pytest.mark.parametrize("overflow", CUTS)
def test_a_cut_history_scores_as_the_same_history_written_by_hand(overflow: Overflow) -> None:
    trajectory = walk(12) if overflow == "drop_oldest" else reading(3, 400)

    async def use(scorer: Scorer) -> None:
        (cut,) = (await scorer.score_steps([trajectory], Terms(), [overflow])).items
        if overflow == "drop_oldest":
            by_hand = replace(trajectory, steps=trajectory.steps[cut.usage.dropped_steps :])
        else:
            seen = trajectory.steps[0].observation
            rung = next(cap for cap in CAPS if shorten(seen, cap) != seen)
            short = [replace(step, observation=shorten(step.observation, rung)) for step in trajectory.steps[:-1]]
            by_hand = replace(trajectory, steps=(*short, trajectory.steps[-1]))
        (plain,) = (await scorer.score_steps([by_hand], Terms())).items
        assert cut.steps == plain.steps
        assert cut.usage.tokens == plain.usage.tokens
        assert (plain.usage.dropped_steps, plain.usage.cut_tokens) == (0, 0)
        assert cut.usage.cut_tokens > 0

    scoring(use, context_length=CONTEXT if overflow == "drop_oldest" else 1200)


@pytest.mark.parametrize("overflow", CUTS)
def test_progress_is_null_unless_both_steps_were_read_in_one_cut(overflow: Overflow) -> None:
    trajectory = walk(12) if overflow == "drop_oldest" else reading(6, 400)
    context = CONTEXT if overflow == "drop_oldest" else 1200

    async def use(scorer: Scorer) -> None:
        (item,) = (await scorer.score_trajectories([trajectory], Terms(), [overflow])).items
        cuts = [
            overflowing(context).trajectory(replace(trajectory, steps=trajectory.steps[:end]), 2, overflow)
            for end in range(1, 1 + len(trajectory.steps))
        ]
        nulls = 0
        for place, (score, cut) in enumerate(zip(item.steps, cuts, strict=True)):
            before = reads(cuts[place - 1])[-1] if place else None
            same = place > 0 and len(reads(cut)) == 2 and reads(cut)[0] == before
            assert score.progress == (score.promise - item.steps[place - 1].promise if same else None)
            nulls += not same
        assert 1 < nulls < len(trajectory.steps)

    scoring(use, context_length=context)


def test_both_steps_of_a_progress_are_read_in_the_last_ones_cut() -> None:
    async def use(scorer: Scorer) -> None:
        for steps in range(9, 30):
            (item,) = (await scorer.score_steps([walk(steps)], Terms(), ["drop_oldest"])).items
            cut = replace(walk(steps), steps=walk(steps).steps[item.usage.dropped_steps :])
            (before,) = (await scorer.score_steps([replace(cut, steps=cut.steps[:-1])], Terms())).items
            assert item.steps[0].progress == item.steps[0].promise - before.steps[0].promise

    scoring(use, context_length=CONTEXT)


def test_a_step_whose_history_is_gone_has_no_progress() -> None:
    long = Trajectory("Craft.", (Step("", "a" * 100), Step("", "b" * 150)))
    item = scoring(lambda scorer: scorer.score_steps([long], Terms(), ["drop_oldest"]), context_length=CONTEXT).items[0]
    assert item.steps[0].progress is None
    assert item.usage.dropped_steps == 1


@pytest.mark.parametrize("overflow", CUTS)
def test_what_does_not_fit_after_every_cut_is_too_long(overflow: Overflow) -> None:
    async def use(scorer: Scorer) -> None:
        for history in (Trajectory("t" * 300, (Step("", "a"),)), Trajectory("t", (Step("", "a" * 300),) * 2)):
            with pytest.raises(TooLong) as refused:
                await scorer.score_steps([history], Terms(), [overflow])
            assert refused.value.details["limit"] == CONTEXT
            assert refused.value.details["item"] == 0

    scoring(use, context_length=CONTEXT)


def test_older_observations_are_shortened_before_the_current_one() -> None:
    history = Trajectory("Craft.", tuple(Step(letter * 500, "a") for letter in "xyz"))
    (sequence,) = overflowing(1300).trajectory(history, 1, "shorten_observations").questions
    assert "z" * 500 in text(sequence)
    assert text(sequence).count("characters left out") == 2
    (sequence,) = overflowing(500).trajectory(history, 1, "shorten_observations").questions
    assert text(sequence).count("characters left out") == 3


@given(text=st.text(max_size=3000), cap=st.sampled_from(CAPS))
@settings(max_examples=50, deadline=None)
def test_a_shortened_text_keeps_its_ends_and_says_what_it_lacks(text: str, cap: int) -> None:
    short = shorten(text, cap)
    assert len(short) <= max(len(text), cap + 64)
    if short != text:
        gone = int(short[cap // 2 :].removeprefix("\n[... ").split()[0])
        assert short[: cap // 2] == text[: cap // 2]
        assert short.endswith(text[len(text) - cap // 2 :])
        assert gone == len(text) - cap


def test_dropped_turns_of_a_chat_leave_no_tool_turn_without_its_call() -> None:
    for steps in range(1, 30):
        cut = ChatParts(chat(steps))
        for dropped in range(cut.most_dropped(steps) + 1):
            history = cut.dropped(steps, dropped)
            assert history.messages[:2] == chat(steps).messages[:2]
            assert history.messages[-1] == chat(steps).messages[-1]
            called = {call.id for turn in history.messages for call in turn.tool_calls}
            assert {turn.tool_call_id for turn in history.messages if turn.role == "tool"} <= called
            roles = [turn.role for turn in history.messages[1:]]
            assert all(before != after for before, after in pairwise(roles))
            assert len(history.messages) == len(chat(steps).messages) - 2 * dropped


def test_the_parts_of_a_history_put_together_are_the_history() -> None:
    state = State("t", walk(3).steps, "now")
    waiting = Conversation((*chat(3).messages, Message("tool", "now", tool_call_id="call 2")))
    for parts, history in (
        (StepParts(walk(3)), walk(3)),
        (StepParts(state), state),
        (ChatParts(chat(3)), chat(3)),
        (ChatParts(waiting), waiting),
    ):
        position = len(parts.observations)
        assert parts.dropped(position, 0) == history
        assert parts.shortened(position, 100, 100) == history
    assert ChatParts(chat(3)).dropped(2, 0) == Conversation(chat(3).messages[:5])
    assert StepParts(walk(3)).dropped(2, 1) == replace(walk(3), steps=walk(3).steps[1:2])


@pytest.mark.parametrize("overflow", CUTS)
def test_a_chat_is_cut_as_its_own_messages(overflow: Overflow) -> None:
    long = chat(20) if overflow == "drop_oldest" else chat(4, 400)
    context = 300 if overflow == "drop_oldest" else 2600
    item = overflowing(context).trajectory(long, 2, overflow)
    (sequence,) = item.questions
    assert "You craft.\nCraft." in text(sequence)
    parts = ChatParts(long)
    cuts = (
        [parts.dropped(20, item.dropped_steps)]
        if overflow == "drop_oldest"
        else [parts.shortened(4, cap, None) for cap in CAPS]
    )
    assert [sequence] in [sequencer(10_000).trajectory(cut, 2) for cut in cuts]
    assert item.cut_tokens > 0


@pytest.mark.parametrize("overflow", CUTS)
def test_all_candidates_are_ranked_after_the_same_cut(overflow: Overflow) -> None:
    state = State("Craft.", (walk(9) if overflow == "drop_oldest" else reading(9, 200)).steps, "now")
    candidates = ["a", "b" * 60, "c"]
    context = CONTEXT if overflow == "drop_oldest" else 1400

    async def use(scorer: Scorer) -> None:
        (ranked,) = (await scorer.rank([state], [candidates], Terms(), [overflow])).items
        assert ranked.usage.cut_tokens > 0
        if overflow == "drop_oldest":
            cut = replace(state, steps=state.steps[ranked.usage.dropped_steps :])
            (plain,) = (await scorer.rank([cut], [candidates], Terms())).items
            assert ranked.ranking == plain.ranking
        assert all(action.score.progress is not None for action in ranked.ranking)

    scoring(use, context_length=context)


def test_more_cuts_than_a_request_may_need_are_too_long() -> None:
    steps: Sequence[Step] = reading(MAX_CUTS * 4, 600).steps
    with pytest.raises(TooLong, match=f"more than {MAX_CUTS} cuts"):
        overflowing(1000).trajectory(Trajectory("t", tuple(steps)), None, "drop_oldest")
