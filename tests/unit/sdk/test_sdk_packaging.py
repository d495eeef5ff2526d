"""Which code is packaged, and how (section 10, second half)."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from sdk_builder import Builder
from sdk_fake_platform import FakePlatform

from datatailr import Service
from datatailr.errors import BundleError, EmptyEntrypointBundleError
from datatailr.scheduler import _bundle
from datatailr.scheduler._bundle import packed
from datatailr.scheduler._package import CodePackage, list_files, locate_package, package_of_directory


def write(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names(directory: Path, *, top_level: bool = False) -> list[str]:
    return [file.name for file in list_files(package_of_directory(directory, top_level=top_level))]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


@pytest.mark.clause("B182", "B183")
def test_the_package_directory(tmp_path: Path, repository: Path) -> None:
    write(repository, "src/dashboards/dash/app.py", "src/dashboards/__init__.py", "src/single.py")
    found = locate_package("dashboards.dash.app", repository / "src/dashboards/dash/app.py")
    assert (found.directory, found.top_level) == (repository / "src/dashboards", False)
    assert (found.path_to_repo, found.path_to_module) == (str(repository), "src/dashboards")
    init = locate_package("dashboards", repository / "src/dashboards/__init__.py")
    assert init.directory == repository / "src/dashboards"
    single = locate_package("single", repository / "src/single.py")
    assert (single.directory, single.top_level) == (repository / "src", True)
    write(tmp_path, "plain/one.py")
    outside = locate_package("one", tmp_path / "plain/one.py")
    assert (outside.path_to_repo, outside.path_to_module, outside.in_git) == (str(tmp_path), "plain", False)
    root = locate_package("top", repository / "top.py")
    assert root.path_to_module == "."
    with pytest.raises(BundleError, match="folders carry the names"):
        locate_package("a.b.c", repository / "src/single.py")


@pytest.mark.clause("B182")
def test_home_and_root_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / "alice"
    write(home, "flow.py", "Documents/letter.txt")
    monkeypatch.setenv("HOME", str(home))
    for directory, text in ((home, "a home directory"), (tmp_path / "home", "home directories")):
        with pytest.raises(BundleError, match=text):
            list_files(package_of_directory(directory, top_level=True))
    with pytest.raises(BundleError, match=r"would have shipped 2 entries \(Documents, flow.py\).*my_project"):
        list_files(package_of_directory(home, top_level=True))
    with pytest.raises(BundleError, match="root of the file system"):
        list_files(CodePackage(Path("/"), Path("/"), in_git=False, top_level=True))
    assert names(home / "Documents") == ["letter.txt"]


@pytest.mark.clause("B182")
def test_too_large_directories_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "pkg/code.py")
    (tmp_path / "pkg/data").mkdir()
    with (tmp_path / "pkg/data/big.bin").open("wb") as stream:
        stream.truncate(100_000_001)
    with pytest.raises(BundleError, match=r"2 files of 100.0 MB.*data \(100.0 MB\).*DATATAILR_MAX_BUNDLE_MB"):
        names(tmp_path / "pkg")
    monkeypatch.setenv("DATATAILR_MAX_BUNDLE_MB", "101")
    assert len(names(tmp_path / "pkg")) == 2
    monkeypatch.setenv("DATATAILR_MAX_BUNDLE_MB", "many")
    with pytest.raises(BundleError, match="'many'"):
        names(tmp_path / "pkg")


@pytest.mark.clause("B184", "B188")
def test_nothing_outside_is_shipped(package: Builder, platform: FakePlatform, tmp_path: Path) -> None:
    files = {"sibling/x.py": "", "deploy.py": "", "requirements.txt": "", "pkg/__init__.py": ""}
    module = package("pkg/served.py", "def serve(port): pass\n", **files)
    Service("Svc", module.serve).save()
    (tmp_path / "project/pkg/served.py").write_text("def serve(port): pass  # edited\n")
    Service("Svc", module.serve).save()
    first, second = platform.versions["svc", "dev"].values()
    assert sorted(first.files) == ["pkg/__init__.py", "pkg/served.py"]
    assert b"edited" in second.files["pkg/served.py"]
    bundle = second.definition.bundle
    assert bundle is not None
    assert (bundle.directory, bundle.top_level) == ("pkg", False)


@pytest.mark.clause("B185", "B187", "B188")
def test_files_in_a_git_work_tree(repository: Path) -> None:
    write(repository, "pkg/a.py", "pkg/deleted.py", "pkg/.env", "pkg/.DS_Store", "pkg/dist/b.py", "out.py")
    subprocess.run(["git", "add", "-A", "-f"], cwd=repository, check=True)
    write(repository, "pkg/untracked.py", "pkg/ignored.txt", "pkg/__pycache__/a.pyc", "pkg/ü n.py")
    (repository / ".gitignore").write_text("ignored.txt\n")
    (repository / "pkg/deleted.py").unlink()
    assert names(repository / "pkg") == ["a.py", "dist/b.py", "untracked.py", "ü n.py"]


@pytest.mark.clause("B185")
def test_a_nested_repository_is_shipped(repository: Path) -> None:
    write(repository, "pkg/a.py", "pkg/inner/b.py", "pkg/inner/skip.txt", "pkg/inner/.gitignore")
    (repository / "pkg/inner/.gitignore").write_text("skip.txt\n")
    subprocess.run(["git", "init", "-q"], cwd=repository / "pkg/inner", check=True)
    assert names(repository / "pkg") == ["a.py", "inner/.gitignore", "inner/b.py"]


@pytest.mark.clause("B185")
def test_a_failing_git_fails_the_save(
    package: Builder, platform: FakePlatform, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "project/.git").mkdir()
    (tmp_path / "project/.git/HEAD").write_text("nonsense")
    module = package("served.py", "def serve(port): pass\n")
    done, message = Service("Svc", module.serve).save()
    assert not done
    assert "git cannot list" in message
    assert platform.calls == []


@pytest.mark.clause("B186")
def test_files_outside_git(tmp_path: Path) -> None:
    tools = ".tox .mypy_cache .pytest_cache .ruff_cache .cache .eggs .idea .vscode some.egg-info"
    skipped = f".git .hg .svn .venv venv node_modules __pycache__ dist build {tools}"
    write(
        tmp_path, "pkg/a.py", "pkg/sub/b.txt", "pkg/.hidden", "pkg/.env", "pkg/sub/.DS_Store", "pkg/build.py"
    )
    for name in skipped.split(" "):
        write(tmp_path, f"pkg/sub/{name}/file.py")
    # without its own git directory the package is outside git
    assert names(tmp_path / "pkg") == [".hidden", "a.py", "build.py", "sub/b.txt"]


@pytest.mark.clause("B187")
@pytest.mark.parametrize("in_git", [False, True])
def test_links(tmp_path: Path, in_git: bool) -> None:
    write(tmp_path, "pkg/a.py", "elsewhere/secret.txt")
    if in_git:
        subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "pkg/inside.py").symlink_to("a.py")
    assert names(tmp_path / "pkg") == ["a.py", "inside.py"]
    for name, target in (("dir", "../elsewhere"), ("outside", "../elsewhere/secret.txt"), ("broken", "gone")):
        link = tmp_path / "pkg" / name
        link.symlink_to(target)
        with pytest.warns(UserWarning, match=f"{name} is not packaged: a "):
            assert names(tmp_path / "pkg") == ["a.py", "inside.py"]
        link.unlink()


@pytest.mark.clause("B187")
def test_nothing_left_to_package(repository: Path, tmp_path: Path) -> None:
    write(repository, "pkg/a.py")
    (repository / ".gitignore").write_text("pkg\n")
    with pytest.raises(EmptyEntrypointBundleError, match="nothing to package"):
        names(repository / "pkg")
    write(tmp_path, "other/.env")
    with pytest.raises(EmptyEntrypointBundleError):
        names(tmp_path / "other")


@pytest.mark.clause("B182")
def test_the_digest_depends_on_names_modes_and_contents_alone(tmp_path: Path) -> None:
    def digest(root: str) -> str:
        with packed(package_of_directory(tmp_path / root / "pkg", top_level=False)) as bundle:
            return bundle.digest

    for root in ("one", "two"):
        write(tmp_path / root, "pkg/a.py", "pkg/sub/b.py")
    os.utime(tmp_path / "two/pkg/a.py", (1, 1))
    first = digest("one")
    assert len(first) == 64
    assert digest("two") == first
    (tmp_path / "two/pkg/a.py").chmod(0o755)
    executable = digest("two")
    (tmp_path / "two/pkg/a.py").chmod(0o644)
    (tmp_path / "two/pkg/a.py").write_text("b")
    changed = digest("two")
    (tmp_path / "one/pkg/a.py").rename(tmp_path / "one/pkg/c.py")
    assert len({first, executable, changed, digest("one")}) == 4


@pytest.mark.clause("B182")
@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_a_bundle_can_be_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    import hashlib

    monkeypatch.setattr(_bundle, "_IN_MEMORY", limit)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    write(tmp_path, "pkg/a.py", "pkg/" + "deep/" * 30 + "ü.py")
    with packed(package_of_directory(tmp_path / "pkg", top_level=False)) as bundle:
        for _ in range(2):
            with bundle.open() as stream:
                data = stream.read()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (bundle.digest, bundle.size)
        with bundle.open() as stream, tarfile.open(fileobj=stream) as archive:
            assert archive.getnames() == ["pkg/a.py", "pkg/" + "deep/" * 30 + "ü.py"]
            assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in archive} == {(0, 0, 0, "", 0o644)}
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.clause("B189", "B182")
def test_the_script_being_run_is_packaged_under_its_name(tmp_path: Path) -> None:
    script = tmp_path / "proj" / "my_script.py"
    write(tmp_path, "proj/other.txt")
    script.write_text(
        "from datatailr.scheduler import EntryPoint\n"
        "from datatailr.scheduler._bundle import packed\n"
        "def f(): pass\n"
        "if __name__ == '__main__':\n"
        "    entry = EntryPoint('batch', f)\n"
        "    with packed(entry.package) as bundle:\n"
        "        print(entry, bundle.directory, bundle.top_level)\n"
    )
    output = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["my_script:f", "proj", "True"]
