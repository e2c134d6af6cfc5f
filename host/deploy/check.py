"""Checks the files of this folder, and the workflows, with their own linters. Run by `check`, which brings the linters."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import jsonschema
import promql_parser
from ruamel.yaml import YAML

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# The newest version of Kubernetes that the manifests are checked against: volumes from images are in it by default.
KUBERNETES = "v1.35.0-local-strict"
# Variables that Grafana fills in.
GRAFANA = {"$__rate_interval": "1m", "$__range": "30m", "$host": ".*"}

problems = []


def documents(path):
    """The documents of a YAML or JSON file, in YAML 1.2."""
    return [document for document in YAML(typ="safe", pure=True).load_all(path.read_text()) if document is not None]


def problem(where, what):
    problems.append(f"{where.relative_to(ROOT) if isinstance(where, pathlib.Path) else where}: {what}")


def run(*command):
    """Runs a linter; what it says about a failure is a problem."""
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        problem(command[0], f"{done.stdout}{done.stderr}".strip())


def package(name):
    return pathlib.Path(sys.modules["jsonschema"].__file__).parent.parent / name


def check_schema(path, document, schema, resolver=None):
    kind = jsonschema.validators.validator_for(schema)
    for error in kind(schema, resolver=resolver).iter_errors(document):
        problem(path, f"{'/'.join(map(str, error.absolute_path))}: {error.message}")


# --- container -------------------------------------------------------------------------------------------------------


def check_container():
    run("hadolint", "--failure-threshold", "info", HERE / "Dockerfile")
    compose = HERE / "compose.yaml"
    schema = json.loads((package("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text())
    for document in documents(compose):
        check_schema(compose, document, schema)


# --- workflows -------------------------------------------------------------------------------------------------------


def check_workflows():
    schema = json.loads((package("check_jsonschema") / "builtin_schemas/vendor/github-workflows.json").read_text())
    for path in sorted((ROOT / ".github/workflows").glob("*.y*ml")):
        for document in documents(path):
            check_schema(path, document, schema)
    run("zizmor", "--offline", "--no-progress", "--quiet", "--persona", "regular", ROOT / ".github/workflows")


# --- Kubernetes ------------------------------------------------------------------------------------------------------

# Resources of others that are not in Kubernetes's own schema: the fields that the manifests use, as their definitions have
# them.
TEXT, NUMBER = {"type": "string"}, {"type": "integer"}


def record(required, **properties):
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def listed(items):
    return {"type": "array", "minItems": 1, "items": items}


def resource(version, kind, spec):
    head = {"apiVersion": {"const": version}, "kind": {"const": kind}, "metadata": {"type": "object"}}
    return record(["apiVersion", "kind", "metadata", "spec"], **head, spec=spec)


TEXTS = {"type": "object", "additionalProperties": TEXT}
OTHERS = {
    "ScaledObject": resource(
        "keda.sh/v1alpha1",
        "ScaledObject",
        record(
            ["scaleTargetRef", "triggers"],
            scaleTargetRef=record(["name"], apiVersion=TEXT, kind=TEXT, name=TEXT),
            minReplicaCount=NUMBER,
            maxReplicaCount=NUMBER,
            pollingInterval=NUMBER,
            cooldownPeriod=NUMBER,
            fallback=record(["failureThreshold", "replicas"], failureThreshold=NUMBER, replicas=NUMBER),
            triggers=listed(
                record(
                    ["type", "metadata"],
                    type={"const": "prometheus"},
                    metricType={"enum": ["AverageValue", "Value"]},
                    metadata={**TEXTS, "required": ["serverAddress", "query", "threshold"]},
                )
            ),
        ),
    ),
    "ServiceMonitor": resource(
        "monitoring.coreos.com/v1",
        "ServiceMonitor",
        record(
            ["selector", "endpoints"],
            selector=record(["matchLabels"], matchLabels=TEXTS),
            endpoints=listed(
                record(
                    ["port"],
                    port=TEXT,
                    path=TEXT,
                    interval={"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
                    authorization=record([], type=TEXT, credentials=record(["name", "key"], name=TEXT, key=TEXT)),
                )
            ),
        ),
    ),
    "Kustomization": record(
        ["apiVersion", "kind", "resources"],
        apiVersion={"const": "kustomize.config.k8s.io/v1beta1"},
        kind={"const": "Kustomization"},
        resources=listed(TEXT),
        images=listed(record(["name"], name=TEXT, newName=TEXT, newTag=TEXT)),
        patches=listed(record(["target", "patch"], target=TEXTS, patch=TEXT)),
    ),
}


def kubernetes_schema(document):
    group, _, version = document["apiVersion"].rpartition("/")
    name = "-".join(part for part in [document["kind"].lower(), group.split(".")[0], version] if part)
    return package("kubernetes_validate") / "kubernetes-json-schema" / KUBERNETES / f"{name}.json"


def check_resource(path, document, definitions):
    if document["kind"] in OTHERS:
        check_schema(path, document, OTHERS[document["kind"]])
        return
    file = kubernetes_schema(document)
    if not file.exists():
        problem(path, f"there is no schema {file.name} for {document['apiVersion']} {document['kind']}")
        return
    schema = json.loads(file.read_text())
    store = {"https://kubernetes.io/api/_definitions.json": definitions}
    check_schema(path, document, schema, jsonschema.RefResolver.from_schema(schema, store=store))


def apply(patch, document):
    """Applies a JSON patch of `test` and `replace`, in place."""
    for step in YAML(typ="safe", pure=True).load(patch):
        *parents, last = [int(part) if part.isdigit() else part for part in step["path"].strip("/").split("/")]
        place = document
        for part in parents:
            place = place[part]
        if step["op"] == "test" and place[last] != step["value"]:
            raise ValueError(f"{step['path']} is {place[last]!r} and not {step['value']!r}")
        if step["op"] == "replace":
            place[last] = step["value"]


def check_kubernetes():
    definitions = json.loads(
        (package("kubernetes_validate") / "kubernetes-json-schema" / KUBERNETES / "_definitions.json").read_text()
    )
    for path in sorted((HERE / "kubernetes").rglob("*.yaml")):
        for document in documents(path):
            check_resource(path, document, definitions)
            for name in document.get("resources", []):
                if not (path.parent / name).exists():
                    problem(path, f"there is no {name}")
            for patch in document.get("patches", []):
                [deployment] = documents(HERE / "kubernetes/deployment.yaml")
                try:
                    apply(patch["patch"], deployment)
                except (ValueError, KeyError, IndexError) as error:
                    problem(path, f"the patch does not fit the deployment: {error}")
                check_resource(path, deployment, definitions)


# --- Prometheus and Grafana ------------------------------------------------------------------------------------------


def alerts():
    for document in documents(HERE / "prometheus/alerts.yml"):
        for group in document["groups"]:
            for rule in group["rules"]:
                yield f"alert {rule['alert']}", rule["expr"]


def dashboard():
    [board] = documents(HERE / "grafana/host.json")
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]
    for note in board["annotations"]["list"]:
        yield f"annotation {note['name']}", note["expr"]


def autoscalers():
    for document in documents(HERE / "kubernetes/autoscaling/keda.yaml"):
        for trigger in document["spec"]["triggers"]:
            yield "keda.yaml", trigger["metadata"]["query"]
    for document in documents(HERE / "kubernetes/autoscaling/hpa.yaml"):
        for metric in document["spec"]["metrics"]:
            yield "hpa.yaml", metric["external"]["metric"]["name"]


def selectors(node):
    """The metrics that an expression asks for."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "param", "vector_selector", "vs"):
        below = getattr(node, name, None)
        if below is not None and not isinstance(below, (str, float)):
            yield from selectors(below)
    for below in getattr(node, "args", None) or []:
        yield from selectors(below)


