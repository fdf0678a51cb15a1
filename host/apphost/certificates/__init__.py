"""What looks after the certificates of a host between two runs of the playbook.

The role `certbot` ships these files as a program of their own, `/usr/local/lib/certificates`, since
it is used without an application too. `served` asks the web server what it shows under each name,
`rehearsal` tries whether certbot could renew what it has, `renewals` reads how it would, and
`textfile` says both in the format of Prometheus.

Nothing here imports the rest of `apphost`.
"""
