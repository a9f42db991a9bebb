"""Serve one page about a run that goes on, to browsers of this machine.

``server`` answers requests and keeps strangers out; ``page`` puts the page together of its
``assets`` and those of the run page; ``entries`` finds entries by cause, task, worker and state.
"""
