"""The changelog has the form that docs/versioning.md gives it, and goes with the version."""

import re
from pathlib import Path

import mlcls_jax

CHANGELOG = Path(__file__).parents[1] / "docs" / "changelog.md"
ORDER = ("### Added", "### Breaking", "### Fixed", "### Changed")
RELEASE = r"## (\d+)\.(\d+)\.(\d+) \(\d{4}-\d\d-\d\d\)"


def test_the_changelog_has_its_form_and_the_version_that_was_released_last():
    headings = re.findall(r"^#+ .*$", CHANGELOG.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[:2] == ["# Changelog", "## Unreleased"]
    releases = [line for line in headings if line.startswith("## ")][1:]
    found = [re.fullmatch(RELEASE, line) for line in releases]
    assert all(found), releases
    versions = [tuple(map(int, match.groups())) for match in found if match]
    assert versions == sorted(set(versions), reverse=True)
    if versions:
        assert mlcls_jax.__version__ == ".".join(map(str, versions[0]))
    for part in "\n".join(headings).split("\n## ")[1:]:
        kinds = [line for line in part.splitlines() if line.startswith("### ")]
        assert kinds == [kind for kind in ORDER if kind in kinds], "unknown, twice, or out of order"
