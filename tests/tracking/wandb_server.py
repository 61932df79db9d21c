"""A W&B server small enough to read: what the real client needs to upload runs, kept in memory, on loopback.

It speaks the client's GraphQL operations by name, file_stream, and file uploads, and can be told to fail.
"""

import base64
import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USER = {"id": "VXNlcjox", "name": "me", "username": "me", "email": "me@x.test", "admin": False, "flags": "{}"}
VIEWER = USER | {"entity": "me", "teams": {"edges": [{"node": {"name": "me"}}]}, "apiKeys": {"edges": []}}
PROJECT_ID = "UHJvamVjdDox"


@dataclass
class Run:
    """One run as the server knows it; streams are the files of file_stream, line by line."""

    name: str
    project: str = ""
    group: str | None = None
    job_type: str | None = None
    display_name: str | None = None
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    state: str = "running"
    exit_code: int | None = None
    streams: dict[str, list[str]] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.streams.get("wandb-history.jsonl", [])]

    @property
    def summary(self) -> dict[str, Any]:
        lines = self.streams.get("wandb-summary.json", [])
        return json.loads(lines[-1]) if lines else {}

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration as the user gave it: the wire format wraps each value."""
        return {key: entry["value"] for key, entry in self.config.items() if key != "_wandb"}

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The metrics that were defined, in the client's own encoding."""
        return self.config.get("_wandb", {}).get("value", {}).get("m", [])


@dataclass
class Artifact:
    name: str
    type: str
    state: str = "PENDING"
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class View:
    """A saved view of a project (type project-view) or a report (type runs)."""

    id: str
    name: str
    type: str
    title: str
    spec: dict[str, Any]


class WandbServer:
    """Use as a context manager. `fault` may be set at any time, and rules every request from then on:
    an int (that HTTP status), a float (an answer after so many seconds), "hang" (no answer), "drop" (the connection
    is closed), None (all is well). Where `key` is set, others are refused; `closed` are projects that no key opens.
    """

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.views: dict[str, View] = {}
        self.unknown: list[str] = []  # operations that this server does not speak
        self.requests = 0
        self.fault: float | str | None = None
        self.key: str | None = None
        self.closed: set[str] = set()
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> "WandbServer":
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *ending: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()

    def run(self, name: str) -> Run:
        return self.runs.setdefault(name, Run(name))

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            known = OPERATIONS.get(operation)
            if known is None:
                self.unknown.append(operation)
                return {}
            return known(self, variables)

    def stream(self, name: str, body: dict[str, Any]) -> None:
        """file_stream: lines of a file from an offset on, and at the end the exit code."""
        with self.lock:
            run = self.run(name)
            for file, chunk in (body.get("files") or {}).items():
                lines = run.streams.setdefault(file, [])
                lines[chunk["offset"] : chunk["offset"] + len(chunk["content"])] = chunk["content"]
            if body.get("complete"):
                run.exit_code = body.get("exitcode")
                run.state = "failed" if run.exit_code else "finished"

    def upload(self, path: str, content: bytes) -> None:
        with self.lock:
            kind, owner, name = path.split("/", 2)
            files = self.artifacts[owner].files if kind == "artifact" else self.run(owner).uploads
            files[name] = content


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    owner: WandbServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is killed leaves a broken pipe, which is no error of the server."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _reply(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _fails(self) -> bool:
        owner = self.server.owner
        owner.requests += 1
        if owner.key and self.headers.get("Authorization") != f"Basic {_id('api:' + owner.key)}":
            self._body()
            self._reply({"errors": [{"message": "user is not logged in"}]}, 401)
            return True
        if owner.fault is None or isinstance(owner.fault, float):
            owner.closing.wait(owner.fault or 0)
            return False
        self._body()
        if isinstance(owner.fault, int):
            self._reply({"error": "as the test wants it"}, owner.fault)
            return True
        while owner.fault == "hang" and not owner.closing.wait(0.1):
            pass
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        return True

    def do_GET(self) -> None:
        if not self._fails():
            self._reply({})

    def do_PUT(self) -> None:
        if not self._fails():
            self.server.owner.upload(self.path.removeprefix("/storage/"), self._body())
            self._reply({})

    def do_POST(self) -> None:
        if self._fails():
            return
        body = json.loads(self._body())
        stream = re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
        if stream:
            self.server.owner.stream(stream[1], body)
            self._reply({"exitcode": None, "limits": {}})
            return
        named = re.search(r"\b(?:query|mutation)\s+(\w+)", body["query"])
        operation = body.get("operationName") or (named[1] if named else "")
        variables = body.get("variables") or {}
        if operation == "UpsertBucket" and variables.get("project") in self.server.owner.closed:
            error = {"message": "permission denied", "path": ["upsertBucket"]}
            self._reply({"data": {"upsertBucket": None}, "errors": [error]}, 403)
            return
        try:
            self._reply({"data": self.server.owner.answer(operation, variables)})
        except Refused as refused:
            self._reply({"data": None, "errors": [{"message": str(refused)}]})


