#!/usr/bin/env bash
# A sweep on several nodes of a Slurm cluster: Ray runs on all of them for as long as the job does.
#     sbatch deploy/slurm.sh crawl.yaml [--FIELD VALUE ...]          more nodes: sbatch --nodes=8 deploy/slurm.sh crawl.yaml
# Submit it in a folder that all nodes share; the environment that has mtselect[ray] is active or lies there as .venv.
# A job that was requeued or ran out of time goes on from the store.
#SBATCH --job-name=mtselect
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --output=mtselect-%j.log
#SBATCH --requeue
#SBATCH --exclusive
set -euo pipefail
: "${1:?usage: sbatch deploy/slurm.sh SWEEP.yaml [--FIELD VALUE ...]}"
if [[ -d .venv ]]; then PATH=$PWD/.venv/bin:$PATH; fi
export PATH RAY_USAGE_STATS_ENABLED=0
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
address=${hosts%%$'\n'*}:6379
# The first node is Ray's head and runs the command as well; the others end with it.
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "${SLURM_GPUS_ON_NODE:-0}" -- \
    mtselect sweep "$@" --runtime.executor ray --runtime.address "$address"
