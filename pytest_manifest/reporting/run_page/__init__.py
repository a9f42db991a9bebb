"""The run page: one self-contained HTML file a run, made for ``--manifest-report``.

``page`` writes it in one pass over a run's records: ``columns`` are what table and plots are drawn
from, ``details`` what is shown of an entry that is opened, ``figures`` the statistics; ``assets``
has styles and scripts, and the libraries in ``vendor/``.
"""
