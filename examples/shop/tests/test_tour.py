"""The tour, which checks what it shows."""

import subprocess
import sys
from pathlib import Path

TOUR = Path(__file__).parents[1] / "tour.py"


def test_the_tour_finds_everything_right() -> None:
    done = subprocess.run([sys.executable, str(TOUR)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All of it was right" in done.stdout
