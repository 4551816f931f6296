"""The download stage: the real kaggle client, against a server of ours that plays Kaggle."""

import base64
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from transfer import params
from transfer.cli import UserError
from transfer.images import kaggle

ROOT = Path(__file__).parents[1]
SOURCE = params.Download(kaggle="someone/some-images", version=3)
release = pytest.mark.release  # one or two of a kind stand for all, but before a release
SECRET = "5ecretK3y0f0urs"
METADATA, DOWNLOAD, STORAGE = "GetDatasetMetadata", "DownloadDataset", "storage"


def an_archive(bee: bytes = b"bee") -> bytes:
    """A stored zip, so large that half of it is more than one read of the client."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("train/ants/1.jpg", bytes(range(256)) * 10_000)
        archive.writestr("train/bees/1.jpg", bee * 1000)
    return buffer.getvalue()


class Kaggle(ThreadingHTTPServer):
    """Metadata, a redirect to storage, then the archive, as Kaggle serves them to its client.

    `answers` scripts a call: its replies in turn, the last one for ever. A number is an HTTP
    status; storage also knows cut, cut_untold, hang, page and damaged.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.archive = an_archive()
        self.answers: dict[str, list[int | str]] = {}
        self.seen: list[tuple[str, dict, str]] = []  # call, request, Authorization
        self.hung_up = threading.Event()

    def answer(self, call: str) -> int | str:
        left = self.answers.get(call, [200])
        return left.pop(0) if len(left) > 1 else left[0]

    def calls(self, name: str) -> list[dict]:
        return [request for call, request, _ in self.seen if call == name]


