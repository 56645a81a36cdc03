"""``python -m training.evaluation``: measures the bundled checkpoints on the held-out goals and prints the table."""

import argparse
from pathlib import Path

import torch

from model_store.format.store import Store
from model_store.network.model import load_model
from model_store.text.renderer import load_renderer
from training.bundled import AGENTPRM, ORM, STORE
from training.environments.textcraft.environment import held_out_goals
from training.evaluation.critic import Critic
from training.evaluation.experiment import EvaluationConfig, Judges, evaluate
from training.evaluation.report import as_text


def load_critic(store: Store, reference: str) -> Critic:
    checkpoint = store.resolve(reference)
    return Critic(load_model(checkpoint, "cpu", "auto"), load_renderer(checkpoint))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluation", description=__doc__)
    parser.add_argument("--store", type=Path, default=STORE, help="the store that holds both checkpoints")
    store = Store(parser.parse_args().store)
    torch.set_num_threads(1)
    judges = Judges(load_critic(store, AGENTPRM), load_critic(store, ORM))
    print(as_text(evaluate([judges], held_out_goals(), EvaluationConfig())))


if __name__ == "__main__":
    main()
