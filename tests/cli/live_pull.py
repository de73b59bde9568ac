#!/usr/bin/env python3
"""The cache of `sill pull` and huggingface_hub's, over the same hub on this machine: each reads what the other wrote, and fetches nothing
that is there.

    BUILD=build/release python3 tests/cli/live_pull.py   (needs huggingface_hub; `make test-all` runs it)
"""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from fakehub import Hub  # noqa: E402

work = tempfile.mkdtemp(prefix="sill_pull_")
hub = Hub()
os.environ.update(HF_HOME=work, HF_ENDPOINT=hub.url, HF_TOKEN="", HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_XET="1", no_proxy="*",
                  HF_HUB_DISABLE_PROGRESS_BARS="1")
try:
    import huggingface_hub
    from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download, try_to_load_from_cache
except ImportError as e:
    print(f"SKIP live_pull: {e}")
    sys.exit(0)
SILL = os.path.abspath(os.path.join(os.environ.get("BUILD", "build/release"), "sill"))
TINY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "task", "gpt2")
failed = 0


def check(fn):
    global failed
    try:
        fn()
        print("PASS", fn.__name__, flush=True)
    except Exception as e:  # noqa: BLE001
        failed += 1
        print(f"FAIL {fn.__name__}: {type(e).__name__}: {e}", flush=True)


def pull(*args):
    p = subprocess.run([SILL, "pull", *args], capture_output=True, text=True)
    assert p.returncode == 0, p.stderr
    return p.stdout.strip()


def bytes_fetched():
    return [r for r in hub.requests + hub.stored if r[0] == "GET" and "/api/" not in r[1]]


files = {name: open(os.path.join(TINY, name), "rb").read() for name in os.listdir(TINY)}


def what_sill_wrote_is_read():
    commit = hub.add("tiny", files)
    snapshot = pull("tiny")
    info = scan_cache_dir()
    assert not info.warnings, info.warnings
    repo = next(r for r in info.repos if r.repo_id == "tiny")
    revision = next(iter(repo.revisions))
    assert revision.commit_hash == commit and set(revision.refs) == {"main"} and len(revision.files) == len(files)
    assert str(revision.snapshot_path) == snapshot
    hub.forget()
    assert hf_hub_download("tiny", "model.safetensors") == os.path.join(snapshot, "model.safetensors")
    assert try_to_load_from_cache("tiny", "config.json") == os.path.join(snapshot, "config.json")
    assert snapshot_download("tiny", local_files_only=True) == snapshot
    assert not bytes_fetched(), bytes_fetched()


def what_huggingface_hub_wrote_is_read():
    hub.add("owner/other", files)
    snapshot = snapshot_download("owner/other", allow_patterns=list(files))
    hub.forget()
    assert pull("owner/other") == snapshot
    assert not bytes_fetched(), bytes_fetched()
    out = subprocess.run([SILL, "generate", "-m", "owner/other", "--greedy", "--max-new-tokens", "4", "-q", "The law"], capture_output=True)
    assert out.returncode == 0 and len(out.stdout) > 4, out.stderr


def what_is_cut_is_finished_by_the_other():
    """huggingface_hub's unfinished downloads have the same name."""
    hub.add("half", files)
    hub.faults["model.safetensors"] = ["cut:4000"] + ["status:404"] * 20
    subprocess.run([SILL, "pull", "half"], capture_output=True)
    hub.faults.clear()
    hub.forget()
    path = hf_hub_download("half", "model.safetensors")
    assert open(path, "rb").read() == files["model.safetensors"]
    info = scan_cache_dir()
    assert not info.warnings, info.warnings


for test in (what_sill_wrote_is_read, what_huggingface_hub_wrote_is_read, what_is_cut_is_finished_by_the_other):
    check(test)
print(f"  huggingface_hub {huggingface_hub.__version__}")
sys.exit(failed > 0)
