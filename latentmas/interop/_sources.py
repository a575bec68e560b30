"""Sources of a published role's files: a local folder or a repository on the Hub."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

from latentmas.errors import WeightsError
from latentmas.safe_data import read_json
from latentmas.spec import Backbone, DType

__all__ = ["FolderSource", "HubSource", "Source"]

LARGEST_JSON = 2**20


class Source(ABC):
    """Interface to the files of one role, or of the outer links."""

    name: str
    """Name for error messages."""

    @abstractmethod
    def files(self) -> frozenset[str]:
        """Names of the files at the top level."""

    @abstractmethod
    def path(self, name: str) -> Path:
        """Local path of a file, downloaded if missing; raises WeightsError on failure."""

    @abstractmethod
    def backbone(self, dtype: DType, *, trust_remote_code: bool) -> Backbone:
        """The model next to the link, as a graph declares it."""

    @abstractmethod
    def model_digest(self) -> str:
        """A digest that is equal for sources with the same model files."""

    def json(self, name: str) -> dict[str, Any]:
        """Read a JSON object; empty if the file does not exist."""
        if name not in self.files():
            return {}
        data = read_json(self.path(name), LARGEST_JSON)
        if not isinstance(data, dict):
            raise WeightsError(f"LM502 {self.name}: {name} is not a JSON object")
        return data

    def checked(self, name: object) -> str:
        """Check a file name from a manifest and return it.

        Raises:
            WeightsError: LM502 when it is not the plain name of an existing file.
        """
        if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0"):
            raise WeightsError(
                f"LM502 {self.name}: {name!r:.100} is not a plain file name; it is not read"
            )
        if name not in self.files():
            raise WeightsError(
                f"LM502 {self.name}: file {name!r:.100} does not exist; files: "
                f"{', '.join(sorted(self.files())) or 'none'}"
            )
        return name


def _is_model_file(name: str) -> bool:
    """Whether a file determines what the model computes: weights, configuration, tokenizer."""
    links = name.startswith(("adapter", "innerlink_config", "train_args"))
    kinds = (".safetensors", ".json", ".jinja", ".model", ".txt", ".bin")
    return name.endswith(kinds) and not links


class FolderSource(Source):
    """A folder of a downloaded release."""

    def __init__(self, root: Path, role: str) -> None:
        """Use the folder `root/role`.

        Raises:
            WeightsError: LM502 when it is not a folder inside `root`.
        """
        self.name = f"{root / role}"
        self.root, self.folder = root.resolve(), (root / role).resolve()
        if not self.folder.is_dir():
            there = sorted(path.name for path in root.iterdir() if path.is_dir())
            listing = ", ".join(there) or "none"
            raise WeightsError(f"LM502 {str(root)!r} has no folder {role!r}; it holds: {listing}")
        if not self.folder.is_relative_to(self.root):
            raise WeightsError(f"LM502 {self.name} points outside {str(root)!r}; it is not read")

    @cached_property
    def _files(self) -> frozenset[str]:
        return frozenset(path.name for path in self.folder.iterdir() if not path.is_dir())

    def files(self) -> frozenset[str]:
        """Names of the files in the folder."""
        return self._files

    def path(self, name: str) -> Path:
        """Path of the file, which must be inside the release."""
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.root):
            raise WeightsError(f"LM502 {self.name}: {name!r} points outside the release")
        if path.exists() and not path.is_file():
            raise WeightsError(f"LM502 {self.name}: {name!r} is not a regular file; it is not read")
        return path

    def backbone(self, dtype: DType, *, trust_remote_code: bool) -> Backbone:
        """The folder as a backbone."""
        return Backbone(str(self.folder), dtype=dtype, trust_remote_code=trust_remote_code)

    def model_digest(self) -> str:
        """Hash of the names and contents of the model files."""
        digest = hashlib.sha256()
        for name in sorted(filter(_is_model_file, self.files())):
            with self.path(name).open("rb") as file:
                digest.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
        return digest.hexdigest()


class HubSource(Source):
    """A repository on the Hub at one commit; each file is downloaded on first use."""

    def __init__(self, repository: str, revision: str | None) -> None:
        """Resolve `revision` (None: the main branch) to its current commit.

        Raises:
            WeightsError: LM502 when the Hub cannot be reached or has no such repository.
        """
        from huggingface_hub import HfApi

        self.name = self.repository = repository
        try:
            info = HfApi().model_info(repository, revision=revision, files_metadata=True)
        except Exception as error:  # the client's own errors and those of its HTTP library
            raise WeightsError(
                f"LM502 cannot look up {repository!r} on the Hub: {_first_line(error)}; to work "
                "offline, pass the folder of a downloaded release as `source`"
            ) from error
        self.revision = str(info.sha)
        self._infos = {file.rfilename: file for file in info.siblings or []}

    def files(self) -> frozenset[str]:
        """Names of the files at the top level of the repository."""
        return frozenset(name for name in self._infos if "/" not in name)

    def path(self, name: str) -> Path:
        """Path of the file in the Hub cache, downloaded if missing."""
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(self.repository, name, revision=self.revision))
        except Exception as error:  # as above
            raise WeightsError(
                f"LM502 cannot download {name!r} from {self.repository!r}: {_first_line(error)}"
            ) from error

    def backbone(self, dtype: DType, *, trust_remote_code: bool) -> Backbone:
        """The repository at its commit, as a backbone."""
        return Backbone(
            self.repository,
            revision=self.revision,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
        )

    def model_digest(self) -> str:
        """Hash of file names and the Hub's content ids; nothing is downloaded."""
        digest = hashlib.sha256()
        for name in sorted(filter(_is_model_file, self.files())):
            info = self._infos[name]
            content = info.lfs.sha256 if info.lfs else info.blob_id
            digest.update(f"{name}\0{content}".encode())
        return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]
