#!/usr/bin/env python3
"""sill check and sill doctor: what they print, what they keep, how they end."""
import os, re, signal, subprocess, time
from clitest import *

ENV = {"SILL_CACHE": path("cache"), "SILL_CPU_ISA": "scalar", "HOME": work.name}


def check(*args, **more):
    return sill("check", *args, env=ENV, **more)


def doctor(*args):
    return sill("doctor", *args, env=ENV)


def section(text, name):
    """The lines of a section of doctor's page, by name."""
    part = text.split("\n" + name + "\n")[1].split("\n\n")[0]
    return {line[2:20].strip(): line[21:] for line in part.split("\n") if line.strip("`")}


def a_page():
    assert "check: not checked" in section(doctor().text(), "devices")["cpu"]
    r = check("--quick", "--device", "cpu")
    lines = r.text().split("\n")
    assert lines[0].startswith("sill ") and "Linux" in lines[0] or "macOS" in lines[0], lines[0]
    assert lines[-2].startswith("passed in ") and "quick" in lines[-2], lines[-2]
    assert len(lines) < 80, "one page"
    table = {line[:34].strip(): line[34:].split() for line in lines if line[34:35] == " "}
    assert table["worst error / bound"] == ["cpu", "scalar"]
    for name in ("product, f32", "product, q4_k", "product, int8", "attention, kv int8", "logits, f32", "rms norm", "embedding"):
        assert len(table[name]) == 1 and 0 <= float(table[name][0]) <= 1, (name, table.get(name))
    for name in ("same bits, product", "same bits, attention", "same bits, head"):
        assert table[name] == ["same"], name
    assert any(re.match(r"cpu scalar +PASSED in ", line) for line in lines)
    assert "FAIL" not in r.text() and r.err == ""


def what_was_found_is_kept():
    files = os.listdir(os.path.join(ENV["SILL_CACHE"], "checked"))
    assert len(files) == 1 and files[0].endswith(".check"), files
    told = section(doctor().text(), "devices")["cpu"]
    assert re.search(r"check: passed \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \(first use\)", told), told


def as_json():
    assert json.loads(check("--quick", "--json", "--device", "cpu").text())["passed"] is True
    text = check("--quick", "--json", "--device", "cpu", "-o", path("report.json"))
    assert text.out == b""
    report = json.loads(read("report.json"))
    assert report["passed"] is True and report["quick"] is True and report["not_used"] == []
    (device,) = report["devices"]
    assert device["device"] == "cpu scalar" and device["passed"] and not device["stopped"]
    for c in device["checks"]:
        assert c["passed"] and c["cases"] > 0 and c["failed"] == 0, c
        assert c["name"].startswith("same bits") or (c["error"] <= c["bound"] and c["at"]), c
    r = check("--quick", "--device", "cpu", "-o", path("report.json"), status=2)
    assert "--overwrite" in r.err
    check("--quick", "--device", "cpu", "-o", path("report.json"), "--overwrite")
    assert read("report.json").startswith(b"sill ")


def with_a_model():
    r = check("--quick", "--device", "cpu", "-m", STORIES)
    (line,) = [l for l in r.text().split("\n") if l.startswith("your model")]
    assert 0 <= float(line.split()[-1]) <= 1, line
    r = check("--quick", "-m", path("none.gguf"), status=1)
    assert "no model" in r.err


def wrong_usage():
    for args, says in ((["--device", "tpu"], "tpu"), (["--device", "auto"], "name one"), (["x"], ""), (["--threads", "0"], "--threads"),
                       (["--quick", "--full"], "opposites")):
        r = check(*args, status=2)
        assert says in r.err and not r.out, (args, r.err)
    if os.uname().sysname != "Darwin" and "SILL_METAL_LIBRARY" not in os.environ:
        r = check("--quick", "--device", "metal", status=None)
        assert r.status in (1, 2) and not r.out and "metal" in r.err, (r.status, r.err)


def interrupted():
    p = subprocess.Popen([SILL, "check", "--device", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **ENV})
    time.sleep(0.5)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=120)
    assert p.returncode == 5 and out == b"", (p.returncode, err)


def a_doctor():
    text = doctor().text()
    for name in ("versions", "devices", "processor", "memory", "default model", "caches"):
        assert ("\n" + name + "\n" in "\n" + text), name
    devices = section(text, "devices")
    assert devices["auto"].startswith("takes ") and "scalar reference" in devices["ref"] and "cuda" in devices
    assert "SILL_CPU_ISA takes scalar" in section(text, "processor")["instruction sets"]
    assert float(section(text, "memory")["free"].split()[0]) > 0
    assert "no " in section(text, "default model")["file"] or "not there" in section(text, "default model")["file"]
    assert section(text, "caches")["directory"] == "~/cache"
    facts = json.loads(doctor("--json").text())
    assert facts["devices"]["cpu"] == devices["cpu"] and facts["versions"]["sill"]


