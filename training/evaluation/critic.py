"""A trained model as a judge of steps, in process, with the renderer and the forward pass that serving uses."""

from collections.abc import Sequence
from itertools import islice

from agentprm.types import State, Trajectory
from model_store.format.recipe import ScoreRecipe
from model_store.network.model import RewardModel, score_rows
from model_store.text.renderer import Renderer


class Critic:
    """Judges steps by a model, the renderer of its texts and the score recipe of its manifest.

    A promise is M_phi(s_t, a_t) in [0, 1] of AgentPRM (arXiv 2511.08325), the model's estimate of eq. 2.
    """

    def __init__(self, model: RewardModel, renderer: Renderer, score: ScoreRecipe) -> None:
        self._model = model
        self._renderer = renderer
        self._promise = score.promise

    def step_promises(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
        """Returns the promise of every step of each trajectory: one list a trajectory, one value a step."""
        texts = [self._renderer.trajectory(trajectory) for trajectory in trajectories]
        raw = score_rows(self._model, [text.token_ids for text in texts], [text.step_ends for text in texts])
        return [[self._promise(score) for score in scores] for scores in raw]

    def action_promises(self, states: Sequence[State], actions: Sequence[Sequence[str]]) -> list[list[float]]:
        """Returns the promise of each proposed action in its state: one list a state, one value an action."""
        rows = []
        for state, proposed in zip(states, actions, strict=True):
            history = self._renderer.state(state)
            rows += [history.token_ids + action for action in self._renderer.actions(proposed, history)]
        raw = score_rows(self._model, rows, [[len(row) - 1] for row in rows])
        promises = (self._promise(scores[0]) for scores in raw)
        return [list(islice(promises, len(proposed))) for proposed in actions]