def check_queries():
    for where, expression in [*alerts(), *dashboard(), *autoscalers()]:
        for variable, value in GRAFANA.items():
            expression = expression.replace(variable, value)
        try:
            parsed = promql_parser.parse(expression)
        except ValueError as error:
            problem(where, f"{error}: {expression}")
            continue
        if not any(selectors(parsed)):
            problem(where, f"asks for no metric: {expression}")


def check_prometheus():
    check_queries()
    [settings] = documents(HERE / "prometheus/prometheus.yml")
    for name in settings["rule_files"]:
        if not (HERE / "prometheus" / name).exists():
            problem(HERE / "prometheus/prometheus.yml", f"there is no {name}")


# --- linters of the system, which need root to be installed ----------------------------------------------------------


def check_unit():
    unit = HERE / "systemd/host.service"
    # The unit as it is installed, with a program that exists here.
    with tempfile.TemporaryDirectory() as folder:
        installed = pathlib.Path(folder) / "host.service"
        text = unit.read_text()
        installed.write_text(text.replace("/usr/local/bin/host", "/bin/true"))
        # An unknown key is only a warning for it.
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", installed], capture_output=True, text=True, check=False
        )
        for line in (done.stdout + done.stderr).splitlines():
            if installed.name in line:
                problem(unit, line)
        # 0 is no exposure, 10 is all there is.
        run("systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", installed)


def check_rules():
    run("promtool", "check", "rules", HERE / "prometheus/alerts.yml")
    run("promtool", "test", "rules", HERE / "prometheus/alerts.test.yml")


OPTIONAL = {
    "systemd-analyze": (check_unit, "systemd", "systemd/host.service"),
    "promtool": (check_rules, "prometheus", "prometheus/alerts.yml and its cases"),
}


def check_all():
    for check in (check_container, check_workflows, check_kubernetes, check_prometheus):
        check()
    for program, (check, name, files) in OPTIONAL.items():
        if shutil.which(program):
            check()
        else:
            print(f"check: {files}: not checked by {program}, which is not here (package {name}, needs root)")
    # What only a daemon or a cluster can do is not done here.
    print("check: not checked here: the build of the image, and what a cluster says to the manifests")


def main():
    check_all()
    for text in problems:
        print(f"check: {text}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