class Handler(BaseHTTPRequestHandler):
    server: Kaggle

    def log_message(self, *_):
        pass

    def do_POST(self):
        call = self.path.rpartition("/")[2]
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((call, request, self.headers.get("Authorization", "")))
        answer = self.server.answer(call)
        if answer != 200:
            error = {"error": {"code": answer, "message": "no", "status": "NO"}}
            self.reply(answer, json.dumps(error).encode(), {"Content-Type": "application/json"})
        elif call == DOWNLOAD:
            self.reply(302, b"", {"Location": "http://storage.test/archive.zip?signature=1"})
        else:
            self.reply(200, b"{}", {"Content-Type": "application/json"})

    def do_GET(self):
        init = self.headers.get("Range")
        self.server.seen.append((STORAGE, {"Range": init}, self.headers.get("Authorization", "")))
        answer, body = self.server.answer(STORAGE), self.server.archive
        if answer == "page":
            self.reply(200, b"<html>Sign in</html>", {"Content-Type": "text/html"})
        elif answer == "damaged":
            self.reply(200, body[:1000] + b"!" + body[1001:])
        elif answer == "cut_untold":
            self.reply(200, body[:-1000], length=None)
        elif answer == "cut":
            self.reply(200, body[: len(body) // 2], length=len(body))
        elif answer == "hang":
            with suppress(ConnectionError):
                self.reply(200, body[: len(body) // 2], length=len(body))
                self.connection.recv(1)  # returns when the client is gone
            self.server.hung_up.set()
        elif init:
            self.reply(206, body[int(init.removeprefix("bytes=").rstrip("-")) :])
        else:
            self.reply(answer, body)

    def reply(self, status, body, headers=None, length=-1):
        """Send a reply; `length` is the length told: -1 the true one, None none."""
        self.send_response(status)
        for name, value in (headers or {"Accept-Ranges": "bytes", "ETag": '"1"'}).items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length < 0 else length))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Kaggle as the client sees it from an empty home, in a study's folder of its own."""
    with Kaggle() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        use_proxy(monkeypatch, server.server_port)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        (tmp_path / "home").mkdir()
        (tmp_path / "study").mkdir()
        monkeypatch.chdir(tmp_path / "study")
        yield server
        server.shutdown()


def use_proxy(monkeypatch, port):
    """Bring the client's http://localhost to a port of 127.0.0.1."""
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")


def fetch(attempts=2, pause=0.05, **times):
    """Fetch the archive beside another data set's, which must stay as it is."""
    other = Path("data/raw/other.zip")
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_bytes(b"finished")
    try:
        kaggle.fetch(SOURCE, "data/raw/mine.zip", attempts=attempts, pause=pause, **times)
    finally:
        assert other.read_bytes() == b"finished"


def refused(**times) -> str:
    """The one line a failed fetch ends with, once it has left nothing behind."""
    with pytest.raises(UserError) as caught:
        fetch(**times)
    assert os.listdir("data/raw") == ["other.zip"]
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("someone/some-images version 3: ")
    assert "set datasets.mine.source" in message
    return message


def downloaded() -> bytes:
    assert sorted(os.listdir("data/raw")) == ["mine.zip", "other.zip"]
    return Path("data/raw/mine.zip").read_bytes()


def run_stage(key: str) -> subprocess.Popen:
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    return subprocess.Popen(
        [sys.executable, "-m", "stages.download", key],
        # A shell's background job, which these tests may be, ignores Ctrl-C and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_stage_without_an_account(server):
    stage = run_stage("ants_bees")
    out, err = stage.communicate()
    assert stage.returncode == 0, err
    assert os.listdir("data/raw") == ["ants_bees.zip"]
    assert Path("data/raw/ants_bees.zip").read_bytes() == server.archive
    assert all(authorization == "" for *_, authorization in server.seen)
    assert "Authentication" not in out + err
    assert "100%" in err  # the client's own progress


def test_what_was_fetched_is_not_fetched_again_unless_it_changed(server):
    def asked() -> int:
        stage = run_stage("ants_bees")
        _, err = stage.communicate()
        assert stage.returncode == 0, err
        return len(server.calls(DOWNLOAD))

    assert (asked(), asked()) == (1, 1)
    Path("data/raw/ants_bees.zip").write_bytes(b"another")
    assert (asked(), asked()) == (2, 2)
    assert Path("data/raw/ants_bees.zip").read_bytes() == server.archive


def test_a_download_has_to_be_what_the_first_was(server):
    fetch()
    first, server.archive = server.archive, an_archive(b"wasp")
    Path("data/raw/mine.zip").unlink()
    with pytest.raises(UserError, match="bytes are not those that data/fetched/mine.json records"):
        fetch()
    assert os.listdir("data/raw") == ["other.zip"]
    Path("data/fetched/mine.json").write_text("<<<<<<< HEAD")
    with pytest.raises(UserError, match="mine.json: no record of a download"):
        fetch()
    Path("data/fetched/mine.json").unlink()
    fetch()
    assert downloaded() == server.archive != first


def test_asks_for_the_version(server):
    fetch()
    assert downloaded() == server.archive
    (request,) = server.calls(DOWNLOAD)
    assert request["ownerSlug"] == "someone"
    assert request["datasetSlug"] == "some-images"
    assert request["datasetVersionNumber"] == 3


@pytest.mark.parametrize(
    ("call", "status", "advice"),
    [
        pytest.param(METADATA, 401, "credentials", marks=release),
        (METADATA, 403, "accept its terms"),
        pytest.param(METADATA, 404, "name and version in params.yaml", marks=release),
        (DOWNLOAD, 404, "name and version in params.yaml"),
    ],
)
def test_refusal_is_final(server, call, status, advice):
    server.answers[call] = [status]
    message = refused()
    assert f"Kaggle answered {status}" in message
    assert advice in message
    assert len(server.calls(call)) == 1


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (METADATA, 429),
        pytest.param(DOWNLOAD, 429, marks=release),
        pytest.param(DOWNLOAD, 500, marks=release),
        (STORAGE, 503),
    ],
)
def test_busy_server_is_asked_again(server, call, status, capfd):
    server.answers[call] = [status, 200]
    fetch()
    assert downloaded() == server.archive
    assert f"Kaggle answered {status}; trying again in 0.05 s" in capfd.readouterr().err


def test_broken_server_is_given_up(server, capfd):
    server.answers[METADATA] = [500]
    assert "Kaggle answered 500; run it again later" in refused(attempts=3)
    assert len(server.calls(METADATA)) == 3
    err = capfd.readouterr().err
    assert "in 0.05 s" in err and "in 0.1 s" in err


def test_hang_is_cut_and_resumed(server):
    server.answers[STORAGE] = ["hang", 200]
    fetch(stall=4)
    assert server.hung_up.wait(5)
    assert downloaded() == server.archive
    assert server.calls(STORAGE)[-1]["Range"] == f"bytes={2**20}-"


def test_hang_for_ever(server):
    server.answers[STORAGE] = ["hang"]
    assert "nothing came from Kaggle for 4 s" in refused(attempts=1, stall=4)
    assert server.hung_up.wait(5)


def test_cut_body_is_resumed(server):
    server.answers[STORAGE] = ["cut", 200]
    fetch(attempts=1)
    assert downloaded() == server.archive


@release
def test_body_cut_for_ever(server):
    server.answers[STORAGE] = ["cut"]
    assert "nothing came from Kaggle for 4 s" in refused(attempts=1, stall=4)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param("cut_untold", "not a whole zip archive", marks=release),
        pytest.param("page", "a web page came", marks=release),
        ("damaged", "damaged at train/ants/1.jpg"),
    ],
)
def test_bad_archive(server, body, reason):
    server.answers[STORAGE] = [body, 200]
    fetch()
    assert downloaded() == server.archive
    Path("data/raw/mine.zip").unlink()
    server.answers[STORAGE] = [body]
    assert reason in refused()


