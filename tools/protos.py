"""Makes the stubs of `datatailr.v1`, or proves that the committed ones are fresh.

    python tools/protos.py          writes sdk/datatailr/v1 and protos/api.lock.txt
    python tools/protos.py --check  exits 1 when they differ from what would be written

The stubs come from the oldest compiler that the supported range of protobuf and
grpcio allows, so that every later runtime accepts them. The compiler needs a
protobuf that differs from the project's, hence an environment of its own.
"""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUBS = ROOT / "sdk" / "datatailr" / "v1"
LOCK = PROTOS / "api.lock.txt"
COMPILER_ENVIRONMENT = ROOT / ".venv-protos"
COMPILER = ["grpcio-tools==1.72.1", "mypy-protobuf==3.6.0", "protobuf==6.30.2", "setuptools<81"]


def compiler() -> Path:
    """Returns the interpreter of the compiler's environment, making it on first use."""
    python = COMPILER_ENVIRONMENT / "bin" / "python"
    stamp = COMPILER_ENVIRONMENT / "stamp"
    wanted = "\n".join(COMPILER)
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(COMPILER_ENVIRONMENT, ignore_errors=True)
        venv.create(COMPILER_ENVIRONMENT, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *COMPILER], check=True)
        stamp.write_text(wanted)
    return python


def generate(target: Path) -> None:
    """Writes the stubs into `target` as the package `datatailr.v1`."""
    python = compiler()
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    out = target / "out"
    out.mkdir(parents=True)
    plugins = [f"--plugin=protoc-gen-mypy_grpc={python.parent / 'protoc-gen-mypy_grpc'}"]
    outputs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python", "mypy_grpc")]
    subprocess.run(
        [python, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *plugins, *outputs, *sources],
        check=True,
        cwd=PROTOS,
    )
    made = out / "datatailr" / "v1"
    (made / "__init__.py").write_text(
        '"""Generated stubs of the package datatailr.v1; see `make protos`."""\n'
    )
    dump(made, target / "api.lock.txt")


def dump(stubs: Path, path: Path) -> None:
    """Writes the whole API as sorted lines of text, so that a change shows in review."""
    script = (
        "import sys, importlib, pkgutil, types\n"
        "root = types.ModuleType('datatailr'); root.__path__ = [sys.argv[1]]\n"
        "sys.modules['datatailr'] = root\n"
        "import datatailr.v1 as package\n"
        "lines = []\n"
        "def message(m):\n"
        "    for f in m.fields:\n"
        "        kind = (f.message_type or f.enum_type).full_name if (f.message_type or f.enum_type) "
        "else f.cpp_type\n"
        "        one = f' oneof {f.containing_oneof.name}' if f.containing_oneof else ''\n"
        "        many = 'repeated ' if f.is_repeated else ''\n"
        "        lines.append(f'message {m.full_name} {f.number:4d} {many}{kind} {f.name}{one}')\n"
        "    for n in m.nested_types: message(n)\n"
        "for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda i: i.name):\n"
        "    if not info.name.endswith('_pb2'): continue\n"
        "    file = importlib.import_module('datatailr.v1.' + info.name).DESCRIPTOR\n"
        "    for m in file.message_types_by_name.values(): message(m)\n"
        "    for e in file.enum_types_by_name.values():\n"
        "        for v in e.values: lines.append(f'enum {e.full_name} {v.number:4d} {v.name}')\n"
        "    for s in file.services_by_name.values():\n"
        "        for r in s.methods:\n"
        "            a = 'stream ' if r.client_streaming else ''\n"
        "            b = 'stream ' if r.server_streaming else ''\n"
        "            lines.append(f'rpc {s.full_name}.{r.name}({a}{r.input_type.name}) -> '\n"
        "                         f'{b}{r.output_type.name}')\n"
        "print('\\n'.join(sorted(lines)))\n"
    )
    text = subprocess.run(
        [
            compiler(),
            "-c",
            script.replace("f.is_repeated", "(f.label == f.LABEL_REPEATED)"),
            str(stubs.parent),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    path.write_text(text)


def stale(made: Path) -> list[str]:
    """Names the committed files that differ from the ones just made."""
    fresh = made / "out" / "datatailr" / "v1"
    names = {path.name for path in fresh.iterdir() if path.is_file()}
    present = {path.name for path in STUBS.iterdir() if path.is_file()}
    wrong = sorted(names ^ present)
    wrong += filecmp.cmpfiles(fresh, STUBS, sorted(names & present), shallow=False)[1]
    if not LOCK.exists() or LOCK.read_text() != (made / "api.lock.txt").read_text():
        wrong.append(LOCK.name)
    return wrong


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        generate(made)
        if "--check" in arguments:
            wrong = stale(made)
            if wrong:
                print(f"stale: {', '.join(wrong)}; run `make protos`", file=sys.stderr)
            return 1 if wrong else 0
        shutil.rmtree(STUBS, ignore_errors=True)
        shutil.copytree(made / "out" / "datatailr" / "v1", STUBS)
        shutil.copy(made / "api.lock.txt", LOCK)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
