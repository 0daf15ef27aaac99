"""Check Kubernetes objects against the API's own schemas. Run by .venv-deploy's Python: validate.py VERSION FILE...

Strict: a field that no schema knows is an error. The Prometheus Operator's objects are checked against its types.
Prints one line per fault, and how many objects it looked at; exit code 1 if there was a fault.
"""

import sys
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1 as operator

OPERATOR = {"PodMonitor": operator.PodMonitor, "PrometheusRule": operator.PrometheusRule}


def strict(schema: Any) -> Any:
    """The same schema, which takes no other properties than it names."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: strict(part) for name, part in schema.items()}
    if "properties" in closed and closed.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    if isinstance(closed.get("pattern"), str):
        # Go takes (?i) anywhere; Python wants it first.
        closed["pattern"] = closed["pattern"].replace("^(?i)", "(?i)^")
    return closed


def faults(document: dict[str, Any], version: str) -> Iterator[str]:
    if document["apiVersion"].startswith("monitoring.coreos.com/"):
        schema = strict(OPERATOR[document["kind"]].model_json_schema(by_alias=True))
        for error in jsonschema.Draft202012Validator(schema).iter_errors(document):
            yield f"{error.json_path}: {error.message[:300]}"
        return
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{'.'.join(str(part) for part in error.path)}: {error.message[:300]}"


def main(version: str, paths: list[str]) -> int:
    seen = bad = 0
    for path in paths:
        with open(path, encoding="utf-8") as file:
            for document in yaml.safe_load_all(file):
                if document is None:
                    continue
                seen += 1
                for fault in faults(document, version):
                    bad += 1
                    print(f"{document['kind']} {document['metadata']['name']}: {fault}")
    print(f"{seen} objects, {bad} faults, Kubernetes {version}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
