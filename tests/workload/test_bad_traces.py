"""Malformed files: refused with file and line, or dropped and counted where asked; never half-read."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.workload import AzureTrace, BurstGptTrace, MooncakeTrace, ServeGen, SimpleTrace, Trace

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
MOONCAKE = '{"timestamp": 100, "input_length": 600, "output_length": 9, "hash_ids": [0, 1]}\n'
BURST = "Timestamp,Model,Request tokens,Response tokens,Log Type\n5,ChatGPT,472,18,Conversation log\n"
SIMPLE = "arrival_s,prompt_tokens,output_tokens\n1.5,10,20\n"
LENGTHS = '"dataset": {"0": {"input_tokens": {"9": 1.0}, "output_tokens": {"9": 1.0}}}}\n'
CLIENT = '{"client": 0, "trace": [[0, 0.1, 1, "Gamma", 1.0, 10]], ' + LENGTHS

# (format, good beginning of two lines or one, bad row, what the message says of it)
BAD_ROWS = [
    (AzureTrace, AZURE, "2023-11-16 18:15:47.0,-3,44", r"ContextTokens must be a whole number .*got '-3'"),
    (AzureTrace, AZURE, "2023-11-16 18:15:47.0,374,many", r"GeneratedTokens must be a whole number .*got 'many'"),
    (AzureTrace, AZURE, "2023-11-16 18:15:47.0,374,", r"GeneratedTokens must be a whole number .*got ''"),
    (AzureTrace, AZURE, "2023-11-16 18:15:47.0,nan,44", r"ContextTokens must be a whole number .*got 'nan'"),
    (AzureTrace, AZURE, "2023-11-16 18:15:47.0,1.5,44", r"ContextTokens must be a whole number .*got '1.5'"),
    (AzureTrace, AZURE, f"2023-11-16 18:15:47.0,{'9' * 5000},44", r"ContextTokens must be a whole number"),
    (AzureTrace, AZURE, "2023-11-16 18:15:47.0,374", r"must have 3 fields, got 2"),
    (AzureTrace, AZURE, "2023-11-16 18:15:47.0,374,44,1", r"must have 3 fields, got 4"),
    (AzureTrace, AZURE, "2023-11-16 18:15:46.6805899,374,44", r"timestamp must not decrease"),
    (AzureTrace, AZURE, "2023-13-16 18:15:47.0,374,44", r"TIMESTAMP must be a date and time .*got '2023-13-16"),
    (AzureTrace, AZURE, "2023-11-16 18:15:47+02:00,374,44", r"TIMESTAMP must be a date and time"),
    (AzureTrace, AZURE, "NaT,374,44", r"TIMESTAMP must be a date and time .*got 'NaT'"),
    (
        MooncakeTrace,
        MOONCAKE,
        '{"timestamp": 99, "input_length": 6, "output_length": 9, "hash_ids": [0]}',
        r"not decrease",
    ),
    (MooncakeTrace, MOONCAKE, '{"timestamp": NaN, "input_length": 6, "output_length": 9, "hash_ids": [0]}', r"got nan"),
    (
        MooncakeTrace,
        MOONCAKE,
        '{"timestamp": true, "input_length": 6, "output_length": 9, "hash_ids": [0]}',
        r"got True",
    ),
    (MooncakeTrace, MOONCAKE, '{"timestamp": 200, "input_length": -6, "output_length": 9, "hash_ids": []}', r"got -6"),
    (
        MooncakeTrace,
        MOONCAKE,
        '{"timestamp": 200, "input_length": 6.0, "output_length": 9, "hash_ids": []}',
        r"got 6.0",
    ),
    (MooncakeTrace, MOONCAKE, '{"timestamp": 200, "output_length": 9, "hash_ids": []}', r"input_length is missing"),
    (MooncakeTrace, MOONCAKE, '{"timestamp": 200, "input_length": 6, "output_length": 9}', r"hash_ids must be a list"),
    (
        MooncakeTrace,
        MOONCAKE,
        '{"timestamp": 200, "input_length": 6, "output_length": 9, "hash_ids": ["a"]}',
        r"hash_ids",
    ),
    (
        MooncakeTrace,
        MOONCAKE,
        '{"timestamp": 200, "input_length": 512, "output_length": 9, "hash_ids": [1, 2]}',
        r"at most",
    ),
    (MooncakeTrace, MOONCAKE, '{"timestamp": 200, "input_len', r"must be a JSON object, got"),
    (MooncakeTrace, MOONCAKE, "[1, 2]", r"must be a JSON object, got"),
    (BurstGptTrace, BURST, "inf,ChatGPT,472,18,API log", r"Timestamp must be a finite number >= 0, got 'inf'"),
    (BurstGptTrace, BURST, "-1,ChatGPT,472,18,API log", r"Timestamp must be a finite number >= 0, got '-1'"),
    (BurstGptTrace, BURST, "7,ChatGPT,472", r"must have 5 fields, got 3"),
    (SimpleTrace, SIMPLE, "2,0,20", r"prompt and output tokens must be >= 1"),
    (SimpleTrace, SIMPLE, "1.4,10,20", r"timestamp must not decrease"),
    (SimpleTrace, SIMPLE, ",10,20", r"arrival_s must be a finite number >= 0, got ''"),
    (ServeGen, CLIENT, '{"client": 1, "trace": [[0, 0.1, 1, "Pareto", 1.0, 10]], ' + LENGTHS, r"Gamma or Weibull"),
    (ServeGen, CLIENT, '{"client": 1, "trace": [[0, 0.1, 1, "Gamma", 0.0, 10]], ' + LENGTHS, r"shape > 0"),
    (ServeGen, CLIENT, '{"client": 1, "trace": [[0, 0.1]], ' + LENGTHS, r"trace must hold"),
    (ServeGen, CLIENT, '{"client": 1, "trace": [[0, NaN, 1, "Gamma", 1.0, 10]], ' + LENGTHS, r"trace must hold"),
    (ServeGen, CLIENT, '{"client": "x", "trace": [], ' + LENGTHS, r"client must be a whole number"),
    (ServeGen, CLIENT, '{"client": 1, "trace": []}', r"must have trace .* and dataset"),
    (
        ServeGen,
        CLIENT,
        '{"client": 1, "trace": [], "dataset": {"0": {"input_tokens": {}}}}',
        r"a window with input_tokens",
    ),
    (
        ServeGen,
        CLIENT,
        '{"client": 1, "trace": [], "dataset": {"0": {"input_tokens": {"a": 1}}}}',
        r"whole numbers of inp",
    ),
    (
        ServeGen,
        CLIENT,
        '{"client": 1, "trace": [], "dataset": {"0": {"input_tokens": {"7": -1}}}}',
        r"whole numbers of inp",
    ),
]


@pytest.mark.parametrize(("kind", "good", "bad", "message"), BAD_ROWS)
def test_a_bad_row_is_refused_with_file_and_line_or_dropped_and_counted(
    tmp_path: Path, kind: type[Trace], good: str, bad: str, message: str
) -> None:
    path = tmp_path / "trace"
    path.write_text(f"{good}{bad.strip()}\n")
    line = good.count("\n") + 1
    with pytest.raises(ValueError, match=rf"{path}:{line}: .*{message}"):
        kind(path=str(path)).requests(0)

    kept = kind(path=str(path), skip_bad_rows=True).requests(0)
    path.write_text(good)
    alone = kind(path=str(path)).requests(0)
    assert np.array_equal(kept.prompt_tokens, alone.prompt_tokens)
    assert [count for _, count in kept.dropped] == [1]
    assert alone.dropped == ()


def test_dropped_rows_are_counted_by_reason_not_by_value(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(f"{SIMPLE}2,x,20\n3,y,20\n4,10\n1,10,20\n5,10,20\n")
    requests = SimpleTrace(path=str(path), skip_bad_rows=True).requests(0)
    assert list(requests.arrival_s) == [0, 3.5]
    assert {reason.split(" must ")[0]: count for reason, count in requests.dropped} == {
        "prompt_tokens": 2,
        "must have 3 fields": 1,
        "timestamp": 1,
    }


@pytest.mark.parametrize(
    ("kind", "text", "column"),
    [
        (AzureTrace, AZURE, "GeneratedTokens"),
        (BurstGptTrace, BURST, "Request tokens"),
        (BurstGptTrace, BURST, "Log Type"),
        (SimpleTrace, SIMPLE, "arrival_s"),
    ],
)
def test_a_missing_column_is_named_whatever_may_be_skipped(
    tmp_path: Path, kind: type[Trace], text: str, column: str
) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text.replace(column, "other"))
    with pytest.raises(ValueError, match=rf"{path}:1: missing column {column}; the file has .*other"):
        kind(path=str(path), skip_bad_rows=True).requests(0)


@pytest.mark.parametrize("kind", [AzureTrace, MooncakeTrace, BurstGptTrace, SimpleTrace, ServeGen])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_an_empty_file_is_refused(tmp_path: Path, kind: type[Trace], pack: type[bytes]) -> None:
    path = tmp_path / "trace"
    path.write_bytes(pack(b""))
    with pytest.raises(ValueError, match=rf"{path}:1: empty file"):
        kind(path=str(path)).requests(0)


def test_a_file_of_nothing_but_its_header_or_failures_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(AZURE.splitlines()[0] + "\n")
    with pytest.raises(ValueError, match=rf"{path}: no request left"):
        AzureTrace(path=str(path)).requests(0)
    path.write_text(AZURE.replace("374", "0"))
    with pytest.raises(ValueError, match=r"dropped rows: \{'failed request \(0 tokens\)': 1\}"):
        AzureTrace(path=str(path)).requests(0)


def test_a_cut_gzip_stream_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i % 977 + 1},{i * i % 991 + 1}\n" for i in range(2, 3000))
    packed = gzip.compress((SIMPLE + rows).encode())
    path = tmp_path / "trace.csv.gz"
    for size in (5, 12, len(packed) // 2, len(packed) - 8, len(packed) - 1):
        path.write_bytes(packed[:size])
        with pytest.raises(ValueError, match=rf"{path}:\d+: gzip stream is damaged or cut short"):
            SimpleTrace(path=str(path), skip_bad_rows=True).requests(0)


def test_a_gzip_stream_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress((SIMPLE + "2,10,20\n" * 50).encode()))
    packed[-6] ^= 1
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(packed)
    with pytest.raises(ValueError, match=rf"{path}:\d+: gzip stream is damaged"):
        SimpleTrace(path=str(path)).requests(0)


def test_what_is_no_text_no_csv_or_no_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(SIMPLE.encode() + b"2,\xff,20\n")
    with pytest.raises(ValueError, match=rf"{path}:\d+: not UTF-8 text"):
        SimpleTrace(path=str(path)).requests(0)
    path.write_text(SIMPLE + '2,"10,20\n')
    with pytest.raises(ValueError, match=rf"{path}:3: not CSV"):
        SimpleTrace(path=str(path)).requests(0)
    with pytest.raises(ValueError, match=r"workload\.path must be a readable file, got .*absent"):
        SimpleTrace(path=str(tmp_path / "absent")).requests(0)
    with pytest.raises(ValueError, match=r"workload\.path must be a readable file"):
        SimpleTrace(path=str(tmp_path)).requests(0)


ROWS = st.lists(
    st.tuples(
        st.floats(0, 1e6, allow_subnormal=False),
        st.integers(1, 2**31 - 1),
        st.integers(1, 2**31 - 1),
        st.sampled_from(["chat", "code", 'a "quoted", name']),
    ),
    min_size=1,
    max_size=30,
).map(lambda rows: sorted(rows, key=lambda row: row[0]))


@given(rows=ROWS, as_json=st.booleans(), packed=st.booleans())
def test_what_was_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows, as_json, packed) -> None:
    names = ("arrival_s", "prompt_tokens", "output_tokens", "group")
    text = io.StringIO()
    if as_json:
        text.writelines(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
    else:
        csv.writer(text).writerows([names, *rows])
    path = tmp_path_factory.mktemp("trace") / "trace"
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    requests = SimpleTrace(path=str(path)).requests(0)
    assert list(requests.arrival_s) == [row[0] - rows[0][0] for row in rows]
    assert list(requests.prompt_tokens) == [row[1] for row in rows]
    assert list(requests.output_tokens) == [row[2] for row in rows]
    assert [requests.groups[code] for code in requests.group] == [row[3] for row in rows]


@given(text=st.text(alphabet=st.sampled_from(list('0123456789-.,ein \n"{}:_')), max_size=60))
def test_any_text_is_read_or_refused_with_file_and_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace.csv"
    path.write_text(SIMPLE + text)
    try:
        requests = SimpleTrace(path=str(path)).requests(0)
    except ValueError as error:
        assert str(error).startswith(f"{path}:")  # noqa: PT017  both outcomes are right
    else:
        assert requests.prompt_tokens.min() >= 1
        assert np.all(np.diff(requests.arrival_s) >= 0)
