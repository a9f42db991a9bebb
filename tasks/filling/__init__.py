"""Fill the gaps of the movie bible: prompts, answers, and the batch that asks and writes."""
