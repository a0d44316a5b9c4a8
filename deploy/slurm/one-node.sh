#!/bin/bash
# A study on one node, through as many time limits as it takes:  sbatch deploy/slurm/one-node.sh k-ablation
# Change what the #SBATCH lines ask for. What follows the script's name goes to "calm-bench run".
#SBATCH --job-name=calm-bench
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=calm-bench-%j.log
# To this script, two minutes before the time limit: long enough to save, and to ask for another turn.
#SBATCH --signal=B:USR1@120

set -u
: "${CALM_BENCH_STORE:=$HOME/calm-bench}"
: "${CALM_BENCH_SETTINGS=execution.gpus_per_stage=1}"

run= again=
# Before the time limit the shell is told, the study is not: it is passed on, and the shell waits for what the study
# still saves.
trap 'again=yes; [ -n "$run" ] && kill -TERM "$run" 2>/dev/null' USR1
# scancel and preemption tell all processes of the job, and the study hears it once.
trap '[ -n "$run" ] && kill -TERM "$run" 2>/dev/null' TERM
# shellcheck disable=SC2086
calm-bench run "$@" --plain --store "$CALM_BENCH_STORE" $CALM_BENCH_SETTINGS &
run=$!
wait "$run"
code=$?
while kill -0 "$run" 2>/dev/null; do
    wait "$run"
    code=$?
done
# Stopped before the time limit, and not at its end: the same command goes on in the same store. Whom scancel has ended
# is not to come back.
if [ "$code" -eq 143 ] && [ -n "$again" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
