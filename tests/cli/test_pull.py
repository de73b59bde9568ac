#!/usr/bin/env python3
"""`sill pull` against a hub on this machine (fakehub.py) that cuts, lies, redirects and refuses: what the cache holds afterwards, what is
fetched again, and where the token goes. live_pull.py compares the cache with huggingface_hub."""
import ctypes.util
import hashlib
import signal
import subprocess
import time
from clitest import *
from fakehub import Hub, git_hash

TINY = os.path.join(FIXTURES, "task", "gpt2")
hub = Hub()
count = 0


def files():
    """A model that runs, and what else repositories hold."""
    out = {name: open(os.path.join(TINY, name), "rb").read() for name in os.listdir(TINY)}
    out["README.md"] = b"# not wanted"
    out["onnx/model.onnx"] = b"not wanted"
    out["pytorch_model.bin"] = b"not wanted beside safetensors"
    return out


def home():
    """A cache of one's own."""
    global count
    count += 1
    return path(f"hub{count}")


def pull(*args, where, status=0, **env):
    return sill("pull", *args, status=status, env={"HF_HOME": where, "HF_ENDPOINT": hub.url, "HF_TOKEN": "", "HF_TOKEN_PATH": path("no-token"),
                                                  "SILL_PULL_HASTE": "1", "HF_HUB_CACHE": "", "HF_HUB_OFFLINE": "", "HF_HUB_DOWNLOAD_TIMEOUT": "2",
                                                  "no_proxy": "*", **env})


def folder(where, name="tiny"):
    return os.path.join(where, "hub", "models--" + name.replace("/", "--"))


def needs_libcurl():
    if not (ctypes.util.find_library("curl") or ctypes.util.find_library("curl-gnutls") or sys.platform == "darwin"):
        raise Skip("this machine has no libcurl")


def a_model_is_pulled():
    needs_libcurl()
    data, where = files(), home()
    commit = hub.add("tiny", data)
    r = pull("tiny", where=where)
    snapshot = os.path.join(folder(where), "snapshots", commit)
    assert r.text() == snapshot + "\n", r.text()
    assert open(os.path.join(folder(where), "refs", "main")).read() == commit
    wanted = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors"}
    assert set(os.listdir(snapshot)) == wanted, os.listdir(snapshot)
    for name in wanted:
        link = os.readlink(os.path.join(snapshot, name))
        hashed = hashlib.sha256(data[name]).hexdigest() if name == "model.safetensors" else git_hash(data[name])
        assert link == "../../blobs/" + hashed, (name, link)
        assert open(os.path.join(snapshot, name), "rb").read() == data[name], name
    assert set(os.listdir(os.path.join(folder(where), "blobs"))) == {os.path.basename(os.readlink(os.path.join(snapshot, n))) for n in wanted}
    # -m finds it by its name, as a name with its revision, and offline.
    env = {"HF_HOME": where, "HF_HUB_CACHE": "", "SILL_CACHE": path("no-cache")}
    by_name = sill("generate", "-m", "tiny", "--greedy", "--max-new-tokens", "5", "-q", "The law", env=env)
    assert by_name.out == sill("generate", "-m", TINY, "--greedy", "--max-new-tokens", "5", "-q", "The law").out
    for name in ("tiny@main", "tiny@" + commit):
        assert sill("generate", "-m", name, "--greedy", "--max-new-tokens", "5", "-q", "The law", env=env).out == by_name.out
    e = sill("generate", "-m", "other", "x", env=env, status=1).err
    assert "no model 'other'" in e and "sill pull other" in e, e
    # Again: nothing is fetched but heads and the list.
    hub.forget()
    assert pull("tiny", where=where).text() == r.text()
    assert not [x for x in hub.requests + hub.stored if x[0] == "GET" and "/api/" not in x[1]]


