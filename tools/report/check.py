"""Opens a report in headless Chromium and fails if something in it is amiss.

    tools/report/check.py REPORT.html [FOLDER]

It must have five charts with marks and eight rows of pictures, ask for nothing from elsewhere, leave the console empty, and
take at most 10 MB. With a folder, pictures of it at 1280 and 390 pixels are written there to look at.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

CHROMIUM = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]

# Of a picture in pixels, more than any report has.
HEIGHT = 8000


def chromium(*words):
    return subprocess.run([*CHROMIUM, *words], capture_output=True, text=True, timeout=120)


def faults(path, page):
    charts = re.findall(r"<svg.*?</svg>", page, re.S)
    rows = page.count('class="row"')
    if len(charts) < 5 or any(chart.count("<title>") == 0 for chart in charts):
        yield f"{len(charts)} charts, some without marks"
    if rows < 8:
        yield f"{rows} rows of pictures"
    outside = [url for url in re.findall(r'(?:src|href)="([^"]*)"', page) if not url.startswith("data:")]
    if outside or "<script" in page or "@import" in page:
        yield f"asks for {outside[:3]} or runs a script"
    if path.stat().st_size > 10e6:
        yield f"takes {path.stat().st_size / 1e6:.1f} MB"


def show(path, width, picture):
    """A picture of the page in a frame of this width: no window of Chromium is as narrow as a telephone."""
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.html"
        frame.write_text(f'<body style="margin:0"><iframe src="{path.as_uri()}" width="{width}" height="{HEIGHT}" '
                         'style="border:0"></iframe>')
        size = f"--window-size={max(width, 600)},{HEIGHT}"
        chromium(size, f"--screenshot={picture}", frame.as_uri())


def main():
    path = Path(sys.argv[1]).resolve()
    shown = chromium("--dump-dom", path.as_uri())
    found = list(faults(path, shown.stdout))
    found += [line for line in shown.stderr.splitlines() if "CONSOLE" in line]
    if len(sys.argv) > 2:
        for width in (1280, 390):
            picture = Path(sys.argv[2]).resolve() / f"report-{width}.png"
            show(path, width, picture)
    sys.exit("\n".join(found) or 0)


if __name__ == "__main__":
    main()
