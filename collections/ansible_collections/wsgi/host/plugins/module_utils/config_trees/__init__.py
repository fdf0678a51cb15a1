"""What `wsgi.host.config_tree` is made of.

`model` has the terms: a file as it shall be, as it is, and the change between both. `comparing`
finds the changes, `checking` runs the checks on a staged copy, `swapping` puts the changes in
place or none, `records` knows what is kept of a tree, `reporting` says what was done.

What earlier runs wrote is in `apphost.trees`, which the commands on the host read as well.
"""
