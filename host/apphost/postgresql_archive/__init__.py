"""The archive of a PostgreSQL: copies and the write-ahead log, and the way back to a point in time.

The role `postgresql` ships these files as a program, `/usr/local/lib/postgresql-archive`, since it
is used without an application too. pgBackRest copies, archives and restores; `points` says what can
be reached with what it has, `looking` what is wrong with it, `restoring` is root's part of a
restore and `replaying` that of PostgreSQL's user.

Nothing here imports the rest of `apphost`.
"""
