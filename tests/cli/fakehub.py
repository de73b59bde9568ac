"""A small hub on this machine, for the tests of `sill pull`: it answers as huggingface's does, and misbehaves when it is told to."""
import hashlib
import http.server
import json
import re
import threading
import time
import urllib.parse


def git_hash(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub:
    """repos[name][revision] = (commit, {file: bytes}). Large files (those named .safetensors, .bin, .gguf) are behind a redirect to another
    host, `store`. faults[file]: a list, of which each GET of the file's bytes takes one."""

    def __init__(self):
        self.repos, self.faults, self.requests, self.stored, self.etags, self.heads = {}, {}, [], [], {}, {}
        self.moved, self.needs_token, self.status, self.endless = {}, {}, {}, {}
        self.store = self.serve(Store)
        self.server = self.serve(Front)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.store_url = f"http://localhost:{self.store.server_address[1]}"

    def serve(self, handler):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (handler,), {"hub": self}))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def add(self, name, files, revision="main"):
        commit = hashlib.sha1(repr(sorted((k, hashlib.sha1(v).digest()) for k, v in files.items())).encode()).hexdigest()
        self.repos.setdefault(name, {})[revision] = (commit, files)
        return commit

    def find(self, name, revision):
        for key, (commit, files) in self.repos.get(name, {}).items():
            if revision in (key, commit):
                return commit, files
        return None

    def forget(self):
        self.requests.clear()
        self.stored.clear()


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), v)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_file(self, file, data, **headers):
        """The file's bytes from where they are asked for, or what its next fault makes of them."""
        fault = self.hub.faults.get(file, [])
        fault = fault.pop(0) if fault and self.command == "GET" else None
        kind, _, number = (fault or "").partition(":")
        first = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and kind != "ignore_range":
            first = int(asked[1])
            if first >= len(data):
                return self.answer(416)
        status, rest = (206 if first else 200), data[first:]
        if first:
            headers["Content_Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        if kind == "status":
            return self.answer(int(number), b"busy")
        if kind == "wrong":
            rest = bytes([rest[0] ^ 1]) + rest[1:]
        if kind == "longer":
            rest += b"more"
        if kind == "html":
            return self.answer(200, b"<html>please log in</html>")
        if kind in ("cut", "stall"):
            self.send_response(status)
            for k, v in {**headers, "Content_Length": str(len(rest))}.items():
                self.send_header(k.replace("_", "-"), v)
            self.end_headers()
            self.wfile.write(rest[:int(number)])
            self.wfile.flush()
            if kind == "stall":
                time.sleep(8)
            self.close_connection = True
            return None
        return self.answer(status, rest, **headers)


class Front(Answers):
    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub = self.hub
        hub.requests.append((self.command, self.path, dict(self.headers)))
        path = self.path.partition("?")[0]
        if path in hub.endless:
            self.send_response(hub.endless[path], "busy")
            self.send_header("X-Error-Message", "see \x1b[2J here")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(65536))
            except OSError:
                self.close_connection = True
                return None
        if path in hub.status:
            return self.answer(hub.status[path], b"{}", X_Error_Message="said by the server")
        if path in hub.moved:
            return self.answer(307, Location=hub.moved[path])
        tree = re.fullmatch(r"/api/models/([\w.-]+(?:/[\w.-]+)?)/tree/([^/]+)", path)  # huggingface_hub asks for it, sill does not
        if tree and hub.find(tree[1], tree[2]):
            files = hub.find(tree[1], tree[2])[1]
            return self.answer(200, json.dumps([{"type": "file", "path": f, "size": len(d), "oid": git_hash(d)} for f, d in files.items()]).encode(),
                               Content_Type="application/json")
        api = re.fullmatch(r"/api/models/([\w.-]+(?:/[\w.-]+)?)/revision/([^/]+)", path)
        file = re.fullmatch(r"/([\w.-]+(?:/[\w.-]+)?)/resolve/([^/]+)/(.+)", path)
        name = (api or file)[1] if api or file else None
        if name in hub.needs_token and self.headers.get("Authorization") != "Bearer " + hub.needs_token[name]:
            return self.answer(401, b"{}", X_Error_Message="Access is restricted")
        found = hub.find(name, urllib.parse.unquote((api or file)[2])) if name else None
        if not found:
            return self.answer(404, b"{}", X_Error_Code="RepoNotFound")
        commit, files = found
        if api:
            return self.answer(200, json.dumps({"id": name, "sha": commit, "siblings": [{"rfilename": f} for f in files]}).encode(),
                               Content_Type="application/json")
        if file[3] not in files:
            return self.answer(404, b"", X_Error_Code="EntryNotFound")
        data = files[file[3]]
        more = {"X_Repo_Commit": commit, **hub.heads.get(file[3], {})}
        if file[3].endswith((".safetensors", ".bin", ".gguf")):
            etag = hub.etags.get(file[3], hashlib.sha256(data).hexdigest())
            return self.answer(302, Location=f"{hub.store_url}/{name}/{commit}/{file[3]}", X_Linked_Etag=f'"{etag}"', X_Linked_Size=str(len(data)), **more)
        return self.send_file(file[3], data, ETag=f'"{hub.etags.get(file[3], git_hash(data))}"', **more)


class Store(Answers):
    """Where large files lie: another host, that must never see a token."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.hub.stored.append((self.command, self.path, dict(self.headers)))
        name, commit, file = re.fullmatch(r"/(.+)/([0-9a-f]{40})/([^/]+)", self.path).groups()
        return self.send_file(file, self.hub.find(name, commit)[1][file], ETag='"store-side-etag"')
