"""The server of the live page: what it draws is what `gm.sample` draws, and what it refuses it refuses beside the field."""

import json
import threading
from pathlib import Path

import httpx
import pytest
import torch
from click.testing import CliRunner

import genmatch as gm
from genmatch import data
from genmatch.infilling import infill_run
from genmatch.runs import load_run
from tests.serving import events, serving, until

pytest.importorskip("fastapi", reason="no fastapi here: `pip install genmatch[serve]`")

from genmatch.cli import main
from genmatch.serve import Limits, create_app, particles
from genmatch.serve.app import hosts_for
from genmatch.serve.reports import find_reports


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("all") / "runs"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "report.html").write_text("<h1>inside</h1>")
    (folder.parent / "report.html").write_text("outside")
    return folder


@pytest.fixture(scope="module")
def server(runs):
    with serving(runs=runs) as (address, jobs), httpx.Client(base_url=address, timeout=60) as client:
        yield client, jobs


@pytest.fixture
def client(server):
    return server[0]


def written(client, **body):
    answer = client.post("/api/text", json=body)
    assert answer.status_code == 200, answer.text
    return events(answer.text)


def replayed(found):
    tokens = {}
    for event in found:
        for place, token, _, _ in event.get("tokens", []) if event["event"] == "step" else []:
            tokens[place] = token
    return [tokens[place] for place in sorted(tokens)]


@pytest.mark.parametrize("solver", [None, "first-hitting", "confidence", "gibbs"])
def test_a_text_is_what_sample_gives(client, solver):
    run = load_run(Path("text"))
    found = written(client, steps=8, solver=solver, seed=3)
    expected = gm.sample(run.process, run.model, 1, steps=8, solver=solver, seed=3)[0].tolist()
    assert found[-2]["tokens"] == expected
    assert replayed(found) == expected


def test_a_sharper_text_with_words_in_place_is_what_infill_gives(client):
    run = load_run(Path("text"))
    found = written(client, prompt="Once ____ a time", at=["40:the end"], steps=8, seed=5)
    assert found[-2]["text"] == infill_run(run, "Once ____ a time", ["40:the end"], n=1, steps=8, seed=5)[0]
    sharp = written(client, prompt="Once", temperature=0.5, steps=8, seed=5)[-2]["tokens"]
    clamp = dict(enumerate(data.get("text").read("Once").tolist()))
    assert sharp == gm.sample(run.process, gm.sharpen(run.model, temperature=0.5), 1, steps=8, clamp=clamp, seed=5)[0].tolist()


def test_a_long_text_is_a_row_of_windows_that_go_on_from_each_other(client):
    run = load_run(Path("text"))
    found = written(client, length=100, steps=4, seed=2, prompt="To be", at=["70:king"])
    first = gm.sample(run.process, run.model, 1, steps=4, seed=2, clamp=dict(enumerate(data.get("text").read("To be").tolist())))[0]
    known = {**dict(enumerate(first[48:].tolist())), **dict(enumerate(data.get("text").read("king").tolist(), 70 - 48))}
    second = gm.sample(run.process, run.model, 1, steps=4, seed=3, clamp=known)[0]
    assert found[-2]["tokens"] == [*first.tolist(), *second[16:52].tolist()]
    assert replayed(found) == found[-2]["tokens"]
    assert [event["step"] for event in found if event["event"] == "step"] == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8]


def test_confidence_is_the_probability_in_the_state_before(client):
    run = load_run(Path("text"))
    states = [x for _, x in gm.stream(run.process, run.model, 1, steps=8, seed=1)]
    found = [event for event in written(client, steps=8, seed=1) if event["event"] == "step"]
    with torch.no_grad():
        law = run.model(states[2], torch.tensor([0.25])).softmax(-1)[0]
    assert found[3]["tokens"]
    for place, token, text, confidence in found[3]["tokens"]:
        assert confidence == pytest.approx(float(law[place, token]), abs=6e-4)
        assert text == data.get("text").write(torch.tensor([[token]]))[0]


def test_tokens_that_are_kept_stay_and_the_prompt_is_above_them(client):
    (token, piece), *rest = client.post("/api/tokens", json={"text": "king"}).json()
    assert piece == "k"
    assert len(rest) == 3
    text = client.post("/api/text/whole", json={"keep": {"0": token, "10": token}, "prompt": "A", "steps": 2}).json()["text"]
    assert text[0] == "A"
    assert text[10] == "k"


