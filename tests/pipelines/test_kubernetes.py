"""The example for Kubernetes: its documents by Kubernetes' own schemas, its command for real."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.docs.blocks import blocks
from tests.pipelines.github import Yaml
from tests.pipelines.machine import ENTRIES, ROOT, Machine

pytestmark = pytest.mark.live

PAGE = ROOT / "docs" / "how-to" / "kubernetes.md"
KINDS = ["Secret", "Deployment", "PersistentVolumeClaim", "CronJob"]


def documents() -> list[Yaml]:
    """The YAML of the page."""
    (text,) = (block.body for block in blocks(PAGE) if block.options.get("title") == "batch.yaml")
    return list(yaml.safe_load_all(text))


def at(document: Yaml, path: str) -> Yaml:
    """What stands at a path like ``spec.containers.0``."""
    for key in path.split("."):
        document = document[int(key) if key.isdigit() else key]
    return document


@pytest.mark.parametrize("number", range(len(KINDS)), ids=KINDS)
def test_kubernetes_would_take_it(number: int) -> None:
    """Strictly: no field that it does not know."""
    document = documents()[number]
    assert document["kind"] == KINDS[number]
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_a_field_of_another_name_is_refused() -> None:
    """The schema really is asked."""
    document = documents()[1]
    spec = document["spec"]
    spec["replica"] = spec.pop("replicas")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_no_pod_is_root_or_may_write_where_it_need_not() -> None:
    """Each has what the image's user may do, and less."""
    _, deployment, _, cron = documents()
    for pod in (
        at(deployment, "spec.template"),
        at(cron, "spec.jobTemplate.spec.template"),
    ):
        assert at(pod, "spec.securityContext.runAsNonRoot") is True
        assert at(pod, "spec.automountServiceAccountToken") is False
        context = at(pod, "spec.containers.0.securityContext")
        assert at(context, "allowPrivilegeEscalation") is False
        assert at(context, "readOnlyRootFilesystem") is True
        assert at(context, "capabilities.drop") == ["ALL"]


def test_a_batch_goes_on_in_another_pod(tmp_path: Path, valkey: str) -> None:
    """The CronJob's command with a real worker: one entry fails, the next pod has it pass."""
    _, deployment, _, cron = documents()
    pod = at(cron, "spec.jobTemplate.spec.template.spec.containers.0")
    (script,) = at(pod, "args")
    assert at(pod, "command") == ["bash", "-euc"]
    command = at(deployment, "spec.template.spec.containers.0.command")
    stack = {"CELERY_BROKER_URL": valkey, "CELERY_RESULT_BACKEND": valkey, "JOB": "batch-1"}
    with Machine(tmp_path / "m", stack) as machine:
        machine.check_out()
        broken = machine.folder / "broken-2"
        broken.touch()
        machine.run(f"{' '.join(map(str, command))} >worker.log 2>&1 &")
        text = str(script).replace("runs=/runs/$JOB", f"runs={tmp_path}/runs/$JOB")
        first = machine.run(text, shell="-eu")
        assert first.returncode == 1, first.stdout
        broken.unlink()
        second = machine.run(text, shell="-eu")
        assert second.returncode == 0, second.stdout
        assert len((machine.folder / "ran.txt").read_text().split()) == ENTRIES
        assert (tmp_path / "runs" / "batch-1" / "run.html").is_file()
