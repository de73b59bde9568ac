"""The Python package as a stranger meets it: installed by pip from the clone into a fresh virtual environment that has numpy alone; what it
answers there (checks.py), the layouts of structs against a C compiler, types. With torch in build/venv also torch tensors (checks_torch.py)."""
import glob
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get("BUILD", "build/release")
CONFIG = os.environ.get("CONFIG", "release")
work = tempfile.TemporaryDirectory(prefix="sill_python_")
failed = False


def say(ok, name, log=""):
    global failed
    failed = failed or not ok
    print(log.rstrip()[-3000:] if not ok else "", f"{'PASS' if ok else 'FAIL'} {name}", sep="\n" if not ok and log else "", flush=True)


def skip(name, reason):
    print(f"SKIP {name}: {reason}", flush=True)


def run(*command, env=None, cwd=None):
    p = subprocess.run(command, capture_output=True, text=True, timeout=500, env={**os.environ, **(env or {})}, cwd=cwd)
    return p.returncode, p.stdout + p.stderr


def find_python():
    """An interpreter that has numpy and pip, and the folder with numpy."""
    for python in (os.path.join(ROOT, "build/venv/bin/python"), sys.executable):
        if os.path.exists(python):
            status, out = run(python, "-c", "import numpy, pip, os; print(os.path.dirname(os.path.dirname(numpy.__file__)))")
            if status == 0:
                return python, out.strip().splitlines()[-1]
    return None, None


def fresh_environment(python, packages, name="venv"):
    """A virtual environment whose only package is numpy, linked from another's."""
    venv = os.path.join(work.name, name)
    subprocess.run([python, "-m", "venv", "--without-pip", venv], check=True)
    site = glob.glob(os.path.join(venv, "lib/python*/site-packages"))[0]
    for path in glob.glob(os.path.join(packages, "numpy*")):
        os.symlink(path, os.path.join(site, os.path.basename(path)))
    return os.path.join(venv, "bin/python"), site


def install(python, target):
    """pip install ./python, from a clone whose library is built already."""
    return run(python, "-m", "pip", "--python", target, "install", "--disable-pip-version-check", "--no-deps", "--no-index", "./python",
               env={"SILL_BUILD": BUILD, "MAKEFLAGS": "", "CC": os.environ.get("CC", "cc"), "config": CONFIG}, cwd=ROOT)


def layouts(python):
    """Sizes and offsets of all structs, as ctypes and a C compiler have them."""
    cc = os.environ.get("CC") or shutil.which("cc") or "gcc"
    script = ("import ctypes; from sill import _abi\n"
              "for s in _abi.STRUCTS:\n"
              " print(s.__name__, ctypes.sizeof(s))\n"
              " for f, *_ in s._fields_: d = getattr(s, f); print(s.__name__ + '.' + f, d.offset, d.size)\n"
              "for k, v in sorted(vars(_abi).items()):\n"
              " if k.startswith('SILL_') and isinstance(v, int): print(k, v)\n")
    status, have = run(python, "-c", script)
    if status:
        return say(False, "layouts", have)
    lines = ['#include <stdio.h>', '#include <stddef.h>', '#include "sill.h"', 'int main(void) {']
    for line in have.splitlines():
        name = line.split()[0]
        kind, _, field = name.partition(".")
        if field:
            lines.append(f'printf("{name} %zu %zu\\n", offsetof({kind}, {field}), sizeof(((({kind} *)0)->{field})));')
        elif name.startswith("SILL_"):
            lines.append(f'printf("{name} %d\\n", (int){name});')
        else:
            lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
    source, program = os.path.join(work.name, "layout.c"), os.path.join(work.name, "layout")
    with open(source, "w") as f:
        f.write("\n".join([*lines, "return 0; }", ""]))
    status, out = run(cc, "-I", os.path.join(ROOT, "include"), source, "-o", program)
    if status:
        return say(False, "layouts", out)
    want = run(program)[1]
    other = [f"{a} (C: {b})" for a, b in zip(have.splitlines(), want.splitlines()) if a != b]
    say(have == want and len(have.splitlines()) > 200, "layouts of structs and constants are the C compiler's", "\n".join(other))


