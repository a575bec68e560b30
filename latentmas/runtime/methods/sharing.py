"""A system's ways to folders, the hub, links of other systems, and its text twin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from latentmas.arguments import refuse, whole
from latentmas.errors import missing_attribute
from latentmas.redact import get_logger
from latentmas.runtime.history import Score
from latentmas.runtime.methods.adapters import share_adapters
from latentmas.spec import Graph

if TYPE_CHECKING:
    from torch import Tensor

    from latentmas.io import LinkReport, RunRecorder
    from latentmas.runtime.options import RunRequest
    from latentmas.runtime.result import RunResult
    from latentmas.runtime.system import System

__all__ = ["Sharing", "load_beside"]

log = get_logger("latentmas.runtime")


_ELSEWHERE = {
    "generate": "call system.run(samples)",
    "chat": "call system.run(samples), or `latentmas run TEAM --chat`",
    "fit": "use a trainer, such as lm.OuterTrainer(system, config, train_dataset=rows).train()",
    "save": "call system.save_pretrained(folder)",
    "summary": "call system.plan.summary()",
    "draw": "call system.plan.draw(path)",
    "graph": "read system.plan.graph",
    "rounds": "read system.plan.graph.rounds; for one run: system.run(samples, rounds=…)",
    "latent_steps": "read system.plan.graph.latent_steps; for one run: "
    "system.run(samples, latent_steps=…)",
    "agents": "read system.plan.graph.agents",
    "add_agent": "a system is fixed; change the graph and load its plan again",
    "connect": "a system is fixed; change the graph and load its plan again",
}
"""Attribute that a system lacks → what to write in its place."""


class Sharing:
    """Methods of `System` that forward to `latentmas.io`, which lies above; and `text_twin`."""

    def text_twin(self, *, max_new_tokens: int | None = None) -> System:
        """The same team talking in text, on the same loaded backbones: no weights are loaded.

        The twin shares this system's backbones as they are, with their devices and dtypes, and its
        tools, text functions and default executor. Moving either of the two moves both.

        Args:
            max_new_tokens: most tokens that an agent without a limit of its own writes a turn.

        Returns:
            A system of the graph that `Graph.as_text` makes. It has no links.

        Raises:
            LatentMASError: `max_new_tokens` is not a whole number of at least 1.
        """
        system = self._system
        if max_new_tokens is not None:
            max_new_tokens = whole("max_new_tokens", max_new_tokens)
        graph = Graph.from_spec(system.plan.graph)
        return load_beside(system, graph.as_text(max_new_tokens=max_new_tokens))

    def link_state(self) -> dict[str, Tensor]:
        """Weights of all links by `link id.parameter`, as they are written to files."""
        system = self._system
        return {
            f"{id}.{name}": tensor
            for id in system.link_ids()
            for name, tensor in system.link(id).state_dict().items()
        }

    def save_pretrained(self, folder: str | Path, *, scores: Sequence[Score] = ()) -> Path:
        """Write links, graph, prompts, training records and a model card (never backbones).

        All parts change at one moment: a crash leaves the old team whole, or the new one. What a
        person wrote into the card stays.

        Args:
            folder: where to; a saved team there is replaced, other files are left alone.
            scores: measured results for the card, beside those of earlier calls and of training.

        Raises:
            LatentMASError: the folder holds something else; LM513, a prompt holds a secret.
            DataError: it cannot be written; the error is an OSError as well.
        """
        from latentmas.io import save_system

        return save_system(self._system, folder, scores=scores)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, revision: str | None = None, **options: Any
    ) -> Self:
        """Load a team from a folder or the hub.

        Args:
            source: Folder that `save_pretrained` wrote, or a repository on the Hub.
            revision: Branch, tag or commit of the repository.
            **options: Options of `latentmas.io.load_system`: `device`, `dtype`, `backbones`
                (replacements of equal width, by agent or source), `executor`, `text_functions`,
                `tools`, `models` (NAME → (model, tokenizer), for backbones `given:NAME`), `reuse`
                (a system whose loaded backbones are shared), `token`.

        Raises:
            WeightsError: LM501 to LM503 or LM511, the team cannot be loaded; the message says why.
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
            repo_id: Repository, as `owner/name`; created if missing.
            private: Whether a new repository is private; None uses the Hub's default.
            revision: Branch, created if missing; None uses the main branch.
            commit_message: Commit message; None uses "Upload team NAME".
            token: Hub access token; None uses HF_TOKEN or the one that `hf auth login` stored. It
                is not saved.
            scores: Scores to save with the team, as for `save_pretrained`.

        Returns:
            The commit's id, for `from_pretrained(repo_id, revision=…)`.

        Raises:
            LatentMASError: LM511, the Hub refuses the upload; LM513, a prompt contains a secret.
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
        """Write some links to one self-describing `.safetensors` file.

        Args:
            path: File to write.
            only: `"inner"`, `"outer"`, `"all"`, or names of agents (for their inner links), edges
                (`"planner->critic"`) or links.

        Raises:
            UnknownNameError: A name is unknown.
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
        """Load links whose names, kinds and widths match from elsewhere, for a warm start.

        Args:
            source: File that `save_links` wrote, a saved team (folder or repository), or another
                system.
            only: Links of this system to load, as for `save_links`.
            rename: Name here → name in the source, of links, agents or edges.
            strict: Raise an error if one of `only` is missing or does not match, and change
                nothing.
            revision: Branch, tag or commit of a repository.
            token: Hub access token.

        Returns:
            A printable report of the links that were loaded, and of the others with the reason.

        Raises:
            WeightsError: LM502 or LM503, the source cannot be read; LM501, with `strict`.
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
        """The hub's commit of each backbone that came from there, by key.

        The commit of a backbone's adapter is under `"<key>/adapter"`.
        """
        from latentmas.runtime.loading.placement import adapter_key

        found: dict[str, str | None] = {}
        for key, planned in self._system.plan.backbones.items():
            backbone = self._system.agent_backbones[planned.agents[0]]
            found |= {key: backbone.commit, adapter_key(key): backbone.adapter_commit}
        return {key: commit for key, commit in found.items() if commit is not None}

    def recorder(
        self,
        path: str | Path,
        *,
        data: str | Path | None = None,
        score: Callable[[RunResult], Mapping[str, Any]] | None = None,
    ) -> RunRecorder:
        """A recorder for `run(…, manifest=…)`, which records more than a path does.

        Args:
            path: File of the manifest.
            data: File that the samples come from; without one, the manifest contains them.
            score: Function that returns scores for the result.
        """
        from latentmas.io import RunRecorder

        return RunRecorder(path, data=data, score=score)

    def _recorder(
        self,
        manifest: str | Path | RunRecorder | None,
        rows: Sequence[Mapping[str, Any]],
        request: RunRequest,
    ) -> RunRecorder | None:
        """What writes a run's manifest, once it has noted what is run."""
        if manifest is None:
            return None
        if isinstance(manifest, str | Path):
            manifest = self.recorder(manifest)
        if not hasattr(manifest, "begin"):
            raise refuse("manifest", manifest, "give a path, or what `system.recorder` makes")
        manifest.begin(self._system, rows, request)
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

    if not TYPE_CHECKING:  # so that type checkers still find misspelt attributes

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                raise missing_attribute(self, name, _ELSEWHERE, dir(type(self))) from None

    @property
    def _system(self) -> System:
        return cast("System", self)


def load_beside(system: System, graph: Graph) -> System:
    """Load a graph of the same backbones beside a system, without a second copy of any weights.

    Agents of the same name keep the adapters that they have learned.

    Args:
        system: whose backbones, tools, text functions and default executor are shared.
        graph: a variant of the system's graph, such as its text twin.

    Raises:
        GraphError: with every problem of the graph.
    """
    facts = {key: backbone.info for key, backbone in system.plan.backbones.items()}
    plan = graph.compile(facts=facts).with_functions(
        text_functions=system.text_functions, tools=system.tools
    )
    beside = plan.load(executor=system.executor, reuse=system)
    share_adapters(system, beside)
    return beside
