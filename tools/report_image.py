"""The top of a report as a PNG for the README, drawn by headless Chromium.

make report-image        (CHROMIUM names another browser of its family)
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

MOST_BYTES = 200_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def browser() -> str:
    """The path of the browser; raises SystemExit where none is installed."""
    named = os.environ.get("CHROMIUM")
    found = next(filter(None, map(shutil.which, [named] if named else BROWSERS)), None)
    if found is None:
        raise SystemExit("no Chromium: install it, or name one in CHROMIUM")
    return found


def photograph(page: Path, to: Path, width: int, height: int) -> None:
    """Write the first `height` lines of pixels of a page, in 64 colours; raises SystemExit above 200 kB."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += [f"--window-size={width},{height}", f"--screenshot={shot}", f"--user-data-dir={folder}"]
        subprocess.run([browser(), *options, page.resolve().as_uri()], check=True, stderr=subprocess.DEVNULL)
        with Image.open(shot) as image:
            image.convert("RGB").quantize(64).save(to, optimize=True)
    if to.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{to}: {to.stat().st_size} bytes, more than {MOST_BYTES}: make it smaller")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The top of a report as a PNG.")
    parser.add_argument("page", type=Path)
    parser.add_argument("to", type=Path)
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--height", type=int, default=965)
    options = parser.parse_args()
    photograph(options.page, options.to, options.width, options.height)
