#!/usr/bin/env bash
#SBATCH --job-name=mlcls
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
# Train under Slurm, one task a GPU, and go on after interruptions.
#
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 --cpus-per-task=8 --time=8:00:00 \
#     launch/slurm.sh -- --config=configs/lcnet.py --workdir=/shared/runs/demo
#
# What follows `--` are flags of `python -m mlcls_jax.main`, or a whole command. Options, before it:
#   --python=PATH  Python on the nodes; default: python
#   --restarts=N   requeue at most N times; default 3
#   --dry-run      print the commands, run nothing; needs no Slurm
# 120 s before the time limit, the tasks get SIGTERM: they save a checkpoint and end with 75. Then,
# and after a killed task, the job is queued again. A job that was cancelled saves and is not.

set -euo pipefail

fail() {
  echo "slurm.sh: $1" >&2
  exit 2
}

python=python restarts=3 dry_run=''
while (($#)); do
  case $1 in
    --help | -h) sed -n '/^# Train/,/^$/s/^# \{0,1\}//p' "$0" && exit ;;
    --python=*) python=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --dry-run) dry_run=1 ;;
    --) shift && break ;;
    *) fail "$1: no such option; flags of mlcls_jax.main come after --" ;;
  esac
  shift
done
(($#)) || fail "nothing to run: give the flags of mlcls_jax.main after --"
[[ $restarts =~ ^[0-9]+$ ]] || fail "--restarts is a whole number"
command=(srun --kill-on-bad-exit=1)
# srun does not take this one over from sbatch.
[[ ! ${SLURM_CPUS_PER_TASK:-} ]] || command+=("--cpus-per-task=$SLURM_CPUS_PER_TASK")
[[ $1 != -* ]] || command+=("$python" -m mlcls_jax.main)
command+=("$@")
if [[ $dry_run ]]; then
  printf '%q ' "${command[@]}"
  printf '\n# after exit code 75 or a killed task, at most %s times:\n' "$restarts"
  echo "scontrol requeue \"\$SLURM_JOB_ID\""
  exit
fi
[[ ${SLURM_JOB_ID:-} ]] || fail "not in a Slurm job: hand this script to sbatch, or use --dry-run"

interrupted='' cancelled=''
"${command[@]}" &
step=$!
trap 'interrupted=1; kill -TERM "$step"' USR1
trap 'interrupted=1 cancelled=1; kill -TERM "$step"' TERM INT
while :; do # a signal ends wait, not the step
  code=0
  wait "$step" || code=$?
  [[ $interrupted ]] || break
  interrupted=''
done
echo "slurm.sh: the tasks ended with $code" >&2
if [[ ! $cancelled ]] && ((code == 75 || (code > 128 && code != 130))); then
  if ((${SLURM_RESTART_COUNT:-0} < restarts)); then
    scontrol requeue "$SLURM_JOB_ID"
  else
    echo "slurm.sh: not queued again: that was restart $restarts of $restarts" >&2
  fi
fi
exit "$code"