def what_is_cut_goes_on():
    needs_libcurl()
    data, where = files(), home()
    commit = hub.add("cut", data)
    weights = data["model.safetensors"]
    hub.faults["model.safetensors"] = ["cut:1000", "cut:70000", "status:503", "cut:0", "stall:10"]
    hub.faults["tokenizer.json"] = ["cut:17"]
    hub.forget()
    r = pull("cut", where=where)
    ranges = [x[2].get("Range") for x in hub.stored if x[0] == "GET"]
    assert ranges == [None, "bytes=1000-", "bytes=71000-", "bytes=71000-", "bytes=71000-", "bytes=71010-"], ranges
    assert open(os.path.join(r.text().strip(), "model.safetensors"), "rb").read() == weights
    # What another run has left, of this or of another state.
    for left, expected in ((weights[:5000], "bytes=5000-"), (weights, None), (b"x" * 5000, "bytes=5000-"), (weights + b"x", None)):
        where = home()
        blobs = os.path.join(folder(where, "cut"), "blobs")
        os.makedirs(blobs)
        open(os.path.join(blobs, hashlib.sha256(weights).hexdigest() + ".incomplete"), "wb").write(left)
        hub.forget()
        snapshot = pull("cut", where=where).text().strip()
        asked = [x[2].get("Range") for x in hub.stored if x[0] == "GET"]
        assert asked == ([] if left == weights else [expected, None] if left[:1] == b"x" else [expected]), (left[:9], asked)
        assert open(os.path.join(snapshot, "model.safetensors"), "rb").read() == weights
        assert not [f for f in os.listdir(blobs) if "incomplete" in f]
    assert snapshot.endswith(commit)


def a_server_without_ranges():
    needs_libcurl()
    data, where = files(), home()
    hub.add("ranges", data)
    hub.faults["model.safetensors"] = ["cut:5000", "ignore_range"]
    snapshot = pull("ranges", where=where).text().strip()
    assert open(os.path.join(snapshot, "model.safetensors"), "rb").read() == data["model.safetensors"]


def nothing_wrong_is_kept():
    needs_libcurl()
    for fault in ("wrong", "longer", "html"):
        where = home()
        hub.add("wrong", files())
        hub.faults["model.safetensors"] = [fault] * 30
        r = pull("wrong", where=where, status=1)
        said = {"wrong": "has the hash", "longer": "more than the", "html": "only 26 of"}[fault]
        assert said in r.err, r.err
        blobs = os.listdir(os.path.join(folder(where, "wrong"), "blobs"))
        weights = hashlib.sha256(files()["model.safetensors"]).hexdigest()
        assert weights not in blobs and not os.path.exists(os.path.join(folder(where, "wrong"), "refs")), blobs
        assert sill("generate", "-m", "wrong", "x", env={"HF_HOME": where, "HF_HUB_CACHE": ""}, status=1).err
        hub.faults.clear()
        pull("wrong", where=where)
    where = home()
    hub.faults["config.json"] = ["wrong"]
    assert "has the hash" in pull("wrong", where=where, status=1).err
    hub.faults.clear()


def refusals_are_told():
    needs_libcurl()
    where = home()
    hub.add("private/model", files())
    hub.needs_token["private/model"] = "hf_secret"
    e = pull("private/model", where=where, status=1).err
    assert "status 401" in e and "HF_TOKEN" in e and "Access is restricted" in e, e
    e = pull("absent", where=where, status=1).err
    assert "status 404" in e and "no such model" in e, e
    hub.status["/api/models/gated/revision/main"] = 403
    assert "status 403" in pull("gated", where=where, status=1).err
    hub.status["/api/models/broken/revision/main"] = 500
    assert "status 500" in pull("broken", where=where, status=1).err
    hub.endless["/api/models/endless/revision/main"] = 403  # an error's page has no end, and what it says would steer a terminal
    e = pull("endless", where=where, status=1).err
    assert "status 403" in e and "see ?[2J here" in e and "\x1b" not in e, e
    hub.add("large", {"model.safetensors": b"x", **{f"data/{i}": b"" for i in range(10000)}})
    e = pull("large", where=where, status=1).err
    assert "more than the limit of 10000 files" in e, e
    hub.add("empty", {"README.md": b"x"})
    assert "no weights that sill reads" in pull("empty", where=where, status=1).err
    for name in ("../up", "a/b/c", "a--b", "-x", "a/", ""):
        pull(name, where=where, status=2)
    pull("tiny", "--revision", "../../x", where=where, status=2)
    assert not os.path.exists(os.path.join(where, "hub")), os.listdir(where)
    assert "HF_ENDPOINT" in pull("tiny", where=where, status=None, HF_ENDPOINT="file:///etc").err
    assert pull("tiny", where=where, status=1, HF_ENDPOINT="http://127.0.0.1:9").err


