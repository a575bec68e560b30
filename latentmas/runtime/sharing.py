"""A system's ways to folders, the hub, and links of other systems."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from latentmas.redact import get_logger
from latentmas.runtime.checks import refuse
from latentmas.runtime.history import Score

if TYPE_CHECKING:
    from latentmas.io import LinkReport, RunRecorder
    from latentmas.runtime.result import RunResult
    from latentmas.runtime.system import System

__all__ = ["Sharing"]

log = get_logger("latentmas.runtime")


class Sharing:
    """Methods of `System` that forward to `latentmas.io`, which lies above."""

    def save_pretrained(self, folder: str | Path, *, scores: Sequence[Score] = ()) -> Path:
        """Write links, graph, prompts, training records and a model card (never backbones).

        All parts change at one moment: a crash leaves the old team whole, or the new one. What a
        person wrote into the card stays.

        Args:
            folder: where to; a saved team there is replaced, other files are left alone.
            scores: measured results for the card, beside those of earlier calls and of training.

        Raises:
            LatentMASError: the folder holds something else; LM513, a prompt holds a secret.
            OSError: it cannot be written.
        """
        from latentmas.io import save_system

        return save_system(self._system, folder, scores=scores)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, revision: str | None = None, **options: Any
    ) -> Self:
        """Load a team from a folder or the hub.

        Args:
            source: what `save_pretrained` wrote, or a repository of the hub.
            revision: branch, tag or commit of that repository.
            **options: of `latentmas.io.load_system`: `device`, `dtype`, `backbones` (others of
                equal width, by agent or source), `executor`, `text_functions`, `tools`, `reuse` (a
                system whose loaded backbones are taken), `token`.

        Raises:
            WeightsError: LM501 to LM503, LM511: why it is refused.
        """
        from latentmas.io import load_system

        return cast(Self, load_system(source, revision=revision, **options))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        token: str | None = None,
        scores: Sequence[Score] = (),
    ) -> str:
        """Push the team to the hub, in one commit.

        Args:
            repo_id: `owner/name`; made if it is not there.
            private: of a repository that is made; None leaves it to the hub.
            revision: a branch, made if it is not there; None: the main one.
            commit_message: None: "Upload team NAME".
            token: of the hub; None takes HF_TOKEN, or what `hf auth login` keeps. It is written
                nowhere.
            scores: as `save_pretrained`.

        Returns:
            The commit's id, for `from_pretrained(repo_id, revision=…)`.

        Raises:
            LatentMASError: LM511 when the hub does not take it; LM513, a prompt holds a secret.
        """
        from latentmas.io import push_system

        return push_system(
            self._system,
            repo_id,
            private=private,
            revision=revision,
            commit_message=commit_message,
            token=token,
            scores=scores,
        )

    def save_links(self, path: str | Path, *, only: str | Sequence[str] = "all") -> Path:
        """Write some links to one `.safetensors` file, which says by itself what they are.

        Args:
            path: of the file.
            only: `"inner"`, `"outer"`, `"all"`, or names: an agent (its inner link), an edge
                (`"planner->critic"`), the id of a link.

        Raises:
            UnknownNameError: a name is none of these.
        """
        from latentmas.io import save_links

        return save_links(self._system, path, only=only)

    def load_links(
        self,
        source: str | Path | System,
        *,
        only: str | Sequence[str] = "all",
        rename: Mapping[str, str] | None = None,
        strict: bool = False,
        revision: str | None = None,
        token: str | None = None,
    ) -> LinkReport:
        """Take links over from elsewhere where names, kinds and widths match: a warm start.

        Args:
            source: a file that `save_links` wrote, a saved team (folder or repository), or another
                system.
            only: which links of this system, as in `save_links`.
            rename: name here → name there, of links, agents or edges.
            strict: raise when one of `only` is not there or does not match; nothing is changed.
            revision: of a repository.
            token: of the hub.

        Returns:
            What was taken, what was not and why. Print it.

        Raises:
            WeightsError: LM502 or LM503 when the source cannot be read; LM501 with `strict`.
        """
        from latentmas.io import load_links

        return load_links(
            self._system,
            source,
            only=only,
            rename=rename,
            strict=strict,
            revision=revision,
            token=token,
        )

    def commits(self) -> dict[str, str]:
        """The hub's commit of each backbone that came from there, by key."""
        system = self._system
        found = {
            key: system.serving[backbone.agents[0]].commit
            for key, backbone in system.plan.backbones.items()
        }
        return {key: commit for key, commit in found.items() if commit is not None}

    def recorder(
        self,
        path: str | Path,
        *,
        data: str | Path | None = None,
        score: Callable[[RunResult], Mapping[str, Any]] | None = None,
    ) -> RunRecorder:
        """What `run(…, manifest=…)` takes in place of a path, to say more.

        Args:
            path: of the manifest.
            data: the file that the samples come from; without one they are kept in the manifest.
            score: makes scores of the result.
        """
        from latentmas.io import RunRecorder

        return RunRecorder(path, data=data, score=score)

    def _recorder(
        self,
        manifest: str | Path | RunRecorder | None,
        rows: Sequence[Mapping[str, Any]],
        arguments: Mapping[str, Any],
    ) -> RunRecorder | None:
        """What writes a run's manifest, once it has noted what is run."""
        if manifest is None:
            return None
        if isinstance(manifest, str | Path):
            manifest = self.recorder(manifest)
        if not hasattr(manifest, "begin"):
            raise refuse("manifest", manifest, "give a path, or what `system.recorder` makes")
        manifest.begin(self._system, rows, arguments)
        return manifest

    @staticmethod
    def _recorded(recorder: RunRecorder | None, result: RunResult) -> RunResult:
        """Write a run's manifest. A run that has finished is not lost when that fails."""
        if recorder is None:
            return result
        try:
            recorder.end(result)
        except Exception as error:  # a full disk, or a score of the caller's own
            log.error("the manifest %r could not be written: %s", str(recorder.path), error)
            return replace(result, manifest_error=error)
        return result

    @property
    def _system(self) -> System:
        return cast("System", self)
