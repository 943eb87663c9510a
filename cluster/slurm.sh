#!/usr/bin/env bash
# Label on the nodes of a Slurm allocation: Ray starts on each of them, runs the job and stops with it.
#   sbatch --gpus-per-node=1 cluster/slurm.sh --input /shared/photos --output /shared/labels --vocabulary voc21 \
#     --num-gpus 1
#SBATCH --job-name=proxyclip
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

# Slurm runs a copy of this file, in the folder in which sbatch was called: a checkout on a disk that all nodes share.
cd "${SLURM_SUBMIT_DIR:?start this with sbatch}"
# shellcheck source=/dev/null
source "${PROXYCLIP_VENV:-.venv}/bin/activate"

# A token of this job's own, which nobody else on the nodes can read.
token=$PWD/.ray-token-$SLURM_JOB_ID
trap 'rm -f "$token"' EXIT
(umask 077 && python -c "import secrets; print(secrets.token_hex(32))" > "$token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600  # seconds; environments on shared disks start slowly

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}'):6379
export RAY_ADDRESS=$address

srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
  ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" --disable-usage-stats \
  --num-cpus="$SLURM_CPUS_ON_NODE" -- \
  python jobs/label.py "$@"
