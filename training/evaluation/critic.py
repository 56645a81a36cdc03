"""A trained model as a judge of steps, in process: the same renderer and forward that serving uses."""

from collections.abc import Sequence
from itertools import islice

from agentprm.types import State, Trajectory
from model_store.format.recipe import ScoreRecipe
from model_store.network.model import RewardModel, score_rows
from model_store.text.renderer import Renderer

RECIPE = ScoreRecipe(head="linear", activation="sigmoid", read="action_end")


class Critic:
    def __init__(self, model: RewardModel, renderer: Renderer) -> None:
        self._model = model
        self._renderer = renderer

    def step_promises(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
        """Promise of every step of each trajectory."""
        rendered = [self._renderer.trajectory(trajectory) for trajectory in trajectories]
        raw = score_rows(self._model, [one.token_ids for one in rendered], [one.step_ends for one in rendered])
        return [[RECIPE.promise(score) for score in scores] for scores in raw]

    def action_promises(self, states: Sequence[State], actions: Sequence[Sequence[str]]) -> list[list[float]]:
        """Promise of each proposed action in its state."""
        rows = []
        for state, proposed in zip(states, actions, strict=True):
            history = self._renderer.state(state)
            rows += [history.token_ids + action for action in self._renderer.actions(proposed, history)]
        raw = score_rows(self._model, rows, [[len(row) - 1] for row in rows])
        promises = (RECIPE.promise(scores[0]) for scores in raw)
        return [list(islice(promises, len(proposed))) for proposed in actions]
