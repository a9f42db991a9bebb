"""compose.yaml: valid, and closed to everyone but this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import TypeAlias

import pytest
import yaml

from scripts import pin_images
from scripts.pin_images import images
from tasks import ping

Service: TypeAlias = "dict[str, object]"

SERVICES = {"shell", "redis", "worker", "flower"}
SECRETS = {"REDIS_PASSWORD": "letmein1", "FLOWER_PASSWORD": "letmein2"}


def config(
    command: list[str], root: Path, secrets: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run `docker compose config` with these secrets and no .env file."""
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_PASSWORD")}
    return subprocess.run(
        [*command, "--env-file", os.devnull, "config", *arguments],
        cwd=root,
        env=environment | secrets,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def services(compose_command: list[str], root: Path) -> dict[str, Service]:
    """The services as Compose itself understands them."""
    done = config(compose_command, root, SECRETS, "--format", "json")
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Service] = json.loads(done.stdout)["services"]
    return loaded


def test_the_file_is_valid_and_has_the_four_services(services: dict[str, Service]) -> None:
    """Compose accepts the file, and the services have the names that the docs use."""
    assert set(services) == SERVICES


@pytest.mark.parametrize("name", sorted(SECRETS))
@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_a_missing_password_is_refused_by_name(
    compose_command: list[str], root: Path, name: str, value: str | None
) -> None:
    """Without one of the passwords nothing starts, and the message says which to set."""
    secrets = {key: text for key, text in SECRETS.items() if key != name}
    if value is not None:
        secrets[name] = value
    done = config(compose_command, root, secrets, "--quiet")
    assert done.returncode != 0
    assert f"set {name} in .env" in done.stderr


def test_ports_are_published_on_loopback_only(services: dict[str, Service]) -> None:
    """No port is open to a network, and at least Flower's is published."""
    ports = [port for service in services.values() for port in _dicts(service.get("ports"))]
    assert ports
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_every_service_is_checked_restarted_and_hardened(services: dict[str, Service]) -> None:
    """Health check, restart policy, read-only root, no capabilities, no new privileges."""
    for name, service in services.items():
        check = service.get("healthcheck")
        assert isinstance(check, dict), f"{name} has a health check"
        assert check["test"], name
        assert service["restart"] == "unless-stopped", name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name


def test_python_services_wait_for_a_healthy_redis(services: dict[str, Service]) -> None:
    """A worker that starts before its broker would only fill the log with errors."""
    for name in SERVICES - {"redis"}:
        needed = services[name]["depends_on"]
        assert isinstance(needed, dict)
        assert needed["redis"]["condition"] == "service_healthy", name


def test_workers_send_the_events_that_flower_lives_on(services: dict[str, Service]) -> None:
    """Without them it would show nothing of what ran before it asked for them."""
    command = services["worker"]["command"]
    assert isinstance(command, list)
    assert "--task-events" in command


def test_images_are_pinned(services: dict[str, Service], root: Path) -> None:
    """An image that is not built here has a version in its name, where .env pins no digest."""
    built = {service["image"] for service in services.values() if "build" in service}
    for name, service in services.items():
        if service["image"] not in built:
            assert re.search(r":\d+(\.\d+)*", str(service["image"])), name
    text = (root / "compose.yaml").read_text("utf-8")
    named = {str(services["redis"]["image"])}
    named |= set(re.findall(r"^ARG PYTHON_IMAGE=(\S+)", (root / "Dockerfile").read_text(), re.M))
    assert set(images(text).values()) == named


def test_images_of_the_environment_are_taken(compose_command: list[str], root: Path) -> None:
    """What `make pin-images` writes into .env is what is pulled and built upon."""
    digest = f"@sha256:{'5' * 64}"
    given = {name: value + digest for name, value in images_of(root).items()}
    done = config(compose_command, root, SECRETS | given, "--format", "json")
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)["services"]
    assert loaded["redis"]["image"] == given["VALKEY_IMAGE"]
    assert loaded["shell"]["build"]["args"]["PYTHON_IMAGE"] == given["PYTHON_IMAGE"]


def images_of(root: Path) -> dict[str, str]:
    return images((root / "compose.yaml").read_text("utf-8"))


FAKE_DOCKER = """#!/bin/sh
case "$1 $3" in
"pull valkey/valkey:9.1") [ -z "$NO_REGISTRY" ] || { echo 'no route to host' >&2; exit 1; } ;;
pull*) ;;
image*) printf 'localhost/other@sha256:%064d\\nhub/%s@sha256:short\\nhub/%s@sha256:%064d\\n' \\
 5 "${4%%:*}" "${4%%:*}" 7 ;;
esac
"""


