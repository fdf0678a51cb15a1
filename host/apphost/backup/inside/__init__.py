"""Reads and replaces the data of an application as its own user, in its sandbox.

Root follows no path that an application can change. So this is a program of its own, whose text
`engine.py` gives to the release's Python: `python -c TEXT VERB JSON`. It imports nothing else of
this project. Streams are standard input and output; a failure is a message on standard error, with
exit code 1, or 2 if the data are as they were.

What is to be replaced is first written beside it, `.NAME.restore-new`. `swap` renames what is there
to `.NAME.restore-old` and the new one to NAME, so at any moment each item is whole under one of the
names.
"""
