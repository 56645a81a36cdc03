"""``python -m training.study.textcraft``: the bundled checkpoints on the held-out goals of TextCraft, as a table."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from model_store.format.store import Store
from model_store.network.model import load_model
from model_store.text.renderer import load_renderer
from training.bundled import AGENTPRM, ORM, STORE
from training.environments.textcraft.environment import TextCraft, held_out_goals
from training.environments.textcraft.planner import NoisyPlanner
from training.evaluation.critic import Critic
from training.evaluation.experiment import Critics, EvaluationConfig, evaluate
from training.evaluation.report import as_text

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False)


def load_critic(store: Store, reference: str) -> Critic:
    """Returns a checkpoint as a critic on the CPU, with the score recipe of its manifest."""
    checkpoint = store.resolve(reference)
    return Critic(load_model(checkpoint, "cpu", "auto"), load_renderer(checkpoint), checkpoint.manifest.score)


@app.command()
def main(
    store: Annotated[
        Path, typer.Option(help="Directory of the store that holds both checkpoints.", show_default=False)
    ] = STORE,
) -> None:
    """Measure the bundled checkpoints on the held-out goals and print the table."""
    torch.set_num_threads(1)
    checkpoints = Store(store)
    critics = Critics(load_critic(checkpoints, AGENTPRM), load_critic(checkpoints, ORM))
    print(as_text(evaluate([critics], held_out_goals(), TextCraft, NoisyPlanner(), EvaluationConfig())))


if __name__ == "__main__":
    app(prog_name="python -m training.study.textcraft")
