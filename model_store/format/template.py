"""The text around tasks, observations and actions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agentprm.types import Step, Trajectory
from model_store.format.validation import TextPair


@dataclass(frozen=True, slots=True)
class Template:
    """The text around each segment, as ``(before, after)``; special tokens are recognised here and only here.

    ``action[1]`` must not be empty: its last token is where every action ends and is scored. ``next`` stands between
    an action's end and what follows it. ``tokenise``: every segment and every text around it on its own
    (``segments``), the task together with its texts and the rest on its own (``steps``), or all together, as
    tokenising the ``text`` at once does. ``skip_empty_observation``: an empty one leaves out its texts too.
    ``strip``: whitespace around a segment is cut off, as many chat templates do.
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
        """What the renderer's tokens stand for, special tokens of the template written out."""
        return self.begin + self._around(self.task, trajectory.task) + self.steps_text(trajectory.steps)

    def steps_text(self, steps: Sequence[Step]) -> str:
        """The part of it that tells the steps."""
        text = ""
        for index, step in enumerate(steps):
            text += self.next if index else ""
            if (step.observation.strip() if self.strip else step.observation) or not self.skip_empty_observation:
                text += self._around(self.observation, step.observation)
            text += self._around(self.action, step.action)
        return text

    def _around(self, texts: tuple[str, str], segment: str) -> str:
        return texts[0] + (segment.strip() if self.strip else segment) + texts[1]
