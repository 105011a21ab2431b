"""Official SDKs and other real parts, from their registries by the ordinary clients, each installed once.

What is installed lies in the tree's .cache under a name that holds a digest of the files that pin it (Maven's own
artifacts lie in the user's repository). Unavailable says why a part cannot be had here; its tests are then skipped."""
import fcntl
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
CACHE = os.path.join(TOP, ".cache", "sdk")
INSTALL_S = 600


class Unavailable(Exception):
    pass


def need(*commands):
    for command in commands:
        if not shutil.which(command):
            raise Unavailable("no %s on this machine" % command)


def run(argv, cwd=None):
    """Its output; Unavailable with the line that says most when it fails."""
    try:
        done = subprocess.run(argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        raise Unavailable("%s took longer than %d s" % (os.path.basename(argv[0]), INSTALL_S))
    if done.returncode != 0:
        text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
        lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no output"]
        telling = next((line for line in lines if re.search(r"\bERROR\b|^npm (error|ERR!)", line)), lines[-1])
        raise Unavailable("%s failed: %s" % (os.path.basename(argv[0]), re.sub(r"\w+://[^\s)]+", "(address)", telling)[:300]))
    return done.stdout


def digest(files, *more):
    sum_ = hashlib.sha256("\0".join(more).encode())
    for name in files:
        with open(name, "rb") as file:
            sum_.update(file.read())
    return sum_.hexdigest()[:16]


def once(name, key, make):
    """The directory of this name and key, filled by make(directory) unless an earlier run has done it."""
    os.makedirs(CACHE, exist_ok=True)
    directory = os.path.join(CACHE, "%s-%s" % (name, key))
    done = os.path.join(directory, ".complete")
    with open(os.path.join(CACHE, name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(done):
            shutil.rmtree(directory, ignore_errors=True)
            os.makedirs(directory)
            make(directory)
            open(done, "w").close()
    return directory


def python(requirements):
    """The interpreter of an environment that has them."""
    def make(directory):
        run([sys.executable, "-m", "venv", directory])
        run([os.path.join(directory, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
             "--no-deps", "-r", requirements])
    key = digest([requirements], sys.version, os.path.realpath(sys.executable), CACHE)
    return os.path.join(once("python", key, make), "bin", "python")


def node(directory):
    """A folder with node_modules as directory's package.json and lock file ask."""
    need("node", "npm")
    files = [os.path.join(directory, name) for name in ("package.json", "package-lock.json")]

    def make(target):
        for name in files:
            shutil.copy(name, target)
        run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1"], cwd=target)
    return once("node", digest(files, run(["node", "--version"])), make)


def jars(name, pom):
    """The class path of pom's dependencies."""
    need("mvn", "java")

    def resolve(target):
        shutil.copy(pom, target)
        run(["mvn", "-B", "-q", "-Dstyle.color=never", "dependency:build-classpath", "-Dmdep.outputFile=classpath"], cwd=target)

    def read(directory):
        with open(os.path.join(directory, "classpath")) as file:
            return file.read().strip()
    key = digest([pom])
    path = read(once(name, key, resolve))
    if not all(map(os.path.exists, path.split(os.pathsep))):  # the user's repository was emptied
        os.unlink(os.path.join(CACHE, "%s-%s" % (name, key), ".complete"))
        path = read(once(name, key, resolve))
    return path


def java(name, pom, sources):
    """The class path of pom's dependencies and of the sources, compiled."""
    need("javac")
    path = jars(name, pom)

    def compile_(target):
        done = subprocess.run(["javac", "-encoding", "UTF-8", "-Xlint:-options", "-d", target, "-cp", path, *sources],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stdout)
    classes = once(name + "-classes", digest([pom, *sources]), compile_)
    return classes + os.pathsep + path


def java_sources(directory):
    return sorted(glob.glob(os.path.join(directory, "*.java")))
