"""Example requests and replies for the documentation page. Figures are illustrative, shapes are exact."""

from typing import Any, Final

_TASK: Final = (
    "Crafting commands:\ncraft 4 acacia_planks using 1 acacia_logs\ncraft 3 acacia_door using 6 acacia_planks\n\n"
    "Goal: craft acacia_door. Actions allowed: 6."
)
_STEPS: Final = [
    {"observation": "", "action": "get 2 acacia_logs"},
    {"observation": "Got 2 acacia_logs. 5 left.", "action": "craft 4 acacia_planks using 1 acacia_logs"},
]
_CHAT: Final = [
    {"role": "system", "content": "You are a web agent."},
    {"role": "user", "content": "Find a laptop below $900."},
    {
        "role": "assistant",
        "tool_calls": [{"function": {"name": "search", "arguments": '{"query": "laptop"}'}}],
    },
    {"role": "tool", "content": "12 results"},
]
_MODEL: Final = {"name": "textcraft-demo", "version": "1", "digest": "sha256:5f0c..."}
_USAGE: Final = {"tokens": 113, "computed": 12, "prefix_cache": 101, "score_cache": 0, "unknown": 0}
_CLICK: Final = {"role": "assistant", "content": "click the first result"}


def _request(summary: str, item: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "value": {"items": [item]}}


SCORE_REQUESTS: Final = {
    "steps": _request("Task and steps", {"id": "a", "task": _TASK, "steps": _STEPS}),
    "messages": _request("An OpenAI chat", {"messages": [*_CHAT, _CLICK]}),
}
RANK_REQUESTS: Final = {
    "steps": _request(
        "Task, steps, observation",
        {
            "task": _TASK,
            "steps": _STEPS,
            "observation": "Crafted 4 acacia_planks. 4 left.",
            "candidates": ["craft 4 acacia_planks using 1 acacia_logs", "inventory"],
        },
    ),
    "messages": _request("An OpenAI chat", {"messages": _CHAT, "candidates": ["search again", _CLICK]}),
    "sample": _request(
        "Best of n, sampled from the policy of AGENTPRM_POLICY_URL",
        {"task": _TASK, "steps": _STEPS, "sample": {"n": 8, "temperature": 1.0, "max_tokens": 256}},
    ),
}
OUTCOMES: Final = {
    "success": {"summary": "A success", "value": {"trajectory_id": "run-7", "outcome": 1.0, "query": "door-3"}},
    "truncated": {"summary": "Cut by a limit", "value": {"trajectory_id": "run-8", "truncated": True}},
    "ranked": {
        "summary": "Of an agent that only ranks: its last action, which no scored trajectory holds",
        "value": {"trajectory_id": "run-9", "outcome": 0.0, "action": "craft 3 acacia_door using 6 acacia_planks"},
    },
}
STEP_REPLY: Final = {
    "model": _MODEL,
    "results": [{"id": "a", "promise": 0.71, "progress": 0.08, "raw": 0.9, "usage": _USAGE}],
}
TRAJECTORY_REPLY: Final = {
    "model": _MODEL,
    "results": [
        {
            "id": "a",
            "steps": [
                {"promise": 0.63, "progress": None, "raw": 0.53},
                {"promise": 0.71, "progress": 0.08, "raw": 0.9},
            ],
            "usage": _USAGE,
        }
    ],
}
RANK_REPLY: Final = {
    "model": _MODEL,
    "results": [
        {
            "id": None,
            "ranking": [
                {"index": 0, "rank": 0, "promise": 0.8, "progress": 0.09, "raw": 1.39},
                {"index": 1, "rank": 1, "promise": 0.42, "progress": -0.29, "raw": -0.32},
            ],
            "usage": _USAGE,
        }
    ],
}
