from agentprm.search.choosers import first
from tests.training.guessing import NUMBERS, Guesser, Guessing, random_model, renderer
from training.demo import SCORE
from training.evaluation.acting import act
from training.evaluation.critic import Critic
from training.evaluation.experiment import Critics, EvaluationConfig, evaluate

CONFIG = EvaluationConfig(proposals=(1, 2), episodes=2, trajectories=16)


def critics() -> Critics:
    critic = Critic(random_model(), renderer(), SCORE)
    return Critics(agentprm=critic, orm=critic)


def test_any_environment_is_evaluated() -> None:
    report = evaluate([critics()], NUMBERS, Guessing, Guesser(), CONFIG)
    played = act(NUMBERS, Guessing, Guesser(), first, proposals=1, episodes=2, seed=CONFIG.seed)
    assert report.goals == len(NUMBERS)
    assert report.steps["policy alone"][1].mean == played.mean()
    assert report.best_of["oracle"][2].mean >= report.best_of["AgentPRM"][2].mean
    assert report.offline["AgentPRM"] == report.offline["outcome model (ORM)"]
