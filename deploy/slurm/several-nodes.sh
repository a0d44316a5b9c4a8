#!/bin/bash
# A study on several nodes that share the folder of its store:  sbatch deploy/slurm/several-nodes.sh k-ablation
# Ray is started on every node of the job by srun, and ends with it.
#SBATCH --job-name=calm-bench
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=4
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=calm-bench-%j.log
#SBATCH --signal=B:USR1@180

set -u
: "${CALM_BENCH_STORE:=$HOME/calm-bench}"
: "${CALM_BENCH_SETTINGS=execution.gpus_per_stage=1}"

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# One port for each job of a node.
port=$((20000 + SLURM_JOB_ID % 20000))
# Ray runs whatever it is sent: without a token, nobody joins and nobody is served.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0
# Ray counts the CPUs of the machine, whatever the job has of them; srun is told anew since Slurm 22.05.
cpus=${SLURM_CPUS_PER_TASK:-1}
export SRUN_CPUS_PER_TASK=$cpus
# Ray's servers do not hear SIGTERM, which Slurm sends to all processes of a job: without them workers are lost before
# they have saved, and the study waits for their answers in vain.
sheltered='import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
os.execvp(sys.argv[1], sys.argv[1:])'

run= again= ended=
trap 'again=yes ended=yes; [ -n "$run" ] && kill -TERM "$run" 2>/dev/null' USR1
# scancel and preemption tell all processes of the job, and the study hears it once.
trap 'ended=yes; [ -n "$run" ] && kill -TERM "$run" 2>/dev/null' TERM
srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap python -c "$sheltered" \
    ray start --head --port="$port" --num-cpus="$cpus" --include-dashboard=false --disable-usage-stats --block &
ray=($!)
for _ in $(seq 60); do
    [ -n "$ended" ] && break
    ray health-check --address "$head:$port" >/dev/null 2>&1 && break
    sleep 2
done
if [ -z "$ended" ] && [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" --overlap \
        python -c "$sheltered" ray start --address="$head:$port" --num-cpus="$cpus" --disable-usage-stats --block &
    ray+=($!)
fi

code=143
if [ -z "$ended" ]; then
    # shellcheck disable=SC2086
    calm-bench run "$@" --plain --store "$CALM_BENCH_STORE" execution.address="$head:$port" $CALM_BENCH_SETTINGS &
    run=$!
    # Told in the moment before, when there was nobody to pass it on to.
    [ -n "$ended" ] && kill -TERM "$run" 2>/dev/null
    wait "$run"
    code=$?
    while kill -0 "$run" 2>/dev/null; do
        wait "$run"
        code=$?
    done
fi
# srun ends its nodes' Ray at once where it is told to: at the end of this script Slurm would wait for it (KillWait).
kill "${ray[@]}" 2>/dev/null
for _ in $(seq 50); do
    kill -0 "${ray[@]}" 2>/dev/null || break
    sleep 0.2
done
if [ "$code" -eq 143 ] && [ -n "$again" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
