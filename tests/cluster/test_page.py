"""cluster/README.md: its commands parse, what they name is there, and those for one machine and for Slurm are run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest
import tyro

from proxyclip.pipeline.options import LabelOptions

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PAGE = (ROOT / "cluster" / "README.md").read_text()
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"^ *```sh\n(.*?)^ *```$", PAGE, re.DOTALL | re.MULTILINE)]
SLURM = """
ClusterName=test
SlurmctldHost=node1
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
NodeName=node1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
START_SLURM = """
hostname node1
mount --bind hosts /etc/hosts
ip link set lo up && ip addr add 10.99.0.1/24 dev lo
slurmctld -D > slurmctld.log 2>&1 &
slurmd -D > slurmd.log 2>&1 &
timeout 120 bash -c 'until sinfo --noheader --format=%T 2> /dev/null | grep --quiet idle; do sleep 0.2; done'
"""


def commands():
    """Every command of the page, in words; comments and pipes are cut off, and assignments before a command."""
    for block in BLOCKS:
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.strip("()"), comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):
                words.pop(0)
            for stop in ("&&", "|", "&", ">"):
                words = words[: words.index(stop)] if stop in words else words
            if words:
                yield words


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[0][:40])
def test_what_is_to_be_pasted_is_shell(block):
    run = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_files_and_programs_of_the_commands_are_there():
    all_words = [word for words in commands() for word in words]
    files = {word for word in all_words if re.match(r"(cluster|jobs|proxyclip)/[\w./]+$", word)}
    assert {"cluster/rayjob.yaml", "cluster/aws.yaml", "cluster/slurm.sh", "jobs/label.py"} <= files
    assert [name for name in files if not (ROOT / name).exists()] == []
    named = {path.name for path in (ROOT / "cluster").glob("*.*") if path.suffix in (".yaml", ".sh")}
    assert [name for name in named if name not in PAGE] == []


def test_the_options_of_our_jobs_are_there():
    jobs = [words for words in commands() if any(word.endswith(("jobs/label.py", "slurm.sh")) for word in words)]
    assert len(jobs) >= 4
    for words in jobs:
        (script,) = (place for place, word in enumerate(words) if word.endswith(("jobs/label.py", "slurm.sh")))
        read = tyro.cli(LabelOptions, args=words[script + 1 :], config=(tyro.conf.OmitArgPrefixes,))
        assert read.output != read.input


def test_the_options_of_ray_are_there():
    from ray.scripts.scripts import cli

    checked = [words[1:] for words in commands() if words[0] == "ray"]
    assert len(checked) >= 8
    for words in checked:
        group: click.Command = cli
        while isinstance(group, click.Group):
            name, *words = words
            group = group.commands[name]
        group.make_context(name, words)  # raises if there is no such option


@pytest.fixture
def checkout(tmp_path):
    """What a checkout has, in a folder of its own."""
    for name in ("proxyclip", "jobs", "cluster"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run_alone(script, checkout, *namespaces, **variables):
    """Run a script on a machine without a token and a cluster: namespaces give it ports and processes of its own."""
    alone = ["unshare", "--net", "--pid", "--fork", "--mount-proc", *namespaces, "bash", "-euo", "pipefail", "-c"]
    if subprocess.run([*alone, "ip link set lo up"], capture_output=True).returncode:
        pytest.skip("namespaces need privileges and the command ip")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_AUTH", "RAY_ADDRESS"))}
    env |= {"PATH": f"{BIN}:{env['PATH']}", "HOME": str(checkout), "PYTHONPATH": str(checkout)} | variables
    run = subprocess.run([*alone, script], cwd=checkout, env=env, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.slow
def test_the_commands_for_one_machine_work_as_they_are_pasted(checkout):
    section = PAGE.partition("## One machine, from nothing")[2]
    block = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[0]
    install, _, pasted = block.partition("\n")
    assert install.startswith("pip install -e")  # done by whoever runs the tests
    said = run_alone("ip link set lo up\n" + pasted, checkout)
    assert "6 of 6 images labelled, 0 failed" in said
    assert not (checkout / "ray.token").stat().st_mode & 0o077


@pytest.mark.slow
def test_the_script_for_slurm_labels_on_a_node(checkout):
    """On a real Slurm with one node, whose name and address exist in namespaces only."""
    for name in ("slurmctld", "slurmd", "sbatch"):
        if not shutil.which(name):
            pytest.skip("no Slurm found: apt-get install slurm-wlm slurm-wlm-basic-plugins")
    (checkout / "slurm.conf").write_text(SLURM.format(folder=checkout))
    (checkout / "hosts").write_text("127.0.0.1 localhost\n10.99.0.1 node1\n")
    for name in ("state", "spool", "venv/bin"):
        (checkout / name).mkdir(parents=True)
    (checkout / "venv" / "bin" / "activate").write_text(f"export PATH={BIN}:$PATH\n")
    job = "--input $PWD/photos --output $PWD/labels --preset demo --vocabulary proxyclip/demo/vocabulary.json"
    script = f"""{START_SLURM}
python -m proxyclip.demo.scenes photos --count 3
sbatch --wait --nodes=1 --output=log.txt cluster/slurm.sh {job} || {{ cat log.txt *.log; exit 1; }}
cat log.txt
ls -a
"""
    said = run_alone(
        script,
        checkout,
        "--uts",
        "--mount",
        SLURM_CONF=str(checkout / "slurm.conf"),
        PROXYCLIP_VENV=str(checkout / "venv"),
    )
    assert "3 of 3 images labelled, 0 failed" in said
    assert ".ray-token" not in said
