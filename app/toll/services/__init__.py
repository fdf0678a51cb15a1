"""What the application does, apart from how it is asked: pages, API and command line use these.

Functions take a session first. Those that write commit (`database.writing`): what they return is
durable. What is wrong with their input they say with `errors.InvalidParameters`.
"""
