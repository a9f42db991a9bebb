"""What was called, one line a call, for whoever wants to know."""

import os
from pathlib import Path

PLACE = Path(__file__).resolve().parents[1] / "notes.txt"


def note(*words):
    with PLACE.open("ab", buffering=0) as file:
        file.write(f"{os.getpid()} {' '.join(words)}\n".encode())
