"""The wheel and the sdist of a release, tried as a user gets them: outside the checkout, in an empty home.

make release-check        (RELEASE="--no-demo --only 3.12" leaves out the demonstration and other Pythons)

The wheel is built from the sdist. Every Python from 3.11 to 3.13 that is installed (on the path, or by pyenv)
gets a fresh environment. Where the index has only a torch of gigabytes for it, all other dependencies are
installed, and what needs no torch is run.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"
PYTHONS = ("3.11", "3.12", "3.13")
DEVELOPMENT = ("pytest", "ruff", "mypy", "hypothesis", "mkdocs", "torchvision", "onnx", "nbclient")
SHIPPED = (
    "recipes/quickstart.yaml",
    "data_cards/chest_phantom.md",
    "suites/core.yaml",
    "examples/make_phantoms.py",
)
TRIED = (["--help"], ["recipes", "list"], ["cards", "show", "art_paintings"], ["components", "list"])


def build(folder: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it, in dist/."""
    python = make_environment("python3", folder / "build")
    call([python, "-m", "pip", "install", "--quiet", "build"], folder)
    shutil.rmtree(DIST, ignore_errors=True)
    call([python, "-m", "build", "--outdir", str(DIST), str(ROOT)], folder)
    (sdist,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    return sdist, wheel


def check_content(sdist: Path, wheel: Path) -> None:
    """Refuse a wheel without the built-in files or with tests, and an sdist without what its tests need."""
    inside = set(zipfile.ZipFile(wheel).namelist())
    missing = [name for name in SHIPPED if f"domainclip/_shipped/{name}" not in inside]
    foreign = [name for name in inside if name.split("/")[0] in ("tests", "docs", "tools")]
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    missing += [name for name in ("tests/conftest.py", "mkdocs.yml", "Makefile") if name not in packed]
    if missing or foreign:
        raise SystemExit(f"missing: {missing}; not wanted: {sorted(foreign)[:5]}")


def try_wheel(python: str, wheel: Path, folder: Path, demo: bool) -> str:
    """Install the wheel into a fresh environment and use it; the version, and what was tried."""
    inside = make_environment(python, folder / Path(python).parent.parent.name / "environment")
    pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--constraint", str(ROOT / "constraints.txt")]
    with_torch = "+cpu" in call([*pip, "--dry-run", "--report", "-", "--no-deps", "torch"], folder)
    call([*pip, str(wheel)] if with_torch else [*pip, *_without_torch(wheel)], folder)
    if not with_torch:
        call([*pip, "--no-deps", str(wheel)], folder)
    present = call([inside, "-m", "pip", "list", "--format=freeze"], folder).lower()
    if found := [name for name in DEVELOPMENT if f"\n{name}==" in present]:
        raise SystemExit(f"{python}: a plain install brings {found}")
    call([inside, "-W", "error", "-m", "compileall", "-q", "-f", _package(inside, folder)], folder)
    program = str(Path(inside).parent / "domainclip")
    for arguments in TRIED:
        call([program, *arguments], folder)
    if with_torch:
        try_model(program, folder, demo)
    version = call([program, "--version"], folder).split()[-1]
    if version != wheel.name.split("-")[1].replace("_", "+"):
        raise SystemExit(f"{python}: domainclip --version prints {version}, the wheel is {wheel.name}")
    return f"version {version}, " + ("all" if with_torch else "what needs no torch")


def try_model(program: str, folder: Path, demo: bool) -> None:
    """Import the components; with `demo` also train, evaluate and classify one file."""
    for recipe in ("medical_xray", "quickstart"):
        call([program, "validate", "-r", recipe], folder)
    if demo:
        call([program, "demo", "demo"], folder)
        (film, *_) = sorted((folder / "demo").rglob("*.dcm"))
        call([program, "classify", str(next((folder / "demo" / "runs").iterdir())), str(film)], folder)


def pythons() -> dict[str, str]:
    """The installed Pythons: number → program."""
    found = {}
    for number in PYTHONS:
        by_pyenv = sorted(Path.home().glob(f".pyenv/versions/{number}.*/bin/python"))
        named = [os.path.realpath(path) for path in [shutil.which(f"python{number}")] if path]
        if programs := [*named, *map(str, by_pyenv)]:
            found[number] = programs[-1]
    return found


def _without_torch(wheel: Path) -> list[str]:
    """The dependencies of the wheel, extras and those that bring torch left out."""
    archive = zipfile.ZipFile(wheel)
    (name,) = (one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
    needed = re.findall(r"^Requires-Dist: ([^;\n]+)$", archive.read(name).decode(), re.MULTILINE)
    return [one for one in needed if re.split(r"[<>=~!\[ ]", one)[0] not in ("torch", "peft", "accelerate")]


def _package(python: str, folder: Path) -> str:
    """The folder of the installed package, which must not be this checkout."""
    place = call([python, "-c", "import domainclip; print(domainclip.__path__[0])"], folder).strip()
    if "site-packages" not in place:
        raise SystemExit(f"domainclip was imported from {place}")
    return place


def make_environment(python: str, folder: Path) -> str:
    """A virtual environment with nothing in it; the path of its Python."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    return str(folder / "bin" / "python")


def call(command: list[str], folder: Path) -> str:
    """The output of a command in an empty home, outside the checkout. Raises SystemExit when it fails."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DOMAINCLIP"))
    }
    environment = kept | {"HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build and try the wheel and the sdist.")
    parser.add_argument("--no-demo", action="store_true")
    parser.add_argument("--only", nargs="*", choices=PYTHONS, default=PYTHONS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="release_") as temporary:
        sdist, wheel = build(Path(temporary))
        check_content(sdist, wheel)
        found = pythons()
        for number in options.only:
            tried = "not installed, not tried"
            if number in found:
                tried = try_wheel(found[number], wheel, Path(temporary), not options.no_demo)
            print(f"Python {number}: {wheel.name}: {tried}", flush=True)