@pytest.mark.parametrize(
    ("route", "body", "field", "message"),
    [
        ("text", {"at": ["0:Once,2:upon"]}, "at", "overlap at position 2"),
        ("text", {"at": ["king"]}, "at", "position:text"),
        ("text", {"at": ["63:king"]}, "at", "takes positions 63 to 66"),
        ("text", {"prompt": "né"}, "prompt", "unknown character 'é'"),
        ("text", {"prompt": "x" * 65}, "prompt", "takes positions 0 to 64"),
        ("text", {"solver": "hune"}, "solver", "did you mean"),
        ("text", {"solver": "heun"}, "solver", "solvers that fit"),
        ("text", {"temperature": 0}, "temperature", "greater than 0"),
        ("text", {"steps": 257}, "steps", "less than or equal to 256"),
        ("text", {"length": 10**9}, "length", "less than or equal to 512"),
        ("text", {"seed": -1}, "seed", "greater than or equal to 0"),
        ("text", {"keep": {"3": 62}}, "keep", "there is no token 62"),
        ("text", {"keep": {"64": 1}}, "keep", "outside of the text"),
        ("text", {"checkpoint": "../../etc"}, "checkpoint", "unknown checkpoint"),
        ("text", {"nothing": 1}, "nothing", "not permitted"),
        ("tokens", {"text": "né"}, "text", "unknown character"),
        ("process", {"process": "flwo"}, "process", "did you mean `flow`"),
        ("process", {"process": "os:system"}, "process", "unknown process"),
        ("process", {"data": "text:/etc/passwd"}, "data", "unknown data set"),
        ("process", {"data": "chain"}, "process", "fits no view"),
        ("process", {"solver": "first-hitting"}, "solver", "solvers that fit"),
        ("process", {"n": 0}, "n", "greater than or equal to 1"),
    ],
)
def test_what_is_wrong_is_said_of_its_field(client, route, body, field, message):
    answer = client.post(f"/api/{route}", json=body)
    assert answer.status_code == 422
    (detail,) = answer.json()["detail"]
    assert field in detail["loc"]
    assert message in detail["msg"]


