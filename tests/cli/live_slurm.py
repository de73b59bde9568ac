#!/usr/bin/env python3
"""examples/slurm.sh on a cluster of one machine: Slurm's own daemons in the foreground, everything in one directory. The job
array is interrupted and put into the queue again; the merged file is that of one run, byte for byte.

A part of `make test-all` (suite live). Needs root, and Debian's slurmctld, slurmd, slurm-client and munge."""
import shutil, socket, time
from clitest import *

SLURM = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../examples/slurm.sh"))
daemons = []


def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(name, *args):
    log = open(path(name + ".log"), "wb")
    daemons.append(subprocess.Popen([shutil.which(name, path="/usr/sbin:/usr/bin"), *args], stdout=log, stderr=log, stdin=subprocess.DEVNULL))
    return daemons[-1]


def logs():
    return "\n".join(open(path(n + ".log"), errors="replace").read()[-1500:] for n in ("munged", "slurmctld", "slurmd"))


def wait(what, seconds, test):
    end = time.time() + seconds
    while not test():
        assert time.time() < end and all(d.poll() is None for d in daemons), f"{what}\n{logs()}"
        time.sleep(0.2)


def out(*args):
    return subprocess.run(args, capture_output=True, text=True, timeout=60).stdout


def start_cluster():
    if os.geteuid() != 0:
        raise Skip("this machine gives no root, which Slurm's daemons need here")
    if not all(shutil.which(x, path="/usr/sbin:/usr/bin") for x in ("munged", "slurmctld", "slurmd", "sbatch")):
        raise Skip("no Slurm; tools/deps.sh --test")
    host, here = socket.gethostname().split(".")[0], path("cluster")
    os.makedirs(here + "/spool")
    os.chmod(here, 0o755)
    os.chmod(work.name, 0o755)
    write("munge.key", os.urandom(128))
    os.chmod(path("munge.key"), 0o400)
    start("munged", "-F", "--force", "--key-file=" + path("munge.key"), f"--socket={here}/munge.sock", f"--pid-file={here}/munge.pid",
          f"--seed-file={here}/munge.seed", f"--log-file={here}/munge.log")
    wait("munged", 20, lambda: os.path.exists(here + "/munge.sock"))
    write("slurm.conf", f"""ClusterName=sill
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={here}/munge.sock
SlurmctldPort={port()}
SlurmdPort={port()}
StateSaveLocation={here}/state
SlurmdSpoolDir={here}/spool
SlurmctldPidFile={here}/slurmctld.pid
SlurmdPidFile={here}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=10 State=UP
""")
    os.environ["SLURM_CONF"] = path("slurm.conf")
    start("slurmctld", "-D", "-f", path("slurm.conf"))
    start("slurmd", "-D", "-f", path("slurm.conf"), "-N", host)
    wait("no node is idle", 60, lambda: "idle" in out("sinfo", "-h", "-o", "%t"))


def a_job_array_on_one_machine():
    start_cluster()
    f = write("in.csv", "n,text\n" + "".join(f'{i},"Once upon a time, {i}, there was a ball. {"The cat ran to a big red ball. " * (i % 30)}"\n' for i in range(6000)))
    sill("score", f, "--text", "text", "-m", STORIES, "-o", path("whole.csv"))
    os.environ.update(IN=f, OUT=path("all.csv"), SHARDS="3", SILL=SILL, MODEL=STORIES, SBATCH_OPTIONS=f"--output={path('job')}.%A_%a.log --chdir={work.name}",
                      COMMAND=f"score {f} --text text --threads 1 --journal-rows 5")
    p = subprocess.run([SLURM], capture_output=True, text=True, timeout=60)
    assert p.returncode == 0, p.stderr
    wait("no shard began", 60, lambda: os.path.exists(path("all.part00001.csv.journal")))
    time.sleep(0.5)
    job = out("squeue", "-h", "-r", "-o", "%i %t").splitlines()
    running = [x.split()[0] for x in job if x.endswith(" R")]
    assert running, job
    array = running[0].split("_")[0]
    assert subprocess.run(["scontrol", "requeue", running[0]], capture_output=True).returncode == 0  # as when a node is taken back
    # A job that is put back begins two minutes later; here at once.
    wait("the array has not ended", 400, lambda: os.path.exists(path("all.csv.run.json")) or
         subprocess.run(["scontrol", "update", f"jobid={array}", "StartTime=now"], capture_output=True) is None)
    assert read("all.csv") == read("whole.csv")
    told = "".join(open(path(x), errors="replace").read() for x in os.listdir(work.name) if x.startswith("job."))
    assert "goes on: " in told, told[-2000:]


test(a_job_array_on_one_machine)
for d in reversed(daemons):
    d.terminate()
for d in daemons:
    d.wait(timeout=30)
end()
