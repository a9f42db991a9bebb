"""Read corpora as streams of documents, and load them into the movie bible.

``python -m workflows.gap_fill.corpus load PATH`` is the command.
"""

from __future__ import annotations

from workflows.gap_fill.corpus.columns import parse_mapping
from workflows.gap_fill.corpus.errors import CorpusError
from workflows.gap_fill.corpus.reading import corpus_path, read_corpus

__all__ = ["CorpusError", "corpus_path", "parse_mapping", "read_corpus"]
