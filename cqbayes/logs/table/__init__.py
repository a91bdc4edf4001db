"""The long table of services: one row per service, checked row by row, in bounded memory.

``services`` reads it, ``chunks`` and ``cells`` cut and convert it, ``validation`` has the rules,
``sorting`` puts rows in order.

May import: ``_tools``, ``logs.formats`` and ``logs.records``.
"""
