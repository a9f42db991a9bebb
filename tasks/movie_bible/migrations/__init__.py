"""Alembic's migrations of the movie bible; run by ``tasks.movie_bible.migrating``."""