Variables = dict[str, Any]


class Refused(Exception):
    """An answer of GraphQL that is an error."""


def _id(name: str) -> str:
    return base64.b64encode(name.encode()).decode()


def _project(name: str) -> dict[str, Any]:
    return {"id": PROJECT_ID, "name": name, "entity": {"id": "RW50aXR5OjE=", "name": "me"}}


def _upsert_run(server: WandbServer, given: Variables) -> dict[str, Any]:
    name = given.get("name") or base64.b64decode(given["id"]).decode()
    new = name not in server.runs
    run = server.run(name)
    run.project = given.get("project") or run.project
    run.group = given.get("groupName") or run.group
    run.job_type = given.get("jobType") or run.job_type
    run.display_name = given.get("displayName") or run.display_name
    run.tags = given.get("tags") or run.tags
    run.config |= json.loads(given.get("config") or "{}")
    run.state = "running" if new or given.get("project") else run.state
    bucket = {
        "id": _id(name), "name": name, "displayName": run.display_name, "description": None, "sweepName": None,
        "config": json.dumps(run.config), "historyLineCount": len(run.history), "project": _project(run.project),
    }  # fmt: skip
    return {"upsertBucket": {"bucket": bucket, "inserted": new}}


def _resume_status(server: WandbServer, given: Variables) -> dict[str, Any]:
    run = server.runs.get(given["name"])
    if run is None:
        return {"model": _project(given["project"]) | {"bucket": None}}
    lines = {kind: run.streams.get(f"wandb-{kind}.jsonl", []) for kind in ("history", "events")}
    bucket = {
        "id": _id(run.name), "name": run.name, "displayName": run.display_name,
        "summaryMetrics": json.dumps(run.summary), "config": json.dumps(run.config), "tags": run.tags,
        "logLineCount": 0, "historyLineCount": len(lines["history"]), "eventsLineCount": len(lines["events"]),
        "historyTail": json.dumps(lines["history"][-1:]), "eventsTail": json.dumps(lines["events"][-1:]),
        "wandbConfig": json.dumps({"t": 1}),
    }  # fmt: skip
    return {"model": _project(run.project) | {"bucket": bucket}}


def _run_files(server: WandbServer, given: Variables) -> dict[str, Any]:
    files = [
        {"name": name, "uploadUrl": f"{server.url}/storage/run/{given['run']}/{name}"}
        for name in given.get("files") or []
    ]
    return {"createRunFiles": {"runID": _id(given["run"]), "uploadHeaders": [], "files": files}}


def _run_node(run: Run) -> dict[str, Any]:
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "id": _id(run.name), "projectId": "1", "tags": run.tags, "name": run.name,
        "displayName": run.display_name, "sweepName": None, "state": run.state,
        "config": json.dumps(run.config), "group": run.group, "jobType": run.job_type, "commit": None,
        "readOnly": False, "createdAt": created, "heartbeatAt": created, "description": "", "notes": "",
        "systemMetrics": "{}", "summaryMetrics": json.dumps(run.summary),
        "historyLineCount": len(run.history), "user": {"name": "me", "username": "me"},
        "historyKeys": {"sets": [], "keys": {}, "lastStep": len(run.history) - 1},
    }  # fmt: skip


def _runs(server: WandbServer, given: Variables) -> dict[str, Any]:
    group = json.loads(given.get("filters") or "{}").get("group")
    found = [run for run in server.runs.values() if run.project == given["project"]]
    if not found or given["project"] in server.closed or given["entity"] != "me":
        return {"project": None}
    found = [run for run in found if group in (None, run.group)]
    first = int(given.get("cursor") or -1) + 1
    last = first + int(given.get("perPage") or 50)
    edges = [{"node": _run_node(run), "cursor": str(first + index)} for index, run in enumerate(found[first:last])]
    page = {"endCursor": edges[-1]["cursor"] if edges else None, "hasNextPage": last < len(found)}
    runs = {"edges": edges, "pageInfo": page}
    return {"project": {"internalId": "1", "runCount": len(found), "readOnly": False, "runs": runs}}


def _one_run(server: WandbServer, given: Variables) -> dict[str, Any]:
    run = server.runs.get(given["name"])
    return {"project": {"run": _run_node(run) if run else None}}


