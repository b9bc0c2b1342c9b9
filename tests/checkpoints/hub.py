"""A hub of one repository on this machine: what huggingface_hub asks of the real one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"

MAIN = "/api/models/owner/name/revision/main"


class Hub(ThreadingHTTPServer):
    """Serves the files of a `folder` as "owner/name"; or answers all with `refusal`, a status and
    the hub's word for why"""

    def __init__(self, folder: Path, refusal: tuple[int, str] | None = None):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.folder, self.refusal = folder, refusal
        self.fetched: list[str] = []  # the files, as they were asked for

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serve(folder: Path, refusal: tuple[int, str] | None = None) -> Iterator[Hub]:
    hub = Hub(folder, refusal)
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if self.server.refusal:
            status, why = self.server.refusal
            self._answer(b"{}", status, {"X-Error-Code": why})
        elif path.startswith("/api/models/owner/name/tree/"):
            self._answer(json.dumps([self._entry(file) for file in self._files()]).encode())
        elif path.startswith(MAIN) or path == MAIN.partition("/revision")[0]:
            files = [{"rfilename": entry["path"]} for entry in map(self._entry, self._files())]
            told = {"id": "owner/name", "sha": COMMIT, "siblings": files}
            self._answer(json.dumps(told).encode())
        elif path.startswith("/api/models/owner/name"):
            self._answer(b"{}", 404, {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith(prefix := f"/owner/name/resolve/{COMMIT}/"):
            self._file(self.server.folder / path.removeprefix(prefix))
        else:
            self._answer(b"{}", 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _files(self) -> list[Path]:
        return sorted(path for path in self.server.folder.rglob("*") if path.is_file())

    def _entry(self, file: Path) -> dict:
        content = file.read_bytes()
        told = {
            "type": "file",
            "path": file.relative_to(self.server.folder).as_posix(),
            "size": len(content),
            "oid": sha1(content).hexdigest(),
        }
        if file.suffix in (".safetensors", ".bin"):  # those are in large file storage
            told["lfs"] = {
                "oid": sha256(content).hexdigest(),
                "size": len(content),
                "pointerSize": 1,
            }
        return told

    def _file(self, file: Path) -> None:
        content = file.read_bytes()
        if self.command == "GET":
            self.server.fetched.append(file.relative_to(self.server.folder).as_posix())
        tag = sha256(content).hexdigest()
        self._answer(content, headers={"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})

    def _answer(self, content: bytes, status: int = 200, headers: dict | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""
