#!/usr/bin/env bash
# Starts a SLURM of one machine for the tests: eval "$(tests/slurm/up.sh FOLDER)"
#
# Needs Debian or Ubuntu, and root only where SLURM is not installed. It has its own munge, ports and folder, so one
# that this machine belongs to is left alone. There is no accounting database, as in many small clusters.
set -euo pipefail
folder=$(realpath -m "$1")
daemons=(munged slurmctld slurmd)
export PATH=$PATH:/usr/sbin

if ! command -v "${daemons[@]}" sbatch >/dev/null; then
    root=$([ "$(id -u)" = 0 ] || echo sudo)
    $root apt-get update -qq >&2
    $root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge >"$(mktemp)" 2>&1
fi

mkdir -p "$folder"/{munge,state,spool}
chmod 755 "$folder"
chmod 700 "$folder/munge"
head -c 1024 /dev/urandom >"$folder/munge/key"
chmod 400 "$folder/munge/key"
munged --key-file="$folder/munge/key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munge/seed"

# The order of the two sockets does not matter, and they stay open together so that the ports differ.
read -r control node < <(python3 -c '
import socket
sockets = [socket.socket() for _ in range(2)]
for one in sockets: one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in sockets))')
host=$(hostname -s)
user=$(id -un)
cat >"$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$control
SlurmUser=$user
SlurmdUser=$user
AuthInfo=socket=$folder/munge.socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/ended.txt
ReturnToService=2
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0,requeue_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
JobRequeue=0
KillWait=2
NodeName=$host NodeAddr=127.0.0.1 Port=$node CPUs=8 Boards=1 SocketsPerBoard=1 CoresPerSocket=8 ThreadsPerCore=1 RealMemory=8000
PartitionName=main Nodes=$host Default=YES
PartitionName=short Nodes=$host MaxTime=5
CONF
if [ "$(slurmctld -V | grep -oE '[0-9]+' | head -1)" -ge 23 ]; then
    echo CgroupPlugin=disabled
else
    printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n'
fi >"$folder/cgroup.conf"

export SLURM_CONF=$folder/slurm.conf
slurmctld
slurmd
for _ in $(seq 100); do
    [ "$(sinfo -h -p main -o %t 2>/dev/null)" = idle ] && break
    sleep 0.1
done
[ "$(sinfo -h -p main -o %t)" = idle ] || { cat "$folder"/*.log >&2; exit 1; }
echo "export SLURM_CONF=$SLURM_CONF HARNESS_SLURM=$folder"
