#!/usr/bin/env python3
"""Every environment variable that the program, its tools or its tests read is in docs/ENVIRONMENT.md, with who reads it."""
import os, re, subprocess, sys

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
doc = open("docs/ENVIRONMENT.md").read()
table = [line.split("|") for line in doc.split("\n") if line.startswith("| `")]
said = {name: row[2] for row in table for name in re.findall(r"`([A-Za-z_]+)`", row[1])}
ours = {"HOME", "XDG_CACHE_HOME"}  # the system's own; XDG_CACHE_HOME is explained with SILL_CACHE
patterns = {".c": r'getenv\("([A-Z_]+)"\)', ".h": r'getenv\("([A-Z_]+)"\)', ".py": r'environ(?:\.get\(|\[)"([A-Z_]+)"\]?(?!\s*\]?\s*=[^=])',
            ".sh": r'\$\{([A-Z][A-Z_]*):?[=-]'}
ok, n = True, 0
for top in ("src", "cli", "tests", "tools", "bench", "examples", ".ci"):
    for where, _, names in os.walk(top):
        for f in names:
            kind = os.path.splitext(f)[1] if "." in f else ".sh"
            path = os.path.join(where, f)
            if kind not in patterns or path.startswith("tests/fixtures") or path == "tests/project/test_environment.py":
                continue
            text = open(path, errors="replace").read()
            for name in sorted(set(re.findall(patterns[kind], text))):
                set_here = kind == ".sh" and re.search(rf"^\s*(local )?{name}=", text, re.M)
                if name in ours or set_here:
                    continue
                n += 1
                if name not in said:
                    ok = False
                    print(f"  {path} reads {name}, which docs/ENVIRONMENT.md does not have")
print(f"{'PASS' if ok and n > 20 else 'FAIL'} variables are documented")
sys.exit(not (ok and n > 20))
