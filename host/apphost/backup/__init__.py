"""Copies of an application's data: made and read again, encrypted, rotated, restored.

The application writes a copy as its own user; root keeps it, where the application can neither read
nor destroy it. Beside each copy, `NAME.json` is its record.
"""
