"""Write the run page: one self-contained HTML file a run, for ``--manifest-report``.

``page`` writes it in one pass over a run's records, with statistics, comparison and the details of
an entry that is opened; ``columns`` has the data of table and plots, and the tasks that jobs
started; ``assets`` has styles and scripts, and the libraries in ``vendor/``.
"""
