"""Files of every kind as rollouts, and what is said of those that are damaged."""

import gzip
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agentprm.errors import AgentPRMError
from tests.training.rollouts.samples import write_jsonl
from training.rollouts.reading import read

CALL, OTHER = (
    {"id": name, "type": "function", "function": {"name": "go", "arguments": arguments}}
    for name, arguments in (("c", {"to": "hall"}), ("d", {"steps": 2}))
)
LINES: list[dict[str, Any]] = [
    {"task": "leave", "steps": [{"observation": "a door", "action": "open it"}], "outcome": 1.0, "labels": [None]},
    {
        "messages": [
            {"role": "user", "content": "leave"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "a wall", "tool_call_id": "c"},
            {"role": "assistant", "content": None, "tool_calls": [OTHER]},
        ],
        "tools": [{"type": "function", "function": {"name": "go"}}],
        "outcome": 0.0,
        "query": "door",
    },
]


def as_lines(path: Path) -> None:
    write_jsonl(path, LINES)


def as_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(write_jsonl(path, LINES).read_bytes()))


def as_document(path: Path) -> None:
    path.write_text(json.dumps(LINES, indent=2))


def table_of(lines: list[dict[str, Any]]) -> pa.Table:
    names = dict.fromkeys(name for line in lines for name in line)
    return pa.Table.from_pylist([{name: line.get(name) for name in names} for line in lines])


def as_parquet(path: Path) -> None:
    pq.write_table(table_of(LINES), path)


def as_parquet_of_json(path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {name: json.dumps(value) if name in ("messages", "tools", "steps") else value for name, value in line.items()}
        for line in LINES
    ]
    pq.write_table(table_of(rows), path)


def as_datasets_directory(path: Path) -> None:
    """The files that ``datasets`` of Hugging Face saves, with two shards."""
    train = path / "train"
    train.mkdir(parents=True)
    (path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    (train / "dataset_info.json").write_text("{}")
    (train / "state.json").write_text('{"_data_files": []}')
    table = table_of(LINES)
    for number in range(2):
        name = f"data-0000{number}-of-00002.arrow"
        with pa.OSFile(str(train / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table.slice(number, 1))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.jsonl", as_lines),
        ("a.json", as_lines),
        ("a.jsonl.gz", as_gzip),
        ("a.json", as_document),
        ("a.parquet", as_parquet),
        ("b.parquet", as_parquet_of_json),
        ("a", as_datasets_directory),
    ],
)
def test_a_file_of_any_kind_holds_the_same_rollouts(tmp_path: Path, name: str, write: Any) -> None:
    write(tmp_path / name)
    reading = read([tmp_path / name])
    assert reading.faults == []
    assert reading.rollouts == read([write_jsonl(tmp_path / "plain.jsonl", LINES)]).rollouts
    assert len(reading.rollouts) == 2


def test_files_of_several_formats_are_read_together(tmp_path: Path) -> None:
    tau = {"task_id": 1, "reward": 1.0, "info": {}, "traj": LINES[1]["messages"], "trial": 0}
    write_jsonl(tmp_path / "mixed.jsonl", [LINES[0], tau])
    as_parquet(tmp_path / "rows.parquet")
    assert len(read([tmp_path]).whole()) == 4
    (fault,) = read([tmp_path / "mixed.jsonl"], "tau-bench").faults
    assert str(fault).endswith("mixed.jsonl, line 1: it is no record of tau-bench")


def test_every_bad_line_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [LINES[0], {**LINES[0], "outcome": 2}, LINES[1]])
    user_only = {"messages": LINES[1]["messages"][:1], "outcome": 1}
    path.write_text(path.read_text() + json.dumps(user_only) + '\n{"task": "lea')
    reading = read([path])
    assert len(reading.rollouts) == 2
    assert [(fault.place.number, fault.reason) for fault in reading.faults] == [
        (2, "outcome must be from 0 to 1, not 2"),
        (4, "a chat needs at least one assistant message: each is a step"),
        (5, "it is not JSON: EOF while parsing a string at character 13"),
    ]
    with pytest.raises(AgentPRMError, match=r"3 lines are bad, the first is .*a\.jsonl, line 2: outcome must be"):
        reading.whole()


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.eval", "a.jsonl.gz", "a.json"])
def test_a_file_of_another_kind_than_its_name_says_is_one_fault(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no such file")
    (fault,) = read([tmp_path / name]).faults
    assert fault.place.path.name == name


def test_a_cut_file_is_a_fault_after_the_lines_that_it_holds(tmp_path: Path) -> None:
    packed = gzip.compress((json.dumps(LINES[0]) + "\n").encode() * 5000)
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    reading = read([tmp_path])
    assert reading.rollouts
    assert "damaged" in reading.faults[-1].reason


def test_a_path_without_rollouts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(AgentPRMError, match=r"missing\.jsonl does not exist"):
        read([tmp_path / "missing.jsonl"])
    with pytest.raises(AgentPRMError, match=r"holds no file that ends in \.jsonl"):
        read([tmp_path])
    with pytest.raises(AgentPRMError, match=r"there is no format 'csv'; there are: auto, rollouts, tau-bench"):
        read([tmp_path], "csv")
    with pytest.raises(AgentPRMError, match="the files hold no trajectory with an outcome; left out: 1 trajectories"):
        read([write_jsonl(tmp_path / "a.jsonl", [{**LINES[0], "outcome": None}])]).whole()


def test_queries_that_compare_nothing_are_noted(tmp_path: Path) -> None:
    lines = [LINES[0], LINES[0], {**LINES[1], "query": "a"}, {**LINES[1], "query": "b"}, {**LINES[0], "query": "b"}]
    assert read([write_jsonl(tmp_path / "a.jsonl", lines)]).notes == [
        "1 of 3 queries have one attempt only: best-of-n compares nothing there",
        "1 of 3 queries have several attempts that all have the same outcome",
    ]


def compressed_by_zstandard(path: Path, members: dict[str, Any]) -> None:
    """Writes a zip archive whose members have the method 93, which zipfile of this Python does not know."""
    codec, offsets = pa.Codec("zstd"), []
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in members.items():
            archive.writestr(name, codec.compress(json.dumps(value).encode(), asbytes=True))
            offsets.append(archive.getinfo(name).header_offset)
        start = archive.start_dir
    data = bytearray(path.read_bytes())
    for offset in offsets:
        struct.pack_into("<H", data, offset + 8, 93)
    while data[start : start + 4] == b"PK\x01\x02":
        struct.pack_into("<H", data, start + 10, 93)
        start += 46 + sum(struct.unpack_from("<HHH", data, start + 28))
    path.write_bytes(data)


def test_a_log_of_inspect_is_read_with_either_compression(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "leave"}, {"role": "assistant", "content": "I cannot"}]
    sample = {"id": 1, "epoch": 1, "messages": chat, "scores": {"match": {"value": "C"}}}
    members = {"header.json": {"eval": {"task": "doors"}, "plan": {}}, "samples/1_epoch_1.json": sample}
    compressed_by_zstandard(tmp_path / "new.eval", members)
    with zipfile.ZipFile(tmp_path / "old.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in members.items():
            archive.writestr(name, json.dumps(value))
    new, old = read([tmp_path]).whole()
    assert new == old
    assert (new.query, new.outcome) == ("doors/1", 1)
