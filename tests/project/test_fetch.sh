#!/usr/bin/env bash
# tools/fetch_model.sh against a small hub on this machine: fetches and checks, does nothing twice, refuses what
# has another sum, leaves nothing after an interruption, lets two at once end well, says what to do offline.
set -u
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d)
server=''
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$tmp"' EXIT
status=0
check() { if [ "$1" -eq 0 ]; then echo "PASS $2"; else sed 's/^/  /' "$tmp/log" | tail -n 8; echo "FAIL $2"; status=1; fi; }

mkdir -p "$tmp/hub/who/what/resolve/main"
head -c 300000 /dev/urandom >"$tmp/hub/who/what/resolve/main/tiny.gguf"
sum=$( (sha256sum "$tmp/hub/who/what/resolve/main/tiny.gguf" 2>/dev/null || shasum -a 256 "$tmp/hub/who/what/resolve/main/tiny.gguf") | cut -d' ' -f1)
# A hub that counts what it was asked, and under /slow/ gives the first bytes and then waits.
cat >"$tmp/hub.py" <<'PY'
import http.server, os, sys, threading, time
root = sys.argv[1]
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open(root + "/asked", "a") as f:
            f.write(self.path + "\n")
        slow = self.path.startswith("/slow/")
        try:
            data = open(root + "/hub" + self.path.replace("/slow", ""), "rb").read()
        except OSError:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        try:
            self.wfile.write(data[:100000])
            self.wfile.flush()
            if slow:
                time.sleep(60)
            time.sleep(0.3)
            self.wfile.write(data[100000:])
        except OSError:
            pass
    def log_message(self, *a):
        pass
s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), H)
with open(root + "/port.new", "w") as f:
    f.write(str(s.server_address[1]))
os.rename(root + "/port.new", root + "/port")
s.serve_forever()
PY
python3 "$tmp/hub.py" "$tmp" & server=$!
for _ in $(seq 100); do [ -e "$tmp/port" ] && break; sleep 0.1; done
hub=http://127.0.0.1:$(cat "$tmp/port")
export HF_ENDPOINT=$hub SILL_MODEL_SOURCE=hub SILL_MODEL_TABLE="tiny.gguf 300000 $sum who/what main none none" no_proxy='*'
fetch() { SILL_CACHE=$tmp/$1 tools/fetch_model.sh >"$tmp/log" 2>&1; }
asked() { wc -l <"$tmp/asked" | tr -d ' '; }

fetch a && cmp -s "$tmp/a/models/tiny.gguf" "$tmp/hub/who/what/resolve/main/tiny.gguf"
check $? 'a model is fetched'
n=$(asked); fetch a && [ ! -s "$tmp/log" ] && [ "$(asked)" = "$n" ]
check $? 'a second time nothing is fetched and nothing said'
n=$(asked); SILL_MODEL_SOURCE=foo fetch x; [ $? -eq 2 ] && grep -q "SILL_MODEL_SOURCE is 'foo'" "$tmp/log" && [ "$(asked)" = "$n" ] && [ ! -e "$tmp/x" ]
check $? 'a source that does not exist is refused'
rm "$tmp/a/models/tiny.gguf.checked"; fetch a && [ "$(asked)" = "$n" ] && [ -s "$tmp/a/models/tiny.gguf.checked" ]
check $? 'a file copied by hand is checked and taken'
printf x | dd of="$tmp/a/models/tiny.gguf" bs=1 seek=5000 conv=notrunc 2>/dev/null; touch -t 200101010000 "$tmp/a/models/tiny.gguf"
fetch a && cmp -s "$tmp/a/models/tiny.gguf" "$tmp/hub/who/what/resolve/main/tiny.gguf"
check $? 'a damaged file is fetched again'

! SILL_MODEL_TABLE="tiny.gguf 300000 ${sum%????}0000 who/what main none none" fetch b && grep -q 'expected' "$tmp/log" && [ ! -e "$tmp/b/models/tiny.gguf" ]
check $? 'another sum is refused'
! SILL_MODEL_TABLE="tiny.gguf 299999 $sum who/what main none none" fetch b && [ ! -e "$tmp/b/models/tiny.gguf" ]
check $? 'another size is refused'
! HF_ENDPOINT=http://127.0.0.1:9 fetch b && grep -q "copy it to $tmp/b/models/tiny.gguf" "$tmp/log" && [ -z "$(ls -A "$tmp/b/models")" ]
check $? 'offline it says what to do'

HF_ENDPOINT=$hub/slow SILL_CACHE=$tmp/c tools/fetch_model.sh >"$tmp/log" 2>&1 & slow=$!
for _ in $(seq 100); do grep -q slow "$tmp/asked" && [ -e "$tmp/c/models/.tiny.gguf.fetch/tiny.gguf" ] && break; sleep 0.1; done
kill -TERM $slow; wait $slow; [ $? -eq 130 ] && [ -z "$(ls -A "$tmp/c/models")" ]
check $? 'an interruption leaves nothing behind'
mkdir -p "$tmp/c/models/.tiny.gguf.fetch"; echo 999999999 >"$tmp/c/models/.tiny.gguf.fetch/pid"; echo rest >"$tmp/c/models/.tiny.gguf.fetch/tiny.gguf"
fetch c && cmp -s "$tmp/c/models/tiny.gguf" "$tmp/hub/who/what/resolve/main/tiny.gguf" && [ ! -e "$tmp/c/models/.tiny.gguf.fetch" ]
check $? 'what a killed fetch left is cleared away'
rm -rf "$tmp/c"; mkdir -p "$tmp/c/models/.tiny.gguf.fetch"; echo "$$ 1" >"$tmp/c/models/.tiny.gguf.fetch/pid"
SILL_CACHE=$tmp/c $(command -v timeout >/dev/null && echo timeout 20) tools/fetch_model.sh >"$tmp/log" 2>&1 && ! grep -q waiting "$tmp/log" && [ -s "$tmp/c/models/tiny.gguf" ]
check $? 'a lock whose number is by now another process is taken over'

n=$(asked)
SILL_CACHE=$tmp/d tools/fetch_model.sh >"$tmp/log1" 2>&1 & one=$!
SILL_CACHE=$tmp/d tools/fetch_model.sh >"$tmp/log" 2>&1; rc=$?
wait $one && [ $rc -eq 0 ] && [ "$(asked)" = $((n + 1)) ] && cmp -s "$tmp/d/models/tiny.gguf" "$tmp/hub/who/what/resolve/main/tiny.gguf"
check $? 'two at once fetch one time'

tools/deps.sh >"$tmp/log" 2>&1 && [ ! -s "$tmp/log" ]
check $? 'deps.sh is silent where all is there'
exit $status