def a_report_tells_nothing_private():
    os.makedirs(os.path.join(ENV["SILL_CACHE"], "models"), exist_ok=True)
    with open(os.path.join(ENV["SILL_CACHE"], "models", "secret-study.gguf"), "w") as f:
        f.write("x")
    assert "secret-study.gguf" in doctor().text()
    away = {**ENV, "HOME": "/nonexistent/somebody"}
    for env in (ENV, away):
        for args in (["--report"], ["--report", "--json"]):
            text = sill("doctor", *args, env=env).text()
            for private in ("secret-study", work.name, "somebody"):
                assert private not in text, (private, text)
    assert doctor("--report").text().startswith("```\n")


def metal_asks_for_a_report():
    """Whoever has a Mac is told that nothing has run on one, and where it says what to send."""
    library = os.path.abspath(os.path.join(BUILD, "libfakemetal.so"))
    if not os.path.exists(library):
        raise Skip("no fake Metal in this build (make tests)")
    env = {**ENV, "SILL_METAL_LIBRARY": library, "FAKEMETAL_FAST": "1"}  # what is read is doctor's page
    told = section(sill("doctor", env=env).text(), "devices")
    assert told["metal"].startswith("metal ") and "room for" in told["metal"], told
    assert "Apple hardware" in told["note"] and "docs/METAL.md" in told["note"], told
    assert os.path.exists(os.path.join(os.path.dirname(FIXTURES), "../docs/METAL.md"))


def a_doctor_compiles_nothing():
    """The check of a GPU's first use makes its kernels: that is for a model to do, or for `sill check`."""
    library = os.path.abspath(os.path.join(BUILD, "libfakemetal.so"))
    if not os.path.exists(library):
        raise Skip("no fake Metal in this build (make tests)")
    cache = path("cache-metal")
    os.makedirs(os.path.join(cache, "models"))
    shutil.copy(STORIES, os.path.join(cache, "models", "SmolLM2-135M-Instruct.Q4_1.gguf"))
    env = {**ENV, "SILL_CACHE": cache, "SILL_METAL_LIBRARY": library, "SILL_FIRST_USE_CHECK": "1",
           "FAKEMETAL_FAULT": "library:1:1000000"}  # a compiler that refuses them would be heard of
    text = sill("doctor", env=env).text()
    told = section(text, "devices")
    assert told["metal"].endswith("check: not checked"), told
    assert told["auto"].startswith("takes metal if that passes the check before its first use") and "sill check --device metal" in told["auto"], told
    assert re.match(r"\d+ MiB on metal: .*; fits$", section(text, "default model")["needs"]), text
    assert not os.path.exists(os.path.join(cache, "checked")) and not os.path.exists(os.path.join(cache, "metal"))
    env["SILL_FIRST_USE_CHECK"] = "0"
    assert section(sill("doctor", env=env).text(), "devices")["auto"] == "takes metal"
    env["FAKEMETAL_WORKING_SET"] = "1000000"  # the model goes elsewhere, as "auto" would have it
    told = section(sill("doctor", env=env).text(), "default model")
    assert told["passed over"].startswith("metal: ") and re.match(r"\d+ MiB on cpu: .*; fits$", told["needs"]), told


def a_failed_device():
    """What failed a check is not what "auto" takes, and doctor says so."""
    library = os.path.abspath(os.path.join(BUILD, "libfakemetal.so"))
    if not os.path.exists(library):
        raise Skip("no fake Metal in this build (make tests)")
    env = {**ENV, "SILL_CACHE": path("cache-failed"), "SILL_METAL_LIBRARY": library, "SILL_FIRST_USE_CHECK": "1", "FAKEMETAL_FAULT": "library:1:1000000"}
    r = sill("check", "--quick", "--device", "metal", env=env, status=None)
    assert r.status == 1, r.status
    told = section(sill("doctor", env=env).text(), "devices")
    assert told["auto"] == "takes cpu" and "--device auto does not take it" in told["wrong"], told


for t in (a_page, what_was_found_is_kept, as_json, with_a_model, wrong_usage, interrupted, a_doctor, a_report_tells_nothing_private, metal_asks_for_a_report, a_doctor_compiles_nothing, a_failed_device):
    test(t)
end()