def test_no_network(server, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    use_proxy(monkeypatch, port)
    assert "cannot reach Kaggle" in refused()


def test_the_user_of_a_proxy_is_not_printed(tmp_path, capfd):
    """Even where it comes in two parts, and at the very end."""
    url = f"http://me:{SECRET}@proxy.test:1"
    code = f"import time; print('no', end=' {url[:12]}', flush=True); time.sleep(0.5)"
    command = [sys.executable, "-c", f"{code}; print('{url[12:]}/ and', end=' {url}')"]
    said = "no http://proxy.test:1/ and http://proxy.test:1"
    assert kaggle._run(command, tmp_path / "none", 60) == (0, said)
    assert capfd.readouterr().err == said


def test_earlier_archive_outlives_a_failure(server):
    fetch()
    server.answers[METADATA] = [403]
    with pytest.raises(UserError):
        fetch()
    assert downloaded() == server.archive


@pytest.mark.parametrize(
    "variables",
    [
        {"KAGGLE_USERNAME": "someone", "KAGGLE_KEY": SECRET},
        pytest.param({"KAGGLE_API_TOKEN": SECRET}, marks=release),
    ],
)
@pytest.mark.parametrize("status", [200, pytest.param(403, marks=release)])
def test_secrets_stay_secret(server, monkeypatch, tmp_path, variables, status):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    server.answers[DOWNLOAD] = [status]
    said = "".join(run_stage("ants_bees").communicate())
    basic = base64.b64encode(f"someone:{SECRET}".encode()).decode()
    sent = {authorization for call, _, authorization in server.seen if call == DOWNLOAD}
    assert sent <= {f"Basic {basic}", f"Bearer {SECRET}"} and sent  # so the client did use it
    assert ("Kaggle answered" in said) == (status != 200)
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for hidden in (SECRET, basic):
        assert hidden not in said
        assert all(hidden.encode() not in content for content in written)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=release)]
)
def test_interrupt_ends_the_client_too(server, number, code):
    server.answers[STORAGE] = ["hang"]
    stage = run_stage("ants_bees")
    assert any("Downloading" in line for line in stage.stderr)
    stage.send_signal(number)
    stage.communicate()
    assert stage.returncode == code
    assert server.hung_up.wait(5)
    assert os.listdir("data/raw") == []


def test_unknown_key(server):
    stage = run_stage("birds")
    _, err = stage.communicate()
    assert stage.returncode == 1
    assert err.startswith("error: params.yaml: download has no 'birds'; it has ants_bees, ")
    assert server.seen == []