@pytest.mark.parametrize(
    "content", [b"{", b'{"temperature": NaN}', b'{"prompt": "\\ud800"}', b"[]", b'{"seed": 1e400}', b"\xff", b'{"at": ["0:\\ud800"]}', b'{"solver": "\\u0000"}']
)
def test_what_is_no_request_is_refused(client, content):
    answer = client.post("/api/text", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert "detail" in answer.json()


def test_large_bodies_strange_hosts_and_other_kinds_of_content_are_refused(client):
    def pieces():
        for _ in range(20):
            yield b"x" * 8192

    assert client.post("/api/text", content=b" " * 70_000, headers={"content-type": "application/json"}).status_code == 413
    assert client.post("/api/text", content=pieces(), headers={"content-type": "application/json"}).status_code == 413
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    assert client.post("/api/text", content=b"{}", headers={"content-type": "text/plain"}).status_code == 422


def test_a_job_too_many_is_told_to_come_back_and_a_stopped_one_ends(runs):
    body = {"length": 512, "steps": 256}
    with (
        serving(runs=runs, limits=Limits(jobs=1)) as (address, jobs),
        httpx.Client(base_url=address, timeout=60) as client,
        client.stream("POST", "/api/text", json=body) as stream,
    ):
        lines = stream.iter_lines()
        job = json.loads(next(lines))["job"]
        refused = client.post("/api/text", json={"steps": 1})
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert client.get("/api/jobs").json()["running"] == 1
        assert client.delete(f"/api/jobs/{job}").status_code == 204
        assert json.loads(list(lines)[-1]) == {"event": "stopped", "why": "stopped on request"}
        until(lambda: not len(jobs))
        assert client.delete(f"/api/jobs/{job}").status_code == 404
        assert client.post("/api/text", json={"steps": 1}).status_code == 200


def test_who_leaves_stops_the_job(server):
    client, jobs = server
    with client.stream("POST", "/api/text", json={"length": 512, "steps": 256}) as stream:
        next(stream.iter_lines())
        assert len(jobs) == 1
    until(lambda: not len(jobs))


def test_a_job_that_takes_too_long_is_stopped_and_the_loop_answers_meanwhile(runs):
    with serving(runs=runs, limits=Limits(seconds=1.5)) as (address, _), httpx.Client(base_url=address, timeout=60) as client:
        found = []
        thread = threading.Thread(target=lambda: found.append(client.post("/api/text", json={"length": 512, "steps": 256}).text))
        thread.start()
        assert httpx.get(f"{address}/api/jobs").status_code == 200
        assert not found, "the job went on while the question was answered"
        thread.join()
        last = events(found[0])[-1]
        assert last["event"] == "stopped"
        assert "a job may take 1.5 s" in last["why"]
        refused = client.post("/api/text/whole", json={"length": 512, "steps": 256})
        assert refused.status_code == 422


@pytest.mark.parametrize("process", ["flow", "diffusion", "mask", "jump"])
def test_particles_are_those_of_sample_and_the_generator_is_its_own(client, process):
    found = events(client.post("/api/process", json={"data": "gaussians", "process": process, "n": 20, "steps": 4, "seed": 1}).text)
    scene, frames = found[1], [event for event in found if event["event"] == "frame"]
    assert [frame["t"] for frame in frames] == [0, 0.25, 0.5, 0.75, 1]
    made = particles.Scene.made("gaussians", process)
    model = gm.oracle(made.process, made.view.train[:4000])
    expected = made.view.decode(gm.sample(made.process, model, 20, steps=4, seed=1))
    torch.testing.assert_close(torch.tensor(frames[-1]["points"]), expected.float(), atol=6e-4, rtol=0)
    assert "generator" not in frames[-1]
    scatter = torch.tensor(frames[2]["generator"])[:, -1]
    assert bool((scatter == 0).all()) == (process == "flow")
    if process == "diffusion":
        torch.testing.assert_close(scatter, torch.full_like(scatter, 2 * 2 * (1 - 0.5)), atol=2e-3, rtol=0)
    if process == "flow":  # the velocity of the path to one point is (x1 - x) / (1 - t)
        cloud, arrows = torch.tensor(frames[2]["cloud"])[:24], torch.tensor(frames[2]["cloud_generator"])[:, :2]
        torch.testing.assert_close(arrows, (torch.tensor(scene["towards"]) - cloud) / 0.5, atol=5e-3, rtol=0)


def test_every_data_set_on_the_page_is_drawn(client):
    found = client.get("/api/processes").json()
    assert {"gaussians", "checkerboard", "chain"} <= set(found)
    assert "text" not in found
    for name, choice in found.items():
        shown = events(client.post("/api/process", json={"data": name, "process": choice["processes"][-1], "n": 2, "steps": 1}).text)
        assert shown[-1]["event"] == "end", shown[-1]
        assert shown[1]["shape"] == choice["shape"]


def test_reports_come_from_the_folder_alone(client):
    assert [report["name"] for report in client.get("/api/reports").json()] == ["a/b"]
    answer = client.get("/report/a/b")
    assert answer.text == "<h1>inside</h1>"
    assert "sandbox" in answer.headers["content-security-policy"]
    for name in ("%2e%2e", "%2e%2e%2f%2e%2e", "a", "a/b/report.html", "/etc"):
        assert client.get(f"/report/{name}").status_code == 404


def test_a_joined_report_is_listed_with_its_figures(tmp_path):
    rows = [{"nfe": {"value": nfe, "half": 0.0}, "frechet": {"value": value, "half": 0.1}} for nfe, value in ((2.0, 3.0), (8.0, 1.5))]
    (tmp_path / "report.html").write_text("<h1>joined</h1>")
    (tmp_path / "results.json").write_text(json.dumps({"data": "digits", "lines": [{"name": "flow", "best_nfe": 8, "rows": rows}]}))
    (report,) = find_reports(tmp_path).values()
    assert report.summary()["data"] == "digits"
    assert report.summary()["families"] == [{"name": "flow", "frechet": 1.5, "nfe": 8}]


def test_the_page_and_its_description_fetch_nothing_from_elsewhere(client):
    for path in ("/", "/api", "/static/app.js", "/static/style.css", "/static/icon.svg"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert not [word for word in answer.text.replace("http://www.w3.org/2000/svg", "").split() if "//" in word and "http" in word]
        assert answer.headers["content-security-policy"]
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404
    assert set(client.get("/openapi.json").json()["paths"]) >= {"/api/text", "/api/process", "/api/reports"}


def test_text_never_becomes_markup():
    scripts = [path.read_text() for path in (Path(gm.__file__).parent / "serve" / "static").glob("*.js")]
    assert scripts
    for source in scripts:
        assert not [word for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(") if word in source]


def test_checkpoints_are_named_at_the_start(tmp_path):
    small = ["--steps", "2", "--batch-size", "8", "--width", "16", "--depth", "1"]
    for process, name in (("mask", "text"), ("autoregressive", "next")):
        network = ["--network", "transformer", "--data", "text", "--out", str(tmp_path / name)]
        assert CliRunner().invoke(main, ["train", "--process", process, *network, *small]).exit_code == 0
    with serving(checkpoints=[tmp_path / "text", tmp_path / "next"]) as (address, _), httpx.Client(base_url=address, timeout=60) as client:
        assert [found["name"] for found in client.get("/api/checkpoints").json()] == ["text", "text-2", "next"]
        assert client.post("/api/text/whole", json={"checkpoint": "text-2", "steps": 2}).status_code == 200
        assert client.post("/api/text/whole", json={"checkpoint": "next", "steps": 2, "prompt": "To be", "length": 80}).status_code == 200
        refused = client.post("/api/text", json={"checkpoint": "next", "at": ["9:king"]})
        assert refused.json()["detail"][0]["loc"] == ["body", "at"]
    with pytest.raises(gm.GenmatchError, match="holds no finished run"):
        create_app([tmp_path / "nowhere"])
    assert CliRunner().invoke(main, ["train", "--process", "mask", "--data", "chain", "--out", str(tmp_path / "chain"), *small]).exit_code == 0
    with pytest.raises(gm.GenmatchError, match="the page writes with runs on text"):
        create_app([tmp_path / "chain"])


def test_the_command_says_what_is_wrong_in_one_line():
    with serving() as (address, _):
        taken = CliRunner().invoke(main, ["serve", "--port", address.rsplit(":", 1)[1]])
    assert taken.exit_code == 1
    assert "choose another with --port" in taken.output
    assert "`jobs` must be a number in (0, inf]" in CliRunner().invoke(main, ["serve", "--jobs", "0"]).output
    assert hosts_for("192.168.1.5")[0] == "192.168.1.5"
    assert hosts_for("::") == ["*"]
