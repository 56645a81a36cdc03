"""The bundled checkpoint over HTTP, against scores computed without this project's model code."""

from pathlib import Path

import httpx
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification

from agentprm import Client, State, Trajectory
from model_store.format.store import Store
from tests.end_to_end.conftest import ROOT, serving
from training.environments.textcraft.environment import TextCraft, held_out_goals
from training.environments.textcraft.planner import NoisyPlanner
from training.rollouts.collect import collect

STORE = Store(ROOT / "model_store" / "checkpoints")
TOLERANCE = 1e-5

pytestmark = pytest.mark.timeout(300)  # it starts servers, which a busy machine does slowly


@pytest.fixture(scope="module")
def trajectories() -> list[Trajectory]:
    """Real TextCraft episodes on goals that the checkpoint never saw."""
    return [rollout.trajectory for rollout in collect(held_out_goals(), TextCraft, NoisyPlanner(), count=12, seed=11)]


def plain_raw_scores(path: Path, trajectory: Trajectory) -> list[float]:
    """The raw score of each step by plain transformers, one forward a step, the text rendered by hand."""
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    text = f"{trajectory.task}<eot>"
    scores = []
    for step in trajectory.steps:
        text += f"{step.observation}<eoo>{step.action}<eoa>"
        token_ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.inference_mode():
            scores.append(model(token_ids, attention_mask=torch.ones_like(token_ids)).logits.item())
    return scores


def test_served_scores_are_those_of_a_plain_transformers_forward(
    client: Client, trajectories: list[Trajectory]
) -> None:
    path = STORE.resolve("demo").path
    for trajectory, result in zip(trajectories, client.score_trajectory(trajectories).results, strict=True):
        expected = plain_raw_scores(path, trajectory)
        assert [step.raw for step in result.steps] == pytest.approx(expected, abs=TOLERANCE)
        promises = torch.sigmoid(torch.tensor(expected, dtype=torch.float64)).tolist()
        assert [step.promise for step in result.steps] == pytest.approx(promises, abs=TOLERANCE)


def test_a_whole_trajectory_scores_as_each_of_its_prefixes(client: Client, trajectories: list[Trajectory]) -> None:
    for trajectory in trajectories[:4]:
        whole = client.score_trajectory([trajectory]).results[0].steps
        prefixes = [Trajectory(trajectory.task, trajectory.steps[: n + 1]) for n in range(len(trajectory.steps))]
        for step, alone in zip(whole, client.score_step(prefixes).results, strict=True):
            assert (alone.promise, alone.raw) == pytest.approx((step.promise, step.raw), abs=TOLERANCE)
            assert (alone.progress is None) == (step.progress is None)
            assert (alone.progress or 0) == pytest.approx(step.progress or 0, abs=TOLERANCE)


def test_a_candidate_alone_and_among_63_others_has_the_same_promise(
    client: Client, trajectories: list[Trajectory]
) -> None:
    trajectory = trajectories[0]
    state = State(trajectory.task, trajectory.steps[:-1], trajectory.steps[-1].observation)
    candidates = [trajectory.steps[-1].action, *(f"get {count} birch_logs" for count in range(1, 64))]
    among = {candidate.index: candidate for candidate in client.rank(state, candidates).ranking}
    for index in (0, 1, 63):
        alone = client.rank(state, [candidates[index]]).ranking[0]
        assert alone.promise == pytest.approx(among[index].promise, abs=TOLERANCE)
    taken = client.score(state.take(candidates[0]))
    assert (taken.promise, taken.progress) == pytest.approx((among[0].promise, among[0].progress), abs=TOLERANCE)


def test_the_ranking_is_sorted_and_names_every_candidate_once(client: Client, trajectories: list[Trajectory]) -> None:
    state = State(trajectories[1].task)
    ranking = client.rank(state, [step.action for step in trajectories[1].steps]).ranking
    assert [candidate.rank for candidate in ranking] == list(range(len(ranking)))
    assert sorted(candidate.index for candidate in ranking) == list(range(len(ranking)))
    assert [candidate.promise for candidate in ranking] == sorted(
        (candidate.promise for candidate in ranking), reverse=True
    )


