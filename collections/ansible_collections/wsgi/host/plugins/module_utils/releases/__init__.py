"""What `wsgi.host.release` is made of.

`manifests` reads what a release says of itself and knows where its files are. `installing` makes a
release in these steps: `unpacking` the archive, `environments` for the virtual environment,
`compiling`, and what `disk` makes of it. `verifying` compares a release with its manifest,
`previewing` one that is to come with the current one. `current` is the link to the live one,
`static` what a web server serves, `records` what becomes of a release, `interpreters` the packages
that keep a release's Python.
"""
