"""Which next requests say that the answer before them was not taken.

``words`` and ``pairs`` measure two requests, ``detector`` says how much they speak for that,
``next_requests`` what this means in one log; ``chains`` makes services from turns.

May import: ``inference`` and rooms before, and ``logs.schema``.
"""
