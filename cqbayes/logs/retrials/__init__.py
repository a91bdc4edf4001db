"""Which turns ask again for what the turn before asked for.

``pairs`` measures two turns, ``detector`` says how probable a retrial is, ``error_rates`` says how
often a detector errs, ``detector_files`` stores detectors; ``chains`` makes services from turns.

May import: ``inference`` and rooms before, and ``logs.schema``.
"""
