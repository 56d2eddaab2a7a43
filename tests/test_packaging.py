"""The package as it is released: what the wheel holds, what is said of it, and that CI does what .ci/run does."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from htfcli import __version__

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def problems(wheel):
    spec = importlib.util.spec_from_file_location("check_wheel", ROOT / ".ci/check_wheel.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.problems(wheel)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("the build backend, hatchling, is not installed; .ci/release-check builds with it")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    assert problems(wheel) == []
    assert wheel.name == f"htf-{__version__}-py3-none-any.whl"


def test_what_the_wheel_says_of_itself(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("METADATA"))
        metadata = archive.read(name).decode()
    assert "License-Expression: MIT" in metadata
    assert "Requires-Python: >=3.11" in metadata
    description = metadata.partition("\n\n")[2]
    assert description.startswith("# htf\n"), "the README"
    assert "Description-Content-Type: text/markdown" in metadata
    assert not re.search(r"\]\((?!https?:)|<!--", description), "a link that leads nowhere on a package index"
    readme = (ROOT / "README.md").read_text()
    assert description.count("```") == readme.count("```"), "all its code"
    assert re.findall("^#+ .*", description, re.M) == re.findall("^#+ .*", readme, re.M), "all its sections"


def test_the_check_of_wheels_can_fail(tmp_path):
    path = tmp_path / "x.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("tests/test_app.py", "")
        archive.writestr("htfcli/data.bin", bytes(2**20))
    found = "\n".join(problems(path))
    for what in ("tests/test_app.py does not belong", "htfcli/data.bin does", "app.py is missing", "licence", "bytes"):
        assert what in found


def test_metadata():
    assert "readme" in PROJECT["dynamic"], "made of README.md by .ci/description.py"
    assert PROJECT["license"] == "MIT"
    assert "urls" not in PROJECT, "there is no home yet"
    pythons = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    (job,) = (job for job in workflow()["jobs"].values() if "strategy" in job)
    assert job["strategy"]["matrix"]["python"] == pythons == ["3.11", "3.12", "3.13"]
    assert {system.partition("-")[0] for system in job["strategy"]["matrix"]["os"]} == {"ubuntu", "macos"}


def workflow(name="ci"):
    return yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())


def commands_of(name):
    steps = [step for job in workflow(name)["jobs"].values() for step in job["steps"]]
    return {step["run"] for step in steps if "run" in step}


def test_continuous_integration_does_what_ci_run_does():
    assert commands_of("ci") == {".ci/run", ".ci/release-check"}
    assert commands_of("nightly") == {".ci/nightly"}
    for script in (".ci/run", ".ci/release-check", ".ci/nightly"):
        assert (ROOT / script).stat().st_mode & 0o111
        assert subprocess.run(["bash", "-n", ROOT / script], check=False).returncode == 0


def test_the_site_is_published_as_ci_run_builds_it():
    build = next(line for line in (ROOT / ".ci/run").read_text().splitlines() if "mkdocs build" in line)
    assert "--strict" in build
    assert "mkdocs build --strict" in commands_of("site")
    assert (ROOT / ".gitignore").read_text().splitlines().count("/site/") == 1


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Razin", "Maman", "Cohen"]


def test_the_release_runs_the_first_command_of_the_readme():
    script = (ROOT / ".ci/release-check").read_text()
    program = re.search(r"awk '(.*)' README.md", script)[1]
    done = subprocess.run(["awk", program, ROOT / "README.md"], capture_output=True, text=True, check=True)
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["generate", "fit", "plot", "measure-rank"]
