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
#SBATCH --signal=B:TERM@120

# MLflow is written to by whoever sends the store's files later (calm-bench mlflow sync): many hosts must not share its
# file on a network folder.
export CALM_BENCH_SETTINGS="${CALM_BENCH_SETTINGS-execution.gpus_per_stage=1} tracking.enabled=false"
exec bash "${CALM_BENCH_SLURM:-$SLURM_SUBMIT_DIR/deploy/slurm}/one-node.sh" "$@"