def _viewer(server: WandbServer, given: Variables) -> dict[str, Any]:
    info = {"cliVersionInfo": {"max_cli_version": "9.9.9"}, "latestLocalVersionInfo": None, "features": []}
    return {"viewer": VIEWER, "serverInfo": info}


def _artifact_type(server: WandbServer, given: Variables) -> dict[str, Any]:
    known = server.artifacts.get(given["name"].split(":")[0])
    return {"project": {"artifact": known and {"artifactType": {"name": known.type}}}}


def _create_artifact(server: WandbServer, given: Variables) -> dict[str, Any]:
    name, kind = given["input"]["artifactCollectionName"], given["input"]["artifactTypeName"]
    server.artifacts[name] = Artifact(name, kind)
    artifact = {"id": _id(name), "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
    return {"createArtifact": {"artifact": artifact}}


def _manifest(server: WandbServer, name: str) -> dict[str, Any]:
    url = f"{server.url}/storage/artifact/{name}/wandb_manifest.json"
    return {"artifactManifest": {"id": _id(name), "file": {"id": "1", "uploadUrl": url, "uploadHeaders": []}}}


def _create_manifest(server: WandbServer, given: Variables) -> dict[str, Any]:
    return {"createArtifactManifest": _manifest(server, base64.b64decode(given["artifactID"]).decode())}


def _update_manifest(server: WandbServer, given: Variables) -> dict[str, Any]:
    return {"updateArtifactManifest": _manifest(server, base64.b64decode(given["artifactManifestID"]).decode())}


def _artifact_files(server: WandbServer, given: Variables) -> dict[str, Any]:
    edges = []
    for wanted in given["input"]["artifactFiles"]:
        name = base64.b64decode(wanted["artifactID"]).decode()
        url = f"{server.url}/storage/artifact/{name}/{wanted['name']}"
        node = {"storagePath": wanted["name"], "uploadUrl": url, "uploadHeaders": []}
        edges.append({"node": node | {"uploadMultipartUrls": None, "artifact": {"id": wanted["artifactID"]}}})
    return {"createArtifactFiles": {"files": {"edges": edges}}}


def _commit_artifact(server: WandbServer, given: Variables) -> dict[str, Any]:
    artifact = server.artifacts[base64.b64decode(given["artifactID"]).decode()]
    artifact.state = "COMMITTED"
    return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": ""}}}


def _upsert_saved(server: WandbServer, given: Variables) -> dict[str, Any]:
    new = given.get("id") is None
    key = _id(f"view {len(server.views)}") if new else given["id"]
    if key not in server.views and not new:
        raise Refused(f"view {key} not found")
    view = View(key, given["name"], given["type"], given["displayName"], json.loads(given["spec"]))
    server.views[key] = view
    about = {
        "id": view.id, "type": view.type, "name": view.name, "displayName": view.title, "description": "",
        "project": {"id": PROJECT_ID, "name": given["projectName"], "entityName": given["entityName"]},
        "spec": json.dumps(view.spec), "updatedAt": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    return {"upsertView": {"view": about, "inserted": new}}


def _projects(server: WandbServer, given: Variables) -> dict[str, Any]:
    names = sorted({run.project for run in server.runs.values()})
    about = {"entityName": "me", "createdAt": "", "isBenchmark": False, "user": None}
    edges = [{"node": _project(name) | about} for name in names]
    page = {"endCursor": None, "hasNextPage": False}
    return {"models": {"edges": [edge | {"cursor": ""} for edge in edges], "pageInfo": page}}


OPERATIONS: dict[str, Callable[[WandbServer, Variables], dict[str, Any]]] = {
    "Viewer": _viewer,
    "ServerInfo": _viewer,
    "ServerFeatures": lambda server, given: {"serverInfo": {"features": []}},
    "ServerFeaturesQuery": lambda server, given: {"serverInfo": {"features": []}},
    "GetDefaultEntity": lambda server, given: {"viewer": {"id": "VXNlcjox", "entity": "me"}},
    "OrganizationCoreWeaveOrganizationID": lambda server, given: {"entity": {"organization": None}},
    "UpsertBucket": _upsert_run,
    "RunResumeStatus": _resume_status,
    "CreateRunFiles": _run_files,
    "ArtifactType": _artifact_type,
    "CreateArtifact": _create_artifact,
    "CreateArtifactManifest": _create_manifest,
    "UpdateArtifactManifest": _update_manifest,
    "CreateArtifactFiles": _artifact_files,
    "CommitArtifact": _commit_artifact,
    "UpsertView2": _upsert_saved,
    "upsertView": _upsert_saved,
    "GetProjects": _projects,
    "Projects": _projects,
    "ProjectInternalId": lambda server, given: {"project": {"id": PROJECT_ID, "internalId": "1"}},
    "Runs": _runs,
    "Run": _one_run,
}
