"""What a person should see of a checkpoint before trusting it: the sample's tokens, scores and texts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from agentprm.types import State, Trajectory
from model_store.format.store import Checkpoint
from model_store.format.template import Template
from model_store.importers.sample import AGENT_CHAT, SAMPLE, SAMPLE_CHAT, left_out, sample_for
from model_store.text.chat_renderer import ChatRenderer
from model_store.text.loading import render, renderer_of
from model_store.text.renderer import Renderer
from model_store.text.runs import Unrenderable
from model_store.text.tokenizer_file import load_tokenizer


class ShownSample(NamedTuple):
    """``steps`` have their scores and the tokens that these are read at. ``agent_chat`` is a chat with tools.

    ``prefix_stable``: each step has the tokens alone that it has in the whole. ``as_whole_text``: they are those of the
    whole text tokenised at once; None if the recipe cuts it up.
    """

    steps: list[dict[str, Any]]
    prefix_stable: bool
    as_whole_text: bool | None
    agent_chat: str | None = None
    notes: tuple[str, ...] = ()


def show_sample(checkpoint: Checkpoint, raws: Sequence[float]) -> ShownSample:
    """Shows the sample of a checkpoint, whose steps have these raw scores."""
    renderer, tokenizer = renderer_of(checkpoint), load_tokenizer(checkpoint.path)
    rows = render(renderer, sample_for(renderer))
    read_at = [tokenizer.id_to_token(token_ids[read]) for token_ids, reads in rows for read in reads]
    steps = [
        {"action": step.action, "read_at": token, "raw": raw, "promise": checkpoint.manifest.score.promise(raw)}
        for step, token, raw in zip(SAMPLE.steps, read_at, raws, strict=True)
    ]
    if isinstance(renderer, ChatRenderer):
        same = _same_tokens(renderer, tokenizer, rows[-1].token_ids)
        return ShownSample(steps, len(rows) == 1, same, *_agent_chat(renderer))
    return ShownSample(
        steps,
        is_prefix_stable(renderer, SAMPLE),
        is_as_whole_text(renderer, checkpoint.manifest.texts, tokenizer, SAMPLE),
    )


def _agent_chat(renderer: ChatRenderer) -> tuple[str | None, tuple[str, ...]]:
    """The text of a chat with tools, and what the template does with it."""
    try:
        missing = left_out(renderer)
        return renderer.text(AGENT_CHAT), tuple(f"the chat template leaves {part} out" for part in missing)
    except Unrenderable as error:
        return None, (f"a sample chat with tools: {error}",)


def _same_tokens(renderer: ChatRenderer, tokenizer: Tokenizer, token_ids: Sequence[int]) -> bool:
    """Whether the sample's text, tokenised at once, begins with its tokens; only padding may follow."""
    tokenizer.encode_special_tokens = False
    whole = tokenizer.encode(renderer.text(SAMPLE_CHAT), add_special_tokens=False).ids
    return whole[: len(token_ids)] == token_ids and set(whole[len(token_ids) :]) <= {renderer.pad_token_id}


def is_prefix_stable(renderer: Renderer, trajectory: Trajectory) -> bool:
    """Returns whether each step, alone and as a proposed action, has the tokens that it has in the whole."""
    whole = renderer.trajectory(trajectory)
    for index, (step, end) in enumerate(zip(trajectory.steps, whole.step_ends, strict=True)):
        before = renderer.state(State(trajectory.task, trajectory.steps[:index], step.observation))
        if before.token_ids + renderer.actions([step.action], before)[0] != whole.token_ids[: end + 1]:
            return False
    return True


def is_as_whole_text(
    renderer: Renderer, template: Template, tokenizer: Tokenizer, trajectory: Trajectory
) -> bool | None:
    """Returns whether tokenising the whole text at once gives the same tokens; None if the recipe cuts it up."""
    if template.tokenise != "text":
        return None
    tokenizer.encode_special_tokens = False
    whole = tokenizer.encode(template.whole_text(trajectory), add_special_tokens=False)
    rendered = renderer.trajectory(trajectory).token_ids
    rest = whole.ids[len(rendered) :]
    return whole.ids[: len(rendered)] == rendered and set(rest) <= {renderer.pad_token_id}
