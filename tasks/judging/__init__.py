"""Grade rows of the movie bible by a rubric: a language model, or checks that need none."""
