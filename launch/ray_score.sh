#!/usr/bin/env bash
# Start a Ray cluster over ssh, score on it with `mlcls score --engine=ray`, and stop the cluster.
#
#   launch/ray_score.sh gpu1,gpu2 -- --model_dir=/shared/best_model --input=/shared/images \
#     --output=/shared/scores
#
# What follows `--` are flags of `mlcls score`; bundle, input and output must be at the same paths on
# all machines. The first machine is the head of the cluster. Options, before `--`:
#   --dir=PATH     where the project lies on all machines; default: this folder
#   --python=PATH  Python there, with ray beside it; default: python
#   --port=N       port of the first machine at which all meet; default 6379
#   --restarts=N   start the job again if it was killed or the connection was lost, at most N times;
#                  default 3. It goes on with what is left to do.
#   --dry-run      print the commands, run nothing
# On a cluster that is there already, run on one of its machines:
#   mlcls score --engine=ray --address=auto --model_dir=... --input=... --output=...

set -euo pipefail

. "$(dirname "$0")/words.bash"

dir=$PWD python=python port=6379 restarts=3 dry_run='' list=''
while (($#)); do
  case $1 in
    --help | -h) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" && exit ;;
    --dir=*) dir=${1#*=} ;;
    --python=*) python=${1#*=} ;;
    --port=*) port=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --dry-run) dry_run=1 ;;
    --) shift && break ;;
    -*) fail "$1: no such option; flags of mlcls score come after --" ;;
    *) list=$1 ;;
  esac
  shift
done
[[ $list ]] || fail "no hosts: launch/ray_score.sh HOST,HOST -- --model_dir=... --input=..."
(($#)) || fail "nothing to run: give the flags of mlcls score after --"
[[ $restarts =~ ^[0-9]+$ ]] || fail "--restarts is a whole number"
IFS=, read -r -a hosts <<<"$list"
first=${hosts[0]#*@}

# Runs a command in the project's folder on a machine, or prints how.
on() {
  local host=$1 script
  shift
  script="cd$(quote "$dir") && exec$(quote "$@")"
  local command=(ssh -o BatchMode=yes -o ServerAliveInterval=30 "$host" "$script")
  if [[ $dry_run ]]; then
    local line
    line=$(quote "${command[@]}")
    echo "${line# }"
  else
    "${command[@]}" </dev/null
  fi
}

ray=("$python" -m ray.scripts.scripts)
job=''
trap 'kill "$job" 2>/dev/null || true
for host in "${hosts[@]}"; do
  on "$host" "${ray[@]}" stop || echo "ray_score.sh: $host: Ray may still be running" >&2
done' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

on "${hosts[0]}" "${ray[@]}" start --head "--port=$port" --disable-usage-stats
for host in "${hosts[@]:1}"; do
  on "$host" "${ray[@]}" start "--address=$first:$port" --disable-usage-stats
done
for ((restart = 0; ; restart++)); do
  code=0
  on "${hosts[0]}" "$python" -m mlcls_jax.main score --engine=ray "--address=$first:$port" "$@" &
  job=$! # in the background, since a signal ends wait, but not a command
  wait "$job" || code=$?
  ((code > 128 && code != 130)) || break
  ((restart < restarts)) || break
  echo "ray_score.sh: ended with $code; restart $((restart + 1)) of $restarts" >&2
done
exit "$code"
