"""`python -m mtselect.diff`: the numbers, every way to name a set, and what it says about what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mtselect.diff import Side, compare_sets, describe_set, main, read_pairs, read_side
from mtselect.errors import DataError, StorageError


def pairs(first: int, count: int, clusters: int = 2) -> list[dict[str, Any]]:
    """Rows of a selected.jsonl; the id decides the texts."""
    return [{"id": f"id{i:02d}", "src": f"Wort {i}", "tgt": f"one word {i}", "benefit": float(i), "benefit_share": i / 100,
             "cluster": i % clusters} for i in range(first, first + count)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def side(rows: list[dict[str, Any]]) -> Side:
    return Side(name="x", pairs={row["id"]: row for row in rows})


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Two sets of 10 with 6 in common."""
    return str(write(tmp_path / "a.jsonl", pairs(0, 10))), str(write(tmp_path / "b.jsonl", pairs(4, 10)))


def test_rows_in_common_and_apart() -> None:
    found = compare_sets(side(pairs(0, 10)), side(pairs(4, 10)), n_examples=2)
    assert found["common"] == 6
    assert found["jaccard"] == pytest.approx(6 / 14)
    assert (found["only_a"]["pairs"], found["only_b"]["pairs"]) == (4, 4)
    assert [row["id"] for row in found["only_a"]["examples"]] == ["id03", "id02"], "not the most beneficial"
    assert [row["id"] for row in found["only_b"]["examples"]] == ["id13", "id12"]


def test_clusters_are_compared_whatever_their_numbers() -> None:
    rows = pairs(0, 12, clusters=3)
    renumbered = [{**row, "cluster": 7 - row["cluster"]} for row in rows]
    assert compare_sets(side(rows), side(renumbered))["cluster_ami"] == pytest.approx(1)
    assert compare_sets(side(rows), side(pairs(0, 12, clusters=2)))["cluster_ami"] < 0.3
    assert compare_sets(side(rows), side([{**row, "cluster": None} for row in rows]))["cluster_ami"] is None


def test_a_set_is_described() -> None:
    found = describe_set({row["id"]: row for row in [*pairs(0, 3, clusters=1), *pairs(3, 1, clusters=99)]})
    assert found["clusters"] == {"0": 3, "3": 1}
    assert found["evenness"] == pytest.approx(0.8113, abs=1e-4)  # entropy of (3/4, 1/4) in bits
    assert found["source_words"] == [2, 2, 2]
    assert found["target_words"] == [3, 3, 3]
    assert found["source_characters"] == [6, 6, 6]
    assert found["benefit"] == pytest.approx([0.15, 1.5, 2.85])
    assert describe_set({row["id"]: row for row in pairs(0, 8)})["evenness"] == pytest.approx(1)


def test_empty_sets_and_baselines_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = str(write(tmp_path / "none.jsonl", []))
    bare = str(write(tmp_path / "bare.jsonl", [{"id": "a", "src": "x", "tgt": "y", "benefit": None, "cluster": None}]))
    assert main([empty, empty]) == 0
    assert main([empty, bare]) == 0
    printed = capsys.readouterr().out
    assert "0 pairs in common, 0 only in A" in printed
    assert "clusters" not in printed, "a line with nothing in it"


def test_the_table_and_the_examples(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*files, "--examples", "1"]) == 0
    printed = capsys.readouterr().out
    assert f"A  {files[0]}\nB  {files[1]}\n" in printed
    assert "6 pairs in common (Jaccard 42.9%), 4 only in A, 4 only in B" in printed
    assert "adjusted mutual information 1.00" in printed
    assert "Wort 3\n  one word 3" in printed
    assert "Wort 2" not in printed


