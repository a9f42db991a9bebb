"""What a user meets with compose.yaml, from the first build on; and the documented six steps."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from tests.compose.engine import docker
from tests.compose.stack import PYTHON_SERVICES, UP, ComposeStack, compose_stack, own_images
from tests.docs.blocks import blocks, steps
from tests.house.conftest import ROOT
from tests.processes import LOOPBACK
from tests.support import eventually

pytestmark = [pytest.mark.live, pytest.mark.timeout(2400)]

SERVICES = {"redis", *PYTHON_SERVICES}
PAGE = ROOT / "docs" / "how-to" / "containers.md"
KILLED = 137
"""The exit status of a container that had to be killed."""


def test_it_builds_one_image_once_and_without_a_warning(built: tuple[ComposeStack, str]) -> None:
    """Neither the builder nor pip has anything to complain of."""
    stack, said = built
    assert [line for line in said.splitlines() if "warn" in line.lower()] == []
    assert said.count("] exporting to image") == 1
    assert f"pytest-celery-manifest:user-{stack.user}" in own_images(stack.environment)


def test_the_first_up_ends_with_all_healthy_and_no_warning(
    first_up: tuple[ComposeStack, str],
) -> None:
    """Nobody is asked for an image that is built here, and all services are well."""
    stack, said = first_up
    assert [line for line in said.splitlines() if "warn" in line.lower()] == []
    states = [json.loads(line) for line in stack.did("ps", "--format=json").splitlines()]
    assert {one["Service"]: one["Health"] for one in states} == dict.fromkeys(SERVICES, "healthy")
    images = {str(stack.inspected(one)["Image"]) for one in stack.containers(*PYTHON_SERVICES)}
    assert len(images) == 1


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_is_nobody_and_can_change_nothing(stack: ComposeStack, service: str) -> None:
    """Each process has an id that is not root's, no capability, and a root that is read-only."""
    (container,) = stack.containers(service)
    top = docker(stack.environment, "top", container, "-eo", "pid,uid")
    users = {line.split()[1] for line in top.stdout.splitlines()[1:]}
    assert users
    assert users.isdisjoint({"0", "root"})
    inside = ["exec", "-T", service, "sh", "-c"]
    status = stack.did(*inside, "cat /proc/1/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    sets = {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert sets == {"0" * 16}
    assert facts["NoNewPrivs"] == "1"
    mounts = [line.split() for line in stack.did(*inside, "cat /proc/mounts").splitlines()]
    assert [options.split(",")[0] for _, path, _, options, *_ in mounts if path == "/"] == ["ro"]


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_has_limits(stack: ComposeStack, service: str) -> None:
    """Of memory and of processes, which the engine holds; and only the worker knows of a key."""
    (container,) = stack.containers(service)
    inspected = stack.inspected(container)
    limits, config = inspected["HostConfig"], inspected["Config"]
    assert isinstance(limits, dict)
    assert isinstance(config, dict)
    assert limits["Memory"] == (2 << 30 if service == "worker" else 1 << 30)
    assert limits["PidsLimit"] == 256
    names = {one.partition("=")[0] for one in config["Env"]}
    assert ("GEMINI_API_KEY" in names) == (service == "worker")


def test_no_check_compiles_what_it_imports(stack: ComposeStack) -> None:
    """Nothing can be written there, so each of them would do it once more."""
    verbose = stack.in_shell("python -v -c 'import tasks.ping' 2>&1")
    loaded = [line for line in verbose.splitlines() if line.startswith("# code object from")]
    assert [line for line in loaded if not line.endswith(".pyc'")] == []
    assert loaded


def test_processes_without_end_are_stopped(stack: ComposeStack) -> None:
    """A container that starts ever more of them gets no more than its share.

    It is one of the same service, and ends with its first process: all of them end with it.
    """
    begin = "import subprocess as s; [s.Popen(['sleep', '600']) for _ in range(400)]"
    done = stack.compose("run", "--rm", "-T", "shell", "python", "-c", begin)
    assert done.returncode != 0
    assert "Resource temporarily unavailable" in done.stdout


def test_the_six_steps_as_the_page_has_them(stack: ComposeStack) -> None:
    """Shell in, plan, inspect, dispatch, watch Flower, verify: the page's commands, in order."""
    outside, inside, watching, verifying = (
        [step.command for step in steps(block)] for block in blocks(PAGE) if not block.section
    )
    assert outside[1:] == ["docker compose up --detach --wait", "docker compose exec shell bash"]
    plan, inspect, dispatch = (stack.in_shell(command) for command in inside)
    assert "manifests/today.jsonl" in plan
    assert "tasks.crud.fast_crud_task" in inspect
    assert "60" in dispatch
    entries = (stack.folder / "manifests" / "today.jsonl").read_text("utf-8").splitlines()

    (asked,) = watching
    command = asked.replace(":5555", f":{stack.flower_port}")

    def seen() -> bool:
        shell = ["env", f"FLOWER_PASSWORD={stack.password}", "sh", "-c", f"{command} --silent"]
        jobs = json.loads(stack.command(*shell, seconds=60).stdout)
        ended = [job for job in jobs.values() if job["state"] == "SUCCESS"]
        return len(ended) >= len(entries) - 1

    eventually(seen, within=120, what="Flower shows the jobs")
    (verify,) = verifying
    assert f"{len(entries) - 1} passed" in stack.in_shell(verify)


def test_flower_answers_nobody_without_the_password(stack: ComposeStack) -> None:
    """From outside, through the published port: pages, API, metrics and health."""
    for page in ("/", "/api/workers", "/metrics", "/healthcheck"):
        url = f"http://{LOOPBACK}:{stack.flower_port}{page}"
        assert _status(url, None) == 401, page
        assert _status(url, f"admin:{stack.password}") == 200, page


def _status(url: str, password: str | None) -> int:
    request = urllib.request.Request(url)
    if password is not None:
        request.add_header("Authorization", f"Basic {base64.b64encode(password.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=30) as got:
            return int(got.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def test_a_run_goes_on_after_down_and_up(stack: ComposeStack) -> None:
    """``down`` ends pytest, workers and broker in the middle of a run; resumed, all jobs pass."""
    manifest = "--manifest=manifests/cut.jsonl"
    plan = "--manifest-plan=system_test:sleep --manifest-plan-opt"
    stack.in_shell(f"pytest {plan} count=60 --manifest-plan-opt sleep=1 {manifest}")
    command = ["docker", "compose", "exec", "-T", "shell", "pytest", "-v", manifest]
    environment = {**stack.environment, "COMPOSE_PROJECT_NAME": stack.name}
    with subprocess.Popen(
        command, cwd=stack.folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as session:
        assert session.stdout is not None
        assert any("PASSED" in line for line in session.stdout)
        stack.did("down")
        session.communicate(timeout=60)
    assert session.returncode != 0
    stack.did(*UP)
    assert "60 passed" in stack.in_shell(f"pytest {manifest} --manifest-resume")


def test_no_worker_is_killed_where_its_broker_stops_with_it(stack: ComposeStack) -> None:
    """Jobs that end then find no store for their results; the worker ends well before its limit."""
    send = "from tasks.diagnostics import sleep_task; [sleep_task.delay(2) for _ in range(4)]"
    stack.in_shell(f'python -c "{send}"')
    ids = stack.containers("worker", "redis")
    with ThreadPoolExecutor() as at_once:
        stops = [
            at_once.submit(docker, stack.environment, "stop", "--time=60", one, seconds=120)
            for one in ids
        ]
        assert [stop.result().returncode for stop in stops] == [0, 0]
    assert KILLED not in {_state(stack, one)["ExitCode"] for one in ids}


def _state(stack: ComposeStack, container: str) -> dict[str, Any]:
    state = stack.inspected(container)["State"]
    assert isinstance(state, dict)
    return state


def test_three_workers_share_the_jobs_and_one_of_them_is_killed(stack: ComposeStack) -> None:
    """``--scale``: each is well by a check of its own, and the batch passes without one of them."""
    stack.did(*UP, "--scale=worker=3")
    workers = stack.containers("worker")
    assert [_state(stack, one)["Health"]["Status"] for one in workers] == ["healthy"] * 3
    docker(stack.environment, "kill", workers[0])
    done = stack.in_shell("pytest --manifest=manifests/system_test_01.jsonl --manifest-rerun")
    assert " passed" in done


def test_a_taken_port_is_named_and_no_worker_runs(stack: ComposeStack) -> None:
    """Of what could be started before, the broker alone runs; with a free port all is well."""
    stack.did("down")
    with closing(socket.create_server((LOOPBACK, stack.flower_port))):
        failed = stack.compose(*UP)
        assert failed.returncode != 0
        assert f"{LOOPBACK}:{stack.flower_port}" in failed.stdout
        assert stack.running() == {"redis"}
    stack.did(*UP)
    assert stack.running() == SERVICES


@pytest.mark.parametrize("other", [23456, 0])
def test_another_user_at_any_time(stack: ComposeStack, other: int) -> None:
    """The next ``up`` builds for the new USER_ID, unasked; 0 has no capability either."""
    stack.did("down")
    before = stack.user
    stack.configure(other)
    try:
        said = stack.did(*UP)
        assert "warn" not in said.lower()
        assert stack.in_shell("id -u").strip() == str(other)
        assert "CapEff:\t0000000000000000" in stack.in_shell("cat /proc/self/status")
        plan = "--manifest-plan=system_test:debug --manifest-plan-run"
        assert "20 passed" in stack.in_shell(f"pytest {plan} --manifest=manifests/u{other}.jsonl")
    finally:
        stack.did("down")
        stack.configure(before)


def test_up_alone_builds_what_is_not_there(
    engine_environment: Mapping[str, str], user: int
) -> None:
    """``pull_policy: never`` beside ``build``: a first ``up`` needs no ``build`` before it."""
    with compose_stack(engine_environment, user + 1) as stack:
        stack.did(*UP)
        assert stack.running() == SERVICES
