"""Implement pytest's hooks: each calls the module that does its work.

Nothing heavy is imported here: an idle plugin must cost nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_manifest.bindings import OUR_ARGUMENTS, binding_of
from pytest_manifest.plugin.context import role_of
from pytest_manifest.plugin.options import add_options, any_given
from pytest_manifest.plugin.runtest import NAME, SHORT, Verifying, stop_verifying
from pytest_manifest.plugin.session import known_session, manifest_session, own_process_state

if TYPE_CHECKING:
    from pytest_manifest.plugin.collection import ManifestFile
    from pytest_manifest.plugin.lifecycle import SessionHooks
    from pytest_manifest.plugin.session import ManifestSession

pytest_plugins = ["pytest_manifest.plugin.fixtures"]


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    add_options(parser, pluginmanager.get_plugin("pytestconfig"))


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, object, object]:
    own_process_state(early_config)  # before a conftest registers secrets
    result = yield  # conftests register options, too
    known = early_config.known_args_namespace
    if not known.help and (known.manifest_check):
        from pytest_manifest.plugin.stack_check import CheckCommand

        early_config.pluginmanager.register(CheckCommand(), "manifest-check")
    if not known.help and known.manifest_detach:
        from pytest_manifest.plugin.detaching import command

        early_config.pluginmanager.register(command(), "manifest-detach")
    return result


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from pytest_manifest.plugin import hookspecs

    pluginmanager.add_hookspecs(hookspecs)
    pluginmanager.register(Verifying(), NAME)


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    # A wrapper, to run before xdist reads these options.
    option = config.option
    if option.manifest_dispatch_only or (option.manifest_plan and not option.manifest_plan_run):
        option.numprocesses = None
        option.dist = "no"
    if hasattr(config, "workerinput") and getattr(option, "clean_alluredir", False):
        # The controller has cleaned the folder. An xdist worker, above all one that replaces a
        # crashed worker, would remove the results that other workers have written.
        option.clean_alluredir = False
    return (yield)


def pytest_configure(config: pytest.Config) -> None:
    own_process_state(config)  # where a conftest has brought the plugin
    config.addinivalue_line(
        "markers",
        "manifest(plan, **options): plan WORKFLOW:MODE (or take FILE.jsonl), dispatch it, and "
        "parametrize this module's tests by its entries",
    )
    config.addinivalue_line(
        "markers", "entries(task=, mode=, tag=): verify only the entries that match these patterns"
    )
    wants_allure = bool(getattr(config.option, "allure_report_dir", None))
    if not (any_given(config.option) or role_of(config) != "main" or wants_allure):
        return
    from pytest_manifest.console import note_terminal

    note_terminal(config)
    state = manifest_session(config)
    # Look for xdist's hooks: its name is another one where it was loaded as ``-p xdist.plugin``.
    if state.role == "controller" and hasattr(config.hook, "pytest_xdist_make_scheduler"):
        from pytest_manifest.plugin.xdist_controller import ControllerHooks

        config.pluginmanager.register(ControllerHooks(config, state), "manifest-controller")
    if wants_allure:
        from pytest_manifest.reporting.allure.hooks import AllureReport

        config.pluginmanager.register(AllureReport(config, state.report), "manifest-allure")
    hooks = _hook_up(config, state)
    if hooks is not None and state.options.active:
        hooks.configure()


def _hook_up(config: pytest.Config, state: ManifestSession) -> SessionHooks | None:
    """Register the hooks of a session that is not idle; None where they are registered."""
    if config.pluginmanager.hasplugin("manifest-session"):
        return None
    from pytest_manifest.plugin.lifecycle import SessionHooks

    hooks = SessionHooks(state)
    config.pluginmanager.register(hooks, "manifest-session")
    return hooks


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ManifestFile | None:
    # Only files that the command line names; others are the user's data, and those in YAML may be
    # the tests of another plugin, unless a node id of ours stands there.
    if file_path.suffix in (".yaml", ".yml"):
        state, path = known_session(parent.config), file_path.resolve()
        is_given = state is not None and path in state.manifests.files
        if not is_given and path not in map(Path.resolve, _named_manifests(parent.config).values()):
            return None
    elif file_path.suffix != ".jsonl" or not parent.session.isinitpath(file_path):
        return None
    from pytest_manifest.plugin.collection import collect_file

    return collect_file(file_path, parent)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if set(OUR_ARGUMENTS).isdisjoint(metafunc.fixturenames):
        return
    from pytest_manifest.plugin.collection import generate_tests

    generate_tests(metafunc)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if (state := known_session(collector.config)) is not None:
        from pytest_manifest.plugin.collection import drop_unneeded

        _hook_up(collector.config, state)  # a mark of a test, or a path, may have made the session
        drop_unneeded(report)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    state = known_session(session.config)
    if state is not None:
        from pytest_manifest.plugin.collection import record_collection

        record_collection(session, state)
    manager = session.config.pluginmanager
    # Where the state was never made no test can be of an entry.
    if state is None or all(binding_of(item) is None for item in session.items):
        if state is None or not state.options.plan:  # a planner's report hides secrets, too
            stop_verifying(manager)
    elif not manager.hasplugin(SHORT):
        from pytest_manifest.plugin.loop import ShortProtocol

        manager.register(ShortProtocol(), SHORT)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if (state := known_session(session.config)) is not None:
        _hook_up(session.config, state)  # a planning fixture that a test asks for has made it


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Return a line on each manifest that the command line names among its paths."""
    state = known_session(config)
    if state is not None and state.options.active:
        return []
    does = "would be sent" if getattr(config.option, "collectonly", False) else "are sent"
    return [
        f"manifest: {name} is a manifest: its jobs {does}, as with --manifest={name}"
        for name, path in sorted(_named_manifests(config).items())
        if path.is_file()
    ]


def _named_manifests(config: pytest.Config) -> dict[str, Path]:
    """Return the manifests that the command line names among its paths, by those names.

    One in YAML only by a node id of an entry: ``FILE.yaml::entry[ID]``.
    """
    found: dict[str, Path] = {}
    for arg in config.args:
        name, _, node = arg.partition("::")
        is_ours = name.endswith((".yaml", ".yml")) and node.partition("[")[0] == "entry"
        if is_ours or name.endswith(".jsonl"):
            found[name] = config.invocation_params.dir / name
    return found
