"""Files that are written when a transaction is committed, each once."""

from pathlib import Path


class Storage:
    def __init__(self):
        self.waiting = {}

    def begin(self):
        self.waiting.clear()

    def write(self, name, text):
        self.waiting[name] = text

    def commit(self):
        for name, text in self.waiting.items():
            if "/" in name:
                raise ValueError(f"{name} is no name of a file")
            Path(f"{name}.txt").write_text(text, "utf-8")
