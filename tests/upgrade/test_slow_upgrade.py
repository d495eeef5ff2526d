"""A whole platform started on the data of an earlier release serves it all and finishes what was active."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from e2e_harness import Flow, Platform, client_variables
from make_store import describe
from upgrade_stores import RELEASES, unpack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.parametrize("release", RELEASES)]


def test_an_upgraded_platform_serves_everything(release: str, tmp_path: Path) -> None:
    store = unpack(release, tmp_path / "platform")
    facts = store.facts["jobs"]
    platform = Platform.start(tmp_path / "platform")
    try:
        with client_variables(platform):
            for name in sorted(set(facts) - {"active"}):
                assert describe(Flow(name, platform).job) == facts[name], name
            active = Flow("active", platform)
            (run_id,) = map(int, facts["active"]["runs"])
            run = active.wait(run_id, seconds=150)
            assert run.result("second_time") == 20
            assert "attempt 2\n" in run.out("second_time")
            # Versions of the earlier release run, anew and again.
            good = Flow("good", platform)
            assert good.job.rerun(1, version=1, full=True)[0] is True
            assert good.wait().result("total") == {"sum": 449985000, "version": 1}
            assert good.job.rerun(1, full=True)[0] is True
            assert good.wait().result("total") == {"sum": 449985000, "version": 2}
            assert Flow("bad", platform).job.rerun(4)[0] is True
            assert Flow("bad", platform).wait(state="failed").states["load"] == "did_not_run"
        platform.stop()
    finally:
        platform.kill()
