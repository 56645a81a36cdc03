"""A newcomer's way: an agent's chats, a check, training, evaluation, and a service that ranks as the chats say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agentprm import Client
from tests.end_to_end.conftest import ROOT, serving
from tests.training.refunds import TOOLS, calling, make_base, write_chats

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # it starts processes, which a busy machine does slowly


def command(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "training", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_twenty_chats_become_a_service_that_ranks_as_they_say(tmp_path: Path) -> None:
    chats, base, store = tmp_path / "chats.jsonl", tmp_path / "base", tmp_path / "checkpoints"
    write_chats(chats)
    make_base(base, chats.read_text())
    assert "20 trajectories of 10 queries, 0 bad lines" in command("check", str(chats), "--base", str(base))
    options = tmp_path / "train.yaml"
    options.write_text("lr: 3.0e-3\nepochs: 60\npatience: 60\ntokens-per-update: 800\nheld-out: 0.3\nseed: 6\n")
    trained = command(
        *("train", "--config", str(options), "--rollouts", str(chats), "--base", str(base), "--name", "my-agent"),
        *("--version", "1", "--store", str(store), "--output", str(tmp_path / "run")),
    )
    assert "published my-agent@1" in trained
    figures = tmp_path / "figures.json"
    evaluated = command("evaluate", "my-agent", "--rollouts", str(chats), "--store", str(store), "--json", str(figures))
    assert "my-agent@1 was trained on these files" in evaluated
    manifest = json.loads((store / "my-agent/1/prm.json").read_text())
    assert json.loads(figures.read_text()) == manifest["evaluation"]
    assert manifest["evaluation"]["step_auc"]["value"] > 0.8
    assert "<svg" in (store / "my-agent/1/report.html").read_text()
    with serving(tmp_path, model_store=str(store), models="my-agent") as url, Client(url) as prm:
        new_order = {"messages": [{"role": "user", "content": "Refund order 31."}], "tools": TOOLS}
        ranked = prm.rank(new_order, [calling("refund", 31), calling("look_up", 31)]).ranking
    assert [one.index for one in ranked] == [1, 0]
    assert ranked[0].promise > ranked[1].promise + 0.3
