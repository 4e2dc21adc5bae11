"""nginx as a plain reverse proxy: the floor, what any gateway pays for moving the bytes."""

import shutil

from gateways import CannotMeasure, Gateway, Place, free_port

CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  upstream bench {{
    server 127.0.0.1:{upstream_port};
    keepalive 2048;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{http_port} backlog=4096;
    location /readyz {{ return 200; }}
    location / {{
      proxy_pass http://bench;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


def gateway(place: Place) -> Gateway:
    nginx = shutil.which("nginx")
    if nginx is None:
        raise CannotMeasure("nginx is not on the PATH: install it, or leave it out of --gateways")
    http_port = free_port()
    configuration = place.folder / "nginx.conf"
    configuration.write_text(
        CONFIGURATION.format(
            folder=place.folder, http_port=http_port, upstream_port=place.upstream_port
        )
    )
    return Gateway(
        command=[nginx, "-c", str(configuration), "-e", "stderr"],
        http_port=http_port,
        ready_path="/readyz",
    )
