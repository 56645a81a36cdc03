import json

from agentprm.wire import RankItem, RankRequest
from benchmarks.workloads.requests import as_call
from benchmarks.workloads.textcraft import PROPOSALS, record, textcraft, textcraft_load
from model_store.format.store import Store
from model_store.text.renderer import load_renderer
from service.settings import CHECKPOINTS


def test_recorded_traffic_is_requests_for_the_scores_that_the_engine_is_asked_for() -> None:
    load, (sent, _) = textcraft_load(1), textcraft(1)
    renderer, _ = record(1)
    assert [as_call(renderer, load.path, [body]) for body in load.bodies] == list(sent.calls)
    for body in load.bodies:
        (item,) = RankRequest.model_validate(body).items
        assert isinstance(item, RankItem)
        assert len(item.candidates or ()) == PROPOSALS
    assert load.items == sent.items


def test_the_bundled_checkpoint_reads_the_recorded_traffic() -> None:
    checkpoint = Store(CHECKPOINTS).resolve("demo")
    vocabulary = json.loads((checkpoint.path / "tokenizer.json").read_text())["model"]["vocab"]
    load = textcraft_load(2)
    call = as_call(load_renderer(checkpoint), load.path, load.bodies)
    assert all(vocabulary["<unk>"] not in ids for ids in call.token_ids)
    assert max(map(len, call.token_ids)) <= checkpoint.manifest.context_length
