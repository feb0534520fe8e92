"""The embedded engine: one file, one writer thread with group commit, stdlib ``sqlite3`` and nothing else.

Two SQLite libraries on one file in one process corrupt it, so no other one may ever be imported here.
"""