def test_images_are_pinned_in_env(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each variable in its line, and whatever else stands in .env as it was; or nothing."""
    fake = tmp_path / "docker"
    fake.write_text(FAKE_DOCKER)
    fake.chmod(0o700)
    monkeypatch.setenv("DOCKER", str(fake))
    monkeypatch.setattr(pin_images, "ROOT", tmp_path)
    (tmp_path / "compose.yaml").write_text((root / "compose.yaml").read_text("utf-8"))
    with pytest.raises(SystemExit, match=r"cp \.env\.example \.env"):
        pin_images.main()
    (tmp_path / ".env").write_text("REDIS_PASSWORD='a=b'\nVALKEY_IMAGE=\nUSER_ID=7\n")
    with monkeypatch.context() as patch:
        patch.setenv("NO_REGISTRY", "1")
        with pytest.raises(SystemExit, match=r"valkey.*nothing was pinned: no route to host"):
            pin_images.main()
    pin_images.main()
    pin_images.main()
    digest = f"@sha256:{'0' * 63}7"
    assert (tmp_path / ".env").read_text() == (
        f"REDIS_PASSWORD='a=b'\nVALKEY_IMAGE=valkey/valkey:9.1{digest}\nUSER_ID=7\n"
        f"PYTHON_IMAGE=python:3.13-slim-trixie{digest}\n"
    )


def test_only_the_worker_has_the_models_key(compose_command: list[str], root: Path) -> None:
    """Who plans knows which model it will be, and no more; Flower and Redis not even that."""
    key = {"GEMINI_API_KEY": "letmein3"}
    done = config(compose_command, root, SECRETS | key, "--format", "json")
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)["services"]
    holders = [name for name, one in loaded.items() if "letmein3" in json.dumps(one)]
    assert holders == ["worker"]
    for name in ("worker", "shell"):
        assert loaded[name]["environment"]["TEXT_MODEL"] == "google-genai"
    without = config(compose_command, root, SECRETS, "--format", "json")
    environment = json.loads(without.stdout)["services"]["shell"]["environment"]
    assert environment["TEXT_MODEL"] == ""


def test_every_service_has_limits(services: dict[str, Service]) -> None:
    """Memory and processes: what runs away is stopped before it takes the machine along."""
    for name, service in services.items():
        assert 0 < int(str(service["mem_limit"])) <= 2 << 30, name
        assert 0 < int(str(service["pids_limit"])) <= 256, name
    script = json.dumps(services["redis"]["command"])
    found = re.search(r"maxmemory (\d+)mb", script)
    assert found is not None
    # Redis refuses what would be too much, before it is killed for it.
    assert int(found[1]) << 20 < int(str(services["redis"]["mem_limit"])) * 3 / 4


def test_one_image_is_built_once_and_never_asked_for(services: dict[str, Service]) -> None:
    """One service builds it, all others but Redis run it, and no registry is asked."""
    assert [name for name, service in services.items() if "build" in service] == ["shell"]
    own = {name: service for name, service in services.items() if name != "redis"}
    assert len({str(service["image"]) for service in own.values()}) == 1
    assert {service["pull_policy"] for service in own.values()} == {"never"}


@pytest.mark.parametrize("user", ["0", "1000", "4711"])
def test_another_user_has_another_image_and_other_volumes(
    compose_command: list[str], root: Path, user: str
) -> None:
    """So USER_ID can be changed at any time: nothing that belongs to the former one is opened."""
    done = config(compose_command, root, SECRETS | {"USER_ID": user}, "--format", "json")
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    shell = loaded["services"]["shell"]
    assert shell["image"] == f"pytest-celery-manifest:user-{user}"
    assert shell["build"]["args"]["USER_ID"] == user
    names = {key: volume["name"] for key, volume in loaded["volumes"].items()}
    assert names == {
        "data": f"manifest_data-{user}",
        "flower": f"manifest_flower-{user}",
        "redis": "manifest_redis",
    }


def test_the_first_checks_do_not_wait(services: dict[str, Service]) -> None:
    """`up --wait` is over as soon as all is well: at first each is asked every second or two."""
    for name, service in services.items():
        check = service["healthcheck"]
        assert isinstance(check, dict)
        assert check["start_interval"] in {"500ms", "1s", "2s"}, name


def test_a_machine_with_much_to_do_has_no_sick_service(services: dict[str, Service]) -> None:
    """A check may take what starting Python does there beside the worker's or Flower's answer."""
    for name, service in services.items():
        check = service["healthcheck"]
        assert isinstance(check, dict)
        assert (check["timeout"], check["start_period"]) == ("1m0s", "3m0s"), name
    assert 2 * ping.PATIENCE_SECONDS <= 60


def test_what_a_summary_names_is_there_outside(services: dict[str, Service], root: Path) -> None:
    """Manifests and runs are folders of the clone, which a clone has; and no volume hides them."""
    mounts = {
        str(one["target"]): str(one["source"]) for one in _dicts(services["shell"]["volumes"])
    }
    for name in ("manifests", ".manifest"):
        assert mounts[f"/project/{name}"] == str(root / name)
        assert (root / name).is_dir()


def test_no_password_is_written_down(root: Path) -> None:
    """Whatever is called a password, or stands in a URL as one, comes from the environment."""
    text = (root / "compose.yaml").read_text("utf-8")
    loaded = yaml.safe_load(text)
    for service in loaded["services"].values():
        environment = service.get("environment", {})
        for name, value in environment.items():
            if re.search("PASSWORD|SECRET|TOKEN|AUTH", name):
                assert re.fullmatch(r"([a-z]+:)?\$\{[A-Z_]+:\?[^}]+\}", value), name
    for password in re.findall(r"://[^/\s@]*:([^/\s]*)@", text):
        assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", password)


def test_no_password_is_an_argument(services: dict[str, Service]) -> None:
    """Arguments show in the process list; passwords come in the environment or on stdin."""
    for name, service in services.items():
        command = json.dumps(service.get("command"))
        for secret in SECRETS.values():
            assert secret not in command, name


def test_the_example_environment_names_every_variable(root: Path) -> None:
    """.env.example has each variable that compose.yaml reads, and no password in it."""
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", (root / "compose.yaml").read_text("utf-8")))
    lines = (root / ".env.example").read_text("utf-8").splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(given) == used - {"COMPOSE_PROJECT_NAME"}  # that one Compose sets itself
    assert {given[name] for name in SECRETS} == {""}


def test_an_environment_file_cannot_be_committed_by_accident(root: Path) -> None:
    """.env holds passwords, so git ignores it."""
    lines = (root / ".gitignore").read_text("utf-8").splitlines()
    assert ".env" in lines


def _dicts(value: object) -> list[dict[str, object]]:
    return list(value) if isinstance(value, list) else []
