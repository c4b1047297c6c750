"""The ClickHouse engine (chdb) behind the part of ClickHouse's HTTP interface that the client uses.

usage: python clickhouse.py PORT FOLDER

One query at a time. Not a ClickHouse server: no users, no compression, no native protocol, no cluster.
"""

import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from chdb import session

# Parameters of the interface itself; every other one is a setting of the query.
OWN = {"query", "database", "default_format", "compress", "decompress", "user", "password", "query_id", "role"}
# What only means something to a server.
IGNORED = {"wait_end_of_query", "enable_http_compression", "send_progress_in_http_headers"}
LOCK = threading.Lock()
ENGINE = session.Session(sys.argv[2])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if urlsplit(self.path).path == "/ping":
            self.answer(200, b"Ok.\n")
        else:
            self.run(b"")

    def do_POST(self):
        self.run(self.body())

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def run(self, body):
        parameters = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        query = parameters.get("query", "")
        if not query:
            query, body = body.decode(), b""
        settings = {name: value for name, value in parameters.items() if name not in OWN | IGNORED}
        status, code = 200, None
        try:
            with LOCK:
                result = self.execute(query, body, settings, parameters)
        except Exception as error:  # the engine has one kind of error, with ClickHouse's own text
            status, result = 500, str(error).encode()
            code = re.search(r"Code: (\d+)", str(error))
        self.answer(status, result, code and code.group(1))

    def execute(self, query, body, settings, parameters):
        if database := parameters.get("database"):
            ENGINE.query(f"USE `{database}`")
        try:
            for name, value in settings.items():
                quoted = value.replace("\\", "\\\\").replace("'", "\\'")
                ENGINE.query(f"SET {name} = '{quoted}'")
            insert = re.fullmatch(r"(INSERT INTO .*) FORMAT (\w+)\s*", query, re.DOTALL)
            if not insert:
                return ENGINE.query(query, parameters.get("default_format", "TabSeparated")).bytes()
            with ENGINE.send_insert(insert.group(1), insert.group(2)) as sending:
                sending.append(body)
                sending.finish()
            return b""
        finally:
            for name in settings:
                ENGINE.query(f"SET {name} = DEFAULT")

    def answer(self, status, body, code=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if code:
            self.send_header("X-ClickHouse-Exception-Code", code)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        pass  # a client that is gone before its answer


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
