"""What `wsgi.host.certificate` is made of.

`model` has the terms, `run` the settings and the account of one call. `pairs` reads and writes a
certificate with its key, `lineages` reads what certbot has, `choosing` judges both, `linking` leads
a link to what was chosen. `probing` asks for a challenge as the authority would, `certbot` runs
certbot, `obtaining` has a certificate issued by both. `serving` looks at what the web server shows,
`reporting` says what was done.

A host may run Python 3.9 here (`certbot_install: package` on RHEL 9).
"""
