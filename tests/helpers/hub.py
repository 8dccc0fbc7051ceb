"""A stand-in for the Hugging Face Hub: as much of its HTTP interface as one model needs."""

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler
from typing import Any

import yaml

from tests.helpers.web import Server

TOKEN = "hf_stand_in"


class Hub(Server):
    """Repositories in memory, a list of commits each: `hub.commits["me/name"][-1]["README.md"]`."""

    def __init__(self) -> None:
        super().__init__(_Requests)
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.large: dict[str, bytes] = {}  # by SHA-256


def commit_name(repository: str, number: int) -> str:
    return hashlib.sha1(f"{repository} {number}".encode()).hexdigest()


class _Requests(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        self.server.asked.append(self.requestline)

    def do_POST(self) -> None:
        content = self._body()
        hub, path = self.server, self.path.partition("?")[0]
        if (
            not path.endswith("/objects/batch")
            and self.headers["Authorization"] != f"Bearer {TOKEN}"
        ):
            return self._answer({"error": "Invalid credentials"}, 401)
        repository = "/".join(path.removeprefix("/api/models/").split("/")[:2])
        if path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            new = name not in hub.commits
            hub.commits.setdefault(name, [{}])
            if new and (asked.get("private") or asked.get("visibility") == "private"):
                hub.private.add(name)
            return self._answer({"url": f"{hub.url}/{name}"}, 200 if new else 409)
        if "/preupload/" in path:
            files = json.loads(content)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in files
            ]
            return self._answer({"files": modes})
        if path == "/api/validate-yaml":
            _, front, _ = json.loads(content)["content"].split("---\n", 2)
            right = {"library_name", "pipeline_tag", "tags"} <= yaml.safe_load(front).keys()
            return self._answer({"errors": [] if right else [{"message": front}], "warnings": []})
        if path.endswith("/objects/batch"):
            objects = [
                {
                    **wanted,
                    "actions": {"upload": {"href": f"{hub.url}/large/{wanted['oid']}"}},
                }
                for wanted in json.loads(content)["objects"]
            ]
            return self._answer({"transfer": "basic", "objects": objects})
        if "/commit/" in path:
            files = dict(hub.commits[repository][-1])
            for line in content.splitlines():
                said = json.loads(line)
                value = said["value"]
                if said["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif said["key"] == "lfsFile":
                    files[value["path"]] = hub.large[value["oid"]]
            hub.commits[repository].append(files)
            oid = commit_name(repository, len(hub.commits[repository]) - 1)
            url = f"{hub.url}/{repository}/commit/{oid}"
            return self._answer({"commitUrl": url, "commitOid": oid, "success": True})
        return self._answer({"error": f"not of the stand-in: {path}"}, 404)

    def do_PUT(self) -> None:
        content, name = self._body(), self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == name
        self.server.large[name] = content
        self._answer({})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        asked = path.removeprefix("/api/models/")
        if asked in self.server.commits:
            return self._answer({"id": asked, "private": asked in self.server.private})
        owner, name, word, revision, *file = [*path.strip("/").split("/"), *[""] * 5][:6]
        repository, wanted = f"{owner}/{name}", "/".join(filter(None, file))
        commits = self.server.commits.get(repository)
        if word != "resolve" or commits is None:
            return self._answer({"error": "no"}, 404, {"X-Error-Code": "RepoNotFound"})
        names = [commit_name(repository, number) for number in range(len(commits))]
        number = names.index(revision) if revision in names else len(commits) - 1
        content = commits[number].get(wanted)
        if content is None:
            known = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": names[number]}
            return self._answer({"error": "no"}, 404, known)
        digest = hashlib.sha256(content).hexdigest()
        return self._send(content, 200, {"X-Repo-Commit": names[number], "ETag": f'"{digest}"'})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, value: Any, code: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), code, headers or {})

    def _send(self, content: bytes, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