def test_a_chat_scores_as_the_same_trajectory_in_plain_text(client: Client, trajectories: list[Trajectory]) -> None:
    trajectory = trajectories[2]
    messages = [{"role": "user", "content": trajectory.task}]
    for step in trajectory.steps:
        messages += [{"role": "tool", "content": step.observation}] if step.observation else []
        messages += [{"role": "assistant", "content": step.action}]
    assert client.score(messages).promise == client.score(trajectory).promise


def test_the_promise_tells_success_from_failure_on_unseen_goals(client: Client) -> None:
    rollouts = list(collect(held_out_goals(), TextCraft, NoisyPlanner(), count=60, seed=5))
    results = client.score_step([rollout.trajectory for rollout in rollouts]).results
    succeeded = [result.promise for result, rollout in zip(results, rollouts, strict=True) if rollout.outcome]
    failed = [result.promise for result, rollout in zip(results, rollouts, strict=True) if not rollout.outcome]
    assert min(len(succeeded), len(failed)) > 5
    assert sum(succeeded) / len(succeeded) > 0.5 + sum(failed) / len(failed)


def test_models_tells_what_is_served_and_what_was_measured(client: Client) -> None:
    (model,) = client.models().models
    manifest = STORE.resolve("demo").manifest
    assert (model.name, model.digest, model.aliases) == ("textcraft-demo", manifest.digest, ["demo"])
    assert model.limits.tokens == manifest.context_length == 512
    assert model.trained_on is not None
    assert model.trained_on.startswith("TextCraft ")
    assert model.trained_on == model.training["environment"]
    assert model.evaluation["training_seeds"] >= 3
    assert model.evaluation["goals"] >= 80


def test_a_server_with_quantised_weights_tells_its_error_and_keeps_its_scores_apart(
    client: Client, trajectories: list[Trajectory], tmp_path: Path
) -> None:
    full = client.score_trajectory(trajectories).results
    with serving(tmp_path, weights="int8") as url, Client(url) as other:
        (model,) = other.models().models
        quantised = other.score_trajectory(trajectories).results
        metrics = httpx.get(f"{url}/metrics", timeout=100).text
    assert model.dtype == "float32+int8"
    assert 'dtype="float32+int8"' in metrics
    assert client.models().models[0].weights is None
    assert model.weights is not None
    assert model.weights.quantised == "int8"
    assert 0 < model.weights.error["promise_rms"] <= model.weights.error["promise_max"] < 0.05
    assert (
        f"with int8 weights: promise off by {model.weights.error['promise_rms']:.2g}" in (tmp_path / "log").read_text()
    )
    pairs = [
        (step.promise, quantised_step.promise)
        for results in zip(full, quantised, strict=True)
        for step, quantised_step in zip(*(result.steps for result in results), strict=True)
    ]
    assert 0 < max(abs(step - quantised_step) for step, quantised_step in pairs) < 0.05


def test_every_example_of_the_documentation_page_works(server: str) -> None:
    """Those with ``sample`` and outcomes are refused: this server has no policy and records nothing, as it says."""
    paths = httpx.get(f"{server}/openapi.json", timeout=100).json()["paths"]
    called = 0
    for path, operations in paths.items():
        content = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        for example in content.get("examples", {}).values():
            reply = httpx.post(server + path, json=example["value"], timeout=100)
            sampled = any("sample" in item for item in example["value"].get("items", ()))
            refusal = "no policy" if sampled else "records nothing" if path == "/outcomes" else ""
            assert reply.status_code == (422 if refusal else 200), reply.text
            assert refusal in reply.text
            called += 1
    assert called >= 4


def test_metrics_count_what_was_answered(server: str, client: Client, trajectories: list[Trajectory]) -> None:
    def answered() -> float:
        lines = httpx.get(f"{server}/metrics", timeout=100).text.splitlines()
        name = 'agentprm_requests_total{code="200",model="textcraft-demo@1",route="/score_step"} '
        return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    before = answered()
    client.score(trajectories[0])
    assert answered() == before + 1
