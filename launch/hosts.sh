#!/usr/bin/env bash
# Train on several machines over ssh, one process a machine, and go on after interruptions.
#
#   launch/hosts.sh gpu1,gpu2 -- --config=configs/lcnet.py --workdir=/shared/runs/demo
#
# What follows `--` are flags of `python -m mlcls_jax.main`, or a whole command; each process also
# gets --coordinator, --num_processes and --process_id. Options, before `--`:
#   --dir=PATH      where the project lies on all machines; default: this folder
#   --python=PATH   Python there; default: python
#   --port=N        port of the first machine at which all meet; default 8476
#   --logs=DIR      also write what each machine prints to DIR/HOST.log
#   --restarts=N    start all again after exit code 75 (a checkpoint was saved), a killed process or
#                   a lost connection, at most N times; default 3
#   --grace=SECONDS how long the others may take to end once one has failed; default 60
#   --dry-run       print the commands, run nothing
# The exit code is that of the first machine to fail. SIGTERM and SIGINT are passed on as SIGTERM, as
# is the loss of the connection, so that nothing is left running.

set -euo pipefail

. "$(dirname "$0")/words.bash"

dir=$PWD python=python port=8476 logs='' restarts=3 grace=60 dry_run='' list=''
while (($#)); do
  case $1 in
    --help | -h) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" && exit ;;
    --dir=*) dir=${1#*=} ;;
    --python=*) python=${1#*=} ;;
    --port=*) port=${1#*=} ;;
    --logs=*) logs=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --grace=*) grace=${1#*=} ;;
    --dry-run) dry_run=1 ;;
    --) shift && break ;;
    -*) fail "$1: no such option; flags of mlcls_jax.main come after --" ;;
    *) list=$1 ;;
  esac
  shift
done
[[ $list ]] || fail "no hosts: launch/hosts.sh HOST,HOST -- --config=... --workdir=..."
(($#)) || fail "nothing to run: give the flags of mlcls_jax.main after --"
[[ $restarts =~ ^[0-9]+$ && $grace =~ ^[0-9]+$ ]] || fail "--restarts and --grace are whole numbers"
IFS=, read -r -a hosts <<<"$list"
command=("$@")
[[ $1 != -* ]] || command=("$python" -m mlcls_jax.main "$@")
first=${hosts[0]#*@}

# What machine number $1 runs. It sends SIGTERM to the process when its standard input ends, which
# is how it learns that it should stop, or that this launcher is gone.
remote_command() {
  local flags=("--coordinator=$first:$port" "--num_processes=${#hosts[@]}" "--process_id=$1")
  local script
  script="cd$(quote "$dir") || exit 2; exec 3<&0;$(quote "${command[@]}" "${flags[@]}") & main=\$!;"
  script+=" { cat <&3; kill -TERM \$main; sleep $grace; kill -KILL \$main; } >/dev/null 2>&1 &"
  script+=" guard=\$!; wait \$main; code=\$?; kill \$guard; exit \$code"
  echo "exec bash -c$(quote "$script")"
}

ssh_command=(ssh -o BatchMode=yes -o ServerAliveInterval=30)
if [[ $dry_run ]]; then
  echo "alive=\$(mktemp -u) && mkfifo \"\$alive\" && exec 9<>\"\$alive\" # to stop all: exec 9>&-"
  for i in "${!hosts[@]}"; do
    line=$(quote "${ssh_command[@]}" "${hosts[i]}" "$(remote_command "$i")")
    echo "${line# } <\"\$alive\" 9>&- &"
  done
  echo wait
  exit
fi

# Copies lines to our output with the host's name, and to its log.
copy_lines() {
  local line
  while IFS= read -r line; do
    printf '[%s] %s\n' "$1" "$line"
    [[ ! $logs ]] || printf '%s\n' "$line" >>"$logs/$1.log"
  done
}

[[ ! $logs ]] || mkdir -p "$logs"
pipes=$(mktemp -d)
trap 'rm -rf "$pipes"' EXIT
mkfifo "$pipes/alive" "$pipes/ended"
exec 8<>"$pipes/ended" # lines "machine code", in the order in which they end
stop_all() { exec 9>&-; }
stopping=''
trap 'stopping=1; stop_all' TERM INT

# Runs all machines to their end; sets failed and code to those of the first to fail, or '' and 0.
run_once() {
  local i machine ended_with running=${#hosts[@]} deadline=''
  failed='' code=0
  exec 9<>"$pipes/alive" # all read from it, none gets anything, until we close it
  for i in "${!hosts[@]}"; do
    {
      ended_with=0
      "${ssh_command[@]}" "${hosts[i]}" "$(remote_command "$i")" <"$pipes/alive" || ended_with=$?
      echo "$i $ended_with" >&8
    } 2>&1 9>&- | copy_lines "${hosts[i]}" 9>&- &
  done
  [[ ! $stopping ]] || stop_all # it came before we opened the pipe
  while ((running)); do
    if read -r -t 1 machine ended_with <&8; then
      running=$((running - 1))
      if ((ended_with)) && [[ ! $failed ]]; then
        failed=${hosts[machine]} code=$ended_with deadline=$((SECONDS + grace))
        ((code == 75)) || stop_all # after 75 the others are about to save and end as well
      fi
    elif [[ $deadline ]] && ((SECONDS > deadline)); then
      stop_all
    fi
  done
  wait
}

for ((restart = 0; ; restart++)); do
  run_once
  [[ ! $failed ]] || echo "hosts.sh: $failed ended with $code" >&2
  ((code == 75 || (code > 128 && code != 130))) || break
  if [[ $stopping ]] || ((restart == restarts)); then break; fi
  echo "hosts.sh: restart $((restart + 1)) of $restarts" >&2
done
exit "$code"
