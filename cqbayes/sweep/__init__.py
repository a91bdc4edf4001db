"""Many simulations: policies x environments x parameters x seeds, into one folder.

``settings`` says what a file may ask for, ``cell`` runs one simulation, ``executors`` run many of
them, ``run`` keeps what they made, ``results`` reads it.

May import: ``simulation`` and rooms before.
"""
