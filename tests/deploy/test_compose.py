"""deploy/compose.yaml: the Compose specification's own schema, and what no schema sees: commands that parse with the programs
they name, services and volumes that are there, and addresses that belong to them. Nothing is started."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import mtselect
from mtselect.__main__ import COMMANDS
from mtselect.cli import read_arguments
from mtselect.config import Sweep

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "compose.yaml"
TEXT = FILE.read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]


def parsed(command: click.Command, arguments: list[str]) -> dict[str, Any]:
    """What a program makes of its arguments; raises click.UsageError for what it does not know."""
    return command.make_context(str(command.name), [filled(one) for one in arguments]).params


def filled(text: str) -> str:
    """Variables with their defaults, and `$$` for `$`, as Compose has them."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text).replace("$$", "$")


def schema_fault(text: str, folder: Path) -> str:
    """What the schema of the Compose specification says against a file, or nothing."""
    (folder / "compose.yaml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr


def test_the_file_is_a_compose_file(tmp_path: Path) -> None:
    assert schema_fault(TEXT, tmp_path) == ""


@pytest.mark.parametrize(("old", "new"), [("entrypoint: [mlflow", "entrypoints: [mlflow"), ("timeout: 5s", "timeout: [5]")])
def test_a_slip_is_found(old: str, new: str, tmp_path: Path) -> None:
    assert old in TEXT
    assert re.search(r"services|timeout", schema_fault(TEXT.replace(old, new), tmp_path))


def test_images_are_pinned_and_ours_is_this_version() -> None:
    images = {service["image"] for service in SERVICES.values()}
    assert all(re.search(r":\d+\.\d+(\.\d+)?$", image) for image in images), images
    assert f"mtselect:{mtselect.__version__}" in images


def test_what_is_named_is_there() -> None:
    """Services that are waited for have health checks; named volumes and configs are declared."""
    whole = yaml.safe_load(TEXT)
    waited = [(name, how["condition"]) for service in SERVICES.values() for name, how in service.get("depends_on", {}).items()]
    assert len(waited) >= 6
    assert all("healthcheck" in SERVICES[name] for name, condition in waited if condition == "service_healthy")
    mounts = {mount.split(":")[0] for service in SERVICES.values() for mount in service["volumes"] if mount[0].isalpha()}
    assert mounts == whole["volumes"].keys()
    assert {one["source"] for service in SERVICES.values() for one in service.get("configs", ())} == whole["configs"].keys()
    assert (ROOT / "deploy" / SERVICES["head"]["build"]["context"] / "Dockerfile").is_file()


@pytest.mark.parametrize("name", ["head", "worker", "driver"])
def test_nodes_share_the_folders(name: str) -> None:
    """Ray's nodes have workdir, sweep files and data at the same paths, and the same image."""
    assert SERVICES[name]["volumes"] == SERVICES["head"]["volumes"] and SERVICES[name]["image"] == SERVICES["head"]["image"]
    assert any(mount.endswith(":/data") for mount in SERVICES[name]["volumes"])


def test_ray_parses_its_commands_and_the_nodes_find_the_head() -> None:
    from ray.scripts.scripts import healthcheck, start

    commands = {name: SERVICES[name]["entrypoint"] for name in ("head", "worker")}
    commands["driver"] = filled(SERVICES["driver"]["entrypoint"][2]).split(" >/dev/null")[0].split()
    assert all(command[:2] == ["ray", "start"] for command in commands.values())
    head, worker, driver = (parsed(start, command[2:]) for command in commands.values())
    assert head["head"] and head["block"] and worker["block"] and not driver["block"]
    address = f"head:{head['port']}"
    assert worker["address"] == driver["address"] == SERVICES["driver"]["environment"]["RAY_ADDRESS"] == address
    assert (head["num_cpus"], driver["num_cpus"]) == (0, 0), "work is the workers'"
    check = SERVICES["head"]["healthcheck"]["test"]
    assert check[:3] == ["CMD", "ray", "health-check"]
    assert parsed(healthcheck, check[3:])["address"] == address.replace("head", "localhost")


def test_mlflow_parses_its_command_and_answers_to_its_name() -> None:
    from mlflow.cli import server
    from mlflow.server.security_utils import is_allowed_host_header

    service = SERVICES["mlflow"]
    assert service["entrypoint"][:2] == ["mlflow", "server"]
    found = parsed(server, service["entrypoint"][2:])
    uri = SERVICES["driver"]["environment"]["MLFLOW_TRACKING_URI"]
    assert uri == f"http://mlflow:{found['port']}" and found["host"] == "0.0.0.0"
    hosts = found["allowed_hosts"].split(",")
    assert is_allowed_host_header(hosts, uri.removeprefix("http://")) and is_allowed_host_header(hosts, "localhost:5000")
    assert not is_allowed_host_header(hosts, "example.org")
    assert str(found["artifacts_destination"]).startswith(service["volumes"][0].split(":")[1])
    assert f"localhost:{found['port']}/health" in service["healthcheck"]["test"][-1]


def driver_arguments() -> list[str]:
    """What the driver's shell hands to mtselect, with the service's own command for `"$@"`."""
    *_, given = filled(SERVICES["driver"]["entrypoint"][2]).split("exec mtselect ")
    assert given.startswith('"$@" ')
    return [*SERVICES["driver"]["command"], *given.split()[1:]]


def test_the_driver_takes_a_sweep_file_and_names_ray_and_the_database() -> None:
    command, path, *fields = driver_arguments()
    assert command in COMMANDS
    assert path.startswith("/app/") and "COPY sweeps /app/sweeps" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    sweep: Sweep = read_arguments([str(ROOT / path.removeprefix("/app/")), *fields])
    assert sweep.runtime.executor == "ray" and sweep.runtime.address is None and sweep.tracking.uri is None


def test_databases_are_two_and_both_are_made() -> None:
    url = driver_arguments()[-1]
    backend = SERVICES["mlflow"]["entrypoint"][SERVICES["mlflow"]["entrypoint"].index("--backend-store-uri") + 1]
    server, made = SERVICES["postgres"], yaml.safe_load(TEXT)["configs"]["databases"]["content"]
    user = server["environment"]["POSTGRES_USER"]
    assert backend == f"postgresql+psycopg://{user}@postgres/{server['environment']['POSTGRES_DB']}"
    assert url == f"postgresql+psycopg://{user}@postgres/optuna" and made == "CREATE DATABASE optuna;"
    assert "optuna" in server["healthcheck"]["test"], "healthy before the second one is there"
    assert all(SERVICES[name]["environment"]["PGPASSWORD"] == server["environment"]["POSTGRES_PASSWORD"]
               for name in ("mlflow", "driver"))
