#!/bin/bash
# Several drivers of one study, each on a node of its own, that share its stages through the store's leases:
#   sbatch --array=0-7 deploy/slurm/array.sh k-ablation
# Each comes when Slurm has a node for it, and may go at any time.
#SBATCH --job-name=calm-bench
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=calm-bench-%A-%a.log
#SBATCH --signal=B:USR1@120

export CALM_BENCH_SETTINGS="${CALM_BENCH_SETTINGS-execution.gpus_per_stage=1}"
# Many hosts must not share MLflow's file on a network folder: without a server, whoever runs "calm-bench mlflow sync"
# later sends what the store holds.
case "${MLFLOW_TRACKING_URI:-}" in
    http://* | https://* | postgresql*) ;;
    *) CALM_BENCH_SETTINGS+=" tracking.enabled=false" ;;
esac
exec bash "${CALM_BENCH_SLURM:-$SLURM_SUBMIT_DIR/deploy/slurm}/one-node.sh" "$@"
