#!/usr/bin/env bash
# Train on a Cloud TPU VM or a pod slice: ask for it, set it up, run, look, delete.
#
#   launch/tpu_vm.sh up NAME --zone=us-west4-a --type=v5litepod-8 --spot -- --config=… --workdir=…
#   launch/tpu_vm.sh logs NAME --zone=us-west4-a
#   launch/tpu_vm.sh fetch NAME runs/demo --zone=us-west4-a
#   launch/tpu_vm.sh delete NAME --zone=us-west4-a
#
# A TPU VM costs money, used or not, from `create` or `queue` until `delete`. Commands:
#   create  ask for the machine now          queue   wait in line for it (queued resource)
#   setup   copy the project, install it     run     start training on all its hosts
#   up      create, setup and run            logs    follow what host 0 prints
#   stop    save a checkpoint and end        status  state of machine, queue and training
#   fetch   copy a folder of host 0 here     delete  delete machine and queue entry, and what they hold
# Options, anywhere before `--`:
#   --zone=ZONE     where; always needed
#   --project=NAME  default: what gcloud is set to
#   --type=TYPE     accelerator: v5litepod-8 (default), v5litepod-16, v6e-8, v5p-8, …
#   --version=V     runtime version; default: the one for JAX on that type
#   --spot          cheaper, and may be taken away at any time: then delete, up, and it goes on
#   --no-plan       do not ask `mlcls plan` first whether the run fits (create, queue, up)
#   --nfs=SERVER:/PATH  mount this share at /mnt/mlcls on every host (setup)
#   --restarts=N    run again after exit code 75 or a killed process, at most N times; default 3
#   --dry-run       print the commands, run nothing
# What follows `--` (run, up) are flags of `python -m mlcls_jax.main`. Training goes on when you log
# out; relative paths start in ~/mlcls there. With more than one host the workdir must be shared:
# --nfs=… and --workdir=/mnt/mlcls/…

set -euo pipefail

. "$(dirname "$0")/words.bash"

type=v5litepod-8 version='' spot='' nfs='' restarts=3 dry_run='' no_plan='' words=() place=() zone=''
while (($#)); do
  case $1 in
    --help | -h) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" && exit ;;
    --zone=*) zone=${1#*=} place+=("$1") ;;
    --project=*) place+=("$1") ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --spot) spot=--spot ;;
    --no-plan) no_plan=1 ;;
    --nfs=*) nfs=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --dry-run) dry_run=1 ;;
    --) shift && break ;;
    -*) fail "$1: no such option; flags of mlcls_jax.main come after --" ;;
    *) words+=("$1") ;;
  esac
  shift
