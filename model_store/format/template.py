"""The text around tasks, observations and actions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from agentprm.types import Step, Trajectory
from model_store.format.validation import NOT_NULL, TextPair


@dataclass(frozen=True, slots=True)
class Template:
    """The text around each segment, as ``(before, after)``; special tokens are recognised here and only here.

    ``begin`` stands before everything, ``next`` between an action's end and what follows it. A step is scored at the
    last token of ``action[1]``, or of the action itself if that text is empty. With ``skip_empty_observation`` an empty
    observation has no texts around it either. ``strip`` removes whitespace around a segment, as many chat templates do.
    ``strip_task`` says where it is removed from the task instead: at ``both`` ends, at the ``start``, or at ``none``.

    ``tokenise`` says what is tokenised together. ``segments``: every segment and every text around it on its own.
    ``steps``: the task with its texts together, the rest on its own. ``text``: everything, as tokenising the whole text
    at once does.
    """

    begin: str
    task: TextPair
    observation: TextPair
    action: TextPair
    next: str = ""
    tokenise: Literal["segments", "steps", "text"] = "segments"
    skip_empty_observation: bool = False
    strip: bool = False
    strip_task: Annotated[Literal["both", "start", "none"] | None, NOT_NULL] = None

    def whole_text(self, trajectory: Trajectory) -> str:
        """The text of the renderer's tokens, with the template's special tokens written out."""
        task = self.task[0] + self.stripped_task(trajectory.task) + self.task[1]
        return self.begin + task + self.steps_text(trajectory.steps)

    def steps_text(self, steps: Sequence[Step]) -> str:
        """The part of the whole text that holds the steps."""
        text = ""
        for index, step in enumerate(steps):
            text += self.next if index else ""
            if self.stripped(step.observation) or not self.skip_empty_observation:
                text += self._around(self.observation, step.observation)
            text += self._around(self.action, step.action)
        return text

    def stripped(self, segment: str) -> str:
        """An observation or action without the whitespace that the template removes."""
        return segment.strip() if self.strip else segment

    def stripped_task(self, task: str) -> str:
        """A task without the whitespace that the template removes."""
        ends = self.strip_task or ("both" if self.strip else "none")
        return {"both": task.strip(), "start": task.lstrip(), "none": task}[ends]

    def _around(self, texts: tuple[str, str], segment: str) -> str:
        return texts[0] + self.stripped(segment) + texts[1]