def test_json_is_for_machines(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*files, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["common"] == 6
    assert found["a"]["name"] == files[0]
    assert found["b"]["benefit"] == pytest.approx([4.45, 8.5, 12.55])


def test_an_example_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = {"id": "a", "src": "\x1b[2Jgone [red]x[/] [/]", "tgt": "\u202eevil"}
    assert main([str(write(tmp_path / "a.jsonl", [bad])), str(write(tmp_path / "b.jsonl", []))]) == 0
    printed = capsys.readouterr().out
    assert "[2Jgone [red]x[/] [/]" in printed
    assert "\x1b" not in printed and "\u202e" not in printed


@pytest.mark.parametrize(("line", "reason"), [
    (b"{", "line 2: not JSON in UTF-8"),
    (b"\xff", "line 2: not JSON in UTF-8"),
    (b"[1]", "line 2: not a JSON object"),
    (b'{"id": "a", "src": "x"}', "line 2: 'tgt' must be a text, got None"),
    (b'{"id": "a", "src": 3, "tgt": "y"}', "line 2: 'src' must be a text, got 3"),
    (b'{"id": "a", "src": "x", "tgt": "y", "cluster": "2"}', "line 2: 'cluster' must be a number or null, got '2'"),
    (b'{"id": "a", "src": "x", "tgt": "y", "benefit": true}', "line 2: 'benefit' must be a number or null, got True"),
    (b'{"id": "id00", "src": "x", "tgt": "y"}', "line 2: the id 'id00' is there twice"),
])
def test_a_bad_line_is_named(line: bytes, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "bad.jsonl", pairs(0, 1))
    path.write_bytes(path.read_bytes() + line + b"\n")
    assert main([str(path), str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}, {reason}"), error
    assert error.count("\n") == 1


def test_line_separators_inside_a_text_are_no_new_lines(tmp_path: Path) -> None:
    row = {"id": "a", "src": "one\u2028line\u0085", "tgt": "y"}
    assert read_pairs(write(tmp_path / "a.jsonl", [row]), "a") == {"a": row}


@pytest.mark.parametrize("name", ["nothing.jsonl", "none/selected.jsonl", "/tmp/none/t000", "", "models:/x", "models:/x@"])
def test_a_name_that_is_none_is_said(name: str) -> None:
    with pytest.raises(DataError, match=r"no selected set|no dataset version") as error:
        read_side(name)
    assert repr(name) in str(error.value)
    assert "models:/mtselect.quickstart@champion" in str(error.value), "not what is allowed"


def test_a_folder_must_hold_the_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no selected\.jsonl"):
        read_side(str(tmp_path))
    write(tmp_path / "selected.jsonl", pairs(0, 3))
    score = {"name": "chrf", "value": 50.0, "low": 48.0, "high": 52.0}
    (tmp_path / "scores.json").write_text(json.dumps({"dev": [score], "test": [score], "against_random": {}}))
    read = read_side(str(tmp_path))
    assert len(read.pairs) == 3
    assert read.scores == {"dev chrf": (50, 48, 52), "test chrf": (50, 48, 52)}
    (tmp_path / "scores.json").write_text('{"dev": [1]}')
    with pytest.raises(DataError, match=r"scores\.json is not what promotion writes"):
        read_side(str(tmp_path))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A study with one trial, and its set as a dataset version; `uri` is not the one MLflow finds by itself."""
    import mlflow

    from mtselect.config import TrackingConfig
    from mtselect.tracking.server import open_mlflow

    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = mlflow.MlflowClient(uri, uri)
    experiment = client.create_experiment("tiny", artifact_location=str(folder / "files"))
    study_tags = {"mtselect.kind": "study", "mtselect.study": "tiny"}
    parent = client.create_run(experiment, run_name="tiny", tags=study_tags).info.run_id
    run = client.create_run(experiment, run_name="t000", tags={"mlflow.parentRunId": parent}).info.run_id
    for name, value in {"eval/chrf": 50, "eval/chrf_low": 48, "eval/chrf_high": 52, "select/noise_share": 0.25}.items():
        client.log_metric(run, name, value)
    selected = write(folder / "selected.jsonl", pairs(0, 10))
    client.log_artifact(run, str(selected))
    client.set_terminated(run)
    dataset = folder / "dataset"
    dataset.mkdir()
    write(dataset / "selected.jsonl", pairs(0, 10))
    registry = open_mlflow(TrackingConfig(uri=uri), "tiny", folder).registry("mtselect.tiny")
    registry.crown(registry.register(dataset, run, {"mtselect.selected": "x"}, "").number)
    return SimpleNamespace(uri=uri, run=run, parent=parent)


@pytest.mark.parametrize("name", ["tiny/t000", "{run}", "models:/mtselect.tiny@champion", "models:/mtselect.tiny/1"])
def test_a_recorded_set_comes_with_its_scores(name: str, recorded: Any, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    read = read_side(name.format(run=recorded.run), recorded.uri)
    assert read.pairs == {row["id"]: row for row in pairs(0, 10)}
    assert read.scores == {"dev chrf": (50, 48, 52)}
    assert read.noise_share == 0.25
    assert not list(tmp_path.iterdir()), "a file was left"


def test_scores_stand_side_by_side(recorded: Any, files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tiny/t000", files[1], "--tracking.uri", recorded.uri]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["dev", "chrf", "50.0", "[48.0,", "52.0]"] for line in lines)
    assert any(line.split() == ["noise", "25.0%"] for line in lines)


@pytest.mark.parametrize(("name", "reason"), [
    ("tiny/t009", "'tiny/t009': study 'tiny' has no finished trial or baseline 't009': name one of t000"),
    ("{parent}", "has no such selected set"),
    ("0123456789abcdef0123456789abcdef", "has no such selected set"),
    ("models:/mtselect.tiny@other", "has no such selected set"),
    ("models:/mtselect.tiny/9", "has no such selected set"),
])
def test_what_is_not_recorded_is_said(name: str, reason: str, recorded: Any) -> None:
    with pytest.raises(DataError) as error:
        read_side(name.format(parent=recorded.parent), recorded.uri)
    assert reason in str(error.value)


def test_no_database_is_made_and_no_server_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no MLflow at"):
        read_side("models:/a@b", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(StorageError, match="has no study"):
        read_side("other/t000", f"sqlite:///{tmp_path}/mlflow.db")
    assert not list(tmp_path.iterdir())
    with pytest.raises(StorageError, match="start the server") as error:
        read_side("models:/a@b", "http://user:secret@127.0.0.1:9")
    assert "secret" not in str(error.value)
