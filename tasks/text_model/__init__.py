"""Language models behind one small seam: Gemini by two SDKs, and one that needs no network.

``choosing.open_model`` makes the one that the settings name; ``retrying.call`` asks it.
"""
