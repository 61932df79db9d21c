"""A small hub on localhost: the requests that `datasets` makes to stream Parquet files, counted in bytes."""

import http.server
import json
import re
import threading
from pathlib import Path


class Hub(http.server.ThreadingHTTPServer):
    """Serves the files of `folder` as the dataset `test/corpus` at one commit."""

    commit = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.sent: dict[str, int] = {}
        self.thread = threading.Thread(target=self.serve_forever, daemon=True)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def entry(self, name: str) -> dict[str, object]:
        path = self.folder / name
        if path.is_dir():
            return {"type": "directory", "oid": self.commit, "size": 0, "path": name}
        return {"type": "file", "oid": self.commit, "size": path.stat().st_size, "path": name}

    def below(self, name: str) -> list[str]:
        return [str(path.relative_to(self.folder)) for path in sorted((self.folder / name).rglob("*"))]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if re.fullmatch(r"/api/datasets/test/corpus(/revision/[^/]+)?", path):
            names = self.server.below("")
            self.reply_json(
                {"_id": "1", "id": "test/corpus", "sha": self.server.commit, "private": False, "gated": False,
                 "disabled": False, "tags": [], "downloads": 0, "likes": 0,
                 "siblings": [{"rfilename": name} for name in names if (self.server.folder / name).is_file()]}
            )  # fmt: skip
        elif match := re.fullmatch(r"/api/datasets/test/corpus/tree/[^/]+(?:/(.*))?", path):
            folder = match[1] or ""
            if (self.server.folder / folder).is_dir():
                self.reply_json([self.server.entry(name) for name in self.server.below(folder)])
            else:
                self.reply(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        elif match := re.fullmatch(r"/datasets/test/corpus/resolve/[^/]+/(.*)", path):
            self.reply_file(match[1])
        elif path.startswith("/api/datasets/"):
            self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        else:
            self.reply(404, b"{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = json.loads(body)["paths"] if body.startswith(b"{") else re.findall(r"paths=([^&]*)", body.decode())
        asked = [asked] if isinstance(asked, str) else [name.replace("%2F", "/") for name in asked]
        self.reply_json([self.server.entry(name) for name in asked if (self.server.folder / name).exists()])

    def reply_file(self, name: str) -> None:
        path = self.server.folder / name
        if not path.is_file():
            self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        content = path.read_bytes()
        headers = {"ETag": f'"{len(content)}"', "X-Repo-Commit": self.server.commit, "Accept-Ranges": "bytes"}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None:
            self.reply(200, content, headers, name)
            return
        first, last = int(span[1]), min(int(span[2] or len(content) - 1), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self.reply(206, content[first : last + 1], headers, name)

    def reply_json(self, value: object) -> None:
        self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None, name: str = "") -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.server.sent[name] = self.server.sent.get(name, 0) + len(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
