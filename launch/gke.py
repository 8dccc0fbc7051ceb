#!/usr/bin/env python3
"""Train on a TPU slice of a GKE cluster, as a JobSet.

    python launch/gke.py --name=demo --image=IMAGE --tpu=v5e --topology=4x4 \\
        --nfs=10.0.0.2:/share -- --config=configs/lcnet.py --workdir=/mnt/mlcls/demo

Asks `mlcls plan` whether the run fits, writes the manifest and hands it to `kubectl apply`;
--dry-run prints it, and the same as a command of XPK. What follows `--` are flags of
`python -m mlcls_jax.main`, or a whole command. Exit code 75 (a checkpoint was saved) starts a
host's pod again and does not count; 1, 2 and 70 end it all at once; anything else starts all pods
again, at most --restarts times.
"""

import argparse
import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

# Chip → (GKE's name for it, XPK's name for it, what XPK counts a chip as, most chips of one host).
TPUS = {
    "v4": ("tpu-v4-podslice", "v4", 2, 4),
    "v5e": ("tpu-v5-lite-podslice", "v5litepod", 1, 8),
    "v5p": ("tpu-v5p-slice", "v5p", 2, 4),
    "v6e": ("tpu-v6e-slice", "v6e", 1, 8),
}
CHIPS_OF_PODS = 4  # a host, in slices of several hosts

MANIFEST = """\
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: {name}
  annotations:
    # one slice to itself
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  network:
    enableDNSHostnames: true  # a headless service, by which the hosts find each other
    subdomain: {name}
  failurePolicy:
    maxRestarts: {restarts}
    rules:
      - action: FailJobSet  # a fault that would come again
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: slice
      replicas: 1
      template:
        spec:
          completions: {hosts}
          parallelism: {hosts}
          completionMode: Indexed
          backoffLimit: 0  # one lost host starts all of them again, by the policy above
          podFailurePolicy:
            rules:
              - action: Ignore  # interrupted, with a checkpoint
                onExitCodes:
                  containerName: main
                  operator: In
                  values: [75]
              - action: FailJob  # wrong configuration or data, wrong flag, fault of the program
                onExitCodes:
                  containerName: main
                  operator: In
                  values: [1, 2, 70]
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: 120  # time to save
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: {accelerator}
                cloud.google.com/gke-tpu-topology: {topology}
{spot}\
              containers:
                - name: main
                  image: {image}
                  command: {command}
                  resources:
                    requests: {{google.com/tpu: {chips_per_host}}}
                    limits: {{google.com/tpu: {chips_per_host}}}
{share}"""
SPOT = """\
                cloud.google.com/gke-spot: "true"
"""
SHARE = """\
                  volumeMounts:
                    - name: share
                      mountPath: /mnt/mlcls
              volumes:
                - name: share
                  nfs:
                    server: {server}
                    path: {path}
"""


def main(argv: list[str]) -> int:
    """Parse, write the manifest, apply it; returns the exit code."""
    at = argv.index("--") if "--" in argv else len(argv)
    own, given = argv[:at], argv[at + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="gke.py [options] -- FLAGS | COMMAND …", allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--name", required=True, help="of the job")
    parser.add_argument("--image", required=True, help="container image with mlcls_jax")
    parser.add_argument("--tpu", choices=TPUS, default="v5e", help="chip; default v5e")
    parser.add_argument("--topology", default="2x4", help="of the slice: 2x4 (default), 4x4, 2x2x2")
    parser.add_argument(
        "--chips_per_host", type=int, metavar="N", help="of the node pool; default: the usual"
    )
    parser.add_argument("--spot", action="store_true", help="nodes that may be taken away")
    parser.add_argument("--nfs", metavar="SERVER:/PATH", help="share to mount at /mnt/mlcls")
    parser.add_argument("--restarts", type=int, default=3, metavar="N", help="at most; default 3")
    parser.add_argument(
        "--no-plan", action="store_true", help="do not ask `mlcls plan` first whether the run fits"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    options = parser.parse_args(own)
    if not given:
        parser.error("nothing to run: give the flags of mlcls_jax.main after --")
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", options.name):
        parser.error("--name: small letters, digits and hyphens, at most 40, a letter first")
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", options.topology):
        parser.error(f"--topology={options.topology}: 2x4 or 2x2x2, for instance")
    if options.nfs and not re.fullmatch(r"[^:/]+:/.*", options.nfs):
        parser.error(f"--nfs={options.nfs}: must be SERVER:/PATH")
    chips = math.prod(int(n) for n in options.topology.split("x"))
    most = TPUS[options.tpu][3]
    chips_per_host = options.chips_per_host or (chips if chips <= most else CHIPS_OF_PODS)
    if chips % chips_per_host:
        parser.error(f"{chips} chips do not divide among hosts of {chips_per_host}")
    command = ["python", "-m", "mlcls_jax.main", *given] if given[0].startswith("-") else given

    manifest = render(options, command, hosts=chips // chips_per_host)
    if not options.no_plan and not options.dry_run and given[0].startswith("-"):
        _, name, count, _ = TPUS[options.tpu]
        planner = Path(__file__).with_name("plan.py")
        planned = subprocess.run([sys.executable, planner, f"{name}-{chips * count}", "--", *given])
        if planned.returncode:
            return planned.returncode
    if options.dry_run:
        print(f"kubectl apply --filename=- <<'END'\n{manifest}END")
        print(f"# the same by XPK:\n# {xpk_command(options, command, chips)}")
    else:
        done = subprocess.run(
            ["kubectl", "apply", "--filename=-"], input=manifest, text=True, check=False
        )
        if done.returncode:
            return done.returncode
    pods = f"--selector=jobset.sigs.k8s.io/jobset-name={options.name}"
    print(
        f"Follow it: kubectl logs --follow {pods}\n"
        f"End it:    kubectl delete jobset {options.name}\n"
        "The nodes cost money until their pool shrinks or is deleted.",
        file=sys.stderr,
    )
    return 0


def render(options: argparse.Namespace, command: list[str], *, hosts: int) -> str:
    """The manifest, YAML."""
    server, _, path = (options.nfs or "").partition(":")
    chips = math.prod(int(n) for n in options.topology.split("x"))
    share = SHARE.format(server=json.dumps(server), path=json.dumps(path)) if options.nfs else ""
    return MANIFEST.format(
        name=options.name,
        restarts=options.restarts,
        hosts=hosts,
        accelerator=TPUS[options.tpu][0],
        topology=options.topology,
        spot=SPOT if options.spot else "",
        image=json.dumps(options.image),
        # $(NAME) would be a variable of Kubernetes
        command=json.dumps([word.replace("$(", "$$(") for word in command]),
        chips_per_host=chips // hosts,
        share=share,
    )


def xpk_command(options: argparse.Namespace, command: list[str], chips: int) -> str:
    """The same for a cluster that XPK made."""
    _, name, count, _ = TPUS[options.tpu]
    return shlex.join(
        [
            "xpk", "workload", "create", "--cluster=CLUSTER", f"--workload={options.name}",
            f"--tpu-type={name}-{chips * count}", "--num-slices=1",
            f"--docker-image={options.image}", f"--max-restarts={options.restarts}",
            "--restart-on-exit-codes=75", f"--command={shlex.join(command)}",
        ]
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