done
((${#words[@]} >= 2)) || fail "usage: launch/tpu_vm.sh COMMAND NAME [options] [-- flags]; see --help"
[[ $zone ]] || fail "--zone=ZONE is missing"
action=${words[0]} name=${words[1]}
flags=("$@")
[[ $action != run && $action != up ]] || (($#)) ||
  fail "nothing to run: give the flags of mlcls_jax.main after --"
project_folder=$(cd "$(dirname "$0")/.." && pwd)
tpu=(gcloud compute tpus tpu-vm)
queue=(gcloud compute tpus queued-resources)

if [[ ! $version ]]; then
  case $type in
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    v2-* | v3-* | v4-*) version="tpu-ubuntu2204-base" ;;
    *) [[ $action != create && $action != queue && $action != up ]] ||
      fail "--type=$type: give its --version too (gcloud compute tpus tpu-vm versions list)" ;;
  esac
fi

# Shows a command and runs it.
run() {
  local text
  text=$(quote "$@")
  if [[ $dry_run ]]; then
    echo "${text# }"
  else
    echo "+$text" >&2
    "$@"
  fi
}

on_hosts() { # worker, command
  run "${tpu[@]}" ssh "$name" "${place[@]}" "--worker=$1" "--command=$2"
}

warn() {
  echo "$name costs money until: launch/tpu_vm.sh delete$(quote "$name" "${place[@]}")" >&2
}

# Ends here if what follows `--` does not fit; a compilation takes minutes.
plan() {
  [[ $no_plan ]] || python3 "$project_folder/launch/plan.py" "$type" ${dry_run:+--dry-run} \
    -- ${flags[@]+"${flags[@]}"}
}

create() {
  plan
  warn
  run "${tpu[@]}" create "$name" "${place[@]}" "--accelerator-type=$type" "--version=$version" \
    ${spot:+"$spot"}
}

queue() {
  plan
  warn
  run "${queue[@]}" create "$name" "--node-id=$name" "${place[@]}" "--accelerator-type=$type" \
    "--runtime-version=$version" ${spot:+"$spot"}
  echo "Once \`status\` says ACTIVE: setup, then run." >&2
}

setup() {
  local archive=${TMPDIR:-/tmp}/mlcls-$name.tgz
  run tar -czf "$archive" --exclude=__pycache__ -C "$project_folder" \
    mlcls_jax configs launch pyproject.toml requirements.txt README.md LICENSE
  run "${tpu[@]}" scp "$archive" "$name:mlcls.tgz" "${place[@]}" --worker=all
  run rm "$archive"
  # The images' own Python may be too old: uv brings one along.
  on_hosts all "set -e; mkdir -p mlcls; tar -xzf mlcls.tgz -C mlcls; cd mlcls;\
 python3 -m pip install --quiet --user uv; uv=\$(python3 -m site --user-base)/bin/uv;\
 test -d env || \$uv venv --python 3.12 env; \$uv pip install --quiet --python env/bin/python -e '.[tpu,score,tfds]'"
  [[ ! $nfs ]] || on_hosts all "set -e; sudo apt-get install -qq -y nfs-common;\
 sudo mkdir -p /mnt/mlcls; mountpoint -q /mnt/mlcls || sudo mount -t nfs$(quote "$nfs") /mnt/mlcls"
}

# What each host runs for `run`: it asks the machine's metadata for the hosts and its own number.
start() {
  local attributes=http://metadata.google.internal/computeMetadata/v1/instance/attributes
  local script
  script="set -eo pipefail; cd mlcls;
if test -f run.pid && kill -0 \$(cat run.pid) 2>/dev/null; then
  echo 'training runs already: stop it first' >&2; exit 1
fi
ask() { curl -sf -H 'Metadata-Flavor: Google' $attributes/\$1; }
# host,host or name:id:address,name:id:address
hosts=\$(ask worker-network-endpoints | tr , '\\n' | cut -d: -f3)
count=\$(echo \"\$hosts\" | wc -l)
set --
if test \$count -gt 1; then
  set -- --coordinator=\$(echo \"\$hosts\" | head -n 1):8476 --num_processes=\$count \\
    --process_id=\$(ask agent-worker-number)
fi
nohup env/bin/python launch/local.py --restarts=$restarts --$(quote "${flags[@]}") \"\$@\" \\
  >>run.log 2>&1 </dev/null &
echo \$! >run.pid"
  on_hosts all "$script" # all at once: one alone would wait for the others for ever
  warn
}

status() {
  run "${tpu[@]}" describe "$name" "${place[@]}" "--format=value(state,health)" || true
  run "${queue[@]}" describe "$name" "${place[@]}" "--format=value(state.state)" || true
  on_hosts all "kill -0 \$(cat mlcls/run.pid) && echo training runs; tail -n 3 mlcls/run.log" || true
}

delete() {
  # A queued machine goes with its queue entry, which would otherwise stay and count.
  if ! run "${queue[@]}" delete "$name" "${place[@]}" --force --quiet || [[ $dry_run ]]; then
    run "${tpu[@]}" delete "$name" "${place[@]}" --quiet # it was not queued
  fi
  echo "What still costs in this zone:" >&2
  run "${tpu[@]}" list "${place[@]}"
  run "${queue[@]}" list "${place[@]}"
}

case $action in
  create | queue | setup | status | delete) "$action" ;;
  run) start ;;
  up)
    create
    setup
    start
    ;;
  logs) on_hosts 0 "tail -n 100 -F mlcls/run.log" ;;
  stop) on_hosts all "kill -TERM \$(cat mlcls/run.pid)" ;;
  fetch)
    ((${#words[@]} == 3)) || fail "usage: launch/tpu_vm.sh fetch NAME FOLDER [options]"
    folder=${words[2]}
    [[ $folder == /* ]] || folder=mlcls/$folder
    run "${tpu[@]}" scp --recurse "$name:$folder" . "${place[@]}" --worker=0
    ;;
  *) fail "$action: no such command; see --help" ;;
esac
