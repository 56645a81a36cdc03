"""What rendering costs grows with what is rendered, so that a costly item waits for its turn."""

from agentprm.errors import InvalidRequest
from agentprm.types import Conversation, Message, State, Step, Trajectory
from service.queue.texts import MAX_CHARS_ON_EVENT_LOOP
from service.scoring.costs import rendering_cost


def chat(steps: int) -> Conversation:
    turns = [Message("user", "go"), *[Message("assistant", "x"), Message("tool", "y")] * steps]
    return Conversation(tuple(turns[:-1]))


def test_both_forms_of_a_history_and_its_candidates_count_their_characters() -> None:
    trajectory = Trajectory("abcd", (Step("ab", "c"),))
    assert rendering_cost(trajectory, (), "error", anew=False) == 7 + 4 * 16
    proposed = rendering_cost(
        State("abcd", (Step("ab", "c"),)), ["ab", Message("assistant", "ab")], "error", anew=False
    )
    assert proposed == 7 + 4 * 16 + 2 + 2 + 3 * 16
    assert rendering_cost(InvalidRequest("no"), (), "error", anew=True) == 0


def test_a_chat_template_costs_a_rendering_for_each_score() -> None:
    asked: tuple[tuple[bool, int | None], ...] = ((False, 2), (True, 2), (True, None))
    costs = [rendering_cost(chat(20), (), "error", anew=anew, scores=scores) for anew, scores in asked]
    assert costs == sorted(costs)
    assert costs[0] < MAX_CHARS_ON_EVENT_LOOP < costs[1] < costs[2], "it is rendered on the thread"
    assert rendering_cost(chat(20), ["x"] * 64, "error", anew=True) > 20 * costs[1]


def test_a_short_chat_is_rendered_on_the_event_loop_and_one_that_may_be_cut_counts_more() -> None:
    short = rendering_cost(chat(2), (), "error", anew=True, scores=2)
    assert short < MAX_CHARS_ON_EVENT_LOOP
    assert rendering_cost(chat(2), (), "drop_oldest", anew=True, scores=2) == 4 * short
