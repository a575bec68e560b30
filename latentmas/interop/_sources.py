"""Where the files of a published role are: a local folder, or a repository of the hub."""

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
    """Interface: the files of one role, or of the outer links."""

    name: str
    """For messages."""

    @abstractmethod
    def files(self) -> frozenset[str]:
        """Names of the files at the top."""

    @abstractmethod
    def path(self, name: str) -> Path:
        """A local path of one file, fetched if need be (WeightsError when it cannot be had)."""

    @abstractmethod
    def backbone(self, dtype: DType, *, trust_remote_code: bool) -> Backbone:
        """The model beside the link, as declared in a graph."""

    @abstractmethod
    def model_digest(self) -> str:
        """Equal for sources with the same model files."""

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object; empty when there is no such file."""
        if name not in self.files():
            return {}
        data = read_json(self.path(name), LARGEST_JSON)
        if not isinstance(data, dict):
            raise WeightsError(f"LM502 {self.name}: {name} holds no object")
        return data

    def checked(self, name: object) -> str:
        """A file name from a manifest.

        Raises:
            WeightsError: LM502 when it is no plain name of a file that is there.
        """
        if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0"):
            raise WeightsError(
                f"LM502 {self.name}: {name!r:.100} is no plain file name; it is not read"
            )
        if name not in self.files():
            raise WeightsError(
                f"LM502 {self.name}: there is no file {name!r:.100}; there are: "
                f"{', '.join(sorted(self.files())) or 'none'}"
            )
        return name


def _is_model_file(name: str) -> bool:
    """Whether a file says what the model computes: weights, configuration, tokenizer."""
    links = name.startswith(("adapter", "innerlink_config", "train_args"))
    kinds = (".safetensors", ".json", ".jinja", ".model", ".txt", ".bin")
    return name.endswith(kinds) and not links


class FolderSource(Source):
    """A folder of a downloaded release."""

    def __init__(self, root: Path, role: str) -> None:
        """Take `root/role`.

        Raises:
            WeightsError: LM502 when it is no folder inside `root`.
        """
        self.name = f"{root / role}"
        self.root, self.folder = root.resolve(), (root / role).resolve()
        if not self.folder.is_dir():
            there = sorted(path.name for path in root.iterdir() if path.is_dir())
            listing = ", ".join(there) or "none"
            raise WeightsError(f"LM502 {str(root)!r} has no folder {role!r}; it holds: {listing}")
        if not self.folder.is_relative_to(self.root):
            raise WeightsError(f"LM502 {self.name} leads out of {str(root)!r}; it is not read")

    @cached_property
    def _files(self) -> frozenset[str]:
        return frozenset(path.name for path in self.folder.iterdir() if not path.is_dir())

    def files(self) -> frozenset[str]:
        """Names of the files in the folder."""
        return self._files

    def path(self, name: str) -> Path:
        """The file, which must be inside the release."""
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.root):
            raise WeightsError(f"LM502 {self.name}: {name!r} leads out of the release")
        if path.exists() and not path.is_file():
            raise WeightsError(f"LM502 {self.name}: {name!r} is no regular file; it is not read")
        return path

    def backbone(self, dtype: DType, *, trust_remote_code: bool) -> Backbone:
        """The folder as a backbone."""
        return Backbone(str(self.folder), dtype=dtype, trust_remote_code=trust_remote_code)

    def model_digest(self) -> str:
        """Hash over names and contents."""
        digest = hashlib.sha256()
        for name in sorted(filter(_is_model_file, self.files())):
            with self.path(name).open("rb") as file:
                digest.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
        return digest.hexdigest()


class HubSource(Source):
    """A repository of the hub at one commit; files are fetched one by one, when needed."""

    def __init__(self, repository: str, revision: str | None) -> None:
        """Find the commit that `revision` (None: the main branch) is now.

        Raises:
            WeightsError: LM502 when the hub cannot be reached or has no such repository.
        """
        from huggingface_hub import HfApi

        self.name = self.repository = repository
        try:
            info = HfApi().model_info(repository, revision=revision, files_metadata=True)
        except Exception as error:  # the client's own, and those of the HTTP library below it
            raise WeightsError(
                f"LM502 cannot look up {repository!r} on the hub: {_first_line(error)}; give "
                "`source`, a folder with a downloaded release, to work without a network"
            ) from error
        self.revision = str(info.sha)
        self._infos = {file.rfilename: file for file in info.siblings or []}

    def files(self) -> frozenset[str]:
        """Names of the repository's files at the top."""
        return frozenset(name for name in self._infos if "/" not in name)

    def path(self, name: str) -> Path:
        """The file in the hub's cache, downloaded if it is not there."""
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(self.repository, name, revision=self.revision))
        except Exception as error:  # as above
            raise WeightsError(
                f"LM502 cannot fetch {name!r} of {self.repository!r}: {_first_line(error)}"
            ) from error

    def backbone(self, dtype: DType, *, trust_remote_code: bool) -> Backbone:
        """The repository at its commit."""
        return Backbone(
            self.repository,
            revision=self.revision,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
        )

    def model_digest(self) -> str:
        """Hash over names and the hub's content ids; nothing is downloaded."""
        digest = hashlib.sha256()
        for name in sorted(filter(_is_model_file, self.files())):
            info = self._infos[name]
            content = info.lfs.sha256 if info.lfs else info.blob_id
            digest.update(f"{name}\0{content}".encode())
        return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]