def the_token_goes_to_the_hub_alone():
    needs_libcurl()
    where = home()
    hub.add("private/model", files())
    hub.needs_token["private/model"] = "hf_secret"
    hub.forget()
    pull("private/model", where=where, HF_TOKEN="hf_secret")
    assert hub.requests and all(r[2].get("Authorization") == "Bearer hf_secret" for r in hub.requests)
    assert hub.stored and not any("Authorization" in r[2] for r in hub.stored), "the token went to another host"
    write("token", "hf_secret\n")
    pull("private/model", where=home(), HF_TOKEN_PATH=path("token"))
    for directory in ("xdg/huggingface", "user/.cache/huggingface"):  # where `hf auth login` keeps it
        os.makedirs(path(directory))
        write(directory + "/token", "hf_secret\n")
    for env in ({"XDG_CACHE_HOME": path("xdg"), "HOME": path("")}, {"XDG_CACHE_HOME": "", "HOME": path("user")}):
        pull("private/model", where="", HF_TOKEN_PATH="", HUGGING_FACE_HUB_TOKEN="", **env)
    assert os.path.isdir(path("xdg/huggingface/hub")) and os.path.isdir(path("user/.cache/huggingface/hub"))
    # The same machine under another name is another host, also for a redirect of the list.
    hub.moved["/api/models/renamed/revision/main"] = hub.url.replace("127.0.0.1", "localhost") + "/api/models/private/model/revision/main"
    hub.forget()
    e = pull("renamed", where=home(), status=1, HF_TOKEN="hf_secret").err
    assert "status 401" in e and "Authorization" not in hub.requests[-1][2], e
    for bad in ("hf secret", "hf\nx: y"):
        pull("private/model", where=home(), status=None, HF_TOKEN=bad)
        assert not any("x: y" in str(r) for r in hub.requests)


def redirects():
    needs_libcurl()
    commit = hub.add("owner/new-name", files())
    hub.moved["/api/models/old/revision/main"] = "/api/models/owner/new-name/revision/main"
    for f in files():
        hub.moved[f"/old/resolve/{commit}/{f}"] = f"/owner/new-name/resolve/{commit}/{f}"
    assert os.path.basename(pull("old", where=home()).text().strip()) == commit
    hub.moved["/api/models/loop/revision/main"] = "/api/models/loop/revision/main"
    assert "redirects" in pull("loop", where=home(), status=1).err
    hub.moved["/api/models/file/revision/main"] = "file:///etc/passwd"
    assert "redirect" in pull("file", where=home(), status=1).err


def names_of_the_server_are_not_trusted():
    needs_libcurl()
    where = home()
    evil = {**files(), "../../../escaped": b"x", "/abs": b"x", "a/../../b": b"x", "a\nb": b"x", "config.json/../x": b"x"}
    hub.add("evil", evil)
    pull("evil", where=where)
    inside = [os.path.join(d, f) for d, _, names in os.walk(path("")) for f in names]
    assert not [f for f in inside if f.endswith(("escaped", "/abs", "/b", "/x"))]
    for etag in ("../../../etc/x", "", "a/b", "." * 3, "x" * 200):
        hub.etags["config.json"] = etag
        assert "ETag" in pull("evil", where=home(), status=1).err, etag
    hub.etags.clear()
    hub.heads["config.json"] = {"X_Repo_Commit": "0" * 40}
    e = pull("evil", where=home(), status=1).err
    assert "asked for commit" in e, e
    hub.heads.clear()
    hub.etags["config.json"] = "not-a-hash-2"  # a mirror's: the length alone is checked, and that is said
    r = pull("evil", where=home())
    assert "no hash" in r.err, r.err
    hub.etags.clear()