def other_builds(python, packages):
    """The source distribution has every source; what it and an editable install give. The library is not compiled again for each."""
    at = os.path.join(work.name, "sdist")
    os.mkdir(at)
    status, out = run(python, "-c", f"import sill_build; print(sill_build.build_sdist({at!r}))", env={"PYTHONPATH": os.path.join(ROOT, "python/backend")})
    say(status == 0, "a source distribution", out)
    if status:
        return
    packed = os.path.join(at, out.strip().splitlines()[-1])
    with tarfile.open(packed) as tar:
        tar.extractall(at)
    unpacked = packed.removesuffix(".tar.gz")
    missing = [f for d in ("include", "src") for f in not_there(os.path.join(ROOT, d), os.path.join(unpacked, "libsill", d))]
    missing += [f for d in ("backend", "sill") for f in not_there(os.path.join(ROOT, "python", d), os.path.join(unpacked, d))
                if f.endswith((".py", ".typed")) and not f.endswith("_abi.py")]
    status, out = run("make", "-n", "-C", os.path.join(unpacked, "libsill"), "shared")
    say(status == 0 and not missing, "the source distribution has what make needs", f"missing: {missing}\n{out}")
    env = {"SILL_LIBRARY_FILE": os.path.join(ROOT, BUILD, "libsill.dylib" if sys.platform == "darwin" else "libsill.so")}
    for name, what in (("from the source distribution", [packed]), ("editable", ["-e", unpacked])):
        fresh, site = fresh_environment(python, packages, what[0].replace("/", "_")[-8:])
        status, out = run(python, "-m", "pip", "--python", fresh, "install", "--disable-pip-version-check", "--no-deps", "--no-index", *what, env=env)
        if status == 0:
            status, out = run(fresh, os.path.join(HERE, "checks.py"), "tokenizer_details", "the_three_programs",
                              env={"SILL_CI": "", "PYTHONPATH": HERE, "SILL_LIBRARY": ""})
        place = run(fresh, "-c", "import sill; print(sill.__file__)")[1].strip()
        expected = unpacked if what[0] == "-e" else site
        say(status == 0 and out.count("PASS ") == 2 and os.path.realpath(place).startswith(os.path.realpath(expected)), f"the package {name}", out + place)


def not_there(here, there):
    """Files of HERE that are not THERE."""
    files = (os.path.relpath(os.path.join(d, f), here) for d, _, names in os.walk(here) for f in names)
    return [f for f in files if not os.path.exists(os.path.join(there, f)) and "__pycache__" not in f]


def types_of(python, site):
    """mypy, which takes longest, beside everything else."""
    place = os.path.join(work.name, "types")
    shutil.copytree(os.path.join(site, "sill"), os.path.join(place, "sill"), ignore=shutil.ignore_patterns("*.so", "*.dylib", "__pycache__"))
    return subprocess.Popen([python, "-m", "mypy", "--strict", "--cache-dir", os.path.join(work.name, "mypy"), "--follow-imports=silent",
                             "--ignore-missing-imports", "--no-warn-unused-ignores", "--no-warn-return-any", "sill"], cwd=place,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def main():
    python, packages = find_python()
    if python is None:
        return skip("the Python package", "no Python with numpy and pip here; tools/deps.sh --test installs them into build/venv")
    if CONFIG != "release":
        return skip("the Python package", "a sanitizer would have to be loaded before Python")
    fresh, site = fresh_environment(python, packages)
    status, out = install(python, fresh)
    say(status == 0, "pip install ./python", out)
    if status:
        return None
    types = types_of(python, site)
    layouts(fresh)
    status, out = run(fresh, "-c", "import sys, sill; assert not {'torch', 'transformers'} & set(sys.modules); print(sill.__file__)")
    say(status == 0 and site in os.path.realpath(out.strip()), "the package stands by itself", out)
    env = {"SILL_CI": "", "PYTHONPATH": HERE, "SILL_LIBRARY": ""}
    status, out = run(fresh, os.path.join(HERE, "checks.py"), env=env)
    # where pandas, polars and pyarrow are not it is their absence that is checked; they are checked below
    print(out.replace("SKIP pandas_polars_and_pyarrow: checked elsewhere", "PASS pandas_polars_and_pyarrow are not needed"), end="", flush=True)
    say(status == 0 and "PASS" in out, "the package with numpy alone", "" if "FAIL" in out else out)
    other_builds(python, packages)
    status, out = run(python, "-c", "import torch, pandas, polars, pyarrow, transformers, mypy")
    if status:
        types.communicate(timeout=500)
        skip("torch, tables, types", f"not all of them are in {python}: {out.strip().splitlines()[-1]}; tools/deps.sh --test installs them")
        return None
    status, out = run(python, os.path.join(HERE, "checks_torch.py"), env={**env, "PYTHONPATH": site + os.pathsep + HERE})
    print(out, end="", flush=True)
    say(status == 0 and "PASS" in out, "the package beside torch", "" if "FAIL" in out else out)
    out = types.communicate(timeout=500)[0]
    say(types.returncode == 0, "types (mypy --strict)", out)
    return None


if __name__ == "__main__":
    main()
    work.cleanup()
    sys.exit(failed)
