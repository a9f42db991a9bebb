"""Write the run page: one self-contained HTML file a run, for ``--manifest-report``.

``page`` writes it in one pass over a run's records: ``columns`` has the data of table and plots,
``details`` those of an entry that is opened, ``trees`` the tasks that its job started,
``documents`` the statistics and the comparison; ``assets`` has styles and scripts, and the
libraries in ``vendor/``.
"""
