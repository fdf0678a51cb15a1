#!/bin/sh
# Sets up, on a host that the project has provisioned, what it is compared with: the same release of the
# application with a copy of the same data, on Flask's development server, and as a tutorial has it.
#   install.sh
# Run again, it begins anew. What is old is what a tutorial writes, and is not to be improved.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
release=$(readlink -f /opt/toll-app/current)

systemctl stop old-development.service old-tutorial.service old-nginx.service 2>/dev/null || true
id old >/dev/null 2>&1 || useradd --home-dir /srv/old --gid www-data --shell /bin/sh old
for way in development tutorial; do
  rm -rf "/srv/old/$way"
  mkdir -p "/srv/old/$way"
  cp -r "$release/app/." "/srv/old/$way/"
  python3 - "/srv/old/$way/toll.db" <<'PYTHON'
import sqlite3
import sys

with sqlite3.connect("/var/lib/toll-app/toll.db") as source, sqlite3.connect(sys.argv[1]) as copy:
    source.backup(copy)
PYTHON
done
echo 'from app import app' >/srv/old/tutorial/wsgi.py
cp "$here/nginx.conf" "$here/site.conf" /srv/old/
chown -R old:www-data /srv/old
chmod 0755 /srv/old
mkdir -p /var/log/old-nginx

for unit in old-development old-tutorial old-nginx; do
  sed "s|@release@|$release|" "$here/$unit.service" >"/etc/systemd/system/$unit.service"
done
# nginx of the project: the same site without TLS, to compare like with like, and a constant.
cp "$here/beside.conf" /etc/nginx/conf.d/bench.conf
systemctl daemon-reload
systemctl enable --quiet old-tutorial.service old-nginx.service
systemctl restart old-development.service old-tutorial.service old-nginx.service
systemctl reload nginx.service
