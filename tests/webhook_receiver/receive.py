#!/usr/bin/env python3
"""Receives webhooks and believes only those that are signed: what a receiver has to do, with the standard library alone.

    receive.py SECRET OUT [PORT]

Prints the port it listens on. Each request becomes a line of OUT: whether its signature holds, its id, its body.
The signature is checked as https://www.standardwebhooks.com says: HMAC-SHA256 over "{webhook-id}.{webhook-timestamp}.{body}",
base64, behind "v1,"; several signatures are separated by spaces. A timestamp more than five minutes off is refused.
"""
import base64
import hashlib
import hmac
import http.server
import json
import sys
import time

SECRET, OUT = sys.argv[1].encode(), sys.argv[2]
PORT = int(sys.argv[3]) if len(sys.argv) > 3 else 0


def holds(headers, body):
    identity, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not stamp.isdigit() or abs(time.time() - int(stamp)) > 300:
        return False
    signed = identity.encode() + b"." + stamp.encode() + b"." + body
    expected = "v1," + base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    given = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(expected, one) for one in given)


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        ok = holds(self.headers, body)
        tampered = holds(self.headers, body + b" ")
        line = {
            "ok": ok and not tampered,
            "id": self.headers.get("webhook-id"),
            "key": self.headers.get("idempotency-key"),
            "authorization": self.headers.get("authorization"),
            "body": json.loads(body),
        }
        with open(OUT, "a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")
        self.send_response(204 if ok else 401)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Receiver)
print(server.server_address[1], flush=True)
server.serve_forever()
