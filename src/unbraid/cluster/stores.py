"""Files in stores that fsspec knows, such as S3: fetched and put whole.

An address is anything with ``://`` in it. Everything else is a path of this machine's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from unbraid.apps.recordings import Origin
from unbraid.checkpoints.network import offline_switch
from unbraid.data.ranges import NOT_AFAR, connect
from unbraid.errors import AudioError, DataError, DiskError, DownloadError


def is_address(text: str) -> bool:
    """Whether this is the address of something in a store, not a path."""
    return "://" in text


def without_query(address: str) -> str:
    """An address of the web without what follows its path, which may be a signature.

    Others stay as they are: in their names ``?`` and ``#`` are characters like any other.

    >>> without_query("https://h/a.wav?sig=b/c"), without_query("s3://b/what?.wav")
    ('https://h/a.wav', 's3://b/what?.wav')
    """
    if not _is_of_the_web(address):
        return address
    return urlsplit(address)._replace(query="", fragment="").geturl()


def name_below(address: str, folder: str) -> PurePosixPath:
    """What a file is called below a folder of its store, and by its own name elsewhere.

    Addresses of the web are decoded.

    >>> name_below("https://h/in/a%20b/c.wav?x=/d", "https://h/in").as_posix()
    'a b/c.wav'
    >>> name_below("s3://other/c.wav", "s3://in").as_posix()
    'c.wav'
    """
    plain = without_query(address)
    base = without_query(folder).rstrip("/") + "/"
    text = plain.removeprefix(base) if plain.startswith(base) else plain.rpartition("/")[2]
    name = PurePosixPath(unquote(text) if _is_of_the_web(address) else text)
    # It must not lead out of the folder that results go to.
    is_inside = not name.is_absolute() and ".." not in name.parts
    return name if is_inside else PurePosixPath(name.name)


def origin_of(address: str) -> Origin:
    """What a store says about one of its files.

    The query of an address of the web is left out: a signature is another one tomorrow, and
    nobody else's business.

    Raises:
        AudioError: If there is no such file.
        DownloadError: If the store cannot be asked.
        DataError: If the network is forbidden.
        MissingExtra: If a package is missing that knows such an address.
    """
    store, path = _open(address)
    with _fetching(address):
        facts = store.info(path)
        if facts.get("type") == "directory":
            raise AudioError(f"{address}: is a folder, not a recording.")
        try:
            # In microseconds, which survive the way through a float.
            modified_ns = round(store.modified(path).timestamp() * 1e6) * 1000
        except (NotImplementedError, KeyError, AttributeError):
            modified_ns = 0  # this store keeps no time of change; the size has to do
    return Origin(without_query(address), int(facts.get("size") or 0), modified_ns)


def fetch(address: str, to: Path) -> None:
    """Copy a file from a store to this machine.

    Raises:
        AudioError, DownloadError, DataError, MissingExtra: As ``origin_of``.
    """
    store, path = _open(address)
    with _fetching(address):
        store.get_file(path, str(to))


def read(address: str) -> bytes | None:
    """All of a small file; None if there is none.

    Raises:
        DownloadError, DataError, MissingExtra: As ``origin_of``.
    """
    store, path = _open(address)
    try:
        content: bytes = store.cat_file(path)
    except FileNotFoundError:
        return None
    except Exception as error:  # each store has errors of its own
        raise DownloadError(f"{address}: cannot be fetched ({_reason(error)}).") from error
    return content


def exists(address: str) -> bool:
    """Whether there is such a file.

    Raises:
        DownloadError, DataError, MissingExtra: As ``origin_of``.
    """
    store, path = _open(address)
    with _fetching(address):
        return bool(store.exists(path))


def put(file: Path, address: str) -> None:
    """Copy a file of this machine into a store, over what is there.

    Raises:
        AudioError: If it cannot be written.
        DataError, MissingExtra: As ``origin_of``.
    """
    store, path = _open(address)
    with _putting(address):
        store.put_file(str(file), path)


def write(content: bytes, address: str) -> None:
    """Put a small file into a store, over what is there.

    Raises:
        AudioError, DataError, MissingExtra: As ``put``.
    """
    store, path = _open(address)
    with _putting(address):
        store.pipe_file(path, content)


def create(content: bytes, address: str) -> bool:
    """Put a small file into a store, unless one is there.

    Disks, the memory and S3 let one of several who try at once succeed. A store that does not
    know how may let two.

    Returns:
        Whether it was put there.

    Raises:
        AudioError, DataError, MissingExtra: As ``put``.
    """
    store, path = _open(address)
    try:
        with store.open(path, "xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    except Exception as error:
        raise _cannot_put(address, error) from error
    return True


def remove(address: str) -> None:
    """Remove a file, if it is there.

    Raises:
        AudioError, DataError, MissingExtra: As ``put``.
    """
    store, path = _open(address)
    try:
        store.rm_file(path)
    except FileNotFoundError:
        pass
    except Exception as error:
        raise _cannot_put(address, error) from error


def _is_of_the_web(address: str) -> bool:
    return urlsplit(address).scheme in ("http", "https")


def _open(address: str) -> tuple[Any, str]:
    scheme = urlsplit(address).scheme
    if scheme not in NOT_AFAR and (switch := offline_switch()):
        raise DataError(f"{address}: {switch} forbids the network; unset it, or use local files.")
    # A disk has folders, which have to be made; other stores have names only.
    return connect(address, **({"auto_mkdir": True} if scheme in ("file", "local") else {}))


@contextmanager
def _fetching(address: str) -> Iterator[None]:
    try:
        yield
    except AudioError:
        raise
    except FileNotFoundError as error:
        raise AudioError(f"{address}: there is no such file.") from error
    except Exception as error:  # each store has errors of its own
        raise DownloadError(f"{address}: cannot be fetched ({_reason(error)}).") from error


@contextmanager
def _putting(address: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each store has errors of its own
        raise _cannot_put(address, error) from error


def _cannot_put(address: str, error: Exception) -> DiskError:
    return DiskError(
        f"{address}: cannot be written ({_reason(error)}); check the address and your rights there."
    )


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__
