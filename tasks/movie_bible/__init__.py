"""The movie bible: films, their passages, and what is said of each passage by people or a model.

Importing the package loads nothing heavy: SQLAlchemy comes with ``tasks.movie_bible.bible``.
"""
