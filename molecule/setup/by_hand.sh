#!/bin/bash
# What a tutorial tells: an application on port 5000, a unit, and nginx in front with its default site left in.
set -euo pipefail
apt-get update --quiet
DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends nginx

mkdir /srv/by-hand
echo "by hand" >/srv/by-hand/index.html
cat >/etc/systemd/system/toll-app.service <<'UNIT'
[Unit]
Description=My app

[Service]
WorkingDirectory=/srv/by-hand
ExecStart=/usr/bin/python3 -m http.server 5000

[Install]
WantedBy=multi-user.target
UNIT
cat >/etc/nginx/sites-enabled/my-app <<'SITE'
server {
    listen 80;
    server_name one.toll.test;
    location / { proxy_pass http://127.0.0.1:5000; }
}
SITE
systemctl daemon-reload
systemctl enable --now toll-app.service
systemctl restart nginx.service
