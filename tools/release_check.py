"""The wheel and the sdist of a release, tried as a user gets them: outside the checkout, in an empty home.

make release-check        (--no-demo leaves out the demonstration, which trains)

The wheel is built from the sdist. Every Python from 3.11 to 3.13 that is installed gets a fresh environment.
"""

from __future__ import annotations

import argparse
import os
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
TRIED = (["--version"], ["--help"], ["recipes", "list"], ["cards", "show", "art_paintings"], ["schema"])


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
    """Install the wheel into a fresh environment and use it; the version that it prints."""
    inside = make_environment(python, folder / python)
    pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    call([*pip, "--constraint", str(ROOT / "constraints.txt"), "torch", str(wheel)], folder)
    present = call([inside, "-m", "pip", "list", "--format=freeze"], folder).lower()
    if found := [name for name in DEVELOPMENT if f"\n{name}==" in present]:
        raise SystemExit(f"{python}: a plain install brings {found}")
    program = str(Path(inside).parent / "domainclip")
    for arguments in TRIED:
        call([program, *arguments], folder)
    for recipe in ("medical_xray", "quickstart"):
        call([program, "validate", "-r", recipe], folder)
    if demo:
        call([program, "demo", f"demo-{python}"], folder)
        (film, *_) = sorted((folder / f"demo-{python}").rglob("*.dcm"))
        run = next((folder / f"demo-{python}" / "runs").iterdir())
        call([program, "classify", str(run), str(film)], folder)
    version = call([program, "--version"], folder).split()[-1]
    if version.replace("+", "_") not in wheel.name.replace("+", "_"):
        raise SystemExit(f"{python}: domainclip --version prints {version}, the wheel is {wheel.name}")
    return version


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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="release_") as temporary:
        sdist, wheel = build(Path(temporary))
        check_content(sdist, wheel)
        for number in PYTHONS:
            if shutil.which(f"python{number}") is None:
                print(f"python{number}: not installed, not tried")
            else:
                version = try_wheel(f"python{number}", wheel, Path(temporary), not options.no_demo)
                print(f"python{number}: {wheel.name} passed, version {version}", flush=True)
