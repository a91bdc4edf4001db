"""Reports in HTML, and the demo.

May import: all rooms before.
"""
