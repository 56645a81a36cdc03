"""The text around tasks, observations and actions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agentprm.types import Step, Trajectory
from model_store.format.validation import TextPair


@dataclass(frozen=True, slots=True)
class Template:
    """The text around each segment, as ``(before, after)``; special tokens are recognised here and only here.

    ``begin`` stands before everything, ``next`` between an action's end and what follows it. ``action[1]`` must not be
    empty: every action ends in its last token, where the step is scored. With ``skip_empty_observation`` an empty
    observation has no texts around it either. ``strip`` removes whitespace around a segment, as many chat templates do.

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

    def whole_text(self, trajectory: Trajectory) -> str:
        """The text of the renderer's tokens, with the template's special tokens written out."""
        return self.begin + self._around(self.task, trajectory.task) + self.steps_text(trajectory.steps)

    def steps_text(self, steps: Sequence[Step]) -> str:
        """The part of the whole text that holds the steps."""
        text = ""
        for index, step in enumerate(steps):
            text += self.next if index else ""
            if (step.observation.strip() if self.strip else step.observation) or not self.skip_empty_observation:
                text += self._around(self.observation, step.observation)
            text += self._around(self.action, step.action)
        return text

    def _around(self, texts: tuple[str, str], segment: str) -> str:
        return texts[0] + (segment.strip() if self.strip else segment) + texts[1]
