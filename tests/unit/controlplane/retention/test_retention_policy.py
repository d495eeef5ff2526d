"""Rules as they are written on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from opentailr_controlplane.config import ConfigError, parse
from opentailr_controlplane.core.values import Environment
from opentailr_controlplane.retention_policy import DAY, Keep, Policy, PolicyError


def test_the_defaults_are_those_of_the_page() -> None:
    page = (Path(__file__).parents[4] / "docs" / "design" / "retention.md").read_text(encoding="utf-8")
    for environment, keep in Policy().environments.items():
        row = (
            f"| {environment.text} | {keep.run_age // DAY} days | {keep.run_count:,} "
            f"| {keep.log_age // DAY} days |"
        )
        assert row in page
    assert set(Policy().environments) == set(Environment)
    assert f"The age for nodes is {Policy().node_age // DAY} days" in page


def test_rules_change_what_they_name() -> None:
    policy = Policy.parse(["dev=36h,5", "PROD=forever,0", "pre = 2w"], ["dev=90m", "prod=1d"])
    before = Policy().environments[Environment.PRE]
    assert policy.environments[Environment.DEV] == Keep(36 * 3600, 5, 5400)
    assert policy.environments[Environment.PRE] == Keep(14 * DAY, before.run_count, before.log_age)
    assert policy.environments[Environment.PROD] == Keep(0, 0, DAY)
    assert policy.describe() == [
        ("dev", "runs 36h, at most 5 of a job; logs 90m"),
        ("pre", "runs 2w, at most 10,000 of a job; logs 90d"),
        ("prod", "runs for ever; logs 1d"),
    ]


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ("30d", "'30d'"),
        ("test=30d", "'test=30d'"),
        ("dev=", "''"),
        ("dev=0d", "'0d'"),
        ("dev=30", "'30'"),
        ("dev=-3d", "'-3d'"),
        ("dev=99999999w", "'99999999w'"),
        ("dev=30d,", "''"),
        ("dev=30d,many", "'many'"),
        ("dev=30d,-1", "'-1'"),
        ("dev=30d,1,2", "'1,2'"),
    ],
)
def test_a_rule_that_cannot_be_read_is_named_with_the_remedy(rule: str, named: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Policy.parse([rule])
    assert named in str(caught.value) and "--retain" in str(caught.value)


def test_flags_reach_the_policy(tmp_path: Path) -> None:
    settings = parse(
        ["--data-dir", str(tmp_path), "--retain", "dev=1d,7", "--retain", "pre=2d", "--retain-logs", "dev=1h"]
    )
    environments = settings.policy().environments
    assert environments[Environment.DEV] == Keep(DAY, 7, 3600)
    assert environments[Environment.PRE].run_age == 2 * DAY
    with pytest.raises(ConfigError, match="--retain-logs"):
        parse(["--data-dir", str(tmp_path), "--retain-logs", "dev=soon"])