def revisions_and_files():
    needs_libcurl()
    where = home()
    old = {**files(), "config.json": files()["config.json"] + b" "}
    one, two = hub.add("rev", old, "v1"), hub.add("rev", files())
    assert one != two
    three = hub.add("rev", {**old, "README.md": b"three"}, "refs/pr/1")
    assert os.path.basename(pull("rev@refs/pr/1", where=home()).text().strip()) == three
    assert os.path.basename(pull("rev", "--revision", "v1", where=where).text().strip()) == one
    assert os.path.basename(pull("rev@" + two, where=where).text().strip()) == two
    assert sorted(os.listdir(os.path.join(folder(where, "rev"), "refs"))) == ["v1"]
    blobs = len(os.listdir(os.path.join(folder(where, "rev"), "blobs")))
    assert blobs == 7, "files that both have are kept once"
    quant = {"a.Q4.gguf": open(STORIES, "rb").read(), "b.Q8.gguf": b"GGUF" + bytes(100), "config.json": b"{}", "sub/c.txt": b"deep"}
    hub.add("who/many", quant)
    assert "name one, --file a.Q4.gguf" in pull("who/many", where=where, status=2).err
    assert pull("who/many", "--file", "a.Q4.gguf", "--dry-run", where=where).text() == "a.Q4.gguf\n"
    snapshot = pull("who/many", "--file", "a.Q4.gguf", "--file", "sub/c.txt", where=where).text().strip()
    assert os.readlink(os.path.join(snapshot, "sub/c.txt")) == "../../../blobs/" + git_hash(b"deep")
    assert open(os.path.join(snapshot, "sub/c.txt")).read() == "deep"
    r = sill("generate", "-m", "who/many", "--max-new-tokens", "3", "-q", "Once", env={"HF_HOME": where, "HF_HUB_CACHE": ""})
    assert len(r.out) > 4
    assert "no file nothing.gguf" in pull("who/many", "--file", "nothing.gguf", where=where, status=1).err


def offline():
    where = home()
    hub.forget()
    assert "HF_HUB_OFFLINE" in pull("tiny", where=where, status=1, HF_HUB_OFFLINE="1").err
    assert not hub.requests
    needs_libcurl()
    hub.add("tiny", files())
    first = pull("tiny", where=where).text()
    hub.forget()
    assert pull("tiny", where=where, HF_HUB_OFFLINE="1").text() == first and not hub.requests


def without_libcurl():
    e = pull("tiny", where=home(), status=1, SILL_CURL_LIBRARY="/nowhere/libcurl.so").err
    assert "libcurl is not on this machine" in e and "-m" in e, e


def an_interruption():
    needs_libcurl()
    where = home()
    data = files()
    hub.add("slow", data)
    hub.faults["model.safetensors"] = ["stall:3000"]
    p = subprocess.Popen([SILL, "pull", "slow"], env={**os.environ, "HF_HOME": where, "HF_HUB_CACHE": "", "HF_ENDPOINT": hub.url, "no_proxy": "*",
                                                      "HF_TOKEN_PATH": path("no-token")}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    part = os.path.join(folder(where, "slow"), "blobs", hashlib.sha256(data["model.safetensors"]).hexdigest() + ".incomplete")
    for _ in range(200):
        if os.path.exists(part) and os.path.getsize(part) == 3000:
            break
        time.sleep(0.05)
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=20)
    assert p.returncode == 5 and b"goes on from there" in err, (p.returncode, err)
    assert os.path.getsize(part) == 3000 and not os.path.exists(os.path.join(folder(where, "slow"), "refs"))
    hub.forget()
    pull("slow", where=where)
    assert [x[2].get("Range") for x in hub.stored if x[0] == "GET"] == ["bytes=3000-"]


for t in (a_model_is_pulled, what_is_cut_goes_on, a_server_without_ranges, nothing_wrong_is_kept, refusals_are_told, the_token_goes_to_the_hub_alone,
          redirects, names_of_the_server_are_not_trusted, revisions_and_files, offline, without_libcurl, an_interruption):
    test(t)
end()
